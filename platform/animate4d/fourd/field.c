/* The motion field on the CPU: Hex-plane features and the small networks behind them, forward and backward. Plain C ABI,
 * float32, no globals. Channels are last and come in eights. Results do not depend on the number of threads: each loop
 * writes its own place and sums run in a fixed order.
 */
#include <stdlib.h>

#include "vectors.h"

#define MAX_WIDE 16       /* vectors of eight channels a plane may hold */
#define BLOCK 64          /* rows of a network whose activations stay in the first-level cache */
#define CHUNK 1024        /* rows whose weight gradients are summed in one place; fixes the order of sums */

/* ---- Hex-planes: feature(n, f) = xy xz yz xt yt zt, each interpolated linearly between the nodes of its plane. ---- */

typedef struct { int low; float share; } Place; /* between nodes low and low + 1 */

typedef struct {
    int frames, count, side, steps, wide; /* wide: channels / 8 */
    const float *points, *times, *spatial, *temporal;
} Hex;

/* Nodes spread evenly over [-1, 1], the first and the last on its ends; beyond, the border value holds. */
static inline Place find(float x, int nodes) {
    float at = (x + 1.0f) * 0.5f * (nodes - 1);
    at = at > 0.0f ? at : 0.0f; /* also where x is not a number */
    at = at < nodes - 1 ? at : nodes - 1;
    int low = (int)at < nodes - 2 ? (int)at : nodes - 2;
    return (Place){low, at - low};
}

static inline f8 lerp(const float *low, const float *high, float share) {
    f8 a = load8(low);
    return a + splat8(share) * (load8(high) - a);
}

static const int FIRST[3] = {0, 0, 1}, SECOND[3] = {1, 2, 2}; /* axes of the spatial planes xy, xz, yz */

/* Address of the lower corner of a spatial plane's cell; planes are [second axis][first axis][channel]. */
static inline const float *corner(const Hex *hex, int plane, const Place *at) {
    int64_t row = ((int64_t)plane * hex->side + at[SECOND[plane]].low) * hex->side + at[FIRST[plane]].low;
    return hex->spatial + row * 8 * hex->wide;
}

static inline f8 bilinear(const Hex *hex, int plane, const Place *at, int k) {
    const float *low = corner(hex, plane, at) + 8 * k, *high = low + (int64_t)8 * hex->wide * hex->side;
    f8 near = lerp(low, low + 8 * hex->wide, at[FIRST[plane]].share);
    f8 far = lerp(high, high + 8 * hex->wide, at[FIRST[plane]].share);
    return near + splat8(at[SECOND[plane]].share) * (far - near);
}

static inline void find_point(const Hex *hex, int n, Place *at) {
    for (int axis = 0; axis < 3; axis++) at[axis] = find(hex->points[3 * (int64_t)n + axis], hex->side);
}

/* The three time planes at the moments of the frames: [3][frames][side][channels]. */
static float *sample_moments(const Hex *hex, int threads) {
    int64_t line = (int64_t)hex->side * 8 * hex->wide;
    float *moments = malloc((3 * (size_t)hex->frames * line + 1) * sizeof *moments);
    if (!moments) return NULL;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int task = 0; task < 3 * hex->frames; task++) {
        Place at = find(hex->times[task % hex->frames], hex->steps);
        const float *low = hex->temporal + ((int64_t)(task / hex->frames) * hex->steps + at.low) * line;
        for (int64_t k = 0; k < line; k += 8) store8(moments + task * line + k, lerp(low + k, low + line + k, at.share));
    }
    return moments;
}

static inline f8 moment(const Hex *hex, const float *moments, int axis, int frame, const Place *at, int k) {
    const float *low = moments + (((int64_t)axis * hex->frames + frame) * hex->side + at[axis].low) * 8 * hex->wide + 8 * k;
    return lerp(low, low + 8 * hex->wide, at[axis].share);
}

/* Features of points [count, 3] at times [frames], both in [-1, 1], from planes [3, side, side, channels] and
 * [3, steps, side, channels], to rows of out [frames, count, stride]. Returns 0, or 1 when memory is short. */
