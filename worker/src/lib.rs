//! Fovea's worker: hosts virtual ranks of runs and trains GoogLeNet on its local device.
//!
//! From the outside in: `session` speaks with the coordinator, `assignment` fetches what a generation
//! needs, `job` is done on the device's one thread, `training` is the loop, and `device`,
//! `collective` and `loader` are what the loop is made of. `model`, `weights` and `optimizer` are
//! GoogLeNet in libtorch.

pub mod assignment;
pub mod cache;
pub mod checkpoint;
pub mod collective;
pub mod config;
pub mod data;
pub mod device;
pub mod fingerprint;
pub mod job;
pub mod loader;
pub mod model;
pub mod optimizer;
pub mod session;
pub mod training;
pub mod weights;
