//! Requests to stop: signals, and a deadline after which the process ends whatever hangs.
//!
//! ```text
//! running ──signal──> stopping ──second signal──> exit code 5 (FORCED)
//!                        └──────deadline passed──> an exit code of the program's choice
//! ```

mod signals;
mod threads;

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use signals::StopRequests;
use signals::{Action, Requests, Signals};

/// Exit code of a program that was stopped by force by a second signal.
pub const FORCED: i32 = 5;

/// The longest that a forced exit waits for its own log line.
const LAST_LINE: Duration = Duration::from_millis(500);

/// Reports when the program is asked to stop. Clones are handles to the same request.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<Request>);

#[derive(Debug, Default)]
struct Request {
    token: CancellationToken,
    /// The same for OS threads, which cannot wait for a token.
    requested: Mutex<bool>,
    changed: Condvar,
}

impl Shutdown {
    /// Starts to listen for signals. TERM, INT, HUP, USR1 and USR2 are requests to stop; a second
    /// one ends the process at once with [`FORCED`]. A HUP that is ignored when the program starts
    /// (`nohup`) stays ignored.
    ///
    /// The signals have a thread of their own, so that a second one is acted upon even if all
    /// threads of the program hang.
    ///
    /// # Errors
    /// If the thread or the signal handlers cannot be set up.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut signals = {
            let _inside = runtime.enter();
            Signals::listen()?
        };
        let requested = shutdown.clone();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                runtime.block_on(async move {
                    let mut requests = Requests::default();
                    loop {
                        let signal = signals.next().await;
                        match requests.on_signal(signal, Instant::now()) {
                            Action::Stop => {
                                warn!(
                                    "shutdown.requested: received {signal}; stopping cleanly. A \
                                     second signal ends the process at once with exit code \
                                     {FORCED}."
                                );
                                requested.request();
                            }
                            Action::Repeated => info!(
                                "shutdown.repeated: received {signal} again; hangups within a \
                                 second are one request"
                            ),
                            Action::Quit => force_exit(FORCED, move || {
                                error!(
                                    "shutdown.forced: received {signal}, the second signal; \
                                     ending the process at once with exit code {FORCED}"
                                );
                            }),
                        }
                    }
                });
            })?;
        Ok(shutdown)
    }

    /// Asks for the stop, as a signal would.
    pub fn request(&self) {
        let mut requested = self
            .0
            .requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *requested = true;
        self.0.changed.notify_all();
        drop(requested);
        self.0.token.cancel();
    }

    /// Whether a stop was asked for.
    pub fn requested(&self) -> bool {
        self.0.token.is_cancelled()
    }

    /// Ends when a stop is asked for.
    pub async fn wait(&self) {
        self.0.token.cancelled().await;
    }

    /// Limits the time that the program takes to stop: if it still runs `limit` after a stop was
    /// asked for, a thread ends the process with `code` and logs what its threads were doing.
    /// `setting` names the configuration key for `limit`.
    ///
    /// This works whatever the other threads hang in. A thread in an uninterruptible wait of the
    /// kernel (state D, such as a broken disk) is the exception: the process ends when the wait
    /// does. The log names such threads.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn exit_within(&self, limit: Duration, code: i32, setting: &'static str) -> io::Result<()> {
        let request = Arc::clone(&self.0);
        thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || {
                request.block_until_requested();
                thread::sleep(limit);
                force_exit(code, move || {
                    error!(
                        "shutdown.forced: the program still runs {:.1} s after it was asked to \
                         stop (see {setting}); ending it with exit code {code}. {}",
                        limit.as_secs_f64(),
                        threads::describe()
                    );
                });
            })?;
        Ok(())
    }
}

impl Request {
    fn block_until_requested(&self) {
        let mut requested = self
            .requested
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while !*requested {
            requested = self
                .changed
                .wait(requested)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Logs, then [`leave`]s. Standard error may hang, too (a full pipe), so the log line has its own thread and a deadline.
fn force_exit(code: i32, log: impl FnOnce() + Send + 'static) -> ! {
    let (done, logged) = mpsc::channel();
    let logger = thread::Builder::new().name("last-line".into());
    if logger
        .spawn(move || {
            log();
            let _ = done.send(());
        })
        .is_ok()
    {
        let _ = logged.recv_timeout(LAST_LINE);
    }
    leave(code)
}

/// Ends the process without running exit handlers: those of C++ libraries destroy what a thread that still computes uses, and
/// wait for locks that a hanging thread may hold. Standard output must have been flushed.
pub fn leave(code: i32) -> ! {
    // SAFETY: `_exit` only ends the process; it touches no memory of it.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_reaches_tasks_and_threads() {
        let shutdown = Shutdown::default();
        assert!(!shutdown.requested());
        let request = Arc::clone(&shutdown.0);
        let thread = thread::spawn(move || request.block_until_requested());
        let waiting = shutdown.clone();
        let task = tokio::spawn(async move { waiting.wait().await });
        shutdown.request();
        task.await.unwrap();
        thread.join().unwrap();
        assert!(shutdown.requested());
    }
}
