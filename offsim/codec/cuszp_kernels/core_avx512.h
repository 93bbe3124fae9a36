/* cuSZp with AVX-512 (F, BW, VL, DQ, VBMI) and GFNI, as CPUs have it since 2019.

   Blocks of magnitudes below 2^7, which is nearly all, are 32 bytes of a magnitude and a sign; one
   instruction for affine maps of bits makes eight planes of them or reads eight. In wider blocks a
   plane is a mask register. Element i of eight is bit 7 - i of its byte in the stream but bit i of
   a mask, so there elements are turned around in groups of eight. */

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,gfni,lzcnt")))
enum { NARROW = 7 };

TARGET INLINE __m512i turned_dwords(__m512i x) {
    return _mm512_permutexvar_epi32(
        _mm512_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8), x);
}

TARGET INLINE __m512 loaded_avx512(const void *source, int64_t at, int dtype) {
    if (dtype == F32) return _mm512_loadu_ps((const float *)source + at);
    __m256i half = _mm256_loadu_si256((const __m256i *)((const uint16_t *)source + at));
    if (dtype == FP16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

TARGET INLINE __m512i quantised_avx512(__m512 x, __m512 inverse) {
    const __m512 top = _mm512_set1_ps(2147483648.0f);
    __m512 quotient = _mm512_mul_ps(x, inverse);
    __m512 shifted = _mm512_add_ps(quotient, _mm512_set1_ps(0.5f));
    __m512i whole = _mm512_cvttps_epi32(shifted); /* -2^31 for all that does not fit */
    __mmask16 above = _mm512_cmp_ps_mask(shifted, top, _CMP_GE_OQ);
    whole = _mm512_mask_mov_epi32(whole, above, _mm512_set1_epi32(INT32_MAX));
    __mmask16 ordered = _mm512_cmp_ps_mask(shifted, shifted, _CMP_ORD_Q);
    whole = _mm512_maskz_mov_epi32(ordered, whole);
    __mmask16 down = _mm512_cmp_ps_mask(quotient, _mm512_set1_ps(-0.5f), _CMP_NGE_UQ);
    return _mm512_mask_sub_epi32(whole, down, whole, _mm512_set1_epi32(1));
}

TARGET INLINE uint8_t *word_written(uint32_t word, uint8_t *out) {
    memcpy(out, &word, 4);
    return out + 4;
}

/* A block of magnitudes below 2^7. Signs and seven planes are written whatever the number of planes
   is, and the next block overwrites those that are too many: a branch on the number would often be
   mispredicted, and waits for all that is before. */
TARGET INLINE uint8_t *narrow_avx512(
    __m512i low, __m512i high, int mode, uint8_t *rate, uint8_t *out) {
    /* From byte p of group g, plane p of eight elements, to byte g of word p + 1; plane 7, which
       is the signs, to word 0. */
    const __m256i order = _mm256_setr_epi8(7, 15, 23, 31, 0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26,
                                           3, 11, 19, 27, 4, 12, 20, 28, 5, 13, 21, 29, 6, 14, 22, 30);
    const __m256i bit_of_plane = _mm256_set1_epi64x((int64_t)0x8040201008040201ULL);
    const __m256i without_first = _mm256_set1_epi32((int)0xffffff7f);
    const __m512i top = _mm512_set1_epi32(128);
    enum { A_OR_B_AND_C = 0xf8 };
    __m512i magnitudes = _mm512_abs_epi32(low);
    uint32_t first = (uint32_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(magnitudes));
    low = _mm512_ternarylogic_epi32(magnitudes, _mm512_srli_epi32(low, 24), top, A_OR_B_AND_C);
    magnitudes = _mm512_abs_epi32(high);
    high = _mm512_ternarylogic_epi32(magnitudes, _mm512_srli_epi32(high, 24), top, A_OR_B_AND_C);
    __m256i bytes = _mm256_set_m128i(_mm512_cvtepi32_epi8(high), _mm512_cvtepi32_epi8(low));
    __m256i words = _mm256_gf2p8affine_epi64_epi8(bit_of_plane, bytes, 0);
    words = _mm256_permutexvar_epi8(order, words);
    int bits = BITS((uint32_t)_mm256_test_epi32_mask(words, words) >> 1), first_bytes = 0;
    if (mode == OUTLIER) {
        int fewer = BITS((uint32_t)_mm256_test_epi32_mask(words, without_first) >> 1);
        int width = first > 0;
        if ((bits ? 4 + 4 * bits : 0) > 4 + 4 * fewer + width) {
            words = _mm256_mask_and_epi32(words, 0xfe, words, without_first);
            *out++ = (uint8_t)first;
            first_bytes = width;
            bits = fewer;
        }
    }
    *rate = (uint8_t)(first_bytes ? 128 | bits : bits);
    _mm256_storeu_si256((__m256i *)out, words);
    return out + (first_bytes || bits ? 4 + 4 * bits : 0);
}

TARGET INLINE uint8_t *wide_avx512(
    __m512i low, __m512i high, int mode, uint8_t *rate, uint8_t *out) {
    uint32_t first = (uint32_t)_mm_cvtsi128_si32(_mm512_castsi512_si128(low));
    low = turned_dwords(low);
    high = turned_dwords(high);
    uint32_t signs = (uint32_t)_mm512_movepi32_mask(high) << 16 | _mm512_movepi32_mask(low);
    low = _mm512_abs_epi32(low);
    high = _mm512_abs_epi32(high);
    /* 2^31 is negative and does not count for the maximum. */
    __m512i least = _mm512_setzero_si512();
    __m512i both = _mm512_or_epi32(_mm512_max_epi32(low, least), _mm512_max_epi32(high, least));
    int bits = BITS((uint32_t)_mm512_reduce_or_epi32(both)), first_bytes = 0;
    if (mode == OUTLIER) {
        first = first >> 31 ? 0u - first : first;
        __m512i rest = _mm512_maskz_mov_epi32((__mmask16)~(1 << 7), low); /* where element 0 is */
        both = _mm512_or_epi32(_mm512_max_epi32(rest, least), _mm512_max_epi32(high, least));
        int fewer = BITS((uint32_t)_mm512_reduce_or_epi32(both)), width = (BITS(first) + 7) / 8;
        if ((bits ? 4 + 4 * bits : 0) > 4 + 4 * fewer + width) {
            first_bytes = width;
            bits = fewer;
            low = rest;
        }
    }
    *rate = (uint8_t)(first_bytes ? 128 | (first_bytes - 1) << 5 | bits : bits);
    if (!first_bytes && !bits) return out; /* of saturated data */
    memcpy(out, &first, (size_t)first_bytes);
    out = word_written(signs, out + first_bytes);
    __m512i bit = _mm512_set1_epi32(1);
    for (int plane = 0; plane < bits; plane++, bit = _mm512_add_epi32(bit, bit)) {
        uint32_t word = _mm512_test_epi32_mask(high, bit);
        out = word_written(word << 16 | _mm512_test_epi32_mask(low, bit), out);
    }
    return out;
}

TARGET INLINE uint8_t *block_avx512(
    __m512i low, __m512i high, int mode, uint8_t *rate, uint8_t *out) {
    if (mode != FIXED) { /* differences to the element before; the first to 0 */
        __m512i before = _mm512_alignr_epi32(high, low, 15);
        __m512i shifted = _mm512_alignr_epi32(low, _mm512_setzero_si512(), 15);
        low = _mm512_sub_epi32(low, shifted);
        high = _mm512_sub_epi32(high, before);
    }
    __m512i both = _mm512_or_epi32(_mm512_abs_epi32(low), _mm512_abs_epi32(high));
    if (_mm512_test_epi32_mask(both, _mm512_set1_epi32(-(1 << NARROW))))
        return wide_avx512(low, high, mode, rate, out);
    return narrow_avx512(low, high, mode, rate, out);
}

TARGET INLINE int64_t encode_blocks_avx512(const void *source, int64_t count, int dtype,
                                           float inverse, int mode, uint8_t *rates, uint8_t *out) {
    const uint8_t *start = out;
    const __m512 scale = _mm512_set1_ps(inverse);
    int64_t whole = count / BLOCK * BLOCK;
    for (int64_t at = 0; at < whole; at += BLOCK) {
        FETCH(source, at, dtype, 0);
        __m512i low = quantised_avx512(loaded_avx512(source, at, dtype), scale);
        __m512i high = quantised_avx512(loaded_avx512(source, at + 16, dtype), scale);
        out = block_avx512(low, high, mode, rates + at / BLOCK, out);
    }
    out += encode_portably(source, whole, count, dtype, inverse, mode, rates, out);
    return out - start;
}

TARGET INLINE void stored_avx512(__m512i q, __m512 bound, int dtype, void *target, int64_t at) {
    __m512 half = _mm512_mul_ps(_mm512_cvtepi32_ps(q), bound);
    __m512 x = _mm512_add_ps(half, half);
    if (dtype == F32) {
        _mm512_storeu_ps((float *)target + at, x);
        return;
    }
    __m256i *out = (__m256i *)((uint16_t *)target + at);
    if (dtype == FP16) {
        _mm256_storeu_si256(out, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
        return;
    }
    /* Not the instruction for it: that one takes subnormals for zeros. */
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_epi32(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    _mm256_storeu_si256(out, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
}

TARGET INLINE uint32_t word_read(const uint8_t *in) {
    uint32_t word;
    memcpy(&word, in, 4);
    return word;
}


/* Signed residuals of a block. Up to seven bits, seven planes are read whatever their number is, as
   above, if there are bytes to read, and those that are too many are masked out. */
TARGET INLINE void residuals_avx512(
    const uint8_t *in, const uint8_t *end, int bits, __m512i *low, __m512i *high) {
    if (bits <= NARROW && end - in >= 32) {
        /* From byte g of word p + 1 to byte 7 - p of group g; the signs to byte 0. */
        const __m256i order = _mm256_setr_epi8(0, 28, 24, 20, 16, 12, 8, 4, 1, 29, 25, 21, 17, 13, 9, 5,
                                               2, 30, 26, 22, 18, 14, 10, 6, 3, 31, 27, 23, 19, 15, 11, 7);
        const __m256i bit_of_element = _mm256_set1_epi64x(0x0102040810204080);
        __m256i words = _mm256_loadu_si256((const __m256i *)in);
        words = _mm256_permutexvar_epi8(order, words);
        __m256i bytes = _mm256_gf2p8affine_epi64_epi8(bit_of_element, words, 0);
        __m256i sum = _mm256_and_si256(bytes, _mm256_set1_epi8((char)((1 << bits) - 1)));
        __mmask32 negative = _mm256_movepi8_mask(bytes);
        sum = _mm256_mask_sub_epi8(sum, negative, _mm256_setzero_si256(), sum);
        *low = _mm512_cvtepi8_epi32(_mm256_castsi256_si128(sum));
        *high = _mm512_cvtepi8_epi32(_mm256_extracti128_si256(sum, 1));
        return;
    }
    uint32_t signs = bits ? word_read(in) : 0;
    if (bits <= 15) {
        const __m512i turned = _mm512_broadcast_i32x4(
            _mm_setr_epi8(14, 15, 12, 13, 10, 11, 8, 9, 6, 7, 4, 5, 2, 3, 0, 1));
        __m512i sum = _mm512_setzero_si512(), bit = _mm512_set1_epi16(1);
        for (int plane = 0; plane < bits; plane++, bit = _mm512_add_epi16(bit, bit))
            sum = _mm512_mask_add_epi16(sum, word_read(in += 4), sum, bit);
        sum = _mm512_mask_sub_epi16(sum, signs, _mm512_setzero_si512(), sum);
        sum = _mm512_shuffle_epi8(sum, turned);
        *low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(sum));
        *high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(sum, 1));
        return;
    }
    __m512i a = _mm512_setzero_si512(), b = a, bit = _mm512_set1_epi32(1);
    for (int plane = 0; plane < bits; plane++, bit = _mm512_add_epi32(bit, bit)) {
        uint32_t word = word_read(in += 4);
        a = _mm512_mask_or_epi32(a, (__mmask16)word, a, bit);
        b = _mm512_mask_or_epi32(b, (__mmask16)(word >> 16), b, bit);
    }
    a = _mm512_mask_sub_epi32(a, (__mmask16)signs, _mm512_setzero_si512(), a);
    b = _mm512_mask_sub_epi32(b, (__mmask16)(signs >> 16), _mm512_setzero_si512(), b);
    *low = turned_dwords(a);
    *high = turned_dwords(b);
}

TARGET INLINE __m512i running_sum(__m512i x) {
    const __m512i none = _mm512_setzero_si512();
    x = _mm512_add_epi32(x, _mm512_alignr_epi32(x, none, 15));
    x = _mm512_add_epi32(x, _mm512_alignr_epi32(x, none, 14));
    x = _mm512_add_epi32(x, _mm512_alignr_epi32(x, none, 12));
    return _mm512_add_epi32(x, _mm512_alignr_epi32(x, none, 8));
}

TARGET INLINE void decode_blocks_avx512(const uint8_t *rates, const uint8_t *in, int64_t size,
                                        int64_t count, float bound, int mode, int dtype,
                                        void *target) {
    const uint8_t *end = in + size;
    const __m512 scale = _mm512_set1_ps(bound);
    int64_t whole = count / BLOCK * BLOCK;
    for (int64_t at = 0; at < whole; at += BLOCK) {
        FETCH(target, at, dtype, 1);
        uint8_t rate = rates[at / BLOCK];
        int width = apart(rate, mode);
        __m512i low, high;
        residuals_avx512(in + width, end, rate & 31, &low, &high);
        if (width) {
            __m512i first = _mm512_set1_epi32(first_of(in, width));
            low = _mm512_mask_mov_epi32(low, 1, first);
        }
        in += payload_bytes(rate, mode);
        if (mode != FIXED) {
            low = running_sum(low);
            __m512i last = _mm512_permutexvar_epi32(_mm512_set1_epi32(15), low);
            high = _mm512_add_epi32(running_sum(high), last);
        }
        stored_avx512(low, scale, dtype, target, at);
        stored_avx512(high, scale, dtype, target, at + 16);
    }
    decode_portably(rates, in, whole, count, bound, mode, dtype, target);
}

TARGET static int64_t encode_avx512(const void *source, int64_t count, int dtype, float inverse,
                                    int mode, uint8_t *rates, uint8_t *out) {
#define BODY(m, t) return encode_blocks_avx512(source, count, t, inverse, m, rates, out)
    OF_MODE_AND_DTYPE(BODY)
#undef BODY
}

TARGET static void decode_avx512(const uint8_t *rates, const uint8_t *in, int64_t size,
                                 int64_t count, float bound, int mode, int dtype, void *target) {
#define BODY(m, t) decode_blocks_avx512(rates, in, size, count, bound, m, t, target)
    OF_MODE_AND_DTYPE(BODY)
#undef BODY
}

#undef TARGET
