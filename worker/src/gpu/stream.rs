//! A stream of work on a GPU beside the one that libtorch computes in, and events between the two.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{NonNull, null, null_mut};

use super::Found;

/// A point in a GPU's work.
#[derive(Debug)]
pub struct Event(NonNull<c_void>);

// SAFETY: a handle of CUDA's, which any thread may use.
unsafe impl Send for Event {}

impl Event {
    /// The end of all that this thread has told the GPU `device` to compute so far.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn now(device: usize) -> Found<Self> {
        // SAFETY: libtorch knows the device, or says so.
        said(|problem| unsafe { fovea_event_record(device as c_int, null(), problem) })
            .map(Self::own)
    }

    fn own(event: *mut c_void) -> Self {
        Self(NonNull::new(event).expect("without a problem there is an event"))
    }

    /// Whether the GPU has come to it.
    ///
    /// # Errors
    /// What libtorch says: the GPU has failed.
    pub fn done(&self) -> Found<bool> {
        // SAFETY: an event that lives.
        said(|problem| unsafe { fovea_event_done(self.0.as_ptr(), problem) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody's from here on.
        unsafe { fovea_event_delete(self.0.as_ptr()) }
    }
}

/// A stream of its own. What is queued there goes on beside libtorch's work, but for what it is told to wait for.
#[derive(Debug)]
pub struct SideStream {
    stream: NonNull<c_void>,
    handle: *mut c_void,
    device: usize,
}

// SAFETY: as of events.
unsafe impl Send for SideStream {}

impl SideStream {
    /// One on the GPU `device`.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn new(device: usize) -> Found<Self> {
        // SAFETY: libtorch knows the device, or says so.
        let stream = said(|problem| unsafe { fovea_stream_new(device as c_int, problem) })?;
        let stream = NonNull::new(stream).expect("without a problem there is a stream");
        let mut side = Self {
            stream,
            handle: null_mut(),
            device,
        };
        // SAFETY: a stream that lives.
        side.handle = said(|problem| unsafe { fovea_stream_handle(stream.as_ptr(), problem) })?;
        Ok(side)
    }

    /// CUDA's own handle.
    pub fn handle(&self) -> *mut c_void {
        self.handle
    }

    /// What is queued here from now on waits for `event`.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn wait_for(&self, event: &Event) -> Found<()> {
        // SAFETY: both live.
        said(|problem| unsafe {
            fovea_event_block(event.0.as_ptr(), self.stream.as_ptr(), problem);
        })
    }

    /// The end of what is queued here.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn event(&self) -> Found<Event> {
        // SAFETY: a stream that lives.
        let record = |problem: *mut _| unsafe {
            fovea_event_record(self.device as c_int, self.stream.as_ptr(), problem)
        };
        said(record).map(Event::own)
    }

    /// Lets libtorch compute here what `work` tells it.
    ///
    /// # Errors
    /// What libtorch says of the change of streams.
    pub fn compute<T>(&self, work: impl FnOnce() -> T) -> Found<T> {
        struct Back(*mut c_void);
        impl Drop for Back {
            fn drop(&mut self) {
                // SAFETY: the stream that this thread computed in before; nothing is to be done if it fails.
                unsafe {
                    let mut problem = null_mut();
                    fovea_stream_delete(fovea_stream_exchange(self.0, &mut problem));
                    libc::free(problem.cast());
                    fovea_stream_delete(self.0);
                }
            }
        }
        // SAFETY: a stream that lives.
        let before =
            said(|problem| unsafe { fovea_stream_exchange(self.stream.as_ptr(), problem) })?;
        let _back = Back(before);
        Ok(work())
    }
}

impl Drop for SideStream {
    fn drop(&mut self) {
        // SAFETY: ours; CUDA's stream itself is one of libtorch's, and stays.
        unsafe { fovea_stream_delete(self.stream.as_ptr()) }
    }
}

/// What a call gives, unless it says that there is a problem.
pub(crate) fn said<T>(call: impl FnOnce(*mut *mut c_char) -> T) -> Found<T> {
    let mut problem: *mut c_char = null_mut();
    let result = call(&mut problem);
    if problem.is_null() {
        return Ok(result);
    }
    // SAFETY: a text that is ours.
    unsafe {
        let text = CStr::from_ptr(problem).to_string_lossy().into_owned();
        libc::free(problem.cast());
        // The first line says it; behind it comes where in libtorch.
        Err(text.lines().next().unwrap_or_default().to_owned())
    }
}

// See `stream.cpp`.
unsafe extern "C" {
    fn fovea_stream_new(device: c_int, problem: *mut *mut c_char) -> *mut c_void;
    fn fovea_stream_delete(stream: *mut c_void);
    fn fovea_stream_handle(stream: *const c_void, problem: *mut *mut c_char) -> *mut c_void;
    fn fovea_event_record(
        device: c_int,
        stream: *const c_void,
        problem: *mut *mut c_char,
    ) -> *mut c_void;
    fn fovea_event_delete(event: *mut c_void);
    fn fovea_event_block(event: *const c_void, stream: *const c_void, problem: *mut *mut c_char);
    fn fovea_event_done(event: *const c_void, problem: *mut *mut c_char) -> bool;
    fn fovea_stream_exchange(stream: *const c_void, problem: *mut *mut c_char) -> *mut c_void;
}
