// The end of the network, all in float: average over each image, dropout, the classifier, its loss, and their gradients.

// ChaCha with 8 rounds, as the crate rand_chacha has it: a 64-bit counter of blocks from 0 on, stream 0.
DEVICE u32 rotated(u32 x, int by) { return x << by | x >> (32 - by); }
DEVICE void quarter_round(u32 &a, u32 &b, u32 &c, u32 &d) {
    a += b; d = rotated(d ^ a, 16);
    c += d; b = rotated(b ^ c, 12);
    a += b; d = rotated(d ^ a, 8);
    c += d; b = rotated(b ^ c, 7);
}

// What the classifier's inputs are multiplied by: 0 where the stream's number is below `threshold`, `keep` elsewhere. keys:
// [images][8], the key of each image's stream; out: [images][units]. A thread makes one block of 16 numbers.
KERNEL(256) dropout_masks(const u32 *keys, float *out, int images, int units, u32 threshold, float keep) {
    const int blocks = (units + 15) / 16, id = blockIdx.x * blockDim.x + threadIdx.x;
    if (id >= images * blocks) return;
    const int image = id / blocks, block = id % blocks;
    u32 start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u, 0, 0, 0, 0, 0, 0, 0, 0, (u32)block, 0, 0, 0}, x[16];
#pragma unroll
    for (int i = 0; i < 8; i++) start[4 + i] = keys[8 * image + i];
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = start[i];
#pragma unroll
    for (int round = 0; round < 4; round++) {
        quarter_round(x[0], x[4], x[8], x[12]);
        quarter_round(x[1], x[5], x[9], x[13]);
        quarter_round(x[2], x[6], x[10], x[14]);
        quarter_round(x[3], x[7], x[11], x[15]);
        quarter_round(x[0], x[5], x[10], x[15]);
        quarter_round(x[1], x[6], x[11], x[12]);
        quarter_round(x[2], x[7], x[8], x[13]);
        quarter_round(x[3], x[4], x[9], x[14]);
    }
#pragma unroll
    for (int i = 0; i < 16; i++)
        if (16 * block + i < units) out[(u64)image * units + 16 * block + i] = x[i] + start[i] < threshold ? 0.f : keep;
}
EXPORT(dropout_masks)

// out: [images][channels], the mean over the pixels of each image (a block), times the mask, which may be null.
KERNEL(256) average(const T *x, const float *mask, float *out, int pixels) {
    __shared__ float all[8 * 256];
    const int channels = 8 * blockDim.x, c = 8 * threadIdx.x, threads = blockDim.x * blockDim.y;
    const int me = threadIdx.y * blockDim.x + threadIdx.x;
    float sum[8];
    clear(sum);
    for (int pixel = threadIdx.y; pixel < pixels; pixel += blockDim.y) {
        float v[8];
        load(x + ((u64)blockIdx.x * pixels + pixel) * channels + c, v);
#pragma unroll
        for (int k = 0; k < 8; k++) sum[k] += v[k];
    }
#pragma unroll
    for (int k = 0; k < 8; k++) all[k * threads + me] = sum[k];
    __syncthreads();
    for (int at = me; at < channels; at += threads) {
        float total = 0.f;
        for (int row = 0; row < (int)blockDim.y; row++) total += all[(at & 7) * threads + row * blockDim.x + (at >> 3)];
        const u64 to = (u64)blockIdx.x * channels + at;
        const float mean = total / (float)pixels;
        out[to] = mask ? mean * mask[to] : mean;
    }
}
EXPORT_WITH_BARRIERS(average)

// out: [images][outputs] = x [images][inputs] times weights [outputs][inputs] plus bias. A block is an image; 32 threads (x) add up
// one output, 8 outputs (y) at a time.
KERNEL(256) classify(const float *x, const float *weights, const float *bias, float *out, int inputs, int outputs) {
    __shared__ float parts[8][33];
    for (int first = 0; first < outputs; first += 8) {
        const int output = first + threadIdx.y;
        float sum = 0.f;
        if (output < outputs)
            for (int c = threadIdx.x; c < inputs; c += 32) sum += x[(u64)blockIdx.x * inputs + c] * weights[(u64)output * inputs + c];
        parts[threadIdx.y][threadIdx.x] = sum;
        __syncthreads();
        if (threadIdx.x == 0 && output < outputs) {
            sum = 0.f;
            for (int part = 0; part < 32; part++) sum += parts[threadIdx.y][part];
            out[(u64)blockIdx.x * outputs + output] = sum + bias[output];
        }
        __syncthreads();
    }
}
EXPORT_WITH_BARRIERS(classify)

// ln of sigmoid(x), without overflow.
DEVICE float log_sigmoid(float x) { return (x < 0.f ? x : 0.f) - log1pf(expf(-fabsf(x))); }
DEVICE float sigmoid(float x) { return x >= 0.f ? 1.f / (1.f + expf(-x)) : expf(x) / (1.f + expf(x)); }

