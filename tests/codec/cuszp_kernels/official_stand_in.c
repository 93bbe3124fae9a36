/* Behaves like libcuSZp.so of release V3, on the CPU and for one stored stream.
 *
 * It has the names and the arguments of the official library, notes every call, and makes its
 * mistakes: it reports 1024 bytes for one superblock, leaves blocks of zeros unwritten, and trusts
 * its arguments. Streams and values come from the test. */
#include <stddef.h>
#include <string.h>

typedef struct {
    unsigned x, y, z;
} uint3;

struct call {
    void *values;
    unsigned char *stream;
    size_t count, size;
    float bound;
    int dim;
    uint3 dims;
    int type, mode;
    void *queue;
    int calls;
} last;

static const unsigned char *prepared;
static size_t prepared_bytes;

/* What the next compress writes, or the float32 values that the next decompress does. */
void prepare(const unsigned char *bytes, size_t count) {
    prepared = bytes;
    prepared_bytes = count;
}

const struct call *last_call(void) { return &last; }

static void note(void *values, unsigned char *stream, size_t count, size_t size, float bound,
                 int dim, uint3 dims, int type, int mode, void *queue) {
    struct call call = {values, stream, count, size, bound, dim, dims, type, mode, queue};
    call.calls = last.calls + 1;
    last = call;
}

void cuSZp_compress(void *values, unsigned char *stream, size_t count, size_t *size, float bound,
                    int dim, uint3 dims, int type, int mode, void *queue) {
    note(values, stream, count, 0, bound, dim, dims, type, mode, queue);
    memcpy(stream, prepared, prepared_bytes);
    *size = count <= 32768 ? 1024 : prepared_bytes;
}

void cuSZp_decompress(void *values, unsigned char *stream, size_t count, size_t size, float bound,
                      int dim, uint3 dims, int type, int mode, void *queue) {
    note(values, stream, count, size, bound, dim, dims, type, mode, queue);
    for (size_t i = 0; i < count; ++i) {
        if (stream[i / 32]) memcpy((float *)values + i, prepared + 4 * i, 4);
    }
}

#ifndef OLDER
void _Z27cuSZp_compress_1D_plain_f32PfPhmPmfP11CUstream_st(void) {}
#endif
