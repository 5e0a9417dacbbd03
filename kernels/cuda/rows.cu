// Rows in blocks of memory by number: the cache of the frozen layers' outputs. A row is `words` times 16 bytes.

// Row r is the one with the number r % rows of block r / rows.
struct Blocks {
    const uint4 *block[256];
    int rows, unused;
#ifdef FOVEA_EMULATION
    template <class Visit> void pointers(Visit visit) {
        for (const uint4 *&b : block) visit(b);
    }
#endif
};

// out[i] = held[place[i]], or fresh[-1 - place[i]] where that is negative.
KERNEL(256) pick_rows(Blocks held, const uint4 *fresh, const int *place, uint4 *out, int words) {
    const int from = place[blockIdx.y];
    const uint4 *source = from >= 0 ? held.block[from / held.rows] + (u64)(from % held.rows) * words
                                    : fresh + (u64)(-1 - from) * words;
    for (int word = blockIdx.x * blockDim.x + threadIdx.x; word < words; word += gridDim.x * blockDim.x)
        store16(out + (u64)blockIdx.y * words + word, load16(source + word));
}
EXPORT(pick_rows)

// block[to[i]] = fresh[from[i]]
KERNEL(256) keep_rows(const uint4 *fresh, const int *from, const int *to, uint4 *block, int words) {
    const uint4 *source = fresh + (u64)from[blockIdx.y] * words;
    uint4 *place = block + (u64)to[blockIdx.y] * words;
    for (int word = blockIdx.x * blockDim.x + threadIdx.x; word < words; word += gridDim.x * blockDim.x)
        store16(place + word, load16(source + word));
}
EXPORT(keep_rows)
