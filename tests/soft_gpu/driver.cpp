// A software libcuda.so.1 with the driver's functions that the worker calls, for tests on machines without a GPU.
//
// A stream is a queue with a thread of its own. The thread sleeps for a random time before each piece of work, so that
// missing synchronisation shows up. Each GPU has a default stream, in which libtorch computes. The software libtorch
// (torch.cpp) executes its operations at once, on the calling thread; the driver does not queue them, but numbers them.
// When an event is recorded, it stores the number of the last operation so far; a stream that waits for the event has
// then "seen" the operations up to that number. Before a stream uses memory, it must have seen every operation that
// touched this memory.
//
// Environment variables (defaults in parentheses):
//   SOFT_GPU_COUNT     number of GPUs (1)
//   SOFT_GPU_DELAY_US  longest sleep before a piece of work, in microseconds (300)
//   SOFT_GPU_MIB       memory, see memory.cpp
//   SOFT_GPU_HANGS_ON  path of a file, and
//   SOFT_GPU_HANGS_IN  part of the name of an operation of libtorch: once the file exists, that operation and all later
//                      work of the default stream never end, though the GPU still accepts work.

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include <unistd.h>

#include "soft_gpu.h"

namespace {

size_t setting(const char *name, size_t otherwise) {
  const char *value = std::getenv(name);
  return value ? std::strtoull(value, nullptr, 10) : otherwise;
}

struct Device;

// A stream's queued work and its progress. Every access needs the driver's lock.
struct Queue {
  Queue(Device &device, bool side) : device(device), side(side) {}

  Device &device;
  // Whether this is not the default stream.
  const bool side;
  // Number of the last operation of libtorch that the stream has seen; unused for the default stream.
  uint64_t seen = 0;
  // Pieces of work queued so far, and completed so far.
  uint64_t issued = 0;
  uint64_t finished = 0;
  // A closed stream still completes its queue.
  bool closed = false;
  std::deque<std::function<void()>> jobs;
};

// A GPU. The driver uses its address as the handle of its primary context.
struct Device {
  CUdevice number = 0;
  // Number of operations that libtorch has executed.
  uint64_t computed = 0;
  // Whether the default stream hangs (SOFT_GPU_HANGS_ON).
  bool hangs = false;
  std::shared_ptr<Queue> stream;
};

// The end of a stream's queue at one moment. An event is a Point; it has no queue until it is recorded.
struct Point {
  std::shared_ptr<Queue> queue;
  uint64_t ticket = 0;
  uint64_t seen = 0;

  bool done() const { return !queue || queue->finished >= ticket; }
  void wait() const;
};

struct Driver {
  std::mutex lock;
  // Signalled when work is queued or completed.
  std::condition_variable_any changed;
  // Empty before cuInit.
  std::vector<std::unique_ptr<Device>> devices;
  // Handles are never reused, so that a destroyed object is not mistaken for a new one.
  uintptr_t last_handle = 0x1000;
  std::map<CUstream, std::shared_ptr<Queue>> streams;
  std::map<CUevent, Point> events;

