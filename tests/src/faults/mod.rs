//! Faults for end-to-end tests, injected from outside the process that they hit: production code has no hooks for them.
//!
//! A fault that a machine may refuse (network namespaces, mounts) fails with the reason. `requires.rs` finds out before,
//! so that the tests that inject it are reported as ignored.

mod disk;
mod file;
pub mod inspect;
mod memory;
mod partition;
mod proxy;
mod stall;
mod wire;

pub use disk::SmallDisk;
pub use file::{corrupt_file, packs_below};
pub use memory::flip_bit;
pub use partition::Partition;
pub use proxy::Proxy;
pub use stall::Stall;
pub use wire::Wire;
