/* Gaussian splats on the CPU: projection, sorting, tiles, forward and backward. Plain C ABI, float32, no globals.
 *
 * Conventions are gsplat's: pixel centres at half-integers, EPS2D added to the diagonal of the 2D covariance, alpha clamped
 * at MAX_ALPHA, contributions below MIN_ALPHA skipped, and the splat that would bring the transmittance to
 * MIN_TRANSMITTANCE or less is dropped together with everything behind it. Cameras are OpenCV (x right, y down, z forward).
 *
 * A splat is a mean and a 3x3 factor M with covariance M M^T. Images are premultiplied [image][r, g, b, alpha][H][W] without
 * background. Results do not depend on the number of threads: each loop writes its own place and sums run in a fixed order.
 */
#include <math.h>
#include <stdlib.h>

#include "vectors.h"

#define TILE 16
#define HALVES 2          /* a row of a tile is two vectors of eight pixels */
#define LIVE_CHECK 16     /* every so many splats, see whether any pixel of the tile still takes light */
#define GRADS 9           /* mean x y, conic a b c, opacity, r g b */

typedef struct {
    float x, y;           /* pixels */
    float a, b, c;        /* inverse covariance [[a, b], [b, c]] */
    float opacity;
    float half_x, half_y; /* half-widths of the box in which alpha >= MIN_ALPHA; half_x < 0: not in this image */
    float depth;
} Projected;

typedef struct {
    int frames, views, count, width, height, threads;
    int tiles_x, tiles_y;
    int64_t palette;      /* floats from the colours of one frame to those of the next, 0: all frames share them */
    Projected *projected; /* [frames * views][count] */
    int64_t *starts;      /* [images * tiles + 1] into items */
    int32_t *items;       /* splat indices, tile after tile, each list from near to far */
    int32_t *stops;       /* [images * tiles] how many of the list were looked at */
} Scene;

typedef struct {
    float rotation[9], translation[3], fx, fy, cx, cy, limit[4];
} Camera;

typedef struct {
    float point[3];       /* in the camera */
    float slope_x, slope_y;
    int free_x, free_y;   /* 0 where the slope is held at the edge of the field of view */
    float map[6];         /* 2x3: Jacobian of the projection times camera rotation */
    float image[6];       /* 2x3: map times factor */
    float cov[3];
} Footprint;

/* e^x for x <= 0 by 2^n * polynomial of degree 5; relative error 3e-7. */
static inline f8 exp8(f8 x) {
    const f8 magic = splat8(12582912.0f); /* 1.5 * 2^23: adding it rounds to the nearest integer */
    f8 t = select8(x < splat8(-80.0f), splat8(-80.0f), x) * splat8(1.44269504f);
    f8 rounded = t + magic;
    f8 f = t - (rounded - magic);
    f8 p = splat8(0.0013264725f);
    p = p * f + splat8(0.00967151301f);
    p = p * f + splat8(0.0555073375f);
    p = p * f + splat8(0.240222421f);
    p = p * f + splat8(0.693146978f);
    p = p * f + splat8(1.0f);
    return (f8)((i8)p + ((i8)rounded << 23));
}

static Camera read_camera(const float *view, const float *k, int width, int height) {
    Camera camera;
    for (int row = 0; row < 3; row++) {
        for (int col = 0; col < 3; col++) camera.rotation[3 * row + col] = view[4 * row + col];
        camera.translation[row] = view[4 * row + 3];
    }
    camera.fx = k[0], camera.fy = k[4], camera.cx = k[2], camera.cy = k[5];
    /* The Jacobian is taken no further than 30 % of the half field of view outside the image. */
    float margin_x = 0.3f * 0.5f * width / camera.fx, margin_y = 0.3f * 0.5f * height / camera.fy;
    camera.limit[0] = -(camera.cx / camera.fx + margin_x), camera.limit[1] = (width - camera.cx) / camera.fx + margin_x;
    camera.limit[2] = -(camera.cy / camera.fy + margin_y), camera.limit[3] = (height - camera.cy) / camera.fy + margin_y;
    return camera;
}

