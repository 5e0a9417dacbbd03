//! A cluster of real processes for end-to-end tests.
//!
//! Every wait is for an event (a file, a message of a stream, the end of a process) and has a deadline. A sleep is either
//! the fault itself (a process that is stopped for 400 ms) or the pause between two polls.

pub mod certificates;
pub mod chaos;
mod cluster;
pub mod coordinator_bench;
pub mod exposition;
pub mod faults;
mod fixture;
pub mod http;
pub mod launch;
mod ports;
pub mod process;
mod soft_gpu;

pub use certificates::Certificates;
pub use cluster::{Cluster, tensors};
pub use fixture::{all_before_the_last_module, shared, synthetic_dataset};
pub use ports::free_port;
pub use process::{Process, binary};
pub use soft_gpu::SoftGpu;
