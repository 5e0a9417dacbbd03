// libtorch's profiler for the thread that calls these. Errors follow shim.h.

#include "shim.h"

#include <set>
#include <string>

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/autograd/profiler_kineto.h>

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

extern "C" {

// Starts it: libtorch's operations of this thread, and with `gpu` all kernels and copies of the process on GPUs.
int fovea_profile_start(bool gpu) {
  return fovea::guarded([&] {
    std::set<ActivityType> activities{ActivityType::CPU};
    if (gpu) {
      activities.insert(ActivityType::CUDA);
    }
    const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
    profiler::prepareProfiler(config, activities);
    profiler::enableProfiler(config, activities);
  });
}

// Stops it, and writes what it has seen to a new file in Chrome's format for traces. A null `file` drops it.
int fovea_profile_stop(const char *file) {
  return fovea::guarded([&] {
    const auto result = profiler::disableProfiler();
    if (file != nullptr) {
      result->save(file);
    }
  });
}

// Waits for all work that was queued on a GPU.
int fovea_profile_wait(int device) {
  return fovea::guarded([&] { c10::impl::getDeviceGuardImpl(c10::kCUDA)->synchronizeDevice(device); });
}
}
