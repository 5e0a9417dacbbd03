//! Which signals are requests to stop, and what a second one means.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

/// A closing terminal may send several HUPs (the kernel one, the shell another). Those within this
/// time of each other are one request.
const SAME_HANGUP: Duration = Duration::from_secs(1);

/// A signal that asks the program to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Terminate,
    Interrupt,
    Hangup,
    User1,
    User2,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Hangup => "SIGHUP",
            Self::User1 => "SIGUSR1",
            Self::User2 => "SIGUSR2",
        })
    }
}

/// What to do about a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Stop cleanly.
    Stop,
    /// Nothing: it belongs to the request before.
    Repeated,
    /// End at once.
    Quit,
}

/// The signals received so far.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// The signal before, and when it came.
    last: Option<(Signal, Instant)>,
}

impl Requests {
    /// Decides about a signal that came at `now`.
    pub(super) fn on_signal(&mut self, signal: Signal, now: Instant) -> Action {
        match self.last.replace((signal, now)) {
            None => Action::Stop,
            Some((Signal::Hangup, before))
                if signal == Signal::Hangup && now.duration_since(before) < SAME_HANGUP =>
            {
                Action::Repeated
            }
            Some(_) => Action::Quit,
        }
    }
}

/// The signals that this process listens for.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// None if it was ignored when the program started.
    hangup: Option<tokio::signal::unix::Signal>,
    user1: tokio::signal::unix::Signal,
    user2: tokio::signal::unix::Signal,
}

impl Signals {
    /// Installs the handlers. Must be called inside a tokio runtime.
    pub(super) fn listen() -> io::Result<Self> {
        // A handler would undo what `nohup` did.
        let nohup = hangup_is_ignored();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: if nohup {
                None
            } else {
                Some(signal(SignalKind::hangup())?)
            },
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> Signal {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = hangup => Signal::Hangup,
            _ = self.user1.recv() => Signal::User1,
            _ = self.user2.recv() => Signal::User2,
        }
    }
}

/// Requests to stop, for programs that decide themselves what the first one and the second one mean.
/// `Shutdown` is for those that drain at the first and end at the second.
///
/// TERM, INT, HUP, USR1 and USR2 are requests. HUPs within a second of each other are one. A HUP that
/// was ignored when the program started (`nohup`) stays ignored.
#[derive(Debug)]
pub struct StopRequests {
    signals: Signals,
    requests: Requests,
}

impl StopRequests {
    /// Begins to listen: from now on none of the signals ends the program by itself. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            signals: Signals::listen()?,
            requests: Requests::default(),
        })
    }

    /// Waits for the next request. Safe to drop and call again.
    pub async fn next(&mut self) {
        loop {
            let signal = self.signals.next().await;
            match self.requests.on_signal(signal, Instant::now()) {
                Action::Stop | Action::Quit => return,
                Action::Repeated => {}
            }
        }
    }
}

/// Whether HUP is ignored now. Only true before anything listens for it if the program was started
/// so.
fn hangup_is_ignored() -> bool {
    // SAFETY: sigaction with a null new action only writes the present one to `present`, which is
    // valid for that; all-zero bytes are a valid sigaction.
    unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut present) == 0
            && present.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_signal_quits_but_hangups_come_in_bunches() {
        use Signal::{Hangup, Terminate, User1, User2};
        let cases: [(&[(Signal, u64)], Action); 8] = [
            (&[(Terminate, 0)], Action::Stop),
            (&[(Terminate, 0), (Terminate, 1)], Action::Quit),
            (&[(User1, 0), (User2, 5000)], Action::Quit),
            (&[(Hangup, 0), (Hangup, 999)], Action::Repeated),
            // Each within a second of the one before.
            (
                &[(Hangup, 0), (Hangup, 900), (Hangup, 1800)],
                Action::Repeated,
            ),
            (&[(Hangup, 0), (Hangup, 1000)], Action::Quit),
            (&[(Hangup, 0), (Terminate, 10)], Action::Quit),
            (&[(Terminate, 0), (Hangup, 10)], Action::Quit),
        ];
        let start = Instant::now();
        for (signals, last) in cases {
            let mut requests = Requests::default();
            let mut action = None;
            for (signal, ms) in signals {
                let now = start + Duration::from_millis(*ms);
                action = Some(requests.on_signal(*signal, now));
            }
            assert_eq!(action, Some(last), "{signals:?}");
        }
    }

    #[tokio::test]
    async fn hangups_of_one_bunch_are_one_request() {
        // Under `nohup` it would be ignored.
        // SAFETY: no other test of this process handles SIGHUP.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
        let mut requests = StopRequests::listen().unwrap();
        let hang_up = || {
            // SAFETY: raise only sends this process a signal, which it listens for.
            assert_eq!(unsafe { libc::raise(libc::SIGHUP) }, 0);
        };
        hang_up();
        requests.next().await;
        hang_up();
        let again = tokio::time::timeout(Duration::from_millis(200), requests.next());
        assert!(again.await.is_err(), "the same request");
        tokio::time::sleep(SAME_HANGUP).await;
        hang_up();
        requests.next().await;
    }
}