  template <typename Handle> Handle new_handle() { return reinterpret_cast<Handle>(last_handle += 16); }
};

// Never destroyed: the threads of the streams run until the process exits.
Driver &driver() {
  static Driver *driver = new Driver;
  return *driver;
}

// The GPU whose context is current in this thread.
thread_local Device *current = nullptr;

void Point::wait() const {
  driver().changed.wait(driver().lock, [this] { return done(); });
}

void add(Queue &queue, std::function<void()> work) {
  queue.jobs.push_back(std::move(work));
  ++queue.issued;
  driver().changed.notify_all();
}

// The loop of a stream's thread. It ends when the stream is closed and its queue is empty.
void run(std::shared_ptr<Queue> queue, unsigned seed) {
  const size_t longest = setting("SOFT_GPU_DELAY_US", 300);
  std::minstd_rand random(seed);
  std::unique_lock<std::mutex> held(driver().lock);
  while (true) {
    driver().changed.wait(held, [&] { return queue->closed || !queue->jobs.empty(); });
    if (queue->jobs.empty()) {
      return;
    }
    std::function<void()> work = std::move(queue->jobs.front());
    queue->jobs.pop_front();
    held.unlock();
    std::this_thread::sleep_for(std::chrono::microseconds(random() % (longest + 1)));
    work();
    // Destroyed before anybody sees the work as completed.
    work = nullptr;
    held.lock();
    ++queue->finished;
    driver().changed.notify_all();
  }
}

std::shared_ptr<Queue> start_queue(Device &device, bool side) {
  const auto queue = std::make_shared<Queue>(device, side);
  static unsigned seed = 0;
  std::thread(run, queue, ++seed).detach();
  return queue;
}

// Ends a call with an error. Only for code inside `locked`.
void require(bool holds, CUresult otherwise) {
  if (!holds) {
    throw otherwise;
  }
}

// Executes a call under the driver's lock.
template <typename Work> CUresult locked(Work work) {
  std::lock_guard<std::mutex> held(driver().lock);
  try {
    work();
    return CUDA_SUCCESS;
  } catch (CUresult error) {
    return error;
  }
}

Device &find_device(CUdevice number) {
  require(!driver().devices.empty(), CUDA_ERROR_NOT_INITIALIZED);
  require(number >= 0 && static_cast<size_t>(number) < driver().devices.size(), CUDA_ERROR_INVALID_DEVICE);
  return *driver().devices[static_cast<size_t>(number)];
}

std::shared_ptr<Queue> find_stream(CUstream handle) {
  require(current != nullptr, CUDA_ERROR_INVALID_CONTEXT);
  if (handle == nullptr) {
    return current->stream;
  }
  const auto found = driver().streams.find(handle);
  require(found != driver().streams.end(), CUDA_ERROR_INVALID_HANDLE);
  return found->second;
}

Point &find_event(CUevent handle) {
  require(current != nullptr, CUDA_ERROR_INVALID_CONTEXT);
  const auto found = driver().events.find(handle);
  require(found != driver().events.end(), CUDA_ERROR_INVALID_HANDLE);
  return found->second;
}

// The present end of a stream's queue.
Point end_of(CUstream handle) {
  const auto queue = find_stream(handle);
  return {queue, queue->issued, queue->side ? queue->seen : queue->device.computed};
}

const std::pair<CUresult, const char *> NAMES[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
};

} // namespace

CUresult cuInit(unsigned) {
  return locked([&] {
    auto &devices = driver().devices;
    while (devices.size() < setting("SOFT_GPU_COUNT", 1)) {
      auto device = std::make_unique<Device>();
      device->number = static_cast<CUdevice>(devices.size());
      device->stream = start_queue(*device, false);
      devices.push_back(std::move(device));
    }
    require(!devices.empty(), CUDA_ERROR_NO_DEVICE);
  });
}

CUresult cuDriverGetVersion(int *version) {
  *version = 13000;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
  return locked([&] {
    require(!driver().devices.empty(), CUDA_ERROR_NOT_INITIALIZED);
    *count = static_cast<int>(driver().devices.size());
  });
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  return locked([&] { *device = find_device(ordinal).number; });
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
  return locked([&] {
    find_device(device);
    std::snprintf(name, static_cast<size_t>(length), "Software GPU");
  });
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
  return locked([&] {
    find_device(device);
    size_t free;
    *bytes = soft_gpu_bytes(&free);
  });
}

// As an H100 says.
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  return locked([&] {
    find_device(device);
    require(attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR || attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            CUDA_ERROR_INVALID_VALUE);
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 9 : 0;
  });
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
  return locked([&] {
    *uuid = {};
    uuid->bytes[0] = static_cast<char>(find_device(device).number);
  });
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  return locked([&] { *context = reinterpret_cast<CUcontext>(&find_device(device)); });
}

// Contexts are never released.
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return locked([&] { find_device(device); });
}

CUresult cuCtxSetCurrent(CUcontext context) {
  current = reinterpret_cast<Device *>(context);
  return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context) {
  *context = reinterpret_cast<CUcontext>(current);
  return CUDA_SUCCESS;
}

CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
  return locked([&] {
    require(current != nullptr, CUDA_ERROR_INVALID_CONTEXT);
    *total = soft_gpu_bytes(free);
  });
}

CUresult cuGetErrorName(CUresult error, const char **text) {
  *text = nullptr;
  for (const auto &[code, name] : NAMES) {
    *text = code == error ? name : *text;
  }
  return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char **text) { return cuGetErrorName(error, text); }

