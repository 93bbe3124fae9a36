// cuSZp streams of 1-D float32 data (release V3), modes fixed, plain and outlier.
//
// The layout is in docs/formats.md. Encoding runs rates, lengths, starts, payloads; decoding runs
// lengths, starts, decode. Nothing here waits for the host: sizes and faults stay on the device.
//
// Four threads, a quad, share a block of 32 elements. A thread owns eight neighbours, and with them
// one byte of every bit plane, so that planes become elements by transposing 8 x 8 bits in
// registers, and eight 16-bit results leave in one store of 16 bytes. A warp has eight blocks.
//
// There is no include: the file compiles with NVRTC alone.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

enum Mode { FIXED = 0, PLAIN = 1, OUTLIER = 2 };

constexpr int EACH = 8;           // elements of one thread
constexpr int QUAD = 4;           // threads of one block of 32 elements
constexpr int TILE = 32;          // blocks whose rates one warp scans
constexpr int SUPERBLOCK = 1024;  // blocks to which the rate area is padded
constexpr u32 WARP = 0xffffffffu;

// ---- Types that values are stored in ------------------------------------------------------------

// Conversions are spelt out, because the headers that have them are no part of NVRTC. `narrow`
// rounds to nearest even and takes no NaN: a quantum times a finite bound is none.

struct F32 {
    typedef float Word;
    static __device__ float widen(float word) { return word; }
    static __device__ float narrow(float x) { return x; }
};

