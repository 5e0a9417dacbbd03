// The backward pass of a convolution, for which tch has no call. Tensors cross as in `autograd.cpp`.

#include <array>
#include <cstdint>
#include <exception>
#include <string>

#include <ATen/core/Tensor.h>
#include <ATen/ops/convolution_backward.h>

extern "C" {

// Fills `results` with fresh gradients by x and by the weight, or null where they are not needed. Stride 1, the same
// padding on each side. Gives null, or what went wrong, for `fovea_forget_text`.
char *fovea_convolution_backward(const at::Tensor *gradient, const at::Tensor *x, const at::Tensor *weight,
                                 int64_t padding, const bool *needed, at::Tensor **results) {
  results[0] = results[1] = nullptr;
  try {
    const std::array<int64_t, 2> ones{1, 1}, pad{padding, padding}, zeros{0, 0};
    auto [by_x, by_weight, by_bias] =
        at::convolution_backward(*gradient, *x, *weight, c10::nullopt, ones, pad, ones, false, zeros, 1,
                                 {needed[0], needed[1], false});
    if (needed[0]) {
      results[0] = new at::Tensor(std::move(by_x));
    }
    if (needed[1]) {
      results[1] = new at::Tensor(std::move(by_weight));
    }
    return nullptr;
  } catch (const std::exception &error) {
    const std::string text = error.what();
    char *copy = new char[text.size() + 1];
    text.copy(copy, text.size());
    copy[text.size()] = '\0';
    return copy;
  }
}

void fovea_forget_text(char *text) { delete[] text; }
}