static inline void project(const Camera *camera, const float *mean, const float *factor, Footprint *out) {
    const float *w = camera->rotation;
    for (int row = 0; row < 3; row++)
        out->point[row] = w[3 * row] * mean[0] + w[3 * row + 1] * mean[1] + w[3 * row + 2] * mean[2] + camera->translation[row];
    float inverse = 1.0f / out->point[2];
    float sx = out->point[0] * inverse, sy = out->point[1] * inverse;
    out->free_x = sx > camera->limit[0] && sx < camera->limit[1];
    out->free_y = sy > camera->limit[2] && sy < camera->limit[3];
    out->slope_x = fminf(fmaxf(sx, camera->limit[0]), camera->limit[1]);
    out->slope_y = fminf(fmaxf(sy, camera->limit[2]), camera->limit[3]);
    float jx = camera->fx * inverse, jy = camera->fy * inverse;
    for (int col = 0; col < 3; col++) {
        out->map[col] = jx * (w[col] - out->slope_x * w[6 + col]);
        out->map[3 + col] = jy * (w[3 + col] - out->slope_y * w[6 + col]);
    }
    for (int row = 0; row < 2; row++)
        for (int col = 0; col < 3; col++)
            out->image[3 * row + col] = out->map[3 * row] * factor[col] + out->map[3 * row + 1] * factor[3 + col] +
                                        out->map[3 * row + 2] * factor[6 + col];
    const float *m = out->image;
    out->cov[0] = m[0] * m[0] + m[1] * m[1] + m[2] * m[2] + EPS2D;
    out->cov[1] = m[0] * m[3] + m[1] * m[4] + m[2] * m[5];
    out->cov[2] = m[3] * m[3] + m[4] * m[4] + m[5] * m[5] + EPS2D;
}

static void project_image(const Scene *scene, const Camera *camera, const float *means, const float *factors,
                          const float *opacities, Projected *out) {
    for (int n = 0; n < scene->count; n++) {
        Projected *p = out + n;
        memset(p, 0, sizeof *p);
        p->half_x = -1.0f;
        const float *mean = means + 3 * n;
        float depth = camera->rotation[6] * mean[0] + camera->rotation[7] * mean[1] + camera->rotation[8] * mean[2] +
                      camera->translation[2];
        if (!(depth > NEAR) || opacities[n] < MIN_ALPHA) continue;
        Footprint print;
        project(camera, mean, factors + 9 * n, &print);
        float determinant = print.cov[0] * print.cov[2] - print.cov[1] * print.cov[1];
        if (!(determinant > 0.0f)) continue;
        float inverse = 1.0f / determinant;
        float reach = sqrtf(2.0f * logf(fmaxf(opacities[n] / MIN_ALPHA, 1.0f))) * 1.0001f;
        p->x = camera->fx * print.point[0] / depth + camera->cx;
        p->y = camera->fy * print.point[1] / depth + camera->cy;
        p->a = print.cov[2] * inverse, p->b = -print.cov[1] * inverse, p->c = print.cov[0] * inverse;
        p->opacity = opacities[n];
        p->depth = depth;
        float half_x = reach * sqrtf(print.cov[0]) + 1e-3f, half_y = reach * sqrtf(print.cov[2]) + 1e-3f;
        if (p->x + half_x < 0.5f || p->x - half_x > scene->width - 0.5f || p->y + half_y < 0.5f ||
            p->y - half_y > scene->height - 0.5f)
            continue;
        p->half_x = half_x, p->half_y = half_y;
    }
}

/* First and last pixel whose centre lies within half of middle, cut to [0, size). */
static inline void pixel_range(float middle, float half, int size, int *first, int *last) {
    float low = ceilf(middle - half - 0.5f), high = floorf(middle + half - 0.5f);
    *first = low > 0.0f ? (int)low : 0;
    *last = high < size - 1 ? (int)high : size - 1;
}

