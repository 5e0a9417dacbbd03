//! Work that may hang in the kernel: a read from a network mount that is gone does not return, and no signal ends it.
//!
//! Such work runs on a thread of its own. The thread that waits for it can stop waiting: the other is then abandoned,
//! and the worker continues without it. An abandoned thread counts until its call returns. With more than
//! [`Abandoned::LIMIT`] of them the process ends, because the machine needs attention.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use tracing::{error, info, warn};

/// Exit code of a worker that hung threads have ended.
pub const EXIT_HUNG: i32 = 6;
/// How often a waiting thread asks whether it should stop waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Number of threads of this process that were abandoned and have not returned.
static ABANDONED: AtomicUsize = AtomicUsize::new(0);

const RUNNING: u8 = 0;
const DONE: u8 = 1;
const LEFT: u8 = 2;

/// One piece of work that can be abandoned. The thread holds one half, the one that waits the other.
#[derive(Debug)]
struct Shared {
    what: String,
    state: AtomicU8,
}

/// The waiting half. Dropping it before the work is done abandons the thread.
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
            state: AtomicU8::new(RUNNING),
        });
        (Self(shared.clone()), Working(shared))
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        let left = self
            .0
            .state
            .compare_exchange(RUNNING, LEFT, Ordering::SeqCst, Ordering::SeqCst);
        if left.is_err() {
            return;
        }
        let count = ABANDONED.fetch_add(1, Ordering::SeqCst) + 1;
        let (what, limit) = (&self.0.what, Self::LIMIT);
        warn!(
            "thread.abandoned: {what} has not returned; continuing without it ({count} of at most {limit} such \
             threads). If it does not return soon, check the disk or mount"
        );
        if count > limit {
            error!(
                "thread.limit_reached: {count} threads hang, the last one in {what}; exiting. Repair the disk or \
                 mount, then restart the worker"
            );
            std::process::exit(EXIT_HUNG);
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        if self.0.state.swap(DONE, Ordering::SeqCst) == LEFT {
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

/// Does blocking `work` outside of the async threads. If the future is dropped before, the thread is abandoned.
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
    use std::io::{Read, Write};
    use std::time::Instant;

    use super::*;

    /// A thread in a read that does not return, as from a mount that hangs.
    #[test]
    fn a_read_that_hangs_is_left_behind_and_counts_until_it_returns() {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let begun = Instant::now();
        let hung = supervise(
            "reading a pipe in a test",
            &|| begun.elapsed() > Duration::from_millis(200),
            move || {
                let mut byte = [0];
                reader.read_exact(&mut byte).unwrap();
                byte[0]
            },
        );
        assert!(matches!(hung, Err(SuperviseError::GivenUp)));
        assert!(begun.elapsed() < Duration::from_secs(10));
        writer.write_all(&[7]).unwrap();
        // Work that returns is not given up.
        let done = supervise("computing in a test", &|| false, || 7);
        assert_eq!(done.unwrap(), 7);
        let panicked = supervise("panicking in a test", &|| false, || -> u8 { panic!("now") });
        assert!(matches!(panicked, Err(SuperviseError::Panicked(_))));
    }

    #[test]
    fn an_abandoned_thread_is_counted_until_it_returns() {
        let (waiting, working) = Abandoned::new("hanging in a test");
        let shared = working.0.clone();
        drop(waiting);
        assert_eq!(shared.state.load(Ordering::SeqCst), LEFT);
        assert!(ABANDONED.load(Ordering::SeqCst) >= 1);
        drop(working);
        assert_eq!(shared.state.load(Ordering::SeqCst), DONE);
        // Done before it is left: nothing is abandoned.
        let (waiting, working) = Abandoned::new("working in a test");
        let shared = waiting.0.clone();
        drop(working);
        drop(waiting);
        assert_eq!(shared.state.load(Ordering::SeqCst), DONE);
    }
}
