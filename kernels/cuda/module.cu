// The forward pass of an inception module between its products and convolutions.
//
//      +-> 1x1 ------------------+
//      +-> 3x3_reduce --> 3x3 ---+
// x ---+-> 5x5_reduce --> 5x5 ---+--> y, side by side
//      +-> pool ----> pool_proj -+
//
// The three convolutions that read x are one product, `joint`: [rows][1x1 | 3x3_reduce | 5x5_reduce], without bias and ReLU. A row
// is a pixel.

// Rows that a thread handles: all are loaded before the first is stored.
#define ROWS 4

// The two reductions of `joint`, rectified, each by itself, as the convolutions after them want them.
KERNEL(256) split(const T *joint, const float *bias3, const float *bias5, T *three, T *five, int rows, int one, int reduce3, int reduce5) {
    const int c = 8 * threadIdx.x, width = one + reduce3 + reduce5;
    const bool first = c < reduce3;
    const int column = first ? c : c - reduce3, out_width = first ? reduce3 : reduce5;
    const float *bias = first ? bias3 : bias5;
    T *out = first ? three : five;
    float b[8], x[ROWS][8];
#pragma unroll
    for (int k = 0; k < 8; k++) b[k] = bias[column + k];
    const int row0 = blockIdx.x * blockDim.y * ROWS + threadIdx.y;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = row0 + i * blockDim.y;
        if (row < rows) load(joint + (u64)row * width + one + c, x[i]);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = row0 + i * blockDim.y;
        if (row >= rows) continue;
#pragma unroll
        for (int k = 0; k < 8; k++) x[i][k] = positive(x[i][k] + b[k]);
        store(out + (u64)row * out_width + column, x[i]);
    }
}
EXPORT(split)

// y = [1x1 of joint | 3x3 | 5x5 | pool_proj], each with its bias, rectified.
KERNEL(256) join(const T *joint, const T *three, const T *five, const T *pool, const float *bias1, const float *bias3, const float *bias5,
                 const float *bias_pool, T *y, int rows, int joint_width, int one, int out3, int out5, int out_pool) {
    const int c = 8 * threadIdx.x, width = one + out3 + out5 + out_pool;
    const T *from;
    const float *bias;
    int column = c, from_width;
    if (c < one) {
        from = joint; bias = bias1; from_width = joint_width;
    } else if (c < one + out3) {
        from = three; bias = bias3; from_width = out3; column -= one;
    } else if (c < one + out3 + out5) {
        from = five; bias = bias5; from_width = out5; column -= one + out3;
    } else {
        from = pool; bias = bias_pool; from_width = out_pool; column -= one + out3 + out5;
    }
    float b[8], x[ROWS][8];
#pragma unroll
    for (int k = 0; k < 8; k++) b[k] = bias[column + k];
    const int row0 = blockIdx.x * blockDim.y * ROWS + threadIdx.y;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = row0 + i * blockDim.y;
        if (row < rows) load(from + (u64)row * from_width + column, x[i]);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = row0 + i * blockDim.y;
        if (row >= rows) continue;
#pragma unroll
        for (int k = 0; k < 8; k++) x[i][k] = positive(x[i][k] + b[k]);
        store(y + (u64)row * width + c, x[i]);
    }
}
EXPORT(join)

// x becomes relu(x + bias), in place: after a convolution of the stem.
KERNEL(256) bias_relu(T *x, const float *bias, int rows) {
    const int c = 8 * threadIdx.x, width = 8 * blockDim.x, row0 = blockIdx.x * blockDim.y * ROWS + threadIdx.y;
    float b[8], all[ROWS][8];
#pragma unroll
    for (int k = 0; k < 8; k++) b[k] = bias[c + k];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = row0 + i * blockDim.y;
        if (row < rows) load(x + (u64)row * width + c, all[i]);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = row0 + i * blockDim.y;
        if (row >= rows) continue;
#pragma unroll
        for (int k = 0; k < 8; k++) all[i][k] = positive(all[i][k] + b[k]);
        store(x + (u64)row * width + c, all[i]);
    }
}
EXPORT(bias_relu)
