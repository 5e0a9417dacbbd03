// A software libtorch_cuda.so, for tests on machines without a GPU.
//
// It registers itself for libtorch's CUDA device. A "GPU" tensor lies in memory that the program cannot access; libtorch's
// CPU kernels execute every operation on the second mapping of this memory (see memory.cpp). So the program under test
// takes the same code paths as on a GPU (placement of tensors, copies, streams, order of work), with correct numbers. It
// cannot show what real CUDA kernels compute, or how fast.
//
// It is as strict as the real library where mistakes are likely: tensors of both devices in one operation are an error,
// and an operation waits for the queue of the default stream, but not for other streams (see soft_gpu.h).

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include "soft_gpu.h"

namespace {

constexpr c10::DispatchKeySet CUDA_KEY(c10::DispatchKey::CUDA);

c10::Device gpu() { return {c10::kCUDA, 0}; }

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void *at = soft_gpu_allocate(bytes);
    TORCH_CHECK(at != nullptr || bytes == 0, "CUDA out of memory. Tried to allocate ", bytes, " bytes");
    return {at, at, &soft_gpu_free, gpu()};
  }
  void copy_data(void *to, const void *from, size_t bytes) const override {
    std::memcpy(soft_gpu_host(to), soft_gpu_host(from), bytes);
  }
};

Memory memory;

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  int getNumGPUs() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  at::Allocator *getPinnedMemoryAllocator() const override { return at::getCPUAllocator(); }
  at::Allocator *getCUDADeviceAllocator() const override { return &memory; }
};

void check(CUresult result, const char *doing) {
  const char *name = "an unknown error";
  if (result != CUDA_SUCCESS) {
    cuGetErrorName(result, &name);
  }
  TORCH_CHECK(result == CUDA_SUCCESS, "CUDA error: ", doing, ": ", name);
}

// Makes the device's context current in this thread, as real libtorch does in each thread that calls it.
void take_context() {
  thread_local bool taken = false;
  if (!taken) {
    CUcontext context = nullptr;
    check(cuDevicePrimaryCtxRetain(&context, 0), "the context");
    check(cuCtxSetCurrent(context), "the context");
    taken = true;
  }
}

// The id of a libtorch stream is the driver's handle; 0 is the default stream.
CUstream driver_stream(const c10::Stream &stream) { return reinterpret_cast<CUstream>(stream.id()); }

// The stream in which this thread computes.
thread_local c10::StreamId current_stream = 0;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device) const override { return gpu(); }
  c10::Device getDevice() const override { return gpu(); }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }

  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::UNSAFE, device, current_stream);
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    take_context();
    // Never destroyed, as libtorch never destroys the streams of its pool.
    CUstream stream = nullptr;
    check(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "a stream");
    return c10::Stream(c10::Stream::UNSAFE, device, reinterpret_cast<c10::StreamId>(stream));
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return c10::Stream(c10::Stream::UNSAFE, gpu(), std::exchange(current_stream, stream.id()));
  }
  void *getStreamNativeHandle(const c10::Stream stream) const override { return driver_stream(stream); }

  void record(void **event, const c10::Stream &stream, const c10::DeviceIndex,
              const c10::EventFlag) const override {
    take_context();
    CUevent made = static_cast<CUevent>(*event);
    if (made == nullptr) {
      check(cuEventCreate(&made, 0), "an event");
      *event = made;
    }
    check(cuEventRecord(made, driver_stream(stream)), "recording an event");
  }
  void block(void *event, const c10::Stream &stream) const override {
    take_context();
    check(cuStreamWaitEvent(driver_stream(stream), static_cast<CUevent>(event), 0), "waiting for an event");
  }
  bool queryEvent(void *event) const override {
    take_context();
    const CUresult result = cuEventQuery(static_cast<CUevent>(event));
    if (result != CUDA_ERROR_NOT_READY) {
      check(result, "asking for an event");
    }
    return result == CUDA_SUCCESS;
  }
  void synchronizeEvent(void *event) const override {
    take_context();
    check(cuEventSynchronize(static_cast<CUevent>(event)), "waiting for an event");
  }
  void destroyEvent(void *event, const c10::DeviceIndex) const noexcept override {
    if (event != nullptr) {
      cuEventDestroy_v2(static_cast<CUevent>(event));
    }
  }
};

// A CPU tensor over the same memory; valid as long as `tensor` is.
at::Tensor on_host(const at::Tensor &tensor) {
  const auto options = tensor.options().device(c10::kCPU).requires_grad(false);
  return at::from_blob(soft_gpu_host(tensor.data_ptr()), tensor.sizes(), tensor.strides(), options);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> kind,
                         std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::Tensor(
      at::detail::empty_strided_generic(size, stride, &memory, CUDA_KEY, c10::dtype_or_default(kind)));
}