/* Indices of the visible splats from near to far, by a stable radix sort on the bits of the (positive) depth. */
static int sort_by_depth(const Projected *p, int count, int32_t *order, int32_t *other) {
    int visible = 0;
    for (int n = 0; n < count; n++)
        if (p[n].half_x >= 0.0f) order[visible++] = n;
    for (int shift = 0; shift < 32; shift += 11) {
        int32_t bins[2049] = {0};
        for (int k = 0; k < visible; k++) {
            uint32_t bits;
            memcpy(&bits, &p[order[k]].depth, 4);
            bins[((bits >> shift) & 2047) + 1]++;
        }
        for (int b = 0; b < 2048; b++) bins[b + 1] += bins[b];
        for (int k = 0; k < visible; k++) {
            uint32_t bits;
            memcpy(&bits, &p[order[k]].depth, 4);
            other[bins[(bits >> shift) & 2047]++] = order[k];
        }
        memcpy(order, other, (size_t)visible * sizeof *order);
    }
    return visible;
}

typedef struct { int x0, x1, y0, y1; } TileBox;

static inline TileBox tiles_of(const Scene *scene, const Projected *p) {
    int x0, x1, y0, y1;
    pixel_range(p->x, p->half_x, scene->width, &x0, &x1);
    pixel_range(p->y, p->half_y, scene->height, &y0, &y1);
    if (x1 < x0 || y1 < y0) return (TileBox){0, -1, 0, -1};
    return (TileBox){x0 / TILE, x1 / TILE, y0 / TILE, y1 / TILE};
}

void splat_free(void *handle) {
    Scene *scene = handle;
    if (!scene) return;
    free(scene->projected), free(scene->starts), free(scene->items), free(scene->stops), free(scene);
}

/* Where a splat meets a tile: rows and halves to visit. */
typedef struct { int y0, y1, h0, h1; } Span;

static inline Span span_in_tile(const Scene *scene, const Projected *p, int left, int top) {
    int x0, x1, y0, y1;
    pixel_range(p->x, p->half_x, scene->width, &x0, &x1);
    pixel_range(p->y, p->half_y, scene->height, &y0, &y1);
    x0 = (x0 > left ? x0 : left) - left, x1 = (x1 < left + TILE - 1 ? x1 : left + TILE - 1) - left;
    y0 = (y0 > top ? y0 : top) - top, y1 = (y1 < top + TILE - 1 ? y1 : top + TILE - 1) - top;
    return (Span){y0, y1, x0 / 8, x1 / 8};
}

static inline void start_transmittance(const Scene *scene, int left, int top, f8 *t) {
    for (int y = 0; y < TILE; y++)
        for (int h = 0; h < HALVES; h++)
            for (int lane = 0; lane < 8; lane++)
                t[y * HALVES + h][lane] = left + 8 * h + lane < scene->width && top + y < scene->height ? 1.0f : -1.0f;
}

static inline int any_live(const f8 *t) {
    i8 live = {0};
    for (int k = 0; k < TILE * HALVES; k++) live |= t[k] > splat8(0.0f);
    for (int lane = 0; lane < 8; lane++)
        if (live[lane]) return 1;
    return 0;
}

static const f8 LANES = {0.5f, 1.5f, 2.5f, 3.5f, 4.5f, 5.5f, 6.5f, 7.5f};

