// The backward pass between products and convolutions: gradients are gathered from where an output went, masked by its ReLU,
// handed to the branches, and added up for the biases.
//
// Nothing is scattered: a pixel adds up what the windows that contain it give it, in the order of the windows. A thread handles
// 2x2 pixels of eight channels, whose windows are shared.

// Where a gradient comes from.
#define SAME 1  // a pooling of stride 1 (pool_gradient, places), and `direct`, the gradient by the other readers
#define HALF 2  // a pooling of stride 2 (pool_gradient, places)
#define MEAN 3  // the average over each image: `mean`, [images][channels], divided by the number of pixels already

// Adds to `sum` what the window in row `a`, column `b` of the 2x2 pixels' windows gives them.
template <int SOURCE>
DEVICE void from_window(const T *pool_gradient, const u8 *places, u64 at, int a, int b, float (&sum)[4][8]) {
    float g[8];
    load(pool_gradient + at, g);
    const uint2 bytes = load8(places + at);
#pragma unroll
    for (int p = 0; p < 4; p++) {
        // The pixel's place in the window.
        const int row = SOURCE == SAME ? (p >> 1) - a + 2 : (p >> 1) + 2 - 2 * a;
        const int column = SOURCE == SAME ? (p & 1) - b + 2 : (p & 1) + 2 - 2 * b;
        if (row < 0 || row > 2 || column < 0 || column > 2) continue;
#pragma unroll
        for (int k = 0; k < 8; k++) {
            const u32 place = ((k < 4 ? bytes.x : bytes.y) >> (8 * (k & 3))) & 255u;
            sum[p][k] += place == (u32)(3 * row + column) ? g[k] : 0.f;
        }
    }
}

// The gradients of the 2x2 pixels from (i0, j0) on.
template <int SOURCE>
DEVICE void gathered(const T *direct, const T *pool_gradient, const u8 *places, const float *mean, int image, int i0, int j0, int height,
                     int width, int channels, int c, float (&sum)[4][8]) {
#pragma unroll
    for (int p = 0; p < 4; p++) clear(sum[p]);
    if (SOURCE == MEAN) {
#pragma unroll
        for (int p = 0; p < 4; p++)
#pragma unroll
            for (int k = 0; k < 8; k++) sum[p][k] = mean[(u64)image * channels + c + k];
        return;
    }
    const int out_height = SOURCE == SAME ? height : height / 2, out_width = SOURCE == SAME ? width : width / 2;
    const int first_row = SOURCE == SAME ? i0 - 1 : i0 / 2 - 1, first_column = SOURCE == SAME ? j0 - 1 : j0 / 2 - 1;
#pragma unroll
    for (int a = 0; a < (SOURCE == SAME ? 4 : 2); a++) {
#pragma unroll
        for (int b = 0; b < (SOURCE == SAME ? 4 : 2); b++) {
            const int row = first_row + a, column = first_column + b;
            if (row < 0 || row >= out_height || column < 0 || column >= out_width) continue;
            const u64 at = (((u64)image * out_height + row) * out_width + column) * channels + c;
            from_window<SOURCE>(pool_gradient, places, at, a, b, sum);
        }
    }
    if (SOURCE == SAME) {
#pragma unroll
        for (int p = 0; p < 4; p++) {
            const int i = i0 + (p >> 1), j = j0 + (p & 1);
            if (i >= height || j >= width) continue;
            float g[8];
            load(direct + (((u64)image * height + i) * width + j) * channels + c, g);
#pragma unroll
            for (int k = 0; k < 8; k++) sum[p][k] += g[k];
        }
    }
}

// The gradient by a module's output y, masked, to its four branches: to the first columns of `joint` ([rows][joint_width]), and to
// three tensors of their own. sums: [blocks][channels], the sums over the block's pixels.
template <int SOURCE>
DEVICE void branches(const T *direct, const T *pool_gradient, const u8 *places, const float *mean, const T *y, T *joint, T *three, T *five,
                     T *pool, float *sums, int images, int height, int width, int joint_width, int one, int out3, int out5, int out_pool) {
    const int channels = one + out3 + out5 + out_pool, c = 8 * threadIdx.x;
    T *out;
    int out_width;
    if (c < one) {
        out = joint + c; out_width = joint_width;
    } else if (c < one + out3) {
        out = three + (c - one); out_width = out3;
    } else if (c < one + out3 + out5) {
        out = five + (c - one - out3); out_width = out5;
    } else {
        out = pool + (c - one - out3 - out5); out_width = out_pool;
    }
    const int rows = (height + 1) / 2, columns = (width + 1) / 2, quads = images * rows * columns;
    float total[8];
    clear(total);
    for (int quad = blockIdx.x * blockDim.y + threadIdx.y; quad < quads; quad += gridDim.x * blockDim.y) {
        const int j0 = 2 * (quad % columns), i0 = 2 * (quad / columns % rows), image = quad / (columns * rows);
        float sum[4][8];
        gathered<SOURCE>(direct, pool_gradient, places, mean, image, i0, j0, height, width, channels, c, sum);
#pragma unroll
        for (int p = 0; p < 4; p++) {
            const int i = i0 + (p >> 1), j = j0 + (p & 1);
            if (i >= height || j >= width) continue;
            const u64 row = ((u64)image * height + i) * width + j;
            float activation[8];
            load(y + row * channels + c, activation);
#pragma unroll
            for (int k = 0; k < 8; k++) {
                sum[p][k] = activation[k] > 0.f ? sum[p][k] : 0.f;
                total[k] += sum[p][k];
            }
            store(out + row * out_width, sum[p]);
        }
    }
    add_up(total, sums);
}

