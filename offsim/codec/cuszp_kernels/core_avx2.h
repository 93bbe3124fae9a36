/* cuSZp with AVX2: a block is four registers of eight numbers, or one of 32 bytes. */

#define TARGET __attribute__((target("avx2,f16c")))

/* ---- encoding ---- */

TARGET INLINE __m256 loaded_avx2(const void *source, int64_t at, int dtype) {
    if (dtype == F32) return _mm256_loadu_ps((const float *)source + at);
    __m128i half = _mm_loadu_si128((const __m128i *)((const uint16_t *)source + at));
    if (dtype == FP16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

TARGET INLINE __m256i quantised_avx2(__m256 x, __m256 inverse) {
    __m256 quotient = _mm256_mul_ps(x, inverse);
    __m256 shifted = _mm256_add_ps(quotient, _mm256_set1_ps(0.5f));
    __m256i whole = _mm256_cvttps_epi32(shifted); /* -2^31 for all that does not fit */
    __m256 above = _mm256_cmp_ps(shifted, _mm256_set1_ps(2147483648.0f), _CMP_GE_OQ);
    whole = _mm256_xor_si256(whole, _mm256_castps_si256(above));
    __m256 ordered = _mm256_cmp_ps(shifted, shifted, _CMP_ORD_Q);
    whole = _mm256_and_si256(whole, _mm256_castps_si256(ordered));
    __m256 down = _mm256_cmp_ps(quotient, _mm256_set1_ps(-0.5f), _CMP_NGE_UQ);
    return _mm256_add_epi32(whole, _mm256_castps_si256(down));
}

TARGET INLINE uint32_t union_of(const __m256i a[4]) { /* 2^31 is negative and does not count */
    __m256i all = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++)
        all = _mm256_or_si256(all, _mm256_max_epi32(a[i], _mm256_setzero_si256()));
    __m128i four = _mm_or_si128(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    four = _mm_or_si128(four, _mm_unpackhi_epi64(four, four));
    return (uint32_t)(_mm_cvtsi128_si32(four) | _mm_extract_epi32(four, 1));
}

/* Planes of 32 magnitudes below 2^bits: byte by byte, the top bit of each byte moved out. At least
   eight planes are written, and the next block overwrites those that are too many: a branch on the
   number would often be mispredicted, and waits for all that is before. */
TARGET INLINE void planes_avx2(const __m256i a[4], int bits, uint8_t *out) {
    const __m256i byte = _mm256_set1_epi32(255), order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    int count = bits < 8 ? 8 : bits;
    for (int low = 0; low < count; low += 8) {
        __m256i part[4];
        for (int i = 0; i < 4; i++)
            part[i] = _mm256_and_si256(_mm256_srl_epi32(a[i], _mm_cvtsi32_si128(low)), byte);
        __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(part[0], part[1]),
                                            _mm256_packus_epi32(part[2], part[3]));
        bytes = _mm256_permutevar8x32_epi32(bytes, order); /* packing works in halves */
        for (int plane = 0; plane < 8 && low + plane < count; plane++, out += 4) {
            __m256i top = _mm256_slli_epi16(bytes, 7 - plane);
            uint32_t word = (uint32_t)_mm256_movemask_epi8(top);
            memcpy(out, &word, 4);
        }
    }
}

TARGET INLINE uint8_t *block_avx2(__m256i d[4], int mode, uint8_t *rate, uint8_t *out) {
    if (mode != FIXED) { /* differences to the element before; the first to 0 */
        __m256i last = _mm256_setzero_si256();
        for (int i = 0; i < 4; i++) {
            __m256i rotated =
                _mm256_permutevar8x32_epi32(d[i], _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6));
            d[i] = _mm256_sub_epi32(d[i], _mm256_blend_epi32(rotated, last, 1));
            last = rotated;
        }
    }
    uint32_t first = (uint32_t)_mm_cvtsi128_si32(_mm256_castsi256_si128(d[0])), signs = 0;
    for (int i = 0; i < 4; i++) { /* turned around, because element 0 is the highest bit */
        d[i] = _mm256_permutevar8x32_epi32(d[i], _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0));
        signs |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(d[i])) << (8 * i);
        d[i] = _mm256_abs_epi32(d[i]);
    }
    int bits = BITS(union_of(d)), first_bytes = 0;
    if (mode == OUTLIER) {
        __m256i all = d[0];
        d[0] = _mm256_blend_epi32(d[0], _mm256_setzero_si256(), 128);
        first = first >> 31 ? 0u - first : first;
        int fewer = BITS(union_of(d)), width = (BITS(first) + 7) / 8;
        if ((bits ? 4 + 4 * bits : 0) > 4 + 4 * fewer + width) {
            first_bytes = width;
            bits = fewer;
        } else {
            d[0] = all;
        }
    }
    *rate = (uint8_t)(first_bytes ? 128 | (first_bytes - 1) << 5 | bits : bits);
    memcpy(out, &first, 4); /* overwritten where there is none */
    out += first_bytes;
    memcpy(out, &signs, 4);
    planes_avx2(d, bits, out + 4);
    return out + (first_bytes || bits ? 4 + 4 * bits : 0);
}

