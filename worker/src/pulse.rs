//! What the operations listener says about the worker.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fovea_service::ops::{Figures, State, Vitals};

use crate::meter::Meter;

/// The agent's loop turns at each heartbeat, also without a coordinator.
const STILL: Duration = Duration::from_secs(10);

/// Whether the worker can do its work now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// It has no session with a coordinator.
    Away = 0,
    /// The coordinator has welcomed it.
    Joined = 1,
    /// It is stopping.
    Leaving = 2,
}

/// The agent's state for the operations listener. The agent writes it at each turn of its loop.
#[derive(Debug)]
pub struct Pulse {
    begun: Instant,
    /// Of the last turn, milliseconds since `begun`.
    turned_ms: AtomicU64,
    contact: AtomicU8,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            turned_ms: AtomicU64::new(0),
            contact: AtomicU8::new(Contact::Away as u8),
        }
    }
}

impl Pulse {
    /// The agent's loop has turned.
    pub fn turn(&self, contact: Contact) {
        self.contact.store(contact as u8, Ordering::Relaxed);
        let ms = self.begun.elapsed().as_millis() as u64;
        self.turned_ms.store(ms, Ordering::Relaxed);
    }

    fn stands_still(&self) -> Duration {
        let turned = Duration::from_millis(self.turned_ms.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(turned)
    }
}

/// The pulse and the meter, as the operations listener asks for them.
#[derive(Debug)]
pub struct Shown {
    /// Whether the agent lives.
    pub pulse: Arc<Pulse>,
    /// What it measures.
    pub meter: Arc<Meter>,
}

impl Vitals for Shown {
    /// The agent's loop has turned lately. That the coordinator is away or the device is slow is no reason to kill a
    /// worker: its state in memory is worth more.
    fn live(&self) -> Pin<Box<dyn Future<Output = State> + Send + '_>> {
        let still = self.pulse.stands_still();
        let state = match still < STILL {
            true => Ok(()),
            false => Err(format!(
                "the main loop has not turned for {:.0} s",
                still.as_secs_f64()
            )),
        };
        Box::pin(std::future::ready(state))
    }

    fn ready(&self) -> State {
        match self.pulse.contact.load(Ordering::Relaxed) {
            contact if contact == Contact::Joined as u8 => Ok(()),
            contact if contact == Contact::Leaving as u8 => Err("stopping".into()),
            _ => Err("not connected with the coordinator".into()),
        }
    }

    fn figures(&self) -> Pin<Box<dyn Future<Output = Result<Figures, String>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(self.meter.figures())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown_of(pulse: &Arc<Pulse>) -> Shown {
        Shown {
            pulse: Arc::clone(pulse),
            meter: Arc::default(),
        }
    }

    #[tokio::test]
    async fn a_worker_is_ready_while_it_is_joined_and_alive_while_its_loop_turns() {
        let pulse = Arc::new(Pulse::default());
        let shown = shown_of(&pulse);
        assert!(shown.ready().unwrap_err().contains("not connected"));
        for (contact, ready) in [
            (Contact::Joined, Ok(())),
            (Contact::Leaving, Err("stopping".to_owned())),
        ] {
            pulse.turn(contact);
            assert_eq!(shown.ready(), ready);
            assert_eq!(shown.live().await, Ok(()));
        }
        let long_ago = Instant::now().checked_sub(2 * STILL).unwrap();
        let stuck = Pulse {
            begun: long_ago,
            ..Pulse::default()
        };
        let error = shown_of(&Arc::new(stuck)).live().await.unwrap_err();
        assert!(error.contains("has not turned for 20 s"), "{error}");
    }
}
