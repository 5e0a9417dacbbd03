//! The Rust side of the C++ shims' error convention, which `shim.h` describes.

use std::ffi::{CStr, c_char, c_int};

/// A call of libtorch by way of C++ failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call} failed: {reason}")]
pub struct ShimError {
    /// The shim that was called, such as `fovea_stream_new`.
    pub call: &'static str,
    /// What libtorch said: the first line, without the backtrace behind it.
    pub reason: String,
}

impl From<ShimError> for String {
    fn from(error: ShimError) -> Self {
        error.to_string()
    }
}

/// Turns the result of the shim `call` into an error. It must be called in the thread of the shim, and before the next one.
pub(crate) fn check(call: &'static str, code: c_int) -> Result<(), ShimError> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: it returns this thread's text, which ends with a zero and is not changed before the thread's next failure;
    // it is copied here.
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
        // SAFETY: it takes any number, and throws nothing to its caller.
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