int hex_forward(int frames, int count, int side, int steps, int channels, int stride, int threads, const float *points,
                const float *times, const float *spatial, const float *temporal, float *out) {
    Hex hex = {frames, count, side, steps, channels / 8, points, times, spatial, temporal};
    float *moments = sample_moments(&hex, threads);
    if (!moments) return 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int n = 0; n < count; n++) {
        Place at[3];
        find_point(&hex, n, at);
        for (int k = 0; k < hex.wide; k++) {
            f8 still = bilinear(&hex, 0, at, k) * bilinear(&hex, 1, at, k) * bilinear(&hex, 2, at, k);
            for (int f = 0; f < frames; f++) {
                f8 moving = moment(&hex, moments, 0, f, at, k) * moment(&hex, moments, 1, f, at, k) *
                            moment(&hex, moments, 2, f, at, k);
                store8(out + ((int64_t)f * count + n) * stride + 8 * k, still * moving);
            }
        }
    }
    free(moments);
    return 0;
}

/* Gradients of sum(out * cotangent) for both kinds of planes, which are overwritten. Returns 0, or 1 when memory is short. */
int hex_backward(int frames, int count, int side, int steps, int channels, int stride, int threads, const float *points,
                 const float *times, const float *spatial, const float *temporal, const float *cotangent,
                 float *v_spatial, float *v_temporal) {
    Hex hex = {frames, count, side, steps, channels / 8, points, times, spatial, temporal};
    int wide = hex.wide;
    int64_t row = 8 * wide, line = side * row, all = (int64_t)count * row;
    float *moments = sample_moments(&hex, threads);
    float *v_moments = calloc(3 * (size_t)frames * line + 1, sizeof *v_moments);
    float *still = malloc(((size_t)all + 1) * sizeof *still);      /* [count, channels] product of the spatial planes */
    float *v_samples = malloc((3 * (size_t)all + 1) * sizeof *v_samples); /* [3, count, channels] of their samples */
    if (!moments || !v_moments || !still || !v_samples) {
        free(moments), free(v_moments), free(still), free(v_samples);
        return 1;
    }

#pragma omp parallel for schedule(static) num_threads(threads)
    for (int n = 0; n < count; n++) {
        Place at[3];
        find_point(&hex, n, at);
        for (int k = 0; k < wide; k++) {
            f8 pull = {0};
            for (int f = 0; f < frames; f++)
                pull += load8(cotangent + ((int64_t)f * count + n) * stride + 8 * k) * moment(&hex, moments, 0, f, at, k) *
                        moment(&hex, moments, 1, f, at, k) * moment(&hex, moments, 2, f, at, k);
            f8 xy = bilinear(&hex, 0, at, k), xz = bilinear(&hex, 1, at, k), yz = bilinear(&hex, 2, at, k);
            int64_t place = n * row + 8 * k;
            store8(still + place, xy * xz * yz);
            store8(v_samples + place, pull * xz * yz);
            store8(v_samples + all + place, pull * xy * yz);
            store8(v_samples + 2 * all + place, pull * xy * xz);
        }
    }

#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int f = 0; f < frames; f++)
        for (int n = 0; n < count; n++) {
            Place at[3];
            find_point(&hex, n, at);
            for (int k = 0; k < wide; k++) {
                f8 pull = load8(cotangent + ((int64_t)f * count + n) * stride + 8 * k) * load8(still + n * row + 8 * k);
                f8 x = moment(&hex, moments, 0, f, at, k), y = moment(&hex, moments, 1, f, at, k);
                f8 z = moment(&hex, moments, 2, f, at, k);
                f8 pulls[3] = {pull * y * z, pull * x * z, pull * x * y};
                for (int axis = 0; axis < 3; axis++) {
                    float *low = v_moments + (((int64_t)axis * frames + f) * side + at[axis].low) * row + 8 * k;
                    f8 upper = splat8(at[axis].share) * pulls[axis];
                    add8(low, pulls[axis] - upper);
                    add8(low + row, upper);
                }
            }
        }

    memset(v_temporal, 0, 3 * (size_t)steps * line * sizeof *v_temporal);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int task = 0; task < 3 * side; task++) {
        int axis = task / side;
        for (int f = 0; f < frames; f++) {
            Place at = find(times[f], steps);
            float *low = v_temporal + ((int64_t)axis * steps + at.low) * line + task % side * row;
            const float *from = v_moments + ((int64_t)axis * frames + f) * line + task % side * row;
            for (int64_t k = 0; k < row; k += 8) {
                f8 pull = load8(from + k), upper = splat8(at.share) * pull;
                add8(low + k, pull - upper);
                add8(low + line + k, upper);
            }
        }
    }

    memset(v_spatial, 0, 3 * (size_t)side * line * sizeof *v_spatial);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int task = 0; task < 3 * wide; task++) {
        int plane = task / wide, k = task % wide;
        for (int n = 0; n < count; n++) {
            Place at[3];
            find_point(&hex, n, at);
            float *low = v_spatial + (corner(&hex, plane, at) - spatial) + 8 * k;
            f8 pull = load8(v_samples + plane * all + n * row + 8 * k);
            f8 far = splat8(at[SECOND[plane]].share) * pull, near = pull - far, share = splat8(at[FIRST[plane]].share);
            add8(low, near - share * near);
            add8(low + row, share * near);
            add8(low + line, far - share * far);
            add8(low + line + row, share * far);
        }
    }
    free(moments), free(v_moments), free(still), free(v_samples);
    return 0;
}

