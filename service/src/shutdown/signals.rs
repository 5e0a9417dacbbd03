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
        let hangup = SignalKind::hangup();
        // A handler would undo what `nohup` did.
        let nohup = std::fs::read_to_string("/proc/self/status")
            .is_ok_and(|status| ignores(&status, hangup.as_raw_value()));
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: if nohup { None } else { Some(signal(hangup)?) },
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

/// Whether a process whose /proc/PID/status is `status` ignores the signal with this number. False
/// if the text does not say.
fn ignores(status: &str, number: i32) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
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

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n";
        assert!(ignores(status, 13), "SIGPIPE");
        assert!(!ignores(status, 1), "SIGHUP");
        assert!(ignores("SigIgn:\t0000000000000001", 1));
        for silent in ["", "SigIgn:\t", "SigIgn: ignored"] {
            assert!(!ignores(silent, 1), "{silent:?}");
        }
    }
}
