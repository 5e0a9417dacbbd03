//! Work that leaves the processor to others.

/// How much lower the priority is ("nice"). A thread at +10 gets about a tenth of a processor that another one at 0
/// wants for itself. At the lowest, +19, it gets a seventieth: verifying a checkpoint (0.2 s of computing) then took over
/// 10 s on a machine whose workers use every core.
const LOWER: i32 = 10;

/// Does `work` on a thread of its own with a low priority, and waits for it.
///
/// Where workers run on the coordinator's machine, verifying a checkpoint must not make their steps longer.
///
/// # Panics
/// If `work` panics.
pub(crate) fn low_priority<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            lower();
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Lowers the priority of this thread, for as long as it lives.
pub(crate) fn lower() {
    #[cfg(target_os = "linux")]
    // SAFETY: the call touches no memory. On Linux it changes the priority of this thread only, and a thread may always
    // lower its own.
    unsafe {
        let own = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, 0, (own + LOWER).min(19));
    }
}

#[cfg(test)]
mod tests {
    use super::low_priority;

    #[test]
    #[cfg(target_os = "linux")]
    fn only_the_thread_of_the_work_has_the_low_priority() {
        // SAFETY: the call touches no memory.
        let priority = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = priority();
        assert_eq!(low_priority(priority), (before + super::LOWER).min(19));
        assert_eq!(priority(), before);
    }

    #[test]
    #[should_panic(expected = "the work panicked")]
    fn a_panic_is_passed_on() {
        low_priority(|| panic!("the work panicked"));
    }
}
