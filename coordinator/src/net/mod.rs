//! The network's door: who may connect, how much each client may use, and for how long.
//!
//! ```text
//! TcpListener ─> Incoming ─> Connection ──> hyper, tonic ─> Gate ─────> services
//!                (limits,    (handshake and                 (protocol   (watches, uploads
//!                 back-off)   idle deadlines)                version,    and downloads take
//!                                                            framing)    a Permit of Limits)
//! ```
//!
//! Invariants: no client can end the accept loop, keep a connection without using it, or take the
//! file descriptors that the journal and the stores need.

mod budget;
mod connection;
mod framing;
mod gate;
mod handshake;
mod incoming;
pub(crate) mod limits;
#[cfg_attr(not(test), expect(dead_code, reason = "for services/transfer.rs"))]
pub(crate) mod pace;
pub(crate) mod quota;

pub(crate) use budget::Budget;
#[expect(unused_imports, reason = "for the services")]
pub(crate) use connection::peer;
pub(crate) use gate::GateLayer;
pub(crate) use incoming::{Deadlines, Incoming};
pub(crate) use limits::Limits;
