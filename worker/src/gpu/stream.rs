//! A stream of work on a GPU beside the one that libtorch computes in, and events between the two.

use std::ffi::{c_int, c_void};
use std::ptr::{NonNull, null, null_mut};

use crate::shim::{ShimError, check};

/// A point in a GPU's work.
#[derive(Debug)]
pub struct Event(NonNull<c_void>);

// SAFETY: a handle of CUDA's, which any thread may use.
unsafe impl Send for Event {}

impl Event {
    /// The end of all that this thread has queued on the GPU `device` so far.
    ///
    /// # Errors
    /// If libtorch does not know the device, or the GPU has failed.
    pub fn now(device: usize) -> Result<Self, ShimError> {
        Self::record(device, null())
    }

    /// The end of what is queued on `stream`, which is null for the stream in which this thread computes, or lives.
    fn record(device: usize, stream: *const c_void) -> Result<Self, ShimError> {
        let mut event = null_mut();
        // SAFETY: libtorch knows the device, or fails; null or a stream that lives; a place for the result.
        let code = unsafe { fovea_event_record(device as c_int, stream, &mut event) };
        check("fovea_event_record", code)?;
        let event = NonNull::new(event).expect("without an error there is an event");
        Ok(Self(event))
    }

    /// Whether the GPU has reached it.
    ///
    /// # Errors
    /// If the GPU has failed.
    pub fn done(&self) -> Result<bool, ShimError> {
        let mut done = false;
        // SAFETY: an event that lives, and a place for the result.
        let code = unsafe { fovea_event_done(self.0.as_ptr(), &mut done) };
        check("fovea_event_done", code)?;
        Ok(done)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: an event that is ours, and used by nobody from here on.
        unsafe { fovea_event_delete(self.0.as_ptr()) }
    }
}

/// A stream of its own. What is queued there runs beside libtorch's work, except for what it is told to wait for.
#[derive(Debug)]
pub struct SideStream {
    stream: OwnStream,
    handle: *mut c_void,
    device: usize,
}

// SAFETY: handles of CUDA's, which any thread may use.
unsafe impl Send for SideStream {}

/// libtorch's name of a stream. CUDA's stream itself belongs to libtorch's pool and stays when this is dropped.
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
        // SAFETY: it is ours, and used by nobody from here on.
        unsafe { fovea_stream_delete(self.0.as_ptr()) }
    }
}

impl SideStream {
    /// A new one on the GPU `device`.
    ///
    /// # Errors
    /// If libtorch does not know the device, or the GPU has failed.
    pub fn new(device: usize) -> Result<Self, ShimError> {
        let mut stream = null_mut();
        // SAFETY: libtorch knows the device, or fails; a place for the result.
        let code = unsafe { fovea_stream_new(device as c_int, &mut stream) };
        check("fovea_stream_new", code)?;
        let stream = OwnStream::of(stream);
        let mut handle = null_mut();
        // SAFETY: a stream that lives, and a place for the result.
        let code = unsafe { fovea_stream_handle(stream.0.as_ptr(), &mut handle) };
        check("fovea_stream_handle", code)?;
        Ok(Self {
            stream,
            handle,
            device,
        })
    }

    /// CUDA's own handle.
    pub fn handle(&self) -> *mut c_void {
        self.handle
    }

    /// What is queued here from now on waits for `event`.
    ///
    /// # Errors
    /// If the GPU has failed.
    pub fn wait_for(&self, event: &Event) -> Result<(), ShimError> {
        // SAFETY: both live.
        let code = unsafe { fovea_event_block(event.0.as_ptr(), self.stream.0.as_ptr()) };
        check("fovea_event_block", code)
    }

    /// The end of what is queued here.
    ///
    /// # Errors
    /// If the GPU has failed.
    pub fn event(&self) -> Result<Event, ShimError> {
        Event::record(self.device, self.stream.0.as_ptr())
    }

    /// Calls `work`, and lets libtorch queue here what this thread computes meanwhile.
    ///
    /// # Errors
    /// If libtorch cannot change streams; then `work` is not called.
    pub fn compute<T>(&self, work: impl FnOnce() -> T) -> Result<T, ShimError> {
        struct Back(OwnStream);
        impl Drop for Back {
            fn drop(&mut self) {
                // SAFETY: a stream that lives; the one that it replaces is not asked for. If it fails, the GPU has failed,
                // and the next call that waits for it says so.
                let _ = unsafe { fovea_stream_exchange(self.0.0.as_ptr(), null_mut()) };
            }
        }
        let mut before = null_mut();
        // SAFETY: a stream that lives, and a place for the result.
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
    fn fovea_event_record(device: c_int, stream: *const c_void, event: *mut *mut c_void) -> c_int;
    fn fovea_event_delete(event: *mut c_void);
    fn fovea_event_block(event: *const c_void, stream: *const c_void) -> c_int;
    fn fovea_event_done(event: *const c_void, done: *mut bool) -> c_int;
    fn fovea_stream_exchange(stream: *const c_void, before: *mut *mut c_void) -> c_int;
}