struct Bf16 {
    typedef u16 Word;
    static __device__ float widen(u16 word) { return __uint_as_float(u32(word) << 16); }
    static __device__ u16 narrow(float x) {
        const u32 bits = __float_as_uint(x);
        return u16((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
};

struct Fp16 {
    typedef u16 Word;
    static __device__ float widen(u16 word) {
        // Read as a float32, the bits are too small by 2^112; the product is exact.
        const u32 bits = (word & 0x7fffu) << 13;
        u32 wide = __float_as_uint(__fmul_rn(__uint_as_float(bits), 0x1p112f));
        if (bits >= 0x0f800000u) wide |= 0x7f800000u;  // infinities and NaN
        return __uint_as_float(wide | (word & 0x8000u) << 16);
    }
    static __device__ u16 narrow(float x) {
        const u32 bits = __float_as_uint(x);
        const u32 size = bits & 0x7fffffffu;
        u32 half;
        if (size < 0x38800000u) {
            // Below 2^-14 a half has steps of 2^-24, and so has a float32 just above 0.5.
            half = __float_as_uint(__fadd_rn(__uint_as_float(size), 0.5f)) - 0x3f000000u;
        } else {
            half = ((size + 0xfffu + ((size >> 13) & 1u)) >> 13) - (112u << 10);
            if (half > 0x7c00u) half = 0x7c00u;
        }
        return u16(half | (bits >> 16 & 0x8000u));
    }
};

template <class Word>
struct alignas(16) Eight {
    Word word[EACH];
};

// A tensor may be a slice that starts anywhere; eight words go at once only from aligned bases.
template <class Word>
__device__ bool whole(const Word* base, i64 first, i64 count) {
    return first + EACH <= count && (u64(base) & 15u) == 0;
}

template <class Type>
__device__ void load(const typename Type::Word* values, i64 first, i64 count, float (&x)[EACH]) {
    Eight<typename Type::Word> eight = {};
    if (whole(values, first, count)) {
        eight = *reinterpret_cast<const Eight<typename Type::Word>*>(values + first);
    } else {
        for (int i = 0; i < EACH; ++i) {
            if (first + i < count) eight.word[i] = values[first + i];
        }
    }
    for (int i = 0; i < EACH; ++i) x[i] = Type::widen(eight.word[i]);
}

template <class Type>
__device__ void store(typename Type::Word* out, i64 first, i64 count, const float (&x)[EACH]) {
    Eight<typename Type::Word> eight;
    for (int i = 0; i < EACH; ++i) eight.word[i] = Type::narrow(x[i]);
    if (whole(out, first, count)) {
        *reinterpret_cast<Eight<typename Type::Word>*>(out + first) = eight;
    } else {
        for (int i = 0; i < EACH; ++i) {
            if (first + i < count) out[first + i] = eight.word[i];
        }
    }
}

// ---- Numbers ------------------------------------------------------------------------------------

// Integers wrap as in the official library, so they are unsigned until a sign matters.

// The sum and the product are rounded one by one: fused, they would give other bytes.
__device__ u32 quantise(float x, float inverse) {
    const float y = __fmul_rn(x, inverse);
    const u32 truncated = u32(__float2int_rz(__fadd_rn(y, 0.5f)));
    return truncated - (y >= -0.5f ? 0u : 1u);  // NaN compares false
}

__device__ float dequantise(u32 q, float bound) {
    const float x = __fmul_rn(__int2float_rn(int(q)), bound);
    return __fadd_rn(x, x);
}

__device__ u32 magnitude(u32 d) { return int(d) < 0 ? 0u - d : d; }

__device__ int bit_length(u32 x) { return 32 - __clz(int(x)); }

// Bit c of byte r becomes bit r of byte c: swap 1 x 1 corners, then 2 x 2, then 4 x 4.
__device__ u64 transpose(u64 x) {
    u64 swap = (x ^ (x >> 7)) & 0x00aa00aa00aa00aaull;
    x ^= swap ^ (swap << 7);
    swap = (x ^ (x >> 14)) & 0x0000cccc0000ccccull;
    x ^= swap ^ (swap << 14);
    swap = (x ^ (x >> 28)) & 0x00000000f0f0f0f0ull;
    return x ^ swap ^ (swap << 28);
}

// Inclusive sum over the lanes of a group of `width` neighbours.
template <class Number>
__device__ Number scan(Number x, int width) {
    const int lane = int(threadIdx.x) & (width - 1);
    for (int step = 1; step < width; step *= 2) {
        const Number before = __shfl_up_sync(WARP, x, step, width);
        if (lane >= step) x += before;
    }
    return x;
}

// ---- Rates and places ---------------------------------------------------------------------------

struct Shape {
    int head;    // bytes of the first magnitude, stored apart
    int planes;  // bit planes
    u32 length;  // bytes of payload
    bool valid;  // whether an encoder writes such a rate
};

__device__ Shape shape_of(u32 rate, int mode) {
    const bool apart = mode == OUTLIER && (rate & 0x80u);
    const int head = apart ? int(rate >> 5 & 3u) + 1 : 0;
    const int planes = int(rate & 31u);
    const u32 length = apart || planes ? u32(head + 4 + 4 * planes) : 0u;
    return {head, planes, length, apart || rate < 32u};
}

__device__ i64 thread_id() { return i64(blockIdx.x) * blockDim.x + threadIdx.x; }

// The shape and first byte of the block that this thread's quad works on. Every warp scans the
// rates of its tile by itself, which costs less than a barrier.
__device__ i64 locate(const u8* stream, int mode, const u32* tiles, const i64* supers,
                      Shape& shape) {
    const i64 block = thread_id() / QUAD;
    const i64 tile = block / TILE;
    const u32 rate = stream[tile * TILE + (threadIdx.x & 31u)];
    const u32 length = shape_of(rate, mode).length;
    const u32 start = scan(length, TILE) - length;
    const int own = int(block % TILE);
    shape = shape_of(__shfl_sync(WARP, rate, own), mode);
    return supers[block / SUPERBLOCK] + tiles[tile] + __shfl_sync(WARP, start, own);
}

// Whether not even the first block of this warp has an element: then the whole warp may leave.
__device__ bool idle(i64 count) {
    return (thread_id() & ~i64(31)) * EACH >= count;
}

// Sums of one superblock: the bytes before each tile in it, and its bytes, or -1 where a rate is
// none that an encoder writes. One thread a block.
extern "C" __global__ void __launch_bounds__(1024)
lengths(const u8* stream, i64 blocks, int mode, u32* tiles, i64* supers) {
    __shared__ u32 sums[32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    const i64 block = thread_id();
    const u32 rate = stream[block];
    const Shape shape = shape_of(rate, mode);
    const u32 end = scan(shape.length, TILE);
    if (lane == 31) sums[warp] = end;
    const int damaged = __syncthreads_or(!shape.valid || (rate && block >= blocks));
    if (warp == 0) {
        const u32 after = scan(sums[lane], 32);
        tiles[i64(blockIdx.x) * 32 + lane] = after - sums[lane];
        if (lane == 31) supers[blockIdx.x] = damaged ? -1 : i64(after);
    }
}

// Turns the bytes of `count` superblocks into their first bytes, the rate area being before them,
// and puts the size of the stream that they call for into `needed`, or -1. One thread block: there
// are few superblocks, and a thread takes a run of them.
extern "C" __global__ void __launch_bounds__(1024)
starts(i64* supers, i64 count, i64 area, i64* needed) {
    __shared__ i64 sums[32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    const i64 run = (count + 1023) / 1024;
    const i64 first = threadIdx.x * run;
    const i64 last = first + run < count ? first + run : count;
    i64 sum = 0;
    bool damaged = false;
    for (i64 i = first; i < last; ++i) {
        sum += supers[i];
        damaged |= supers[i] < 0;
    }
    const i64 end = scan(sum, 32);
    if (lane == 31) sums[warp] = end;
    const int any = __syncthreads_or(damaged);
    i64 at = area + end - sum;
    for (int before = 0; before < warp; ++before) at += sums[before];
    for (i64 i = first; i < last; ++i) {
        const i64 bytes = supers[i];
        supers[i] = at;
        at += bytes;
    }
    if (threadIdx.x == 1023) *needed = any ? -1 : at;
}

// ---- Encoding -----------------------------------------------------------------------------------

// What the stream holds for this thread's elements: quanta, or their steps from one to the next.
// Past the last element it is 0.
template <class Type>
__device__ void residuals(const typename Type::Word* values, i64 count, float inverse, int mode,
                          u32 (&d)[EACH]) {
    const i64 first = thread_id() * EACH;
    float x[EACH];
    load<Type>(values, first, count, x);
    for (int i = 0; i < EACH; ++i) d[i] = quantise(x[i], inverse);
    if (mode != FIXED) {
        const u32 before = __shfl_up_sync(WARP, d[EACH - 1], 1, QUAD);
        for (int i = EACH - 1; i > 0; --i) d[i] -= d[i - 1];
        if (threadIdx.x % QUAD) d[0] -= before;
    }
    for (int i = 0; i < EACH; ++i) {
        if (first + i >= count) d[i] = 0;
    }
}

template <class Type>
__device__ void rates(const typename Type::Word* values, i64 count, float inverse, int mode,
                      u8* stream) {
    const bool leads = threadIdx.x % QUAD == 0;
    u32 d[EACH];
    residuals<Type>(values, count, inverse, mode, d);
    // The length of the largest is that of all of them or-ed. A magnitude of 2^31 counts as 0.
    u32 rest = 0;
    for (int i = 1; i < EACH; ++i) rest |= magnitude(d[i]) & 0x7fffffffu;
    const u32 first = magnitude(d[0]) & 0x7fffffffu;
    const u32 outlier = __shfl_sync(WARP, first, 0, QUAD);
    if (!leads) rest |= first;
    rest |= __shfl_xor_sync(WARP, rest, 1);
    rest |= __shfl_xor_sync(WARP, rest, 2);
    const int planes = bit_length(rest | outlier), fewer = bit_length(rest);
    const int head = (bit_length(outlier) + 7) / 8;
    const int together = planes ? 4 + 4 * planes : 0;
    u32 rate = planes;
    if (mode == OUTLIER && together > 4 + 4 * fewer + head) rate = 0x80u | (head - 1) << 5 | fewer;
    if (leads) stream[thread_id() / QUAD] = u8(rate);
}

template <class Type>
__device__ void payloads(const typename Type::Word* values, i64 count, float inverse, int mode,
                         const u32* tiles, const i64* supers, u8* stream) {
    if (idle(count)) return;
    u32 d[EACH];
    residuals<Type>(values, count, inverse, mode, d);
    Shape shape;
    u8* payload = stream + locate(stream, mode, tiles, supers, shape);
    if (shape.length == 0) return;
    u32 signs = 0;
    for (int i = 0; i < EACH; ++i) {
        signs |= (d[i] >> 31) << (7 - i);
        d[i] = magnitude(d[i]);
    }
    const int quarter = threadIdx.x % QUAD;
    if (shape.head && quarter == 0) {
        for (int byte = 0; byte < shape.head; ++byte) payload[byte] = u8(d[0] >> 8 * byte);
        d[0] = 0;
    }
    u8* words = payload + shape.head + quarter;
    words[0] = u8(signs);
    for (int base = 0; base < shape.planes; base += 8) {
        u64 elements = 0;
        for (int i = 0; i < EACH; ++i) elements |= u64(d[i] >> base & 255u) << (56 - 8 * i);
        const u64 planes = transpose(elements);
        for (int p = 0; p < 8 && base + p < shape.planes; ++p) {
            words[4 + 4 * (base + p)] = u8(planes >> 8 * p);
        }
    }
}

// ---- Decoding -----------------------------------------------------------------------------------

// Writes nothing where the rates do not call for exactly `size` bytes, so that no damaged stream
// is read past its end; the host learns of it from `needed`.
template <class Type>
__device__ void decode(const u8* stream, i64 size, i64 count, float bound, int mode,
                       const u32* tiles, const i64* supers, const i64* needed,
                       typename Type::Word* out) {
    if (*needed != size || idle(count)) return;
    Shape shape;
    const u8* payload = stream + locate(stream, mode, tiles, supers, shape);
    const int quarter = threadIdx.x % QUAD;
    u32 q[EACH] = {};
    if (shape.length) {
        const u8* words = payload + shape.head + quarter;
        const u32 signs = words[0];
#pragma unroll
        for (int base = 0; base < 32; base += 8) {
            if (base >= shape.planes) break;
            u64 planes = 0;
#pragma unroll
            for (int p = 0; p < 8; ++p) {
                if (base + p < shape.planes) planes |= u64(words[4 + 4 * (base + p)]) << 8 * p;
            }
            const u64 elements = transpose(planes);
            for (int i = 0; i < EACH; ++i) q[i] |= u32(elements >> (56 - 8 * i) & 255u) << base;
        }
        if (shape.head && quarter == 0) {
            q[0] = 0;
            for (int byte = 0; byte < shape.head; ++byte) q[0] |= u32(payload[byte]) << 8 * byte;
        }
        for (int i = 0; i < EACH; ++i) {
            if (signs >> (7 - i) & 1u) q[i] = 0u - q[i];
        }
    }
    if (mode != FIXED) {
        for (int i = 1; i < EACH; ++i) q[i] += q[i - 1];
        const u32 before = scan(q[EACH - 1], QUAD) - q[EACH - 1];
        for (int i = 0; i < EACH; ++i) q[i] += before;
    }
    float x[EACH];
    for (int i = 0; i < EACH; ++i) x[i] = dequantise(q[i], bound);
    store<Type>(out, thread_id() * EACH, count, x);
}

// ---- Kernels by type ----------------------------------------------------------------------------

#define KERNELS_FOR(name, Type)                                                                   \
    extern "C" __global__ void __launch_bounds__(256)                                             \
    rates_##name(const Type::Word* values, i64 count, float inverse, int mode, u8* stream) {      \
        rates<Type>(values, count, inverse, mode, stream);                                        \
    }                                                                                             \
    extern "C" __global__ void __launch_bounds__(256)                                             \
    payloads_##name(const Type::Word* values, i64 count, float inverse, int mode,                 \
                    const u32* tiles, const i64* supers, u8* stream) {                            \
        payloads<Type>(values, count, inverse, mode, tiles, supers, stream);                      \
    }                                                                                             \
    extern "C" __global__ void __launch_bounds__(256)                                             \
    decode_##name(const u8* stream, i64 size, i64 count, float bound, int mode, const u32* tiles, \
                  const i64* supers, const i64* needed, Type::Word* out) {                        \
        decode<Type>(stream, size, count, bound, mode, tiles, supers, needed, out);               \
    }

KERNELS_FOR(f32, F32)
KERNELS_FOR(bf16, Bf16)
KERNELS_FOR(fp16, Fp16)
