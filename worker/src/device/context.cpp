// What of libtorch's concerns a device as a whole, and tch has no call for.

#include <cstring>
#include <exception>

#include <ATen/Context.h>
#include <ATen/Functions.h>

extern "C" {

// cuDNN takes only algorithms that give the same bits each time.
void fovea_deterministic() {
  at::globalContext().setBenchmarkCuDNN(false);
  at::globalContext().setDeterministicCuDNN(true);
}

// Bytes of `size` (of `dims` dimensions) as a tensor on the GPU `device`, by way of memory from which the GPU fetches
// them while the host goes on. Without one, `problem` is a text to be freed.
at::Tensor *fovea_bytes_to_gpu(const unsigned char *bytes, const int64_t *size, size_t dims, int device,
                               char **problem) {
  try {
    // pin_memory() of a device's would warn with each call.
    const auto options = at::TensorOptions().dtype(at::kByte).pinned_memory(true);
    const at::Tensor pinned = at::empty(at::IntArrayRef(size, dims), options);
    if (pinned.numel() > 0) {
      std::memcpy(pinned.mutable_data_ptr(), bytes, pinned.numel());
    }
    // libtorch keeps the memory until the GPU has it.
    return new at::Tensor(pinned.to(at::Device(at::kCUDA, device), at::kByte, /*non_blocking=*/true));
  } catch (const std::exception &error) {
    *problem = strdup(error.what());
    return nullptr;
  }
}
}
