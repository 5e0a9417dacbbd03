// libtorch's process-wide settings for which tch has no call.

#include <ATen/Context.h>

extern "C" {

// cuDNN takes only algorithms that give the same bits each time.
void fovea_deterministic() {
  at::globalContext().setBenchmarkCuDNN(false);
  at::globalContext().setDeterministicCuDNN(true);
}
}
