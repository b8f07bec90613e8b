/* Eight floats at once, by compiler vectors: AVX2 where the processor has it, pairs of SSE registers elsewhere. */
#ifndef ANIMATE4D_VECTORS_H
#define ANIMATE4D_VECTORS_H

#include <stdint.h>
#include <string.h>

typedef float f8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));

static inline f8 splat8(float value) { return (f8){value, value, value, value, value, value, value, value}; }

/* Arrays come from numpy and torch and lie on multiples of four bytes only. */
static inline f8 load8(const float *from) {
    f8 value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline void store8(float *to, f8 value) { memcpy(to, &value, sizeof value); }

static inline void add8(float *to, f8 value) { store8(to, load8(to) + value); }

static inline f8 select8(i8 mask, f8 yes, f8 no) { return (f8)(((i8)yes & mask) | ((i8)no & ~mask)); }

static inline f8 keep8(i8 mask, f8 value) { return (f8)((i8)value & mask); }

static inline float sum8(f8 v) {
    return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
}

#endif