#define BRANCHES_AFTER                                                                                                           \
    const T *y, T *joint, T *three, T *five, T *pool, float *sums, int images, int height, int width, int joint_width, int one,   \
        int out3, int out5, int out_pool
#define AFTER y, joint, three, five, pool, sums, images, height, width, joint_width, one, out3, out5, out_pool

KERNEL(256) branches_same(const T *direct, const T *pool_gradient, const u8 *places, BRANCHES_AFTER) {
    branches<SAME>(direct, pool_gradient, places, 0, AFTER);
}
EXPORT_WITH_BARRIERS(branches_same)

KERNEL(256) branches_half(const T *pool_gradient, const u8 *places, BRANCHES_AFTER) {
    branches<HALF>(0, pool_gradient, places, 0, AFTER);
}
EXPORT_WITH_BARRIERS(branches_half)

KERNEL(256) branches_mean(const float *mean, BRANCHES_AFTER) { branches<MEAN>(0, 0, 0, mean, AFTER); }
EXPORT_WITH_BARRIERS(branches_mean)

// The gradient itself, unmasked, where something else than a module's ReLU comes before.
template <int SOURCE>
DEVICE void plain(const T *direct, const T *pool_gradient, const u8 *places, T *out, int images, int height, int width) {
    const int channels = 8 * blockDim.x, c = 8 * threadIdx.x;
    const int rows = (height + 1) / 2, columns = (width + 1) / 2, quad = blockIdx.x * blockDim.y + threadIdx.y;
    if (quad >= images * rows * columns) return;
    const int j0 = 2 * (quad % columns), i0 = 2 * (quad / columns % rows), image = quad / (columns * rows);
    float sum[4][8];
    gathered<SOURCE>(direct, pool_gradient, places, 0, image, i0, j0, height, width, channels, c, sum);
#pragma unroll
    for (int p = 0; p < 4; p++) {
        const int i = i0 + (p >> 1), j = j0 + (p & 1);
        if (i < height && j < width) store(out + (((u64)image * height + i) * width + j) * channels + c, sum[p]);
    }
}

KERNEL(256) plain_same(const T *direct, const T *pool_gradient, const u8 *places, T *out, int images, int height, int width) {
    plain<SAME>(direct, pool_gradient, places, out, images, height, width);
}
EXPORT(plain_same)

KERNEL(256) plain_half(const T *pool_gradient, const u8 *places, T *out, int images, int height, int width) {
    plain<HALF>(0, pool_gradient, places, out, images, height, width);
}
EXPORT(plain_half)

// The gradients by the two reductions, masked, into the last columns of `joint`. sums: [blocks][reduce3 + reduce5].
KERNEL(256) reductions(const T *gradient3, const T *gradient5, const T *three, const T *five, T *joint, float *sums, int rows, int one,
                       int reduce3, int reduce5) {
    const int c = 8 * threadIdx.x, width = one + reduce3 + reduce5;
    const bool first = c < reduce3;
    const int column = first ? c : c - reduce3, from_width = first ? reduce3 : reduce5;
    const T *gradient = (first ? gradient3 : gradient5) + column, *activation = (first ? three : five) + column;
    float total[8];
    clear(total);
    for (int row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += gridDim.x * blockDim.y) {
        float g[8], y[8];
        load(gradient + (u64)row * from_width, g);
        load(activation + (u64)row * from_width, y);
#pragma unroll
        for (int k = 0; k < 8; k++) {
            g[k] = y[k] > 0.f ? g[k] : 0.f;
            total[k] += g[k];
        }
        store(joint + (u64)row * width + one + c, g);
    }
    add_up(total, sums);
}
EXPORT_WITH_BARRIERS(reductions)

// The gradient by y, masked in place: before a convolution of the stem. sums: [blocks][channels].
KERNEL(256) masked(T *gradient, const T *y, float *sums, int rows) {
    const int c = 8 * threadIdx.x, width = 8 * blockDim.x;
    float total[8];
    clear(total);
    for (int row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += gridDim.x * blockDim.y) {
        float g[8], activation[8];
        load(gradient + (u64)row * width + c, g);
        load(y + (u64)row * width + c, activation);
#pragma unroll
        for (int k = 0; k < 8; k++) {
            g[k] = activation[k] > 0.f ? g[k] : 0.f;
            total[k] += g[k];
        }
        store(gradient + (u64)row * width + c, g);
    }
    add_up(total, sums);
}
EXPORT_WITH_BARRIERS(masked)

// A bias: `columns` columns of the sums [blocks][width] from `from` on, added up over the blocks into `to` and what follows.
struct Bias {
    const float *from;
    int width, blocks, columns, to;
};

// As many as GoogLeNet's trunk has.
struct Biases {
    Bias bias[57];
#ifdef FOVEA_EMULATION
    template <class Visit> void pointers(Visit visit) {
        for (Bias &b : bias) visit(b.from);
    }
#endif
};

// All gradients by biases at once. blockIdx.y is the bias, and a block adds up 32 columns, in the order of the blocks.
KERNEL(1024) bias_gradients(Biases all, float *out) {
    __shared__ float sums[32][33];
    const Bias bias = all.bias[blockIdx.y];
    const int column = 32 * blockIdx.x + threadIdx.x;
    if (32 * (int)blockIdx.x >= bias.columns) return;
    float sum = 0.f;
    if (column < bias.columns)
        for (int block = threadIdx.y; block < bias.blocks; block += 32) sum += bias.from[(u64)block * bias.width + column];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < bias.columns) {
        sum = 0.f;
        for (int part = 0; part < 32; part++) sum += sums[part][threadIdx.x];
        out[bias.to + column] = sum;
    }
}
EXPORT_WITH_BARRIERS(bias_gradients)
