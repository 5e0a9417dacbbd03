//! What the operations listener says about the coordinator.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use fovea_service::Shutdown;
use fovea_service::ops::{self, Figures, State};

use crate::metrics::Source;

const STARTING: &str = "starting: the journal and the stores are being opened";

/// Whether the coordinator lives, and whether it serves. Clones share the state.
#[derive(Debug, Clone)]
pub struct Vitals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shutdown: Shutdown,
    /// From the moment that it serves.
    serving: OnceLock<Source>,
}

impl Vitals {
    /// Of a coordinator that opens its journal and stores. It is not ready until it serves, and not any more when
    /// `shutdown` asks for a stop.
    pub fn new(shutdown: Shutdown) -> Self {
        Self(Arc::new(Inner {
            shutdown,
            serving: OnceLock::new(),
        }))
    }

    /// It serves from now on, with these figures.
    pub(crate) fn serves(&self, figures: Source) {
        // A second coordinator of the same vitals does not exist outside of tests.
        let _ = self.0.serving.set(figures);
    }
}

impl ops::Vitals for Vitals {
    /// The cluster answers. It never waits for the disk, a worker or a run, so it answers on a full disk, too.
    fn live(&self) -> Pin<Box<dyn Future<Output = State> + Send + '_>> {
        Box::pin(async {
            match self.0.serving.get() {
                // To open a large journal takes long; the runtime that answers here lives.
                None => Ok(()),
                // While it stops, the cluster ends first.
                Some(_) if self.0.shutdown.requested() => Ok(()),
                Some(figures) => match figures.cluster().answers().await {
                    true => Ok(()),
                    false => Err("the cluster has ended".into()),
                },
            }
        })
    }

    fn ready(&self) -> State {
        if self.0.shutdown.requested() {
            return Err("stopping".into());
        }
        match self.0.serving.get() {
            Some(_) => Ok(()),
            None => Err(STARTING.into()),
        }
    }

    fn figures(&self) -> Pin<Box<dyn Future<Output = Result<Figures, String>> + Send + '_>> {
        Box::pin(async {
            match self.0.serving.get() {
                Some(figures) => figures.read().await.map_err(|error| error.to_string()),
                None => Err(STARTING.into()),
            }
        })
    }
}
