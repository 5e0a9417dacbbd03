//! Signals that request a stop, as events.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Error;

/// Listens for INT (Ctrl-C), TERM, HUP, USR1 and USR2. Each is a request to stop: none of them ends
/// the program by itself, which would leave a run without a checkpoint.
///
/// A HUP that was ignored when the program started (`nohup`) stays ignored.
pub struct Signals {
    signals: Vec<Signal>,
}

impl Signals {
    /// Begins to listen.
    pub fn listen() -> Result<Self, Error> {
        let mut kinds = vec![
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        if !hangup_is_ignored() {
            kinds.push(SignalKind::hangup());
        }
        let signals = kinds
            .into_iter()
            .map(signal)
            .collect::<Result<_, _>>()
            .map_err(|e| Error::Cluster(format!("cannot listen for signals: {e}")))?;
        Ok(Self { signals })
    }

    /// Waits for the next of them. Safe to drop and call again.
    pub async fn next(&mut self) {
        std::future::poll_fn(|context| {
            for signal in &mut self.signals {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(());
                }
            }
            std::task::Poll::Pending
        })
        .await;
    }
}

/// Whether SIGHUP is ignored now. Only true before anything listens for it if the program was
/// started so.
fn hangup_is_ignored() -> bool {
    // SAFETY: sigaction with a null new action only writes the present one to `present`, which is
    // valid for that; all-zero bytes are a valid sigaction.
    unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut present) == 0
            && present.sa_sigaction == libc::SIG_IGN
    }
}