static void draw_tile(Scene *scene, int image, int tile, const float *colors, float *out) {
    colors += image / scene->views * scene->palette;
    int left = tile % scene->tiles_x * TILE, top = tile / scene->tiles_x * TILE;
    int64_t index = (int64_t)image * scene->tiles_x * scene->tiles_y + tile;
    int64_t begin = scene->starts[index], length = scene->starts[index + 1] - begin, k;
    const Projected *projected = scene->projected + (int64_t)image * scene->count;
    f8 t[TILE * HALVES], light[3][TILE * HALVES];
    memset(light, 0, sizeof light);
    start_transmittance(scene, left, top, t);
    for (k = 0; k < length; k++) {
        if (k % LIVE_CHECK == LIVE_CHECK - 1 && !any_live(t)) break;
        int32_t n = scene->items[begin + k];
        const Projected *p = projected + n;
        Span span = span_in_tile(scene, p, left, top);
        f8 red = splat8(colors[3 * n]), green = splat8(colors[3 * n + 1]), blue = splat8(colors[3 * n + 2]);
        for (int y = span.y0; y <= span.y1; y++) {
            float dy = top + y + 0.5f - p->y;
            for (int h = span.h0; h <= span.h1; h++) {
                int at = y * HALVES + h;
                f8 dx = LANES + splat8(left + 8 * h - p->x);
                f8 sigma = splat8(0.5f) * (splat8(p->a) * dx * dx + splat8(p->c * dy * dy)) + splat8(p->b * dy) * dx;
                f8 alpha = splat8(p->opacity) * exp8(-sigma);
                alpha = select8(alpha > splat8(MAX_ALPHA), splat8(MAX_ALPHA), alpha);
                i8 hit = (alpha >= splat8(MIN_ALPHA)) & (t[at] > splat8(0.0f));
                f8 next = t[at] * (splat8(1.0f) - alpha);
                i8 ends = hit & (next <= splat8(MIN_TRANSMITTANCE));
                hit &= ~ends;
                f8 weight = keep8(hit, alpha * t[at]);
                light[0][at] += weight * red;
                light[1][at] += weight * green;
                light[2][at] += weight * blue;
                t[at] = select8(hit, next, select8(ends, -t[at], t[at]));
            }
        }
    }
    scene->stops[index] = (int32_t)k;
    int64_t plane = (int64_t)scene->width * scene->height;
    float *target = out + (int64_t)image * 4 * plane;
    int columns = scene->width - left < TILE ? scene->width - left : TILE;
    for (int y = 0; y < TILE && top + y < scene->height; y++) {
        float *row = target + (int64_t)(top + y) * scene->width + left;
        const float *gone = (const float *)(t + y * HALVES);
        for (int channel = 0; channel < 3; channel++)
            memcpy(row + channel * plane, light[channel] + y * HALVES, (size_t)columns * sizeof(float));
        for (int x = 0; x < columns; x++) row[3 * plane + x] = 1.0f - fabsf(gone[x]);
    }
}

/* Project, sort, bin and draw; colors are [N, 3], or [F, N, 3] where tinted. Returns a handle for splat_backward and
 * splat_free, or NULL when memory is short. */
void *splat_forward(int frames, int views, int count, int width, int height, int tinted, int threads, const float *means,
                    const float *factors, const float *opacities, const float *colors, const float *viewmats,
                    const float *intrinsics, float *image) {
    Scene *scene = calloc(1, sizeof *scene);
    if (!scene) return NULL;
    int images = frames * views;
    *scene = (Scene){.frames = frames, .views = views, .count = count, .width = width, .height = height,
                     .threads = threads, .tiles_x = (width + TILE - 1) / TILE, .tiles_y = (height + TILE - 1) / TILE,
                     .palette = tinted ? (int64_t)count * 3 : 0};
    int tiles = scene->tiles_x * scene->tiles_y;
    int32_t *order = malloc(((size_t)images * count + 1) * 2 * sizeof *order);
    int32_t *visible = malloc((size_t)images * sizeof *visible);
    scene->projected = malloc(((size_t)images * count + 1) * sizeof *scene->projected);
    scene->starts = calloc((size_t)images * tiles + 1, sizeof *scene->starts);
    scene->stops = malloc((size_t)images * tiles * sizeof *scene->stops);
    if (!order || !visible || !scene->projected || !scene->starts || !scene->stops) goto fail;
    int32_t *other = order + (size_t)images * count;

#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int i = 0; i < images; i++) {
        Camera camera = read_camera(viewmats + 16 * (i % views), intrinsics + 9 * (i % views), width, height);
        int64_t frame = i / views;
        Projected *projected = scene->projected + (int64_t)i * count;
        project_image(scene, &camera, means + 3 * frame * count, factors + 9 * frame * count, opacities, projected);
        visible[i] = sort_by_depth(projected, count, order + (int64_t)i * count, other + (int64_t)i * count);
        int64_t *counts = scene->starts + (int64_t)i * tiles + 1;
        for (int k = 0; k < visible[i]; k++) {
            TileBox box = tiles_of(scene, projected + order[(int64_t)i * count + k]);
            for (int ty = box.y0; ty <= box.y1; ty++)
                for (int tx = box.x0; tx <= box.x1; tx++) counts[ty * scene->tiles_x + tx]++;
        }
    }
    for (int64_t k = 0; k < (int64_t)images * tiles; k++) scene->starts[k + 1] += scene->starts[k];
    scene->items = malloc(((size_t)scene->starts[(int64_t)images * tiles] + 1) * sizeof *scene->items);
    if (!scene->items) goto fail;

