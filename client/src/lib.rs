//! Fovea's client: a typed way to talk to the coordinator, and the `fovea` command line on top.
//!
//! Never links libtorch. Wire types stay inside [`client`]; everything else sees the domain's types
//! and the views of [`view`].

pub mod access;
pub mod backup;
pub mod baseline;
pub mod cli;
pub mod client;
pub mod cnn_features;
pub mod credentials;
pub mod download;
pub mod error;
pub mod evaluations;
pub mod groups;
pub mod local;
pub mod logins;
mod receive;
pub mod runfile;
pub mod scores_file;
pub mod spread;
mod steering;
pub mod tensorboard;
pub mod upload;
pub mod view;
pub mod watch;
pub mod weights;

pub use client::Client;
pub use error::Error;

/// Version and commit, as `--version` prints them.
pub use fovea_service::VERSION;