/* ---- Heads: out[k] = relu(x first[k]) second[k], without biases; second is padded to eight outputs. ---- */

/* One tile of c += a b: m rows and v vectors of columns kept in registers. a is read at [row * a_row + depth * a_depth]. */
static inline __attribute__((always_inline)) void tile(int m, int v, int depth, const float *a, int64_t a_row,
                                                       int64_t a_depth, const float *b, int64_t b_row, float *c,
                                                       int64_t c_row) {
    f8 sum[4][2];
    for (int i = 0; i < m; i++)
        for (int j = 0; j < v; j++) sum[i][j] = load8(c + i * c_row + 8 * j);
    for (int d = 0; d < depth; d++)
        for (int i = 0; i < m; i++) {
            f8 factor = splat8(a[i * a_row + d * a_depth]);
            for (int j = 0; j < v; j++) sum[i][j] += factor * load8(b + d * b_row + 8 * j);
        }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < v; j++) store8(c + i * c_row + 8 * j, sum[i][j]);
}

/* c [rows, columns] += a [rows, depth] b [depth, columns]; columns come in eights. */
static void multiply_add(int rows, int columns, int depth, const float *a, int64_t a_row, int64_t a_depth, const float *b,
                         int64_t b_row, float *c, int64_t c_row) {
    for (int j = 0; j < columns;) {
        int two = columns - j >= 16;
        int i = 0;
        for (; i + 4 <= rows; i += 4) {
            if (two) tile(4, 2, depth, a + i * a_row, a_row, a_depth, b + j, b_row, c + i * c_row + j, c_row);
            else tile(4, 1, depth, a + i * a_row, a_row, a_depth, b + j, b_row, c + i * c_row + j, c_row);
        }
        for (; i < rows; i++) {
            if (two) tile(1, 2, depth, a + i * a_row, a_row, a_depth, b + j, b_row, c + i * c_row + j, c_row);
            else tile(1, 1, depth, a + i * a_row, a_row, a_depth, b + j, b_row, c + i * c_row + j, c_row);
        }
        j += two ? 16 : 8;
    }
}

/* Activations of a block of rows: active [rows, hidden] = relu(x first). */
static void activate(int rows, int inputs, int hidden, const float *x, const float *first, float *active) {
    memset(active, 0, (size_t)rows * hidden * sizeof *active);
    multiply_add(rows, hidden, inputs, x, inputs, 1, first, hidden, active, hidden);
    for (int64_t k = 0; k < (int64_t)rows * hidden; k += 8) {
        f8 value = load8(active + k);
        store8(active + k, keep8(~(value <= splat8(0.0f)), value)); /* NaN passes, as in torch */
    }
}

/* x [rows, inputs], first [heads, inputs, hidden], second [heads, hidden, 8] to out [rows, heads, 8]. Returns 0, or 1
 * when memory is short. */
