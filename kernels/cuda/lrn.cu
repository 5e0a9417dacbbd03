// Local response normalisation across channels, its gradient, and its fusions with what lies beside it in a frozen stem.
//
// y = x / s^0.75 with s = 1 + 1e-4 / 5 * (the sum of x^2 over five neighbouring channels); channels outside count as zero. Source:
// BVLC/caffe lrn_layer.cpp, ACROSS_CHANNELS. The power is made of two square roots.

DEVICE float lrn_s(float squares) { return 1.f + 2e-5f * squares; }

// s^-0.75
DEVICE float lrn_power(float s) {
    const float root = rsqrtf(s);
    return root * (root * rsqrtf(root));
}

DEVICE void load_two(const bf16 *at, float &a, float &b) {
    const u32 word = load4(at);
    a = __uint_as_float(word << 16);
    b = __uint_as_float(word & 0xffff0000u);
}
DEVICE void load_two(const float *at, float &a, float &b) {
    const uint2 words = load8(at);
    a = __uint_as_float(words.x);
    b = __uint_as_float(words.y);
}

// The channels c - 2 to c + 9 of a pixel.
DEVICE void load_twelve(const T *pixel, int c, int channels, float (&x)[12]) {
    float own[8];
    load(pixel + c, own);
    x[0] = x[1] = x[10] = x[11] = 0.f;
    if (c > 0) load_two(pixel + c - 2, x[0], x[1]);
    if (c + 8 < channels) load_two(pixel + c + 8, x[10], x[11]);
#pragma unroll
    for (int k = 0; k < 8; k++) x[2 + k] = own[k];
}

// The eight channels in the middle, normalised.
DEVICE void normalise(const float (&x)[12], float (&y)[8]) {
    float q[12];
#pragma unroll
    for (int k = 0; k < 12; k++) q[k] = x[k] * x[k];
#pragma unroll
    for (int k = 0; k < 8; k++) y[k] = x[k + 2] * lrn_power(lrn_s(q[k] + q[k + 1] + q[k + 2] + q[k + 3] + q[k + 4]));
}

KERNEL(256) lrn(const T *x, T *y, int rows) {
    const int channels = 8 * blockDim.x, c = 8 * threadIdx.x, row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    float all[12], out[8];
    load_twelve(x + (u64)row * channels, c, channels, all);
    normalise(all, out);
    store(y + (u64)row * channels + c, out);
}
EXPORT(lrn)

// The gradient by x: g / s^0.75 - 2 * 0.75 * 1e-4 / 5 * x * (the sum of g * x / s^1.75 over the five windows that x is in).
KERNEL(256) lrn_gradient(const T *x, const T *gradient, T *out, int rows) {
    const int channels = 8 * blockDim.x, c = 8 * threadIdx.x, row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    const T *pixel = x + (u64)row * channels;
    // Channels c - 4 to c + 11.
    float middle[12], all[16], g[12];
    load_twelve(pixel, c, channels, middle);
    all[0] = all[1] = all[14] = all[15] = 0.f;
    if (c > 0) load_two(pixel + c - 4, all[0], all[1]);
    if (c + 8 < channels) load_two(pixel + c + 10, all[14], all[15]);
#pragma unroll
    for (int k = 0; k < 12; k++) all[2 + k] = middle[k];
    load_twelve(gradient + (u64)row * channels, c, channels, g);
    float q[16], through[12], result[8];
#pragma unroll
    for (int k = 0; k < 16; k++) q[k] = all[k] * all[k];
#pragma unroll
    for (int k = 0; k < 12; k++) {
        const float s = lrn_s(q[k] + q[k + 1] + q[k + 2] + q[k + 3] + q[k + 4]), power = lrn_power(s);
        through[k] = g[k] * all[k + 2] * power / s;
        if (k >= 2 && k < 10) result[k - 2] = g[k] * power;
    }
#pragma unroll
    for (int k = 0; k < 8; k++)
        result[k] -= 3e-5f * all[k + 4] * (through[k] + through[k + 1] + through[k + 2] + through[k + 3] + through[k + 4]);
    store(out + (u64)row * channels + c, result);
}
EXPORT(lrn_gradient)