CUresult cuStreamCreate(CUstream *stream, unsigned flags) { return cuStreamCreateWithPriority(stream, flags, 0); }

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int) {
  return locked([&] {
    require(current != nullptr, CUDA_ERROR_INVALID_CONTEXT);
    if (flags != CU_STREAM_NON_BLOCKING) {
      std::fprintf(stderr, "software GPU: a stream that synchronises with the default stream is not supported; "
                           "create it with CU_STREAM_NON_BLOCKING\n");
      throw CUresult(CUDA_ERROR_NOT_SUPPORTED);
    }
    *stream = driver().new_handle<CUstream>();
    driver().streams[*stream] = start_queue(*current, true);
  });
}

CUresult cuStreamDestroy_v2(CUstream stream) {
  return locked([&] {
    const auto queue = find_stream(stream);
    require(queue->side, CUDA_ERROR_INVALID_HANDLE);
    queue->closed = true;
    driver().changed.notify_all();
    driver().streams.erase(stream);
  });
}

CUresult cuStreamQuery(CUstream stream) {
  return locked([&] { require(end_of(stream).done(), CUDA_ERROR_NOT_READY); });
}

CUresult cuStreamSynchronize(CUstream stream) {
  return locked([&] { end_of(stream).wait(); });
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  return locked([&] {
    const auto queue = find_stream(stream);
    const Point point = find_event(event);
    add(*queue, [point] { locked([&] { point.wait(); }); });
    // Operations are numbered for each GPU separately.
    if (point.queue && &point.queue->device == &queue->device) {
      queue->seen = std::max(queue->seen, point.seen);
    }
  });
}

CUresult cuEventCreate(CUevent *event, unsigned) {
  return locked([&] {
    require(current != nullptr, CUDA_ERROR_INVALID_CONTEXT);
    *event = driver().new_handle<CUevent>();
    driver().events[*event] = Point();
  });
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  return locked([&] { find_event(event) = end_of(stream); });
}

CUresult cuEventQuery(CUevent event) {
  return locked([&] { require(find_event(event).done(), CUDA_ERROR_NOT_READY); });
}

// Waits for a copy: the event may be recorded again during the wait, which does not count.
CUresult cuEventSynchronize(CUevent event) {
  return locked([&] { Point(find_event(event)).wait(); });
}

CUresult cuEventDestroy_v2(CUevent event) {
  return locked([&] {
    find_event(event);
    driver().events.erase(event);
  });
}

uint64_t soft_gpu_compute(const char *what) {
  // libtorch initialises the driver in its first operation.
  cuInit(0);
  std::lock_guard<std::mutex> held(driver().lock);
  Device &device = current ? *current : *driver().devices.front();
  static const char *const hangs_on = std::getenv("SOFT_GPU_HANGS_ON");
  static const char *const hangs_in = std::getenv("SOFT_GPU_HANGS_IN");
  const bool hangs = hangs_on && hangs_in && std::strstr(what, hangs_in) != nullptr;
  if (hangs && !device.hangs && access(hangs_on, F_OK) == 0) {
    device.hangs = true;
    add(*device.stream, [] {
      while (true) {
        pause();
      }
    });
  }
  if (!device.hangs) {
    Point{device.stream, device.stream->issued}.wait();
  }
  return ++device.computed;
}

void soft_gpu_finish() {
  std::lock_guard<std::mutex> held(driver().lock);
  const Device &device = current ? *current : *driver().devices.front();
  Point{device.stream, device.stream->issued}.wait();
}

void soft_gpu_uses(CUstream stream, const void *at, bool writes, const char *what) {
  const uint64_t last = soft_gpu_last(at, writes);
  locked([&] {
    const auto queue = find_stream(stream);
    if (queue->side && queue->seen < last) {
      std::fprintf(stderr, "software GPU: %s was queued on a stream that did not wait for ", what);
      std::fprintf(stderr, "libtorch's earlier operations on that memory\n");
      std::abort();
    }
  });
}

CUresult soft_gpu_enqueue(CUstream stream, void (*work)(void *), void *argument) {
  return locked([&] { add(*find_stream(stream), [=] { work(argument); }); });
}
