//! Which kind of trouble an error is, where it is this worker's own.

use std::io;

use fovea_core::run::Trouble;

/// The trouble behind an error of a file or folder of this worker.
pub fn of_folder(error: &io::Error) -> Trouble {
    of_system(error).unwrap_or(Trouble::Disk)
}

/// The trouble behind an error that may come from a limit of the process or the system; None if it does not.
pub fn of_system(error: &io::Error) -> Option<Trouble> {
    match error.raw_os_error()? {
        libc::ENOMEM => Some(Trouble::Memory),
        // Threads, descriptors and buffers.
        libc::EAGAIN | libc::EMFILE | libc::ENFILE | libc::ENOBUFS => Some(Trouble::System),
        _ => None,
    }
}

/// The trouble behind an error text of libtorch, CUDA or a library of theirs.
pub fn of_device(text: &str) -> Trouble {
    match is_out_of_memory(text) {
        true => Trouble::Memory,
        false => Trouble::Device,
    }
}

/// Whether a text of libtorch, CUDA or a library of theirs says that there is no memory left.
pub fn is_out_of_memory(text: &str) -> bool {
    // libtorch's allocators for the host and the GPU, the driver, C++, cuDNN and cuBLAS.
    const TEXTS: [&str; 7] = [
        "out of memory",
        "can't allocate memory",
        "cannot allocate memory",
        "not enough memory",
        "out_of_memory",
        "bad_alloc",
        "_alloc_failed",
    ];
    let text = text.to_lowercase();
    TEXTS.iter().any(|part| text.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_are_told_from_those_of_a_folder() {
        let error = io::Error::from_raw_os_error;
        for (code, folder, system) in [
            (libc::ENOSPC, Trouble::Disk, None),
            (libc::EDQUOT, Trouble::Disk, None),
            (libc::EROFS, Trouble::Disk, None),
            (libc::EACCES, Trouble::Disk, None),
            (libc::ENOTDIR, Trouble::Disk, None),
            (libc::EIO, Trouble::Disk, None),
            (libc::ENOMEM, Trouble::Memory, Some(Trouble::Memory)),
            (libc::EMFILE, Trouble::System, Some(Trouble::System)),
            (libc::EAGAIN, Trouble::System, Some(Trouble::System)),
            (libc::ECONNRESET, Trouble::Disk, None),
        ] {
            assert_eq!(of_folder(&error(code)), folder, "{code}");
            assert_eq!(of_system(&error(code)), system, "{code}");
        }
        assert_eq!(of_system(&io::Error::other("x")), None);
    }

    /// Texts as the libraries write them.
    #[test]
    fn out_of_memory_is_recognised_in_texts() {
        for (text, expected) in [
            (
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
                 allocate 1024 bytes. Error code 12 (Cannot allocate memory)",
                Trouble::Memory,
            ),
            (
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0",
                Trouble::Memory,
            ),
            ("CUDA error: out of memory", Trouble::Memory),
            ("CUDA_ERROR_OUT_OF_MEMORY", Trouble::Memory),
            ("std::bad_alloc", Trouble::Memory),
            ("CUDNN_STATUS_ALLOC_FAILED", Trouble::Memory),
            ("CUBLAS_STATUS_ALLOC_FAILED when calling", Trouble::Memory),
            (
                "CUDA error: an illegal memory access was encountered",
                Trouble::Device,
            ),
            ("expected 3 dimensions", Trouble::Device),
        ] {
            assert_eq!(of_device(text), expected, "{text}");
        }
    }
}
