//! A cluster of real processes for end-to-end tests.
//!
//! Nothing here sleeps and hopes: everything waited for is an event (a file, a message of a stream,
//! the end of a process) with a deadline.

pub mod chaos;
mod cluster;
pub mod faults;
mod fixture;
mod launch;
pub mod process;
mod soft_gpu;

pub use cluster::{Cluster, tensors};
pub use fixture::{shared, synthetic_dataset};
pub use process::{Process, binary};
pub use soft_gpu::SoftGpu;
