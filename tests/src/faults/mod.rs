//! Faults for end-to-end tests, made from outside the process they hit: no production code knows of them.
//!
//! What needs more rights than a machine may give says so in `available()`, with the reason, so that a
//! test can print it and go on without.

pub mod census;
mod disk;
mod file;
mod memory;
mod partition;
mod stall;

pub use disk::SmallDisk;
pub use file::corrupt_file;
pub use memory::flip_bit;
pub use partition::Partition;
pub use stall::Stall;
