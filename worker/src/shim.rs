//! The Rust side of the error convention of the C++ shims; `shim.h` describes it.

use std::ffi::{CStr, c_char, c_int};

/// A call of libtorch through a C++ shim failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call} failed: {reason}")]
pub struct ShimError {
    /// Name of the shim, such as `fovea_stream_new`.
    pub call: &'static str,
    /// First line of libtorch's error; a backtrace follows it, which is left out.
    pub reason: String,
}

/// Turns the result of the shim `call` into an error. The text belongs to the thread: call this in the thread that called
/// the shim, and before it calls another one.
pub(crate) fn check(call: &'static str, code: c_int) -> Result<(), ShimError> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the text ends with a zero byte, and nothing changes it before this thread's next failure; it is copied
    // before that.
    let text = unsafe { CStr::from_ptr(fovea_shim_error()) }.to_string_lossy();
    Err(ShimError {
        call,
        reason: text.lines().next().unwrap_or_default().to_owned(),
    })
}

// See `shim.cpp`.
unsafe extern "C" {
    fn fovea_shim_error() -> *const c_char;
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn fovea_shim_throw(kind: c_int) -> c_int;
    }

    fn thrown(kind: c_int) -> Result<(), ShimError> {
        // SAFETY: it takes any number, and no exception leaves it.
        check("fovea_shim_throw", unsafe { fovea_shim_throw(kind) })
    }

    #[test]
    fn every_exception_becomes_an_error() {
        assert_eq!(thrown(0), Ok(()));
        let reason = |kind| thrown(kind).unwrap_err().reason;
        assert_eq!(reason(1), "the first line");
        assert_eq!(reason(2), "a C++ exception that is not a std::exception");
        assert_eq!(reason(3), "x".repeat(2047));
        assert_eq!(
            thrown(1).unwrap_err().to_string(),
            "fovea_shim_throw failed: the first line"
        );
    }

    #[test]
    fn each_thread_has_its_own_error() {
        // SAFETY: as in `thrown`.
        let code = unsafe { fovea_shim_throw(1) };
        let other = std::thread::spawn(|| thrown(2).unwrap_err());
        assert!(
            other
                .join()
                .unwrap()
                .reason
                .contains("not a std::exception")
        );
        let own = check("fovea_shim_throw", code).unwrap_err();
        assert_eq!(own.reason, "the first line");
    }
}