#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int i = 0; i < images; i++) {
        /* stops serve as write cursors until the tiles are drawn */
        int32_t *cursor = scene->stops + (int64_t)i * tiles;
        memset(cursor, 0, (size_t)tiles * sizeof *cursor);
        for (int k = 0; k < visible[i]; k++) {
            int32_t n = order[(int64_t)i * count + k];
            TileBox box = tiles_of(scene, scene->projected + (int64_t)i * count + n);
            for (int ty = box.y0; ty <= box.y1; ty++)
                for (int tx = box.x0; tx <= box.x1; tx++) {
                    int tile = ty * scene->tiles_x + tx;
                    scene->items[scene->starts[(int64_t)i * tiles + tile] + cursor[tile]++] = n;
                }
        }
    }
    free(order), free(visible);

#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
    for (int64_t k = 0; k < (int64_t)images * tiles; k++)
        draw_tile(scene, (int)(k / tiles), (int)(k % tiles), colors, image);
    return scene;
fail:
    free(order), free(visible), splat_free(scene);
    return NULL;
}

/* Front to back like draw_tile: what remains behind a splat is the pixel's total minus what was passed. */
static void pull_tile(const Scene *scene, int image, int tile, const float *colors, const float *out, const float *cotangent,
                      float *grads) {
    colors += image / scene->views * scene->palette;
    int left = tile % scene->tiles_x * TILE, top = tile / scene->tiles_x * TILE;
    int64_t index = (int64_t)image * scene->tiles_x * scene->tiles_y + tile;
    int64_t begin = scene->starts[index], length = scene->starts[index + 1] - begin;
    if (!length) return;
    memset(grads + begin * GRADS, 0, (size_t)length * GRADS * sizeof *grads);
    const Projected *projected = scene->projected + (int64_t)image * scene->count;
    int64_t plane = (int64_t)scene->width * scene->height, base = (int64_t)image * 4 * plane;
    f8 t[TILE * HALVES], rest[TILE * HALVES], pull[4][TILE * HALVES];
    memset(pull, 0, sizeof pull);
    memset(rest, 0, sizeof rest);
    start_transmittance(scene, left, top, t);
    int columns = scene->width - left < TILE ? scene->width - left : TILE;
    for (int y = 0; y < TILE && top + y < scene->height; y++)
        for (int channel = 0; channel < 4; channel++) {
            int64_t row = base + channel * plane + (int64_t)(top + y) * scene->width + left;
            float *to = (float *)(pull[channel] + y * HALVES), *total = (float *)(rest + y * HALVES);
            for (int x = 0; x < columns; x++) to[x] = cotangent[row + x], total[x] += cotangent[row + x] * out[row + x];
        }
    for (int64_t k = 0; k < scene->stops[index]; k++) {
        int32_t n = scene->items[begin + k];
        const Projected *p = projected + n;
        Span span = span_in_tile(scene, p, left, top);
        f8 red = splat8(colors[3 * n]), green = splat8(colors[3 * n + 1]), blue = splat8(colors[3 * n + 2]);
        f8 s = {0}, sx = {0}, sy = {0}, sxx = {0}, sxy = {0}, syy = {0}, pr = {0}, pg = {0}, pb = {0};
        for (int y = span.y0; y <= span.y1; y++) {
            float dy = top + y + 0.5f - p->y;
            f8 row_s = {0}, row_x = {0};
            for (int h = span.h0; h <= span.h1; h++) {
                int at = y * HALVES + h;
                f8 dx = LANES + splat8(left + 8 * h - p->x);
                f8 sigma = splat8(0.5f) * (splat8(p->a) * dx * dx + splat8(p->c * dy * dy)) + splat8(p->b * dy) * dx;
                f8 alpha = splat8(p->opacity) * exp8(-sigma);
                i8 unclamped = alpha <= splat8(MAX_ALPHA);
                alpha = select8(unclamped, alpha, splat8(MAX_ALPHA));
                i8 hit = (alpha >= splat8(MIN_ALPHA)) & (t[at] > splat8(0.0f));
                f8 next = t[at] * (splat8(1.0f) - alpha);
                i8 ends = hit & (next <= splat8(MIN_TRANSMITTANCE));
                hit &= ~ends;
                f8 weight = keep8(hit, alpha * t[at]);
                f8 gain = red * pull[0][at] + green * pull[1][at] + blue * pull[2][at] + pull[3][at];
                rest[at] -= weight * gain;
                pr += weight * pull[0][at];
                pg += weight * pull[1][at];
                pb += weight * pull[2][at];
                f8 slope = keep8(hit & unclamped, alpha * (t[at] * gain - rest[at] / (splat8(1.0f) - alpha)));
                f8 slope_x = slope * dx;
                row_s += slope;
                row_x += slope_x;
                sxx += slope_x * dx;
                t[at] = select8(hit, next, select8(ends, -t[at], t[at]));
            }
            s += row_s;
            sx += row_x;
            sy += splat8(dy) * row_s;
            sxy += splat8(dy) * row_x;
            syy += splat8(dy * dy) * row_s;
        }
        float *g = grads + (begin + k) * GRADS;
        float x = sum8(sx), yy = sum8(sy);
        g[0] = p->a * x + p->b * yy;
        g[1] = p->b * x + p->c * yy;
        g[2] = -0.5f * sum8(sxx), g[3] = -sum8(sxy), g[4] = -0.5f * sum8(syy);
        g[5] = sum8(s) / p->opacity;
        g[6] = sum8(pr), g[7] = sum8(pg), g[8] = sum8(pb);
    }
}

