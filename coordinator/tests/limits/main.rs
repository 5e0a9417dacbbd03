//! Clients that take more than their share, send garbage, or leave connections open.

#[path = "../common/mod.rs"]
mod common;

mod connections;
mod descriptors;
mod garbage;
mod protocol;
