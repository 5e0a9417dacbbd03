// Streams beside the one that libtorch computes in, and events between them, for which tch has no call. Errors follow shim.h.
//
// They are made through libtorch's interface to any accelerator, so that nothing of CUDA is needed to build this.

#include "../shim.h"

#include <memory>

#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

const c10::impl::DeviceGuardImplInterface &gpu() { return *c10::impl::getDeviceGuardImpl(c10::kCUDA); }

} // namespace

extern "C" {

// A fresh stream of high priority on a GPU: what is queued there is scheduled as soon as a kernel ends.
int fovea_stream_new(int device, c10::Stream **stream) {
  return fovea::guarded([&] {
    *stream = std::make_unique<c10::Stream>(gpu().getStreamFromGlobalPool(c10::Device(c10::kCUDA, device), true)).release();
  });
}

void fovea_stream_delete(c10::Stream *stream) noexcept { delete stream; }

// CUDA's own handle.
int fovea_stream_handle(const c10::Stream *stream, void **handle) {
  return fovea::guarded([&] { *handle = gpu().getStreamNativeHandle(*stream); });
}

// A fresh event at the end of what has been queued: on `stream`, or if it is null, on that in which this thread computes.
int fovea_event_record(int device, const c10::Stream *stream, c10::Event **result) {
  return fovea::guarded([&] {
    auto event = std::make_unique<c10::Event>(c10::kCUDA);
    event->record(stream != nullptr ? *stream : gpu().getStream(c10::Device(c10::kCUDA, device)));
    *result = event.release();
  });
}

void fovea_event_delete(c10::Event *event) noexcept { delete event; }

// What is queued on the stream from now on waits for the event.
int fovea_event_block(const c10::Event *event, const c10::Stream *stream) {
  return fovea::guarded([&] { event->block(*stream); });
}

// Whether the GPU has reached the event.
int fovea_event_done(const c10::Event *event, bool *done) {
  return fovea::guarded([&] { *done = event->query(); });
}

// From now on this thread computes in `stream`. `before` becomes the stream in which it computed before, unless it is null.
int fovea_stream_exchange(const c10::Stream *stream, c10::Stream **before) {
  return fovea::guarded([&] {
    // Made first, so that nothing fails once the streams are exchanged.
    auto previous = std::make_unique<c10::Stream>(*stream);
    *previous = gpu().exchangeStream(*stream);
    if (before != nullptr) {
      *before = previous.release();
    }
  });
}
}