TARGET INLINE int64_t encode_blocks_avx2(const void *source, int64_t count, int dtype,
                                         float inverse, int mode, uint8_t *rates, uint8_t *out) {
    const uint8_t *start = out;
    const __m256 scale = _mm256_set1_ps(inverse);
    int64_t whole = count / BLOCK * BLOCK;
    for (int64_t at = 0; at < whole; at += BLOCK) {
        FETCH(source, at, dtype, 0);
        __m256i q[4];
        for (int i = 0; i < 4; i++)
            q[i] = quantised_avx2(loaded_avx2(source, at + 8 * i, dtype), scale);
        out = block_avx2(q, mode, rates + at / BLOCK, out);
    }
    out += encode_portably(source, whole, count, dtype, inverse, mode, rates, out);
    return out - start;
}

/* ---- decoding ---- */

/* Sixteen values of quanta q and r, stored in the wanted dtype. */
TARGET INLINE void stored_avx2(
    __m256i q, __m256i r, __m256 bound, int dtype, void *target, int64_t at) {
    __m256 x = _mm256_mul_ps(_mm256_cvtepi32_ps(q), bound);
    __m256 y = _mm256_mul_ps(_mm256_cvtepi32_ps(r), bound);
    x = _mm256_add_ps(x, x);
    y = _mm256_add_ps(y, y);
    if (dtype == F32) {
        _mm256_storeu_ps((float *)target + at, x);
        _mm256_storeu_ps((float *)target + at + 8, y);
        return;
    }
    uint16_t *out = (uint16_t *)target + at;
    if (dtype == FP16) {
        _mm_storeu_si128((__m128i *)out, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
        _mm_storeu_si128((__m128i *)(out + 8), _mm256_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT));
        return;
    }
    const __m256i one = _mm256_set1_epi32(1), below_half = _mm256_set1_epi32(0x7fff);
    __m256i a = _mm256_castps_si256(x), b = _mm256_castps_si256(y);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(a, 16), one);
    a = _mm256_srli_epi32(_mm256_add_epi32(a, _mm256_add_epi32(odd, below_half)), 16);
    odd = _mm256_and_si256(_mm256_srli_epi32(b, 16), one);
    b = _mm256_srli_epi32(_mm256_add_epi32(b, _mm256_add_epi32(odd, below_half)), 16);
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
    _mm256_storeu_si256((__m256i *)out, packed);
}

/* A plane as 32 bytes, all ones where the bit of the element is set. */
TARGET INLINE __m256i spread(const uint8_t *in) {
    const __m256i place = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
                                           2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x(0x0102040810204080);
    uint32_t word;
    memcpy(&word, in, 4);
    __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int)word), place);
    return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
}

TARGET INLINE __m128i eighth(__m256i bytes, int i) { /* bytes 8 i to 8 i + 7, lowest */
    __m128i half = i < 2 ? _mm256_castsi256_si128(bytes) : _mm256_extracti128_si256(bytes, 1);
    return i & 1 ? _mm_unpackhi_epi64(half, half) : half;
}

/* Up to seven bits, seven planes are read whatever their number is, as above, if there are bytes
   to read, and those that are too many are masked out. */
