//! Fovea's worker: hosts virtual ranks of runs and trains GoogLeNet on its local device.
//!
//! From the outside in: `join` gets a certificate with a token, `link` keeps a connection with the coordinator. `agent` is the main loop, which outlives any
//! session. `assignment`, `fetch` and `cache` bring what a generation needs to this machine. `job` is executed on the
//! device's one thread, which keeps a run's state between generations. `training` is the loop, and `device`,
//! `collective` and `loader` are its parts. Results leave through `reports` and `uploads`. `model` and
//! `optimizer` are GoogLeNet in libtorch; `predict` scores photographs with a model's file, without a coordinator. `threads` runs what may hang;
//! `profile` records some steps, and `own_kernels` says whether Fovea's own kernels compute on a GPU.

pub mod advertise;
pub mod agent;
pub mod assignment;
pub mod cache;
#[cfg(test)]
mod certificates;
pub mod checkpoint;
pub mod collective;
pub mod config;
pub mod context;
pub mod data;
pub mod device;
pub mod devices;
pub mod features;
pub mod fetch;
pub mod fingerprint;
pub mod gpu;
pub mod gpu_check;
pub mod hits;
pub mod job;
pub mod join;
pub mod link;
pub mod loader;
pub mod machine;
pub mod memory;
pub mod meter;
pub mod model;
pub mod optimizer;
pub mod own_kernels;
pub mod predict;
pub mod profile;
pub mod progress;
pub mod pulse;
pub mod reports;
pub mod segments;
pub mod shim;
#[cfg(test)]
mod testing;
pub mod threads;
pub mod training;
mod trouble;
pub mod uploads;
