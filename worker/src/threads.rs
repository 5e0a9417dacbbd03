//! Work that may hang in the kernel: a read from a network mount that is gone does not return, and no signal ends it.
//!
//! Such work runs on a thread of its own. The thread that waits for it can stop waiting: the other is then left behind,
//! and the worker continues without it.
//!
//! ```text
//! Running ──> Done
//!    │          ^
//!    v          │ (within GRACE: nothing is logged)
//!   Left ───────┤
//!    │ GRACE    │
//!    v          │
//! Abandoned ────┘ (counts until then)
//! ```
//!
//! With more than [`Abandoned::LIMIT`] abandoned threads the process ends, because the machine needs attention.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{error, info, warn};

/// Exit code of a worker that hung threads have ended.
pub const EXIT_HUNG: i32 = 6;
/// How often a waiting thread asks whether it should stop waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long work that nobody waits for any more may take to return before its thread counts as abandoned. A read from a
/// disk that answers returns sooner.
const GRACE: Duration = Duration::from_secs(1);

/// Number of threads of this process that were abandoned and have not returned.
static ABANDONED: AtomicUsize = AtomicUsize::new(0);

/// How far a piece of work is. The diagram above has the transitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It runs, and somebody waits for it.
    Running,
    /// It runs, and nobody has waited for it for less than [`GRACE`].
    Left,
    /// It did not return within [`GRACE`] after it was left.
    Abandoned,
    /// It has returned.
    Done,
}

/// One piece of work that can be abandoned. The thread holds one half, the one that waits the other.
#[derive(Debug)]
struct Shared {
    what: String,
    stage: Mutex<Stage>,
    /// Notified when the work is done.
    done: Condvar,
}

impl Shared {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().expect("no holder of this lock panics")
    }

    /// Waits for work that was left. Counts its thread as abandoned if it does not return within `grace`.
    fn watch(&self, grace: Duration) {
        let waited = self
            .done
            .wait_timeout_while(self.stage(), grace, |stage| *stage == Stage::Left);
        let (mut stage, _) = waited.expect("no holder of this lock panics");
        if *stage != Stage::Left {
            return;
        }
        *stage = Stage::Abandoned;
        let count = ABANDONED.fetch_add(1, Ordering::SeqCst) + 1;
        drop(stage);
        let (what, limit) = (&self.what, Abandoned::LIMIT);
        warn!(
            "thread.abandoned: {what} has not returned {grace:?} after nobody needed it any more; continuing without \
             it ({count} of at most {limit} such threads). Check the disk or mount"
        );
        if count > limit {
            error!(
                "thread.limit_reached: {count} threads hang, the last one in {what}; exiting. Repair the disk or \
                 mount, then restart the worker"
            );
            fovea_service::leave(EXIT_HUNG);
        }
    }
}

/// The waiting half. Dropping it before the work is done leaves the thread behind.
#[derive(Debug)]
pub(crate) struct Abandoned(Arc<Shared>);

/// The working half. Dropping it marks the work as done.
#[derive(Debug)]
pub(crate) struct Working(Arc<Shared>);

impl Abandoned {
    /// More abandoned threads than this end the process.
    pub(crate) const LIMIT: usize = 4;

    /// Both halves for the work that `what` describes, such as "reading pack 3".
    pub(crate) fn new(what: impl Into<String>) -> (Self, Working) {
        let shared = Arc::new(Shared {
            what: what.into(),
            stage: Mutex::new(Stage::Running),
            done: Condvar::new(),
        });
        (Self(shared.clone()), Working(shared))
    }

    /// Leaves the work behind, if it is not done. Returns the thread that watches it, which ends within `grace`.
    fn leave(&self, grace: Duration) -> Option<JoinHandle<()>> {
        {
            let mut stage = self.0.stage();
            if *stage != Stage::Running {
                return None;
            }
            *stage = Stage::Left;
        }
        let shared = self.0.clone();
        // Who leaves it behind must not wait: it may be the device's thread, or an async task.
        let watcher = std::thread::Builder::new()
            .name("watcher".into())
            .spawn(move || shared.watch(grace));
        watcher
            .inspect_err(|error| {
                let what = &self.0.what;
                warn!(
                    "thread.unwatched: cannot start a thread: {error}; whether {what} returns is not known. Check the \
                     limits on threads and memory"
                );
            })
            .ok()
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        // The watcher needs no owner: it ends within its time, and holds nothing but the work's name.
        drop(self.leave(GRACE));
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let before = std::mem::replace(&mut *self.0.stage(), Stage::Done);
        self.0.done.notify_all();
        if before == Stage::Abandoned {
            ABANDONED.fetch_sub(1, Ordering::SeqCst);
            info!("thread.returned: {} returned at last", self.0.what);
        }
    }
}