TARGET INLINE void residuals_avx2(
    const uint8_t *in, const uint8_t *end, int bits, __m256i d[4]) {
    const __m256i none = _mm256_setzero_si256();
    if (bits <= 7 && end - in >= 32) {
        __m256i negative = spread(in), sum = none, bit = _mm256_set1_epi8(1);
        for (int plane = 1; plane <= 7; plane++, bit = _mm256_add_epi8(bit, bit))
            sum = _mm256_or_si256(sum, _mm256_and_si256(spread(in + 4 * plane), bit));
        sum = _mm256_and_si256(sum, _mm256_set1_epi8((char)((1 << bits) - 1)));
        sum = _mm256_sub_epi8(_mm256_xor_si256(sum, negative), negative);
        for (int i = 0; i < 4; i++) d[i] = _mm256_cvtepi8_epi32(eighth(sum, i));
        return;
    }
    __m256i negative = bits ? spread(in) : none;
    for (int i = 0; i < 4; i++) d[i] = none;
    in += 4;
    for (int low = 0; low < bits; low += 8) {
        __m256i sum = none, bit = _mm256_set1_epi8(1);
        for (int plane = 0; plane < 8 && low + plane < bits; plane++, in += 4) {
            sum = _mm256_or_si256(sum, _mm256_and_si256(spread(in), bit));
            bit = _mm256_add_epi8(bit, bit);
        }
        for (int i = 0; i < 4; i++) {
            __m256i wide = _mm256_cvtepu8_epi32(eighth(sum, i));
            d[i] = _mm256_or_si256(d[i], _mm256_sll_epi32(wide, _mm_cvtsi32_si128(low)));
        }
    }
    for (int i = 0; i < 4; i++) {
        __m256i mask = _mm256_cvtepi8_epi32(eighth(negative, i));
        d[i] = _mm256_sub_epi32(_mm256_xor_si256(d[i], mask), mask);
    }
}

TARGET INLINE __m256i running_sum_avx2(__m256i x, __m256i before) {
    x = _mm256_add_epi32(x, _mm256_slli_si256(x, 4));
    x = _mm256_add_epi32(x, _mm256_slli_si256(x, 8));
    __m256i half = _mm256_permutevar8x32_epi32(x, _mm256_set1_epi32(3));
    x = _mm256_add_epi32(x, _mm256_blend_epi32(_mm256_setzero_si256(), half, 0xf0));
    __m256i last = _mm256_permutevar8x32_epi32(before, _mm256_set1_epi32(7));
    return _mm256_add_epi32(x, last);
}

TARGET INLINE void decode_blocks_avx2(const uint8_t *rates, const uint8_t *in, int64_t size,
                                      int64_t count, float bound, int mode, int dtype,
                                      void *target) {
    const uint8_t *end = in + size;
    const __m256 scale = _mm256_set1_ps(bound);
    int64_t whole = count / BLOCK * BLOCK;
    for (int64_t at = 0; at < whole; at += BLOCK) {
        FETCH(target, at, dtype, 1);
        uint8_t rate = rates[at / BLOCK];
        int width = apart(rate, mode);
        __m256i d[4];
        residuals_avx2(in + width, end, rate & 31, d);
        if (width) {
            __m256i first = _mm256_set1_epi32(first_of(in, width));
            d[0] = _mm256_blend_epi32(d[0], first, 1);
        }
        in += payload_bytes(rate, mode);
        if (mode != FIXED) {
            __m256i sum = _mm256_setzero_si256();
            for (int i = 0; i < 4; i++) sum = d[i] = running_sum_avx2(d[i], sum);
        }
        stored_avx2(d[0], d[1], scale, dtype, target, at);
        stored_avx2(d[2], d[3], scale, dtype, target, at + 16);
    }
    decode_portably(rates, in, whole, count, bound, mode, dtype, target);
}

TARGET static int64_t encode_avx2(const void *source, int64_t count, int dtype, float inverse,
                                  int mode, uint8_t *rates, uint8_t *out) {
#define BODY(m, t) return encode_blocks_avx2(source, count, t, inverse, m, rates, out)
    OF_MODE_AND_DTYPE(BODY)
#undef BODY
}

TARGET static void decode_avx2(const uint8_t *rates, const uint8_t *in, int64_t size,
                               int64_t count, float bound, int mode, int dtype, void *target) {
#define BODY(m, t) decode_blocks_avx2(rates, in, size, count, bound, m, t, target)
    OF_MODE_AND_DTYPE(BODY)
#undef BODY
}

#undef TARGET
