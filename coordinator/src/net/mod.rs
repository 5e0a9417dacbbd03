//! The network's door: who may connect, how much each client may use, and for how long.
//!
//! ```text
//! Listeners ──> Incoming ─> Connection ──> hyper, tonic ─> Gate ─────> access ─> services
//! (one socket   (limits,    (handshake and                 (protocol   (roles)   (watches, uploads
//!  an address)   back-off)   idle deadlines)                version,              and downloads take
//!                  │  ^                                     framing)              a Permit of Limits)
//!                  v  │
//!               Handshakes (TLS: who the client is)
//! ```
//!
//! Invariants: no client can end the accept loop, keep a connection without using it, or take the
//! file descriptors that the journal and the stores need.

mod budget;
mod connection;
mod farewell;
mod framing;
mod gate;
mod handshake;
mod handshakes;
mod incoming;
mod limits;
mod listeners;
mod pace;
mod quota;
mod socket;

pub(crate) use budget::Budget;
pub(crate) use connection::{Deadlines, peer};
pub(crate) use gate::GateLayer;
pub(crate) use incoming::Incoming;
pub(crate) use limits::Limits;
pub use listeners::{BindError, Listeners};
pub(crate) use pace::Pace;
pub(crate) use quota::{Client, Permit};