// A copy in the GPU's memory, with the same strides.
at::Tensor on_device(const at::Tensor &host) {
  const auto copy = empty_strided(host.sizes(), host.strides(), host.scalar_type(), {}, {}, {});
  on_host(copy).copy_(host);
  return copy;
}

// The tensors of one call, each with the CPU tensor that the kernel gets instead.
struct Call {
  std::string name;
  CUstream stream;
  // The operation's number, if it is in the default stream.
  uint64_t number = 0;
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs = {};

  // Declares that the call uses the tensor's memory.
  void uses(const at::Tensor &tensor, bool writes) const {
    if (stream == nullptr) {
      soft_gpu_note(tensor.data_ptr(), writes, number);
    } else {
      soft_gpu_uses(stream, tensor.data_ptr(), writes, name.c_str());
    }
  }

  at::Tensor to_host(const at::Tensor &tensor, bool writes) {
    if (!tensor.defined() || !tensor.is_cuda()) {
      // As with real CUDA: scalars may come from the host, other tensors may not.
      TORCH_CHECK(!tensor.defined() || tensor.dim() == 0, name,
                  ": Expected all tensors to be on the same device, but found at least two devices, "
                  "cuda:0 and cpu!");
      return tensor;
    }
    uses(tensor, writes);
    for (const auto &[device, host] : pairs) {
      if (device.is_same(tensor)) {
        return host;
      }
    }
    // An operation may resize an empty output tensor, which needs memory of its own.
    pairs.emplace_back(tensor, tensor.numel() == 0 ? on_host(tensor).clone() : on_host(tensor));
    return pairs.back().second;
  }

  at::Tensor to_device(const at::Tensor &tensor) {
    if (!tensor.defined()) {
      return tensor;
    }
    // A result that was written in place is the argument itself.
    for (const auto &[device, host] : pairs) {
      if (host.is_same(tensor)) {
        if (device.sizes() != host.sizes()) {
          const auto made = on_device(host);
          device.unsafeGetTensorImpl()->set_storage_keep_dtype(made.storage());
          device.unsafeGetTensorImpl()->set_sizes_and_strides(host.sizes(), host.strides());
        }
        return device;
      }
    }
    const auto made = on_device(tensor);
    uses(made, true);
    return made;
  }
};

// Whether a result is a view of an argument. Such an operation needs a kernel of its own here.
bool is_view(const c10::FunctionSchema &schema) {
  return std::any_of(schema.returns().begin(), schema.returns().end(), [](const c10::Argument &result) {
    return result.alias_info() != nullptr && !result.alias_info()->isWrite();
  });
}

c10::IValue each_tensor(const c10::IValue &value, const std::function<at::Tensor(const at::Tensor &)> &change) {
  if (value.isTensor()) {
    return change(value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor &tensor : value.toTensorVector()) {
      list.push_back(change(tensor));
    }
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const std::optional<at::Tensor> &tensor : value.toOptionalTensorList()) {
      list.push_back(tensor ? std::make_optional(change(*tensor)) : std::nullopt);
    }
    return list;
  }
  return value;
}

// Queues work on a stream.
void queue(CUstream stream, const std::string &name, std::function<void()> work) {
  struct Queued {
    static void run(void *work) {
      const std::unique_ptr<std::function<void()>> owned(static_cast<std::function<void()> *>(work));
      at::AutoDispatchBelowADInplaceOrView below;
      (*owned)();
    }
  };
  auto *const kept = new std::function<void()>(std::move(work));
  check(soft_gpu_enqueue(stream, &Queued::run, kept), name.c_str());
}

// Whether an operation multiplies matrices. In bfloat16 and half, libtorch computes these on a CPU without vector instructions.
bool multiplies_matrices(const c10::OperatorHandle &op) {
  static const std::unordered_set<std::string> names = {"aten::addmm",       "aten::baddbmm", "aten::bmm",
                                                        "aten::convolution", "aten::mm",      "aten::convolution_backward"};
  return names.count(op.operator_name().name) != 0;
}

// Executes an operation on the CPU. Products of 16-bit numbers are summed in 32 bits and rounded once, as on a GPU.
void on_cpu(const c10::OperatorHandle &op, torch::jit::Stack &stack) {
  at::AutoDispatchBelowADInplaceOrView below;
  // Each 16-bit tensor that the operation writes, with the one of 32 bits that it gets instead.
  std::vector<std::pair<at::Tensor, at::Tensor>> outputs;
  auto narrow = at::kFloat;
  if (multiplies_matrices(op)) {
    const auto &expected = op.schema().arguments();
    for (size_t i = 0; i < stack.size(); ++i) {
      stack[i] = each_tensor(stack[i], [&](const at::Tensor &tensor) {
        if (!tensor.defined() || !at::isReducedFloatingType(tensor.scalar_type())) {
          return tensor;
        }
        narrow = tensor.scalar_type();
        const auto wide = tensor.to(at::kFloat);
        if (expected[i].alias_info() != nullptr && expected[i].alias_info()->isWrite()) {
          outputs.emplace_back(tensor, wide);
        }
        return wide;
      });
    }
  }
  op.callBoxed(&stack);
  if (narrow == at::kFloat) {
    return;
  }
  for (c10::IValue &result : stack) {
    result = each_tensor(result, [&](const at::Tensor &tensor) {
      for (const auto &[written, wide] : outputs) {
        if (wide.is_same(tensor)) {
          // It may have been empty.
          return written.resize_(tensor.sizes()).copy_(tensor);
        }
      }
      return tensor.defined() ? tensor.to(narrow) : tensor;
    });
  }
}