/* Carry the gradients of one splat in one image back to its mean and factor. */
static void pull_projection(const Camera *camera, const float *mean, const float *factor, const Projected *p,
                            const float *g, float *v_mean, float *v_factor) {
    Footprint print;
    project(camera, mean, factor, &print);
    /* d(inverse) : -X G X with the conic X; b stands twice in the matrix, so its gradient is halved */
    float ga = g[2], gb = 0.5f * g[3], gc = g[4];
    float xa = p->a * ga + p->b * gb, xb = p->a * gb + p->b * gc, ya = p->b * ga + p->c * gb, yb = p->b * gb + p->c * gc;
    float ha = -(xa * p->a + xb * p->b), hb = -(xa * p->b + xb * p->c), hc = -(ya * p->b + yb * p->c);
    float v_image[6], v_map[6] = {0};
    for (int col = 0; col < 3; col++) {
        v_image[col] = 2.0f * (ha * print.image[col] + hb * print.image[3 + col]);
        v_image[3 + col] = 2.0f * (hb * print.image[col] + hc * print.image[3 + col]);
    }
    for (int row = 0; row < 3; row++)
        for (int col = 0; col < 3; col++) {
            v_factor[3 * row + col] += print.map[row] * v_image[col] + print.map[3 + row] * v_image[3 + col];
            v_map[row] += v_image[col] * factor[3 * row + col];
            v_map[3 + row] += v_image[3 + col] * factor[3 * row + col];
        }
    const float *w = camera->rotation;
    float inverse = 1.0f / print.point[2];
    float jx = camera->fx * inverse, jy = camera->fy * inverse;
    float v_jx = 0, v_jy = 0, v_slope_x = 0, v_slope_y = 0;
    for (int col = 0; col < 3; col++) {
        v_jx += v_map[col] * (w[col] - print.slope_x * w[6 + col]);
        v_jy += v_map[3 + col] * (w[3 + col] - print.slope_y * w[6 + col]);
        v_slope_x -= v_map[col] * jx * w[6 + col];
        v_slope_y -= v_map[3 + col] * jy * w[6 + col];
    }
    /* the mean is projected with its own slope, only the Jacobian with the held one */
    float own_x = g[0] * camera->fx + (print.free_x ? v_slope_x : 0.0f);
    float own_y = g[1] * camera->fy + (print.free_y ? v_slope_y : 0.0f);
    float v_point[3] = {own_x * inverse, own_y * inverse,
                        -inverse * (own_x * print.point[0] * inverse + own_y * print.point[1] * inverse + v_jx * jx + v_jy * jy)};
    for (int col = 0; col < 3; col++) v_mean[col] += w[col] * v_point[0] + w[3 + col] * v_point[1] + w[6 + col] * v_point[2];
}

