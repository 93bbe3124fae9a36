/* cuSZp with NEON, which every 64-bit ARM has: a block is eight registers of four numbers, or two
   of sixteen bytes. */

#include <arm_neon.h>

/* ---- encoding ---- */

INLINE uint32_t union_neon(const int32x4_t a[8]) { /* 2^31 is negative and does not count */
    int32x4_t all = vdupq_n_s32(0);
    for (int i = 0; i < 8; i++) all = vorrq_s32(all, vmaxq_s32(a[i], vdupq_n_s32(0)));
    uint64x2_t two = vreinterpretq_u64_s32(all);
    uint64_t one = vgetq_lane_u64(two, 0) | vgetq_lane_u64(two, 1);
    return (uint32_t)(one | one >> 32);
}

/* The bits of 32 bytes that are not zero, element 0 of eight the highest. */
INLINE uint8_t *plane_neon(uint8x16_t low, uint8x16_t high, uint8_t *out) {
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x0102040810204080));
    uint8x16_t sums = vpaddq_u8(vandq_u8(low, bit), vandq_u8(high, bit));
    sums = vpaddq_u8(sums, sums);
    sums = vpaddq_u8(sums, sums);
    vst1q_lane_u32((uint32_t *)(void *)out, vreinterpretq_u32_u8(sums), 0);
    return out + 4;
}

INLINE uint8x16_t bytes_neon(const uint32x4_t a[4]) {
    uint16x8_t low = vcombine_u16(vmovn_u32(a[0]), vmovn_u32(a[1]));
    uint16x8_t high = vcombine_u16(vmovn_u32(a[2]), vmovn_u32(a[3]));
    return vcombine_u8(vmovn_u16(low), vmovn_u16(high));
}

INLINE uint8_t *planes_neon(const int32x4_t a[8], int bits, uint8_t *out) {
    for (int low = 0; low < bits; low += 8) {
        uint32x4_t shifted[8];
        for (int i = 0; i < 8; i++)
            shifted[i] = vshlq_u32(vreinterpretq_u32_s32(a[i]), vdupq_n_s32(-low));
        uint8x16_t first = bytes_neon(shifted), second = bytes_neon(shifted + 4);
        for (int plane = 0; plane < 8 && low + plane < bits; plane++) {
            uint8x16_t bit = vdupq_n_u8((uint8_t)(1 << plane));
            out = plane_neon(vtstq_u8(first, bit), vtstq_u8(second, bit), out);
        }
    }
    return out;
}

INLINE uint8_t *block_neon(int32x4_t d[8], int mode, uint8_t *rate, uint8_t *out) {
    if (mode != FIXED) { /* differences to the element before; the first to 0 */
        int32x4_t before = vdupq_n_s32(0);
        for (int i = 0; i < 8; i++) {
            int32x4_t own = d[i];
            d[i] = vsubq_s32(own, vextq_s32(before, own, 3));
            before = own;
        }
    }
    uint32_t first = (uint32_t)vgetq_lane_s32(d[0], 0);
    uint32x4_t negative[8];
    for (int i = 0; i < 8; i++) {
        negative[i] = vcltzq_s32(d[i]);
        d[i] = vabsq_s32(d[i]);
    }
    int bits = BITS(union_neon(d)), first_bytes = 0;
    if (mode == OUTLIER) {
        int32x4_t all = d[0];
        d[0] = vsetq_lane_s32(0, d[0], 0);
        first = first >> 31 ? 0u - first : first;
        int fewer = BITS(union_neon(d)), width = (BITS(first) + 7) / 8;
        if ((bits ? 4 + 4 * bits : 0) > 4 + 4 * fewer + width) {
            first_bytes = width;
            bits = fewer;
        } else {
            d[0] = all;
        }
    }
    *rate = (uint8_t)(first_bytes ? 128 | (first_bytes - 1) << 5 | bits : bits);
    if (!first_bytes && !bits) return out;
    memcpy(out, &first, (size_t)first_bytes);
    out = plane_neon(bytes_neon(negative), bytes_neon(negative + 4), out + first_bytes);
    return planes_neon(d, bits, out);
}

INLINE int64_t encode_blocks_neon(const void *source, int64_t count, int dtype, float inverse,
                                  int mode, uint8_t *rates, uint8_t *out) {
    const uint8_t *start = out;
    int64_t whole = count / BLOCK * BLOCK;
    for (int64_t at = 0; at < whole; at += BLOCK) {
        float x[BLOCK];
        int32x4_t q[8];
        load(source, at, BLOCK, dtype, x);
        for (int i = 0; i < 8; i++) { /* this conversion saturates and takes NaN to 0 by itself */
            float32x4_t quotient = vmulq_n_f32(vld1q_f32(x + 4 * i), inverse);
            q[i] = vcvtq_s32_f32(vaddq_f32(quotient, vdupq_n_f32(0.5f)));
            uint32x4_t down = vmvnq_u32(vcgeq_f32(quotient, vdupq_n_f32(-0.5f)));
            q[i] = vaddq_s32(q[i], vreinterpretq_s32_u32(down));
        }
        out = block_neon(q, mode, rates + at / BLOCK, out);
    }
    out += encode_portably(source, whole, count, dtype, inverse, mode, rates, out);
    return out - start;
}