/// Why supervised work has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuperviseError {
    /// The waiting side gave up.
    #[error("given up while waiting for it")]
    GivenUp,
    /// The thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Spawn(#[from] std::io::Error),
    /// The thread panicked.
    #[error("{0}: the thread panicked")]
    Panicked(String),
}

/// Does `work` on a new thread and blocks until it is done or `give_up` holds, which is asked every 50 ms.
pub(crate) fn supervise<T: Send + 'static>(
    what: &str,
    give_up: &dyn Fn() -> bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SuperviseError> {
    let (waiting, working) = Abandoned::new(what);
    let (send, result) = channel();
    std::thread::Builder::new()
        .name("supervised".into())
        .spawn(move || {
            let result = work();
            drop(working);
            // Without a receiver the result is not needed.
            let _ = send.send(result);
        })?;
    let result = loop {
        match result.recv_timeout(POLL_INTERVAL) {
            Ok(value) => break Ok(value),
            Err(RecvTimeoutError::Timeout) if give_up() => break Err(SuperviseError::GivenUp),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                break Err(SuperviseError::Panicked(what.to_owned()));
            }
        }
    };
    drop(waiting);
    result
}

/// Does blocking `work` outside of the async threads. If the future is dropped before, the thread is left behind.
pub(crate) async fn blocking<T: Send + 'static>(
    what: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (waiting, working) = Abandoned::new(what);
    let result = tokio::task::spawn_blocking(move || {
        let result = work();
        drop(working);
        result
    })
    .await;
    drop(waiting);
    result.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read, Write};

    use super::*;
    use crate::testing::{PATIENCE, collect_log, logged};

    /// In a function of its own, so that no failed assertion holds the lock.
    fn stage_of(work: &Shared) -> Stage {
        *work.stage()
    }

    /// A thread in a read that does not return, as from a mount that hangs.
    #[test]
    fn a_read_that_hangs_is_left_behind_and_counts_until_it_returns() {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let (asked, given_up) = (Cell::new(0), 3);
        let hung = supervise(
            "reading a pipe in a test",
            &|| asked.replace(asked.get() + 1) == given_up,
            move || {
                let mut byte = [0];
                reader.read_exact(&mut byte).unwrap();
                byte[0]
            },
        );
        // The pipe is written to only below, so the read has not returned.
        assert!(matches!(hung, Err(SuperviseError::GivenUp)));
        writer.write_all(&[7]).unwrap();
        // Work that returns is not given up.
        let done = supervise("computing in a test", &|| false, || 7);
        assert_eq!(done.unwrap(), 7);
        let panicked = supervise("panicking in a test", &|| false, || -> u8 { panic!("now") });
        assert!(matches!(panicked, Err(SuperviseError::Panicked(_))));
    }

    #[test]
    fn a_thread_that_does_not_return_is_abandoned_and_counted_until_it_returns() {
        collect_log();
        let (waiting, working) = Abandoned::new("hanging in a test");
        let shared = working.0.clone();
        let grace = Duration::from_millis(1);
        waiting.leave(grace).unwrap().join().unwrap();
        assert_eq!(stage_of(&shared), Stage::Abandoned);
        assert!(ABANDONED.load(Ordering::SeqCst) >= 1);
        assert!(logged("thread.abandoned: hanging in a test"));
        drop(waiting);
        drop(working);
        assert_eq!(stage_of(&shared), Stage::Done);
        assert!(logged("thread.returned: hanging in a test"));
        // Done before it is left: nothing is abandoned.
        let (waiting, working) = Abandoned::new("working in a test");
        drop(working);
        assert!(waiting.leave(grace).is_none());
        assert_eq!(stage_of(&waiting.0), Stage::Done);
    }

    /// Another worker has failed, and this one's read returns at once.
    #[test]
    fn a_thread_that_returns_soon_after_it_was_left_is_not_abandoned() {
        collect_log();
        let (waiting, working) = Abandoned::new("returning soon in a test");
        let watcher = waiting.leave(PATIENCE).unwrap();
        // A watcher that did not wait would count it within this time.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(stage_of(&waiting.0), Stage::Left);
        drop(working);
        watcher.join().unwrap();
        assert_eq!(stage_of(&waiting.0), Stage::Done);
        assert!(!logged("returning soon in a test"));
    }
}
