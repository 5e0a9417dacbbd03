//! Orders to a generation under way, from another thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::collective::Aborter;

/// Stop or give way at a step boundary, or let go at once. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Control {
    stop: Arc<AtomicBool>,
    give_way: CancellationToken,
    abort: CancellationToken,
    connections: Arc<OnceLock<Aborter>>,
}

impl Control {
    /// Asks for a stop at the next step boundary, with a checkpoint.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Asks to let go at the next step boundary, so that the next generation takes over there.
    pub fn yield_(&self) {
        self.give_way.cancel();
    }

    /// Whether that was asked for.
    pub fn yielding(&self) -> bool {
        self.give_way.is_cancelled()
    }

    /// Asks to let go at once: connections with peers are shut down, so that nothing blocks.
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

    /// Tells what an abort must shut down.
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