/* Gradients of sum(image * cotangent); v_means [F, N, 3], v_factors [F, N, 9], v_opacities [N] and v_colors, of the shape
 * of colors, are overwritten. Returns 0, or 1 when memory is short. */
int splat_backward(const void *handle, const float *means, const float *factors, const float *colors,
                   const float *viewmats, const float *intrinsics, const float *image, const float *cotangent,
                   float *v_means, float *v_factors, float *v_opacities, float *v_colors) {
    const Scene *scene = handle;
    int images = scene->frames * scene->views, tiles = scene->tiles_x * scene->tiles_y, count = scene->count;
    float *grads = malloc(((size_t)scene->starts[(int64_t)images * tiles] + 1) * GRADS * sizeof *grads);
    float *sums = calloc((size_t)images * count * GRADS + 1, sizeof *sums);
    Camera *cameras = malloc((size_t)scene->views * sizeof *cameras);
    if (!grads || !sums || !cameras) {
        free(grads), free(sums), free(cameras);
        return 1;
    }
    for (int v = 0; v < scene->views; v++)
        cameras[v] = read_camera(viewmats + 16 * v, intrinsics + 9 * v, scene->width, scene->height);

#pragma omp parallel for schedule(dynamic, 4) num_threads(scene->threads)
    for (int64_t k = 0; k < (int64_t)images * tiles; k++)
        pull_tile(scene, (int)(k / tiles), (int)(k % tiles), colors, image, cotangent, grads);

#pragma omp parallel for schedule(dynamic) num_threads(scene->threads)
    for (int i = 0; i < images; i++) {
        float *sum = sums + (int64_t)i * count * GRADS;
        for (int64_t k = scene->starts[(int64_t)i * tiles]; k < scene->starts[((int64_t)i + 1) * tiles]; k++)
            for (int c = 0; c < GRADS; c++) sum[(int64_t)scene->items[k] * GRADS + c] += grads[k * GRADS + c];
    }

#pragma omp parallel for schedule(static) num_threads(scene->threads)
    for (int n = 0; n < count; n++) {
        float opacity = 0, color[3] = {0};
        for (int f = 0; f < scene->frames; f++) {
            int64_t at = (int64_t)f * count + n;
            float v_mean[3] = {0}, v_factor[9] = {0};
            for (int v = 0; v < scene->views; v++) {
                int64_t in_image = ((int64_t)f * scene->views + v) * count + n;
                if (scene->projected[in_image].half_x < 0.0f) continue;
                const float *g = sums + in_image * GRADS;
                pull_projection(cameras + v, means + 3 * at, factors + 9 * at, scene->projected + in_image, g, v_mean, v_factor);
                opacity += g[5];
                for (int c = 0; c < 3; c++) color[c] += g[6 + c];
            }
            memcpy(v_means + 3 * at, v_mean, sizeof v_mean);
            memcpy(v_factors + 9 * at, v_factor, sizeof v_factor);
            memcpy(v_colors + f * scene->palette + 3 * n, color, sizeof color);
            if (scene->palette) memset(color, 0, sizeof color);
        }
        v_opacities[n] = opacity;
    }
    free(grads), free(sums), free(cameras);
    return 0;
}
