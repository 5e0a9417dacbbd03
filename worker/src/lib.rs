//! Fovea's worker: hosts virtual ranks of runs and trains GoogLeNet on its local device.
//!
//! From the outside in: `link` keeps a connection with the coordinator, `agent` is the main loop, which
//! outlives any session, `assignment` and `fetch` bring what a generation needs, `job` is done on the
//! device's one thread, which keeps a run's state between generations, `training` is the loop, and
//! `device`, `collective` and `loader` are what the loop is made of. What comes out goes through `reports`
//! and `uploads`. `model`, `weights` and `optimizer` are GoogLeNet in libtorch.

pub mod agent;
pub mod assignment;
pub mod cache;
pub mod checkpoint;
pub mod collective;
pub mod config;
pub mod data;
pub mod device;
pub mod devices;
pub mod fetch;
pub mod fingerprint;
pub mod gpu;
pub mod job;
pub mod link;
pub mod loader;
pub mod model;
pub mod optimizer;
pub mod reports;
pub mod shim;
#[cfg(test)]
mod testing;
pub mod training;
pub mod uploads;
pub mod vitals;
pub mod weights;
