// What concerns a device of libtorch as a whole, for which tch has no call. Errors follow shim.h.

#include "../shim.h"

#include <cstring>
#include <memory>

#include <ATen/Context.h>
#include <ATen/Functions.h>

extern "C" {

// Makes cuDNN take only algorithms that give the same bits each time, and cuDNN and cuBLAS multiply in TF32 only if `tf32`.
// By itself libtorch lets cuDNN do so, and cuBLAS not.
int fovea_gpu_arithmetic(bool tf32) {
  return fovea::guarded([tf32] {
    at::globalContext().setBenchmarkCuDNN(false);
    at::globalContext().setDeterministicCuDNN(true);
    at::globalContext().setAllowTF32CuDNN(tf32);
    at::globalContext().setAllowTF32CuBLAS(tf32);
  });
}

// Whether cuDNN and cuBLAS may multiply in TF32.
int fovea_gpu_tf32(bool *cudnn, bool *cublas) {
  return fovea::guarded([&] {
    *cudnn = at::globalContext().allowTF32CuDNN();
    *cublas = at::globalContext().allowTF32CuBLAS();
  });
}

// Bytes of `size` (of `dims` dimensions) as a fresh tensor on the GPU `device`, by way of pinned memory, from which the GPU
// fetches them while the host goes on.
int fovea_bytes_to_gpu(const unsigned char *bytes, const int64_t *size, size_t dims, int device,
                       at::Tensor **result) {
  return fovea::guarded([&] {
    // pin_memory() with a device would warn at each call.
    const auto options = at::TensorOptions().dtype(at::kByte).pinned_memory(true);
    const at::Tensor pinned = at::empty(at::IntArrayRef(size, dims), options);
    if (pinned.numel() > 0) {
      std::memcpy(pinned.mutable_data_ptr(), bytes, pinned.numel());
    }
    // libtorch keeps the pinned memory until the GPU has read it.
    auto sent = pinned.to(at::Device(at::kCUDA, device), at::kByte, /*non_blocking=*/true);
    *result = std::make_unique<at::Tensor>(std::move(sent)).release();
  });
}
}
