// From stored photographs to the input of the first convolution, and conv1's filters in the form that fits it.
//
// conv1 is 7x7 with stride 2 over 3 channels, which GPUs are slow at. In blocks of 2x2 pixels, each with 4 channels (blue, green,
// red, zero), it is exactly a 4x4 convolution with stride 1 over 16 channels: the filter gets a row and a column of zeros
// before the others, and 8 = 4 x 2.

// A photograph: row `place` of `held`, or row -1 - place of `fresh`.
DEVICE const u8 *photograph(const u8 *held, const u8 *fresh, int place, int side) {
    const u64 record = (u64)side * side * 3;
    return place >= 0 ? held + (u64)place * record : fresh + (u64)(-1 - place) * record;
}

// Where the pixel (i, j) of a photograph that is rotated by quarter turns (as numpy's rot90) was before.
DEVICE int unrotated(int i, int j, int turns, int side) {
    const int last = side - 1;
    const int y = turns == 0 ? i : turns == 1 ? j : turns == 2 ? last - i : last - j;
    const int x = turns == 0 ? j : turns == 1 ? last - i : turns == 2 ? last - j : i;
    return y * side + x;
}

DEVICE float channel(const u8 *pixel, int c) {
    const float mean = c == 0 ? 104.f : c == 1 ? 117.f : 123.f;
    return (float)pixel[c] - mean;
}

// out: [images][blocks][blocks][2x2 pixels][4 channels] with blocks = ceil(side / 2) + 3; zero outside of the photograph. Block
// b holds the pixels 2 b - 4 and 2 b - 3 of each direction, so the convolution needs no padding.
KERNEL(256) input_blocks(const u8 *held, const u8 *fresh, const int *place, const u8 *turns, T *out, int images, int side) {
    const int blocks = (side + 1) / 2 + 3;
    const int id = blockIdx.x * blockDim.x + threadIdx.x;
    if (id >= images * blocks * blocks) return;
    const int image = id / (blocks * blocks), within = id % (blocks * blocks);
    const int i0 = 2 * (within / blocks) - 4, j0 = 2 * (within % blocks) - 4, turned = turns[image] & 3;
    const u8 *source = photograph(held, fresh, place[image], side);
    float x[16];
#pragma unroll
    for (int p = 0; p < 4; p++) {
        const int i = i0 + (p >> 1), j = j0 + (p & 1);
        const bool inside = i >= 0 && i < side && j >= 0 && j < side;
        const u8 *pixel = source + 3 * (u64)(inside ? unrotated(i, j, turned, side) : 0);
#pragma unroll
        for (int c = 0; c < 3; c++) x[4 * p + c] = inside ? channel(pixel, c) : 0.f;
        x[4 * p + 3] = 0.f;
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float eight[8];
#pragma unroll
        for (int k = 0; k < 8; k++) eight[k] = x[8 * half + k];
        store(out + (u64)id * 16 + 8 * half, eight);
    }
}
EXPORT(input_blocks)

// The number of element (filter, channel, row, column) of conv1's filters [filters][3][7][7] in [filters][4][4][2x2][4].
DEVICE int in_blocks(int element) {
    const int column = element % 7 + 1, row = element / 7 % 7 + 1, c = element / 49 % 3, filter = element / 147;
    return (((filter * 4 + row / 2) * 4 + column / 2) * 4 + row % 2 * 2 + column % 2) * 4 + c;
}

// conv1's filters, [filters][3][7][7], as filters over blocks; what belongs to no filter must be zero before.
KERNEL(256) conv1_filters(const float *filters, T *out, int elements) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < elements) put(out + in_blocks(at), filters[at]);
}
EXPORT(conv1_filters)

// The other way, for the gradient.
KERNEL(256) conv1_filter_gradient(const T *blocks, float *gradient, int elements) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < elements) gradient[at] = value(blocks[in_blocks(at)]);
}
EXPORT(conv1_filter_gradient)
