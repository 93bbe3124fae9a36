/* cuSZp streams on a CPU: modes fixed, plain and outlier. docs/formats.md has the layout.

   This file has the portable code, which is also what the last, partial block goes through, and
   what Python calls; core_avx2.h, core_avx512.h and core_neon.h have the same for those CPUs. All
   give the same bytes: every float32 step is rounded by itself, so this must be compiled without
   contraction of a * b + c (-ffp-contract=off). Nothing here allocates, locks or calls back, so it
   runs without the GIL and on any number of threads, each with blocks of its own. */

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the stream is little-endian, and so must be the CPU"
#endif
#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define BITS(x) ((x) ? 32 - __builtin_clz(x) : 0)
#if defined(__x86_64__)
#define X86 1
#include <immintrin.h>
#endif

enum { BLOCK = 32, MOST_BITS = 31 };
enum { FIXED, PLAIN, OUTLIER };
enum { F32, BF16, FP16 };
enum { PORTABLE, AVX2, AVX512, NEON };

/* Row b has bit 7 - j of byte b in byte lane j, so that eight elements are filled at a time. */
#define BIT(b, j) ((uint64_t)(((b) >> (7 - (j))) & 1) << (8 * (j)))
#define ROW(b) \
    (BIT(b, 0) | BIT(b, 1) | BIT(b, 2) | BIT(b, 3) | BIT(b, 4) | BIT(b, 5) | BIT(b, 6) | BIT(b, 7))
#define ROWS4(b) ROW(b), ROW((b) + 1), ROW((b) + 2), ROW((b) + 3)
#define ROWS16(b) ROWS4(b), ROWS4((b) + 4), ROWS4((b) + 8), ROWS4((b) + 12)
#define ROWS64(b) ROWS16(b), ROWS16((b) + 16), ROWS16((b) + 32), ROWS16((b) + 48)
static const uint64_t LANES[256] = {ROWS64(0), ROWS64(64), ROWS64(128), ROWS64(192)};

INLINE float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

/* What is read or written next lies 4 KiB ahead: hardware prefetchers stop at the end of a page. A
   block touches two lines of 64 bytes, or one in 16 bits. */
#define AHEAD 4096
#define FETCH(pointer, at, dtype, write)                                              \
    do {                                                                              \
        const char *ahead = (const char *)(pointer) + (at) * (dtype == F32 ? 4 : 2) + AHEAD; \
        __builtin_prefetch(ahead, write);                                             \
        if (dtype == F32) __builtin_prefetch(ahead + 64, write);                      \
    } while (0)

/* ---- numbers of 16 bits -------------------------------------------------------------------- */

INLINE float from_fp16(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = (half >> 10) & 31;
    uint32_t fraction = half & 0x3ff;
    if (exponent == 0) { /* 2^-24 is the unit of the subnormals */
        float magnitude = (float)fraction * 5.9604644775390625e-08f;
        return sign ? -magnitude : magnitude;
    }
    if (exponent == 31) return as_float(sign | 0x7f800000 | fraction << 13);
    return as_float(sign | (exponent + 112) << 23 | fraction << 13);
}

