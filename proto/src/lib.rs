//! Fovea's wire protocol: generated messages, conversions to the domain, the way to open a channel.
//!
//! `pb::` types stop at the door: only this crate's conversions, the coordinator's services, the
//! worker's session and the client see them.

mod cause;
mod channel;
mod codec;
mod convert;
mod tls;

pub use cause::{Cause, TLS_ONLY, cause, describe, tls_refusal};
pub use channel::{
    CONNECTION_WINDOW, ChannelError, FRAME, STREAM_WINDOW, UserAgent, connect, connect_pinned,
    connect_with, is_file, user_agent,
};
pub use convert::{ConvertError, part_from_wire, priority_from_wire, trouble_from_wire};

/// Generated from `proto/fovea/v1/*.proto`, where every message and field is documented.
#[allow(missing_docs, clippy::all)]
pub mod pb {
    tonic::include_proto!("fovea.v1");
    include!(concat!(env!("OUT_DIR"), "/servers/fovea.v1.rs"));
}

/// In the text of a refusal because a disk is too full: for a client it is no limit that could be raised.
pub const NO_ROOM: &str = "no room";

/// The compiled descriptors, for the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/fovea.bin"));

/// Version of the protocol. Clients name it in their user agent, workers also in Hello, and the
/// coordinator refuses another. Version 1 did not name itself.
pub const PROTOCOL: u32 = 2;

/// The most bytes that a streamed message carries.
pub const CHUNK_BYTES: usize = 1 << 20;

/// The most bytes of one message; a dataset's index is the largest.
pub const MESSAGE_BYTES: usize = 300 << 20;
