//! Work that leaves the processor to others.

/// Does `work` on a thread of its own with the lowest priority, and waits for it.
///
/// Where workers run on the coordinator's machine, verifying a checkpoint must not make their steps longer.
///
/// # Panics
/// If `work` panics.
pub(crate) fn lowest_priority<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            #[cfg(target_os = "linux")]
            // SAFETY: the call touches no memory. On Linux it changes the priority of this thread only, and a
            // thread may always lower its own.
            unsafe {
                libc::setpriority(libc::PRIO_PROCESS, 0, 19);
            }
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::lowest_priority;

    #[test]
    #[cfg(target_os = "linux")]
    fn only_the_thread_of_the_work_has_the_lowest_priority() {
        // SAFETY: the call touches no memory.
        let priority = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = priority();
        assert_eq!(lowest_priority(priority), 19);
        assert_eq!(priority(), before);
    }

    #[test]
    #[should_panic(expected = "the work panicked")]
    fn a_panic_is_passed_on() {
        lowest_priority(|| panic!("the work panicked"));
    }
}