// relu(x + bias), pooled 3x3 with stride 2, then normalised: after conv1. The neighbouring channels of a pooled pixel are in
// shared memory.
KERNEL(256) relu_pool_lrn(const T *x, const float *bias, T *y, int images, int height, int width) {
    __shared__ float pooled[8 * 256];
    const int channels = 8 * blockDim.x, c = 8 * threadIdx.x, out_height = height / 2, out_width = width / 2;
    const int pixel = blockIdx.x * blockDim.y + threadIdx.y, j = pixel % out_width, i = pixel / out_width % out_height;
    const int image = pixel / (out_width * out_height);
    float best[8];
#pragma unroll
    for (int k = 0; k < 8; k++) best[k] = -infinity();
    if (image < images) {
#pragma unroll
        for (int r = 0; r < 3; r++) {
#pragma unroll
            for (int s = 0; s < 3; s++) {
                if (2 * i + r >= height || 2 * j + s >= width) continue;
                float v[8];
                load(x + (((u64)image * height + 2 * i + r) * width + 2 * j + s) * channels + c, v);
#pragma unroll
                for (int k = 0; k < 8; k++) best[k] = v[k] > best[k] || v[k] != v[k] ? v[k] : best[k];
            }
        }
    }
#pragma unroll
    for (int k = 0; k < 8; k++) {
        // The bias and ReLU are monotonic: they may come after the maximum.
        best[k] = positive(best[k] + bias[c + k]);
        pooled[threadIdx.y * channels + c + k] = best[k];
    }
    __syncthreads();
    if (image >= images) return;
    float all[12], out[8];
#pragma unroll
    for (int k = 0; k < 12; k++) {
        const int at = c + k - 2;
        all[k] = k >= 2 && k < 10 ? best[k - 2] : at >= 0 && at < channels ? pooled[threadIdx.y * channels + at] : 0.f;
    }
    normalise(all, out);
    store(y + (u64)pixel * channels + c, out);
}
EXPORT_WITH_BARRIERS(relu_pool_lrn)

// relu(x + bias), normalised, then pooled 3x3 with stride 2: after conv2. A thread computes 2x2 outputs.
KERNEL(256) relu_lrn_pool(const T *x, const float *bias, T *y, int images, int height, int width) {
    const int channels = 8 * blockDim.x, c = 8 * threadIdx.x, out_height = height / 2, out_width = width / 2;
    const int rows = (out_height + 1) / 2, columns = (out_width + 1) / 2, quad = blockIdx.x * blockDim.y + threadIdx.y;
    if (quad >= images * rows * columns) return;
    const int j0 = 2 * (quad % columns), i0 = 2 * (quad / columns % rows), image = quad / (columns * rows);
    float b[12], best[4][8];
#pragma unroll
    for (int k = 0; k < 12; k++) {
        const int at = c + k - 2;
        b[k] = at >= 0 && at < channels ? bias[at] : 0.f;
    }
#pragma unroll
    for (int o = 0; o < 4; o++)
#pragma unroll
        for (int k = 0; k < 8; k++) best[o][k] = -infinity();
    // Row by row: unrolled, it would be 25 normalisations, which take the compiler seconds.
#pragma unroll 1
    for (int r = 0; r < 5; r++) {
#pragma unroll
        for (int s = 0; s < 5; s++) {
            const int i = 2 * i0 + r, j = 2 * j0 + s;
            if (i >= height || j >= width) continue;
            float all[12], v[8];
            load_twelve(x + (((u64)image * height + i) * width + j) * channels, c, channels, all);
#pragma unroll
            for (int k = 0; k < 12; k++) all[k] = positive(all[k] + b[k]);
            normalise(all, v);
#pragma unroll
            for (int o = 0; o < 4; o++) {
                const int row = r - 2 * (o >> 1), column = s - 2 * (o & 1);
                if (row < 0 || row > 2 || column < 0 || column > 2) continue;
#pragma unroll
                for (int k = 0; k < 8; k++) best[o][k] = v[k] > best[o][k] || v[k] != v[k] ? v[k] : best[o][k];
            }
        }
    }
#pragma unroll
    for (int o = 0; o < 4; o++) {
        const int i = i0 + (o >> 1), j = j0 + (o & 1);
        if (i < out_height && j < out_width) store(y + (((u64)image * out_height + i) * out_width + j) * channels + c, best[o]);
    }
}
EXPORT(relu_lrn_pool)
