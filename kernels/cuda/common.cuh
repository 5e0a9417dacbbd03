// What all kernels share: the number formats, vectors of eight channels, sums whose order is fixed.
//
// Every kernel is compiled twice, with ELEMENT as float and as bf16: T is what activations and filters are stored in. The
// arithmetic is float in both. There are no headers, so NVRTC needs no path to any; emulation.h makes the same text C++ for a
// CPU (FOVEA_EMULATION).
//
// Images are [images][height][width][channels]. Channels are a multiple of 8, and a thread handles eight of them. Usually
// threadIdx.x is the group of eight channels, and threadIdx.y counts pixels.
//
// The same bits in every run: each number is computed by one thread or in one fixed order; there are no atomics, and no size of
// a grid depends on the GPU.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
struct bf16 { u16 bits; };
typedef ELEMENT T;

#define DEVICE static __device__ __forceinline__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

#ifndef FOVEA_EMULATION
// For the emulation: declares a kernel, and whether its threads meet at barriers.
#define EXPORT(kernel)
#define EXPORT_WITH_BARRIERS(kernel)
DEVICE uint4 load16(const void *at) { return __ldg((const uint4 *)at); }
DEVICE uint2 load8(const void *at) { return __ldg((const uint2 *)at); }
DEVICE u32 load4(const void *at) { return __ldg((const u32 *)at); }
DEVICE void store16(void *at, uint4 value) { *(uint4 *)at = value; }
DEVICE void store8(void *at, uint2 value) { *(uint2 *)at = value; }
// Two floats as bf16, the first one in the lower half; rounded to the nearest, halves to even.
DEVICE u32 rounded(float low, float high) {
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
#endif

DEVICE float infinity() { return __uint_as_float(0x7f800000u); }
DEVICE bool finite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }

// One number.
DEVICE float value(float x) { return x; }
DEVICE float value(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
DEVICE void put(float *at, float x) { *at = x; }
DEVICE void put(bf16 *at, float x) { at->bits = (u16)rounded(x, 0.f); }

// Eight numbers that follow each other and begin at a multiple of eight.
DEVICE void load(const bf16 *at, float (&x)[8]) {
    const uint4 v = load16(at);
    const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(words[i] << 16);
        x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}
DEVICE void load(const float *at, float (&x)[8]) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint4 v = load16(at + 4 * i);
        x[4 * i] = __uint_as_float(v.x);
        x[4 * i + 1] = __uint_as_float(v.y);
        x[4 * i + 2] = __uint_as_float(v.z);
        x[4 * i + 3] = __uint_as_float(v.w);
    }
}
DEVICE void store(bf16 *at, const float (&x)[8]) {
    uint4 v;
    v.x = rounded(x[0], x[1]);
    v.y = rounded(x[2], x[3]);
    v.z = rounded(x[4], x[5]);
    v.w = rounded(x[6], x[7]);
    store16(at, v);
}
DEVICE void store(float *at, const float (&x)[8]) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint4 v;
        v.x = __float_as_uint(x[4 * i]);
        v.y = __float_as_uint(x[4 * i + 1]);
        v.z = __float_as_uint(x[4 * i + 2]);
        v.w = __float_as_uint(x[4 * i + 3]);
        store16(at + 4 * i, v);
    }
}

DEVICE void clear(float (&x)[8]) {
#pragma unroll
    for (int k = 0; k < 8; k++) x[k] = 0.f;
}

// ReLU. A NaN stays NaN, so that it is noticed.
DEVICE float positive(float x) { return x < 0.f ? 0.f : x; }

// Adds up what the threads of a block have found for their eight channels, in the order of threadIdx.y, and writes it to
// `sums`, [blocks][channels of the block]. All threads of the block must call it.
DEVICE void add_up(const float (&x)[8], float *sums) {
    __shared__ float all[8 * 256];
    const int width = blockDim.x, threads = blockDim.x * blockDim.y, me = threadIdx.y * width + threadIdx.x;
#pragma unroll
    for (int k = 0; k < 8; k++) all[k * threads + me] = x[k];
    __syncthreads();
    for (int c = me; c < 8 * width; c += threads) {
        float sum = 0.f;
        for (int row = 0; row < (int)blockDim.y; row++) sum += all[(c & 7) * threads + row * width + (c >> 3)];
        sums[(u64)blockIdx.x * 8 * width + c] = sum;
    }
}