int heads_forward(int64_t rows, int inputs, int hidden, int heads, int threads, const float *x, const float *first,
                  const float *second, float *out) {
    int failed = 0;
    memset(out, 0, (size_t)rows * heads * 8 * sizeof *out);
#pragma omp parallel for schedule(static) num_threads(threads) reduction(| : failed)
    for (int64_t chunk = 0; chunk < (rows + CHUNK - 1) / CHUNK; chunk++) {
        float *active = malloc((size_t)BLOCK * hidden * sizeof *active);
        if (!active) {
            failed = 1;
            continue;
        }
        for (int64_t r = chunk * CHUNK; r < rows && r < (chunk + 1) * CHUNK; r += BLOCK) {
            int many = rows - r < BLOCK ? (int)(rows - r) : BLOCK;
            for (int k = 0; k < heads; k++) {
                activate(many, inputs, hidden, x + r * inputs, first + (int64_t)k * inputs * hidden, active);
                multiply_add(many, 8, hidden, active, hidden, 1, second + (int64_t)k * hidden * 8, 8,
                             out + (r * heads + k) * 8, heads * 8);
            }
        }
        free(active);
    }
    return failed;
}

/* Gradients of sum(out * cotangent), all overwritten. Returns 0, or 1 when memory is short. */
int heads_backward(int64_t rows, int inputs, int hidden, int heads, int threads, const float *x, const float *first,
                   const float *second, const float *cotangent, float *v_x, float *v_first, float *v_second) {
    int64_t chunks = (rows + CHUNK - 1) / CHUNK, wide1 = (int64_t)inputs * hidden, wide2 = (int64_t)hidden * 8;
    int64_t weights = heads * (wide1 + wide2);
    float *partial = calloc((size_t)(chunks * weights) + 1, sizeof *partial);
    float *turned = malloc((size_t)(weights + 1) * sizeof *turned); /* first and second, each transposed */
    int failed = !partial || !turned;
    if (!failed) {
        for (int k = 0; k < heads; k++) {
            for (int64_t e = 0; e < wide1; e++) turned[k * wide1 + e % hidden * inputs + e / hidden] = first[k * wide1 + e];
            for (int64_t e = 0; e < wide2; e++)
                turned[heads * wide1 + k * wide2 + e % 8 * hidden + e / 8] = second[k * wide2 + e];
        }
        memset(v_x, 0, (size_t)rows * inputs * sizeof *v_x);
#pragma omp parallel for schedule(static) num_threads(threads) reduction(| : failed)
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            float *active = malloc((size_t)2 * BLOCK * hidden * sizeof *active), *pull = active + BLOCK * hidden;
            if (!active) {
                failed = 1;
                continue;
            }
            float *sums = partial + chunk * weights;
            for (int64_t r = chunk * CHUNK; r < rows && r < (chunk + 1) * CHUNK; r += BLOCK) {
                int many = rows - r < BLOCK ? (int)(rows - r) : BLOCK;
                const float *in = x + r * inputs;
                for (int k = 0; k < heads; k++) {
                    const float *given = cotangent + (r * heads + k) * 8;
                    activate(many, inputs, hidden, in, first + k * wide1, active);
                    multiply_add(hidden, 8, many, active, 1, hidden, given, heads * 8, sums + heads * wide1 + k * wide2, 8);
                    memset(pull, 0, (size_t)many * hidden * sizeof *pull);
                    multiply_add(many, hidden, 8, given, heads * 8, 1, turned + heads * wide1 + k * wide2, hidden, pull, hidden);
                    for (int64_t e = 0; e < (int64_t)many * hidden; e += 8)
                        store8(pull + e, keep8(load8(active + e) > splat8(0.0f), load8(pull + e)));
                    multiply_add(inputs, hidden, many, in, 1, inputs, pull, hidden, sums + k * wide1, hidden);
                    multiply_add(many, inputs, hidden, pull, hidden, 1, turned + k * wide1, inputs, v_x + r * inputs, inputs);
                }
            }
            free(active);
        }
        memset(v_first, 0, (size_t)(heads * wide1) * sizeof *v_first);
        memset(v_second, 0, (size_t)(heads * wide2) * sizeof *v_second);
        for (int64_t chunk = 0; chunk < chunks; chunk++)
            for (int64_t e = 0; e < weights; e += 8) {
                float *to = e < heads * wide1 ? v_first + e : v_second + (e - heads * wide1);
                add8(to, load8(partial + chunk * weights + e));
            }
    }
    free(partial), free(turned);
    return failed;
}
