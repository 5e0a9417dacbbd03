// 3x3 max pooling, forward. A thread computes 2x2 outputs of eight channels: windows overlap, and what they share is read once.
//
// Stride 1 pads by 1 and keeps the size; stride 2 does not pad and rounds up, as Caffe does: of h rows it makes h / 2. Padding
// never wins, the first of equal values does, and so does NaN. places: [outputs] bytes, the place of each maximum in its window, 0
// to 8, row by row; null where no gradient will be asked for.

template <int STRIDE>
DEVICE void pool(const T *x, T *y, u8 *places, int images, int height, int width, int out_height, int out_width) {
    const int channels = 8 * blockDim.x, c = 8 * threadIdx.x;
    const int rows = (out_height + 1) / 2, columns = (out_width + 1) / 2, quad = blockIdx.x * blockDim.y + threadIdx.y;
    if (quad >= images * rows * columns) return;
    const int j0 = 2 * (quad % columns), i0 = 2 * (quad / columns % rows), image = quad / (columns * rows);
    // The first pixel of the first window.
    const int top = STRIDE == 1 ? i0 - 1 : 2 * i0, left = STRIDE == 1 ? j0 - 1 : 2 * j0;
    float best[4][8];
    u32 place[4][8];
#pragma unroll
    for (int o = 0; o < 4; o++) {
        const int row = top + STRIDE * (o >> 1), column = left + STRIDE * (o & 1);
        const u32 first = (row < 0 ? 3 : 0) + (column < 0 ? 1 : 0);
#pragma unroll
        for (int k = 0; k < 8; k++) {
            best[o][k] = -infinity();
            place[o][k] = first;
        }
    }
    const T *image_x = x + (u64)image * height * width * channels + c;
#pragma unroll
    for (int r = 0; r < 3 + STRIDE; r++) {
#pragma unroll
        for (int s = 0; s < 3 + STRIDE; s++) {
            const int i = top + r, j = left + s;
            if (i < 0 || i >= height || j < 0 || j >= width) continue;
            float v[8];
            load(image_x + ((u64)i * width + j) * channels, v);
#pragma unroll
            for (int o = 0; o < 4; o++) {
                const int row = r - STRIDE * (o >> 1), column = s - STRIDE * (o & 1);
                if (row < 0 || row > 2 || column < 0 || column > 2) continue;
#pragma unroll
                for (int k = 0; k < 8; k++) {
                    const bool wins = v[k] > best[o][k] || v[k] != v[k];
                    best[o][k] = wins ? v[k] : best[o][k];
                    place[o][k] = wins ? (u32)(3 * row + column) : place[o][k];
                }
            }
        }
    }
#pragma unroll
    for (int o = 0; o < 4; o++) {
        const int i = i0 + (o >> 1), j = j0 + (o & 1);
        if (i >= out_height || j >= out_width) continue;
        const u64 at = (((u64)image * out_height + i) * out_width + j) * channels + c;
        store(y + at, best[o]);
        if (places) {
            uint2 bytes;
            bytes.x = place[o][0] | place[o][1] << 8 | place[o][2] << 16 | place[o][3] << 24;
            bytes.y = place[o][4] | place[o][5] << 8 | place[o][6] << 16 | place[o][7] << 24;
            store8(places + at, bytes);
        }
    }
}

KERNEL(256) pool_stride1(const T *x, T *y, u8 *places, int images, int height, int width) {
    pool<1>(x, y, places, images, height, width, height, width);
}
EXPORT(pool_stride1)

KERNEL(256) pool_stride2(const T *x, T *y, u8 *places, int images, int height, int width) {
    pool<2>(x, y, places, images, height, width, height / 2, width / 2);
}
EXPORT(pool_stride2)
