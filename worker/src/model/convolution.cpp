// The backward pass of a convolution, for which tch has no call. Errors follow shim.h; tensors cross as in autograd.cpp.

#include "../shim.h"

#include <array>
#include <cstdint>
#include <memory>

#include <ATen/core/Tensor.h>
#include <ATen/ops/convolution_backward.h>

extern "C" {

// Fills `results` with fresh gradients by x and by the weight, or null where they are not needed. Stride 1, the same
// padding on each side.
int fovea_convolution_backward(const at::Tensor *gradient, const at::Tensor *x, const at::Tensor *weight,
                               int64_t padding, const bool *needed, at::Tensor **results) {
  return fovea::guarded([&] {
    const std::array<int64_t, 2> ones{1, 1}, pad{padding, padding}, zeros{0, 0};
    auto [by_x, by_weight, by_bias] =
        at::convolution_backward(*gradient, *x, *weight, c10::nullopt, ones, pad, ones, false, zeros, 1,
                                 {needed[0], needed[1], false});
    auto fresh_x = needed[0] ? std::make_unique<at::Tensor>(std::move(by_x)) : nullptr;
    auto fresh_weight = needed[1] ? std::make_unique<at::Tensor>(std::move(by_weight)) : nullptr;
    results[0] = fresh_x.release();
    results[1] = fresh_weight.release();
  });
}
}