/* ---- decoding ---- */

/* Sixteen elements of a plane, all ones where the bit is set; `half` is 0 or 1. */
INLINE uint8x16_t spread_neon(const uint8_t *in, int half) {
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x0102040810204080));
    uint8x16_t bytes = vcombine_u8(vdup_n_u8(in[2 * half]), vdup_n_u8(in[2 * half + 1]));
    return vtstq_u8(bytes, bit);
}

INLINE void residuals_neon(const uint8_t *in, int bits, int32x4_t d[8]) {
    for (int i = 0; i < 8; i++) d[i] = vdupq_n_s32(0);
    for (int low = 0; low < bits; low += 8) {
        for (int half = 0; half < 2; half++) {
            uint8x16_t sum = vdupq_n_u8(0);
            for (int plane = low; plane < low + 8 && plane < bits; plane++) {
                uint8x16_t bit = vdupq_n_u8((uint8_t)(1 << (plane - low)));
                sum = vorrq_u8(sum, vandq_u8(spread_neon(in + 4 + 4 * plane, half), bit));
            }
            for (int i = 0; i < 4; i++) {
                uint8x8_t eight = i < 2 ? vget_low_u8(sum) : vget_high_u8(sum);
                uint16x8_t wide = vmovl_u8(eight);
                uint32x4_t four = vmovl_u16(i & 1 ? vget_high_u16(wide) : vget_low_u16(wide));
                uint32x4_t placed = vshlq_u32(four, vdupq_n_s32(low));
                int32x4_t *into = &d[4 * half + i];
                *into = vorrq_s32(*into, vreinterpretq_s32_u32(placed));
            }
        }
    }
    for (int half = 0; half < 2; half++) {
        int8x16_t negative = vreinterpretq_s8_u8(spread_neon(in, half));
        for (int i = 0; i < 4; i++) {
            int16x8_t wide = vmovl_s8(i < 2 ? vget_low_s8(negative) : vget_high_s8(negative));
            int32x4_t mask = vmovl_s16(i & 1 ? vget_high_s16(wide) : vget_low_s16(wide));
            int32x4_t *into = &d[4 * half + i];
            *into = vsubq_s32(veorq_s32(*into, mask), mask);
        }
    }
}

INLINE int32x4_t running_sum_neon(int32x4_t x, int32_t before) {
    const int32x4_t none = vdupq_n_s32(0);
    x = vaddq_s32(x, vextq_s32(none, x, 3));
    x = vaddq_s32(x, vextq_s32(none, x, 2));
    return vaddq_s32(x, vdupq_n_s32(before));
}

INLINE void decode_blocks_neon(const uint8_t *rates, const uint8_t *in, int64_t count, float bound,
                               int mode, int dtype, void *target) {
    int64_t whole = count / BLOCK * BLOCK;
    for (int64_t at = 0; at < whole; at += BLOCK) {
        uint8_t rate = rates[at / BLOCK];
        float x[BLOCK] = {0};
        if (rate) {
            int32x4_t d[8];
            int width = apart(rate, mode);
            int32_t sum = 0;
            residuals_neon(in + width, rate & 31, d);
            if (width) d[0] = vsetq_lane_s32(first_of(in, width), d[0], 0);
            for (int i = 0; i < 8; i++) {
                if (mode != FIXED) {
                    d[i] = running_sum_neon(d[i], sum);
                    sum = vgetq_lane_s32(d[i], 3);
                }
                float32x4_t half = vmulq_n_f32(vcvtq_f32_s32(d[i]), bound);
                vst1q_f32(x + 4 * i, vaddq_f32(half, half));
            }
            in += payload_bytes(rate, mode);
        }
        store(target, at, BLOCK, dtype, x);
    }
    decode_portably(rates, in, whole, count, bound, mode, dtype, target);
}

static int64_t encode_neon(const void *source, int64_t count, int dtype, float inverse, int mode,
                           uint8_t *rates, uint8_t *out) {
#define BODY(m, t) return encode_blocks_neon(source, count, t, inverse, m, rates, out)
    OF_MODE_AND_DTYPE(BODY)
#undef BODY
}

static void decode_neon(const uint8_t *rates, const uint8_t *in, int64_t count, float bound,
                        int mode, int dtype, void *target) {
#define BODY(m, t) decode_blocks_neon(rates, in, count, bound, m, t, target)
    OF_MODE_AND_DTYPE(BODY)
#undef BODY
}
