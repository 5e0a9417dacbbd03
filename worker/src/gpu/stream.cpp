// Streams beside the one in which libtorch computes, and events between them; tch has no calls for either. Errors follow
// shim.h.
//
// This file uses libtorch's interface to accelerators in general, so that building it needs no part of CUDA.

#include "../shim.h"

#include <memory>

#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

const c10::impl::DeviceGuardImplInterface &gpu() { return *c10::impl::getDeviceGuardImpl(c10::kCUDA); }

} // namespace

extern "C" {

// Takes a stream of high priority on a GPU: its work starts as soon as a kernel of any stream ends.
int fovea_stream_new(int device, c10::Stream **stream) {
  return fovea::guarded([&] {
    *stream = std::make_unique<c10::Stream>(gpu().getStreamFromGlobalPool(c10::Device(c10::kCUDA, device), true)).release();
  });
}

void fovea_stream_delete(c10::Stream *stream) noexcept { delete stream; }

// CUDA's handle of a stream (cudaStream_t).
int fovea_stream_handle(const c10::Stream *stream, void **handle) {
  return fovea::guarded([&] { *handle = gpu().getStreamNativeHandle(*stream); });
}

// CUDA's handle of the stream in which this thread computes on a GPU.
int fovea_stream_current(int device, void **handle) {
  return fovea::guarded([&] {
    *handle = gpu().getStreamNativeHandle(gpu().getStream(c10::Device(c10::kCUDA, device)));
  });
}

// Records a new event at the end of the queue of `stream`, or if that is null, of the stream in which this thread computes.
int fovea_event_record(int device, const c10::Stream *stream, c10::Event **result) {
  return fovea::guarded([&] {
    auto event = std::make_unique<c10::Event>(c10::kCUDA);
    event->record(stream != nullptr ? *stream : gpu().getStream(c10::Device(c10::kCUDA, device)));
    *result = event.release();
  });
}

void fovea_event_delete(c10::Event *event) noexcept { delete event; }

// Makes all later work of the stream wait for the event.
int fovea_event_block(const c10::Event *event, const c10::Stream *stream) {
  return fovea::guarded([&] { event->block(*stream); });
}

// Whether the GPU has reached the event.
int fovea_event_done(const c10::Event *event, bool *done) {
  return fovea::guarded([&] { *done = event->query(); });
}

// Waits until the GPU has reached the event.
int fovea_event_wait(const c10::Event *event) {
  return fovea::guarded([&] { event->synchronize(); });
}

// Makes this thread compute in `stream`. Unless `before` is null, it receives the stream in which the thread computed before.
int fovea_stream_exchange(const c10::Stream *stream, c10::Stream **before) {
  return fovea::guarded([&] {
    // Allocated first, so that nothing can fail after the exchange.
    auto previous = std::make_unique<c10::Stream>(*stream);
    *previous = gpu().exchangeStream(*stream);
    if (before != nullptr) {
      *before = previous.release();
    }
  });
}
}