INLINE uint16_t to_bf16(float value) { /* to nearest, ties to even; no decoded value is a NaN */
    uint32_t bits = as_bits(value);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE uint16_t to_fp16(float value) { /* likewise */
    uint32_t bits = as_bits(value), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x47800000) return (uint16_t)(sign | 0x7c00); /* 65536 and above */
    if (magnitude < 0x38800000) { /* below 2^-14: adding 0.5 leaves units of 2^-24 at the end */
        return (uint16_t)(sign | (as_bits(as_float(magnitude) + 0.5f) - 0x3f000000));
    }
    return (uint16_t)(sign | ((magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13));
}

INLINE void load(const void *source, int64_t at, int count, int dtype, float *x) {
    const uint16_t *half = (const uint16_t *)source + at;
    if (dtype == F32) memcpy(x, (const float *)source + at, (size_t)count * 4);
    if (dtype == BF16)
        for (int i = 0; i < count; i++) x[i] = as_float((uint32_t)half[i] << 16);
    if (dtype == FP16)
        for (int i = 0; i < count; i++) x[i] = from_fp16(half[i]);
}

INLINE void store(void *target, int64_t at, int count, int dtype, const float *x) {
    uint16_t *half = (uint16_t *)target + at;
    if (dtype == F32) memcpy((float *)target + at, x, (size_t)count * 4);
    if (dtype == BF16)
        for (int i = 0; i < count; i++) half[i] = to_bf16(x[i]);
    if (dtype == FP16)
        for (int i = 0; i < count; i++) half[i] = to_fp16(x[i]);
}

/* ---- encoding ------------------------------------------------------------------------------ */

/* To nearest, halves away from zero; toward zero with saturation and NaN to 0 as PTX has it. */
INLINE void quantised(const float *x, float inverse, int32_t *q) {
    for (int i = 0; i < BLOCK; i++) {
        float quotient = x[i] * inverse, shifted = quotient + 0.5f;
        float clamped = shifted < 2147483520.0f ? shifted : 2147483520.0f;
        clamped = clamped > -2147483648.0f ? clamped : -2147483648.0f;
        int32_t whole = (int32_t)clamped;
        whole = shifted >= 2147483648.0f ? INT32_MAX : whole;
        whole = shifted != shifted ? 0 : whole;
        q[i] = (int32_t)((uint32_t)whole - (quotient >= -0.5f ? 0u : 1u));
    }
}

/* 8 x 8 bits: bit j of byte i changes places with bit i of byte j (Hacker's Delight, 7-3). */
INLINE uint64_t transposed(uint64_t x) {
    uint64_t t = (x ^ (x >> 7)) & 0x00aa00aa00aa00aaULL;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000cccc0000ccccULL;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x00000000f0f0f0f0ULL;
    return x ^ t ^ (t << 28);
}

/* Writes the planes `low` to at most `low` + 7 of 32 numbers below 2^bits; gives the next place. */
INLINE uint8_t *planes_portably(const uint32_t *a, int low, int bits, uint8_t *out) {
    int count = bits - low < 8 ? bits - low : 8;
    for (int group = 0; group < 4; group++) {
        uint64_t rows = 0;
        for (int j = 0; j < 8; j++)
            rows |= (uint64_t)((a[8 * group + j] >> low) & 255) << (8 * (7 - j));
        rows = transposed(rows);
        for (int plane = 0; plane < count; plane++)
            out[4 * plane + group] = (uint8_t)(rows >> (8 * plane));
    }
    return out + 4 * count;
}

/* Writes the rate and the payload of a block; the residuals past the last element are 0. */
INLINE uint8_t *block_written(
    const int32_t *d, int mode, uint8_t *rate, uint8_t *out) {
    uint32_t a[BLOCK], all = 0, others;
    for (int i = 0; i < BLOCK; i++) a[i] = d[i] < 0 ? 0u - (uint32_t)d[i] : (uint32_t)d[i];
    /* The maximum is one of signed numbers, so 2^31, which stays negative, does not count. */
    for (int i = 1; i < BLOCK; i++) all |= a[i] >> 31 ? 0 : a[i];
    others = all;
    all |= a[0] >> 31 ? 0 : a[0];
    int bits = BITS(all), first_bytes = 0;
    if (mode == OUTLIER) {
        int fewer = BITS(others), width = (BITS(a[0]) + 7) / 8;
        if ((bits ? 4 + 4 * bits : 0) > 4 + 4 * fewer + width) {
            first_bytes = width;
            bits = fewer;
        }
    }
    *rate = (uint8_t)(first_bytes ? 128 | (first_bytes - 1) << 5 | bits : bits);
    if (!first_bytes && !bits) return out;
    if (first_bytes) {
        memcpy(out, &a[0], (size_t)first_bytes);
        out += first_bytes;
        a[0] = 0;
    }
    uint32_t signs[BLOCK];
    for (int i = 0; i < BLOCK; i++) signs[i] = (uint32_t)d[i] >> 31;
    out = planes_portably(signs, 0, 1, out);
    for (int low = 0; low < bits; low += 8) out = planes_portably(a, low, bits, out);
    return out;
}

INLINE int64_t encode_portably(const void *source, int64_t from, int64_t count, int dtype,
                               float inverse, int mode, uint8_t *rates, uint8_t *out) {
    const uint8_t *start = out;
    for (int64_t at = from; at < count; at += BLOCK) {
        int real = count - at < BLOCK ? (int)(count - at) : BLOCK;
        float x[BLOCK] = {0};
        int32_t q[BLOCK], d[BLOCK];
        load(source, at, real, dtype, x);
        quantised(x, inverse, q);
        d[0] = q[0];
        for (int i = 1; i < BLOCK; i++)
            d[i] = mode == FIXED ? q[i] : (int32_t)((uint32_t)q[i] - (uint32_t)q[i - 1]);
        for (int i = real; i < BLOCK; i++) d[i] = 0;
        out = block_written(d, mode, rates + at / BLOCK, out);
    }
    return out - start;
}

/* ---- decoding ------------------------------------------------------------------------------ */

/* Bytes that hold the magnitude of element 0 apart from the planes, before them. */
INLINE int apart(uint8_t rate, int mode) {
    return mode == OUTLIER && rate & 128 ? ((rate >> 5) & 3) + 1 : 0;
}

INLINE int payload_bytes(uint8_t rate, int mode) {
    return rate ? 4 + 4 * (rate & 31) + apart(rate, mode) : 0;
}

/* Element 0 of a block that has it apart; its sign is with the others'. */
INLINE int32_t first_of(const uint8_t *in, int width) {
    uint32_t magnitude = 0;
    memcpy(&magnitude, in, (size_t)width); /* little-endian, as the format and the CPUs are */
    return (int32_t)(in[width] & 128 ? 0u - magnitude : magnitude);
}

INLINE void residuals(const uint8_t *in, uint8_t rate, int mode, int32_t *d) {
    const uint8_t *start = in;
    int width = apart(rate, mode);
    in += width;
    uint64_t lanes[4][4] = {{0}}, signs[4]; /* [eight planes][eight elements] */
    for (int plane = 0; plane < (rate & 31); plane++)
        for (int group = 0; group < 4; group++)
            lanes[plane >> 3][group] |= LANES[in[4 + 4 * plane + group]] << (plane & 7);
    for (int group = 0; group < 4; group++) signs[group] = LANES[in[group]];
    uint8_t bytes[4][BLOCK], negative[BLOCK];
    memcpy(bytes, lanes, sizeof bytes);
    memcpy(negative, signs, sizeof negative);
    if ((rate & 31) <= 8) {
        for (int i = 0; i < BLOCK; i++) d[i] = bytes[0][i];
    } else {
        for (int i = 0; i < BLOCK; i++)
            d[i] = (int32_t)(bytes[0][i] | (uint32_t)bytes[1][i] << 8 |
                             (uint32_t)bytes[2][i] << 16 | (uint32_t)bytes[3][i] << 24);
    }
    for (int i = 0; i < BLOCK; i++) {
        uint32_t mask = 0u - negative[i];
        d[i] = (int32_t)(((uint32_t)d[i] ^ mask) - mask);
    }
    if (width) d[0] = first_of(start, width);
}

INLINE void decode_portably(const uint8_t *rates, const uint8_t *in, int64_t from, int64_t count,
                            float bound, int mode, int dtype, void *target) {
    for (int64_t at = from; at < count; at += BLOCK) {
        int real = count - at < BLOCK ? (int)(count - at) : BLOCK;
        uint8_t rate = rates[at / BLOCK];
        float x[BLOCK] = {0};
        if (rate) {
            int32_t d[BLOCK];
            residuals(in, rate, mode, d);
            if (mode != FIXED)
                for (int i = 1; i < BLOCK; i++)
                    d[i] = (int32_t)((uint32_t)d[i] + (uint32_t)d[i - 1]);
            for (int i = 0; i < BLOCK; i++) {
                float half = (float)d[i] * bound;
                x[i] = half + half;
            }
            in += payload_bytes(rate, mode);
        }
        if (real == BLOCK)
            store(target, at, BLOCK, dtype, x);
        else
            store(target, at, real, dtype, x);
    }
}

/* ---- one body a level ---------------------------------------------------------------------- */

/* Calls `body` with mode and dtype as constants, so that the compiler makes nine loops of it. */
#define OF_DTYPE(body, mode)                            \
    switch (dtype) {                                    \
    case BF16: body(mode, BF16); break;                 \
    case FP16: body(mode, FP16); break;                 \
    default: body(mode, F32);                           \
    }
#define OF_MODE_AND_DTYPE(body)                         \
    switch (mode) {                                     \
    case PLAIN: OF_DTYPE(body, PLAIN) break;            \
    case OUTLIER: OF_DTYPE(body, OUTLIER) break;        \
    default: OF_DTYPE(body, FIXED)                      \
    }

static int64_t encode_any(const void *source, int64_t count, int dtype, float inverse, int mode,
                            uint8_t *rates, uint8_t *out) {
#define BODY(m, t) return encode_portably(source, 0, count, t, inverse, m, rates, out)
    OF_MODE_AND_DTYPE(BODY)
#undef BODY
}

static void decode_any(const uint8_t *rates, const uint8_t *in, int64_t count, float bound,
                         int mode, int dtype, void *target) {
#define BODY(m, t) decode_portably(rates, in, 0, count, bound, m, t, target)
    OF_MODE_AND_DTYPE(BODY)
#undef BODY
}

#ifdef X86
#include "core_avx2.h"
#include "core_avx512.h"
#elif defined(__aarch64__)
#include "core_neon.h"
#endif

/* ---- what Python calls --------------------------------------------------------------------- */

/* The levels that this CPU has, as bits, and code for them was compiled. */
EXPORT int offsim_cuszp_levels(void) {
    int levels = 1 << PORTABLE;
#if defined(X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) levels |= 1 << AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("gfni"))
        levels |= 1 << AVX512;
#elif defined(__aarch64__)
    levels |= 1 << NEON;
#endif
    return levels;
}

/* Payload bytes of so many blocks by their rates; -1 where a rate is none that an encoder writes. */
EXPORT int64_t offsim_cuszp_bytes(const uint8_t *rates, int64_t blocks, int mode) {
    int64_t size = 0;
    uint32_t wrong = 0;
    for (int64_t i = 0; i < blocks; i++) {
        wrong |= mode == OUTLIER ? !(rates[i] & 128) & ((rates[i] & 96) != 0) : rates[i] > MOST_BITS;
        size += payload_bytes(rates[i], mode);
    }
    return wrong ? -1 : size;
}

/* Rates and payloads of count values, a new block at every 32; bytes of the payloads. `out` has
   room for 128 bytes a block; `level` is one of those of offsim_cuszp_levels. */
EXPORT int64_t offsim_cuszp_encode(const void *source, int64_t count, int dtype, float inverse,
                                   int mode, int level, uint8_t *rates, uint8_t *out) {
    switch (level) {
#if defined(X86)
    case AVX2: return encode_avx2(source, count, dtype, inverse, mode, rates, out);
    case AVX512: return encode_avx512(source, count, dtype, inverse, mode, rates, out);
#elif defined(__aarch64__)
    case NEON: return encode_neon(source, count, dtype, inverse, mode, rates, out);
#endif
    default: return encode_any(source, count, dtype, inverse, mode, rates, out);
    }
}

/* The values of blocks whose rates were checked, and call for `size` bytes of payload. */
EXPORT void offsim_cuszp_decode(const uint8_t *rates, const uint8_t *in, int64_t size,
                                int64_t count, float bound, int mode, int dtype, int level,
                                void *target) {
    (void)size; /* the portable code reads no byte that is not of the block */
    switch (level) {
#if defined(X86)
    case AVX2: decode_avx2(rates, in, size, count, bound, mode, dtype, target); return;
    case AVX512: decode_avx512(rates, in, size, count, bound, mode, dtype, target); return;
#elif defined(__aarch64__)
    case NEON: decode_neon(rates, in, count, bound, mode, dtype, target); return;
#endif
    default: decode_any(rates, in, count, bound, mode, dtype, target);
    }
}
