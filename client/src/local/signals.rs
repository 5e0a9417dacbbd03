//! Signals that request a stop, as events.

use fovea_service::StopRequests;

use crate::error::Error;

/// Listens for the signals that are requests to stop, as coordinator and worker do: none of them ends
/// the program by itself, which would leave a run without a checkpoint.
pub struct Signals(StopRequests);

impl Signals {
    /// Begins to listen.
    pub fn listen() -> Result<Self, Error> {
        StopRequests::listen()
            .map(Self)
            .map_err(|e| Error::Cluster(format!("cannot listen for signals: {e}")))
    }

    /// Waits for the next request. Safe to drop and call again.
    pub async fn next(&mut self) {
        self.0.next().await;
    }
}
