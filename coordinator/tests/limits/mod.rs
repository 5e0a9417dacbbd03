//! Clients that take more than their share, send garbage, or leave connections open.

mod connections;
mod descriptors;
mod garbage;
mod protocol;
