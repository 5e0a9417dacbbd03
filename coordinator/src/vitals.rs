//! What the operations listener says about the coordinator.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use fovea_service::Shutdown;
use fovea_service::ops::{self, State};

use crate::cluster::WeakCluster;

/// Whether the coordinator lives, and whether it serves. Clones share the state.
#[derive(Debug, Clone)]
pub struct Vitals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shutdown: Shutdown,
    /// From the moment that it serves.
    cluster: OnceLock<WeakCluster>,
}

impl Vitals {
    /// Of a coordinator that opens its journal and stores. It is not ready until it serves, and not any more when
    /// `shutdown` asks for a stop.
    pub fn new(shutdown: Shutdown) -> Self {
        Self(Arc::new(Inner {
            shutdown,
            cluster: OnceLock::new(),
        }))
    }

    /// It serves from now on.
    pub(crate) fn serves(&self, cluster: WeakCluster) {
        // A second coordinator of the same vitals does not exist outside of tests.
        let _ = self.0.cluster.set(cluster);
    }
}

impl ops::Vitals for Vitals {
    /// The cluster answers. It never waits for the disk, a worker or a run, so it answers on a full disk, too.
    fn live(&self) -> Pin<Box<dyn Future<Output = State> + Send + '_>> {
        Box::pin(async {
            match self.0.cluster.get() {
                // To open a large journal takes long; the runtime that answers here lives.
                None => Ok(()),
                // While it stops, the cluster ends first.
                Some(_) if self.0.shutdown.requested() => Ok(()),
                Some(cluster) => match cluster.answers().await {
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
        match self.0.cluster.get() {
            Some(_) => Ok(()),
            None => Err("starting: the journal and the stores are being opened".into()),
        }
    }
}
