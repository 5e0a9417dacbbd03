//! SIGTERM and SIGINT: the first asks for a clean stop, the second quits at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Exit code of a program that was told twice to stop.
pub const FORCED: i32 = 5;

/// Says when a program is asked to stop.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Starts to listen for signals. Must be called inside a tokio runtime.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::default();
        let token = shutdown.0.clone();
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        // Lives as long as the process: the second signal must always be heard.
        tokio::spawn(async move {
            for count in 1.. {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                if count == 1 {
                    warn!("asked to stop; a second signal quits at once");
                    token.cancel();
                } else {
                    warn!("told twice to stop: quitting at once");
                    std::process::exit(FORCED);
                }
            }
        });
        Ok(shutdown)
    }

    /// Asks for the stop, as a signal would.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Whether a stop was asked for.
    pub fn requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Ends when a stop is asked for.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }
}
