//! A second stream on a GPU, beside the one in which libtorch computes, and events that order the work of the two.

use std::ffi::{c_int, c_void};
use std::ptr::{NonNull, null, null_mut};

use crate::shim::{ShimError, check};

/// A position in the queue of a GPU's stream.
#[derive(Debug)]
pub struct Event(NonNull<c_void>);

// SAFETY: any thread may use this handle of CUDA.
unsafe impl Send for Event {}

impl Event {
    /// Records the end of all work that this thread has queued on the GPU `device` so far.
    ///
    /// # Errors
    /// If libtorch does not know the device, or the GPU has failed.
    pub fn now(device: usize) -> Result<Self, ShimError> {
        Self::record(device, null())
    }

    /// Records the end of the queue of `stream`, which is a live stream, or null for the one in which this thread computes.
    fn record(device: usize, stream: *const c_void) -> Result<Self, ShimError> {
        let mut event = null_mut();
        // SAFETY: libtorch checks the device, `stream` is null or live, and there is a place for the result.
        let code = unsafe { fovea_event_record(device as c_int, stream, &mut event) };
        check("fovea_event_record", code)?;
        let event = NonNull::new(event).expect("without an error there is an event");
        Ok(Self(event))
    }

    /// Whether the GPU has reached this event.
    ///
    /// # Errors
    /// If the GPU has failed.
    pub fn done(&self) -> Result<bool, ShimError> {
        let mut done = false;
        // SAFETY: the event is live, and there is a place for the result.
        let code = unsafe { fovea_event_done(self.0.as_ptr(), &mut done) };
        check("fovea_event_done", code)?;
        Ok(done)
    }

    /// Waits until the GPU has reached this event.
    ///
    /// # Errors
    /// If the GPU has failed.
    pub fn wait(&self) -> Result<(), ShimError> {
        // SAFETY: the event is live.
        let code = unsafe { fovea_event_wait(self.0.as_ptr()) };
        check("fovea_event_wait", code)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is owned, and nothing uses it after the drop.
        unsafe { fovea_event_delete(self.0.as_ptr()) }
    }
}

/// CUDA's handle (`cudaStream_t`) of the stream in which this thread computes on the GPU `device`; null for the default one.
///
/// # Errors
/// If libtorch does not know the device.
pub fn current_handle(device: usize) -> Result<*mut c_void, ShimError> {
    let mut handle = null_mut();
    // SAFETY: libtorch checks the device, and there is a place for the result.
    let code = unsafe { fovea_stream_current(device as c_int, &mut handle) };
    check("fovea_stream_current", code)?;
    Ok(handle)
}

/// A stream of its own. Its work runs beside libtorch's, except where [`SideStream::wait_for`] orders the two.
#[derive(Debug)]
pub struct SideStream {
    stream: OwnStream,
    handle: *mut c_void,
    device: usize,
}

// SAFETY: any thread may use these handles of CUDA.
unsafe impl Send for SideStream {}

/// libtorch's object for a stream. The CUDA stream belongs to libtorch's pool and outlives this object.
#[derive(Debug)]
struct OwnStream(NonNull<c_void>);

impl OwnStream {
    /// Takes ownership of a stream that a shim made.
    fn of(stream: *mut c_void) -> Self {
        Self(NonNull::new(stream).expect("without an error there is a stream"))
    }
}

impl Drop for OwnStream {
    fn drop(&mut self) {
        // SAFETY: the object is owned, and nothing uses it after the drop.
        unsafe { fovea_stream_delete(self.0.as_ptr()) }
    }
}

impl SideStream {
    /// Takes a stream of high priority on the GPU `device` from libtorch's pool.
    ///
    /// # Errors
    /// If libtorch does not know the device, or the GPU has failed.
    pub fn new(device: usize) -> Result<Self, ShimError> {
        let mut stream = null_mut();
        // SAFETY: libtorch checks the device, and there is a place for the result.
        let code = unsafe { fovea_stream_new(device as c_int, &mut stream) };
        check("fovea_stream_new", code)?;
        let stream = OwnStream::of(stream);
        let mut handle = null_mut();
        // SAFETY: the stream is live, and there is a place for the result.
        let code = unsafe { fovea_stream_handle(stream.0.as_ptr(), &mut handle) };
        check("fovea_stream_handle", code)?;
        Ok(Self {
            stream,
            handle,
            device,
        })
    }

    /// CUDA's handle of the stream (`cudaStream_t`).
    pub fn handle(&self) -> *mut c_void {
        self.handle
    }

    /// Makes all work that is queued here later wait for `event`.
    ///
    /// # Errors
    /// If the GPU has failed.
    pub fn wait_for(&self, event: &Event) -> Result<(), ShimError> {
        // SAFETY: event and stream are live.
        let code = unsafe { fovea_event_block(event.0.as_ptr(), self.stream.0.as_ptr()) };
        check("fovea_event_block", code)
    }

    /// Records the end of the work that is queued here.
    ///
    /// # Errors
    /// If the GPU has failed.
    pub fn event(&self) -> Result<Event, ShimError> {
        Event::record(self.device, self.stream.0.as_ptr())
    }

    /// Calls `work`; libtorch queues on this stream what the thread computes during the call.
    ///
    /// # Errors
    /// If libtorch cannot change streams; then `work` is not called.
    pub fn compute<T>(&self, work: impl FnOnce() -> T) -> Result<T, ShimError> {
        struct Back(OwnStream);
        impl Drop for Back {
            fn drop(&mut self) {
                // SAFETY: the stream is live; null means that the stream it replaces is not wanted. An error means that the
                // GPU has failed, which the next call that waits for the GPU returns.
                let _ = unsafe { fovea_stream_exchange(self.0.0.as_ptr(), null_mut()) };
            }
        }
        let mut before = null_mut();
        // SAFETY: the stream is live, and there is a place for the result.
        let code = unsafe { fovea_stream_exchange(self.stream.0.as_ptr(), &mut before) };
        check("fovea_stream_exchange", code)?;
        let _back = Back(OwnStream::of(before));
        Ok(work())
    }
}

// See `stream.cpp`.
unsafe extern "C" {
    fn fovea_stream_new(device: c_int, stream: *mut *mut c_void) -> c_int;
    fn fovea_stream_delete(stream: *mut c_void);
    fn fovea_stream_handle(stream: *const c_void, handle: *mut *mut c_void) -> c_int;
    fn fovea_stream_current(device: c_int, handle: *mut *mut c_void) -> c_int;
    fn fovea_event_record(device: c_int, stream: *const c_void, event: *mut *mut c_void) -> c_int;
    fn fovea_event_delete(event: *mut c_void);
    fn fovea_event_block(event: *const c_void, stream: *const c_void) -> c_int;
    fn fovea_event_done(event: *const c_void, done: *mut bool) -> c_int;
    fn fovea_event_wait(event: *const c_void) -> c_int;
    fn fovea_stream_exchange(stream: *const c_void, before: *mut *mut c_void) -> c_int;
}