// Of one image's logits z: the loss -ln P(label), and where they are wanted its gradient by z (times `weight`), and ln P of each
// class.
DEVICE float softmax_loss(const float *z, int label, float weight, float *gradient, float *log_p, int outputs) {
    float most = -infinity(), sum = 0.f;
    for (int k = 0; k < outputs; k++) most = z[k] > most || z[k] != z[k] ? z[k] : most;
    for (int k = 0; k < outputs; k++) sum += expf(z[k] - most);
    // Less the largest first: what is left is not rounded to the precision of that.
    const float log_sum = logf(sum);
    for (int k = 0; k < outputs; k++) {
        const float log_pk = (z[k] - most) - log_sum;
        if (log_p) log_p[k] = log_pk;
        if (gradient) gradient[k] = weight * (expf(log_pk) - (k == label ? 1.f : 0.f));
    }
    return log_sum - (z[label] - most);
}

// CORN: output k is the logit of P(class > k | class >= k), so there is one output less than classes.
DEVICE float ordinal_loss(const float *z, int label, float weight, float *gradient, float *log_p, int outputs) {
    float reached = 0.f, loss = 0.f;
    for (int k = 0; k <= outputs; k++) {
        const float log_pk = k < outputs ? reached + log_sigmoid(-z[k]) : reached;
        if (log_p) log_p[k] = log_pk;
        if (k == label) loss = -log_pk;
        if (k == outputs) break;
        reached += log_sigmoid(z[k]);
        if (gradient) gradient[k] = k < label ? -weight * sigmoid(-z[k]) : k == label ? weight * sigmoid(z[k]) : 0.f;
    }
    return loss;
}

// The sum of the losses of all images into `sum`; labels: [images]; weights: by class, or null; gradient: [images][outputs] or null;
// log_p: [images][classes] or null. One block.
KERNEL(256) loss(const float *logits, const int *labels, const float *weights, float *gradient, float *log_p, float *sum, int images,
                 int outputs, int ordinal) {
    __shared__ float parts[256];
    float own = 0.f;
    for (int image = threadIdx.x; image < images; image += blockDim.x) {
        const int label = labels[image];
        const float weight = weights ? weights[label] : 1.f;
        const float *z = logits + (u64)image * outputs;
        float *to = gradient ? gradient + (u64)image * outputs : 0;
        float *p = log_p ? log_p + (u64)image * (outputs + (ordinal ? 1 : 0)) : 0;
        own += weight * (ordinal ? ordinal_loss(z, label, weight, to, p, outputs) : softmax_loss(z, label, weight, to, p, outputs));
    }
    parts[threadIdx.x] = own;
    __syncthreads();
    if (threadIdx.x != 0 || !sum) return;
    float total = 0.f;
    for (int part = 0; part < (int)blockDim.x; part++) total += parts[part];
    *sum = total;
}
EXPORT_WITH_BARRIERS(loss)

// The classifier's gradients: weights [outputs][inputs] = gradient^T x, bias [outputs] the sums of `gradient`, which is
// [images][outputs]. blockIdx.y is the output; a block handles 32 inputs, of which the one behind the last is the bias.
KERNEL(256) classifier_gradient(const float *gradient, const float *x, float *weights, float *bias, int images, int inputs, int outputs) {
    __shared__ float parts[8][33];
    const int c = 32 * blockIdx.x + threadIdx.x, output = blockIdx.y;
    float sum = 0.f;
    if (c <= inputs) {
        for (int image = threadIdx.y; image < images; image += 8) {
            const float g = gradient[(u64)image * outputs + output];
            sum += c < inputs ? g * x[(u64)image * inputs + c] : g;
        }
    }
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || c > inputs) return;
    sum = 0.f;
    for (int part = 0; part < 8; part++) sum += parts[part][threadIdx.x];
    if (c < inputs) weights[(u64)output * inputs + c] = sum;
    else bias[output] = sum;
}
EXPORT_WITH_BARRIERS(classifier_gradient)

// The gradient by each pixel of the averaged map: [images][inputs] = gradient weights * mask / pixels.
KERNEL(256) mean_gradient(const float *gradient, const float *weights, const float *mask, float *out, int images, int inputs, int outputs,
                          int pixels) {
    const u64 id = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (id >= (u64)images * inputs) return;
    const int image = (int)(id / inputs), c = (int)(id % inputs);
    float sum = 0.f;
    for (int k = 0; k < outputs; k++) sum += gradient[(u64)image * outputs + k] * weights[(u64)k * inputs + c];
    out[id] = (mask ? sum * mask[id] : sum) / (float)pixels;
}
EXPORT(mean_gradient)
