//! Requests to a generation in progress, from another thread: stop, yield, abort.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::collective::Aborter;

/// A generation that is still being prepared has so long to reach its first step after a stop was requested.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// Stop or yield at a step boundary, or abort at once. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Control {
    stop: CancellationToken,
    stopped_at: Arc<OnceLock<Instant>>,
    give_way: CancellationToken,
    abort: CancellationToken,
    leave: CancellationToken,
    connections: Arc<OnceLock<Aborter>>,
}

impl Control {
    /// Asks for a stop at the next step boundary, with a checkpoint.
    pub fn stop(&self) {
        self.stopped_at.get_or_init(Instant::now);
        self.stop.cancel();
    }

    /// Whether a stop was asked for.
    pub fn stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Asks to end at the next step boundary, so that the next generation continues there.
    pub fn yield_(&self) {
        self.give_way.cancel();
    }

    /// Whether that was asked for.
    pub fn yielding(&self) -> bool {
        self.give_way.is_cancelled()
    }

    /// Asks to end at once: connections with peers are shut down, so that nothing blocks.
    pub fn abort(&self) {
        self.abort.cancel();
        if let Some(connections) = self.connections.get() {
            connections.abort();
        }
    }

    /// Whether an abort was asked for.
    pub fn aborted(&self) -> bool {
        self.abort.is_cancelled()
    }

    /// Whether a generation that has not begun yet need not begin any more.
    pub fn given_up(&self) -> bool {
        self.aborted() || self.yielding()
    }

    /// Says that the worker shuts down, and cannot wait long for its coordinator.
    pub fn leave(&self) {
        self.leave.cancel();
    }

    /// Whether [`Control::leave`] was called.
    pub fn leaving(&self) -> bool {
        self.leave.is_cancelled()
    }

    /// Ends when [`Control::leave`] is called.
    pub async fn wait_leaving(&self) {
        self.leave.cancelled().await;
    }

    /// Ends when an abort is asked for.
    pub async fn wait_aborted(&self) {
        self.abort.cancelled().await;
    }

    /// Ends when [`Control::given_up`] holds.
    pub async fn wait_given_up(&self) {
        tokio::select! {
            () = self.abort.cancelled() => {}
            () = self.give_way.cancelled() => {}
        }
    }

    /// Whether a generation without its first step need not be prepared any further: it was given up, or a stop was
    /// requested more than half a second ago, when there is nothing to be saved.
    pub fn withdrawn(&self) -> bool {
        let stopped = self.stopped_at.get();
        self.given_up() || stopped.is_some_and(|at| at.elapsed() > STOP_GRACE)
    }

    /// Ends when [`Control::withdrawn`] holds.
    pub async fn wait_withdrawn(&self) {
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            () = self.wait_given_up() => {}
            () = stopped => {}
        }
    }

    /// Registers what an abort must shut down.
    pub fn connected(&self, connections: Aborter) {
        let _ = self.connections.set(connections);
        // An abort that came just before must not be lost.
        if self.aborted()
            && let Some(connections) = self.connections.get()
        {
            connections.abort();
        }
    }
}
