// Streams beside the one that libtorch computes in, and events between them, for which tch has no call.
//
// By libtorch's interface to any accelerator, so that nothing of CUDA's is needed to build this. Whatever fails comes
// back as a text to be freed, in `problem`.

#include <cstring>
#include <exception>
#include <memory>

#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

const c10::impl::DeviceGuardImplInterface &gpu() { return *c10::impl::getDeviceGuardImpl(c10::kCUDA); }

template <typename F> auto guarded(char **problem, F &&body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::exception &error) {
    *problem = strdup(error.what());
    return {};
  }
}

} // namespace

extern "C" {

// A stream of high priority on a GPU: what is queued there gets its turn as soon as a kernel ends.
c10::Stream *fovea_stream_new(int device, char **problem) {
  return guarded(problem, [&]() -> c10::Stream * {
    return new c10::Stream(gpu().getStreamFromGlobalPool(c10::Device(c10::kCUDA, device), true));
  });
}

void fovea_stream_delete(c10::Stream *stream) { delete stream; }

// CUDA's own handle.
void *fovea_stream_handle(const c10::Stream *stream, char **problem) {
  return guarded(problem, [&] { return gpu().getStreamNativeHandle(*stream); });
}

// An event at the end of what has been queued: on `stream`, or without one, on that in which this thread computes.
c10::Event *fovea_event_record(int device, const c10::Stream *stream, char **problem) {
  return guarded(problem, [&]() -> c10::Event * {
    auto event = std::make_unique<c10::Event>(c10::kCUDA);
    event->record(stream != nullptr ? *stream : gpu().getStream(c10::Device(c10::kCUDA, device)));
    return event.release();
  });
}

void fovea_event_delete(c10::Event *event) { delete event; }

// What is queued on the stream from now on waits for the event.
void fovea_event_block(const c10::Event *event, const c10::Stream *stream, char **problem) {
  guarded(problem, [&] {
    event->block(*stream);
    return true;
  });
}

bool fovea_event_done(const c10::Event *event, char **problem) {
  return guarded(problem, [&] { return event->query(); });
}

// From now on this thread computes in `stream`. Returns the one before.
c10::Stream *fovea_stream_exchange(const c10::Stream *stream, char **problem) {
  return guarded(problem, [&]() -> c10::Stream * { return new c10::Stream(gpu().exchangeStream(*stream)); });
}
}