// Executes any operation by the CPU's kernel. In the default stream it executes at once; in any other stream it is queued,
// so it may only write in place there: the shape of a new result is not known before the kernel has run.
void by_host(const c10::OperatorHandle &op, torch::jit::Stack *stack) {
  take_context();
  const auto &schema = op.schema();
  Call call{c10::toString(schema.operator_name()), reinterpret_cast<CUstream>(current_stream)};
  TORCH_CHECK(!is_view(schema), call.name, ": the software GPU does not implement this view");
  TORCH_CHECK(call.stream == nullptr || (schema.is_mutable() && schema.returns().size() == 1), call.name,
              ": the software GPU executes only in-place operations outside the default stream");
  if (call.stream == nullptr) {
    call.number = soft_gpu_compute(call.name.c_str());
  }
  const auto &expected = schema.arguments();
  const torch::jit::Stack arguments(stack->end() - expected.size(), stack->end());
  torch::jit::drop(*stack, arguments.size());
  torch::jit::Stack hosts;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool writes = expected[i].alias_info() != nullptr && expected[i].alias_info()->isWrite();
    const auto to_host = [&](const at::Tensor &tensor) { return call.to_host(tensor, writes); };
    const bool is_device = arguments[i].isDevice();
    hosts.push_back(is_device ? c10::IValue(c10::Device(c10::kCPU)) : each_tensor(arguments[i], to_host));
  }
  if (call.stream != nullptr) {
    stack->push_back(arguments.front());
    // The captured arguments keep the memory allocated.
    queue(call.stream, call.name, [op, arguments, hosts]() mutable { on_cpu(op, hosts); });
    return;
  }
  on_cpu(op, hosts);
  for (const c10::IValue &result : hosts) {
    // A result on the host means that the caller waits for the GPU.
    if (!result.isTensor() && !result.isTensorList()) {
      soft_gpu_finish();
    }
    stack->push_back(each_tensor(result, [&](const at::Tensor &tensor) { return call.to_device(tensor); }));
  }
}

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> kind, std::optional<at::Layout>,
                 std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::Tensor(at::detail::empty_generic(size, &memory, CUDA_KEY, c10::dtype_or_default(kind), format));
}

// Copies within the GPU, or between GPU and host in either direction.
at::Tensor &copy_(at::Tensor &to, const at::Tensor &from, bool) {
  take_context();
  Call call{"copy_", reinterpret_cast<CUstream>(current_stream)};
  const auto copy = [to, from] {
    const auto host = [](const at::Tensor &tensor) { return tensor.is_cuda() ? on_host(tensor) : tensor; };
    at::AutoDispatchBelowADInplaceOrView below;
    host(to).copy_(host(from));
  };
  TORCH_CHECK(call.stream == nullptr || (to.is_cuda() && from.is_cuda()),
              "copy_: outside the default stream the software GPU copies only within its own memory");
  if (call.stream == nullptr) {
    call.number = soft_gpu_compute(call.name.c_str());
  }
  for (const auto &[tensor, writes] : {std::pair(to, true), std::pair(from, false)}) {
    if (tensor.is_cuda()) {
      call.uses(tensor, writes);
    }
  }
  if (call.stream == nullptr) {
    if (!to.is_cuda()) {
      soft_gpu_finish();
    }
    copy();
  } else {
    queue(call.stream, call.name, copy);
  }
  return to;
}

} // namespace

namespace at {
using ::Hooks;
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, Hooks)
} // namespace at

REGISTER_ALLOCATOR(c10::kCUDA, &memory);
C10_REGISTER_GUARD_IMPL(CUDA, Guard);

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&by_host>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("copy_", &copy_);
  m.impl("as_strided", [](const at::Tensor &self, at::IntArrayRef size, at::IntArrayRef stride,
                          std::optional<int64_t> offset) {
    return at::native::as_strided_tensorimpl(self, size, stride, offset);
  });
  m.impl("view", [](const at::Tensor &self, at::IntArrayRef size) { return at::native::view(self, size); });
  m.impl("_reshape_alias", [](const at::Tensor &self, at::IntArrayRef size, at::IntArrayRef stride) {
    return at::native::_reshape_alias(self, size, stride);
  });
  // libtorch's own versions would choose cuDNN because of the device.
  for (const char *name : {"convolution", "convolution_backward"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&by_host>());
  }
}
