//! Spans of OpenTelemetry, and their way to a collector by OTLP over gRPC.
//!
//! ```text
//! run actors, uploads, worker ── Span::end ──> queue (bounded) ──> export task ──> collector
//!                                                │ full: counted, warned of once
//! ```
//!
//! A span here is no scope of code: a formation or a recovery begins and ends with events of a run, and its parts are in other
//! processes. So a [`Span`] is a value that its owner ends. Ids are derived from what a span is about ([`Context::checkpoint`],
//! say), so that a worker knows the id of the coordinator's span without being told, also across a restart. What cannot be
//! derived travels as W3C's `traceparent`: in the assignment, and in the metadata of an upload.
//!
//! Invariants: ending a span never waits. A collector that is away or slow costs a queue of [`QUEUE`] spans, no more.

mod connect;
mod context;
mod export;
pub mod names;
mod settings;
mod span;

pub use context::{Context, NoContext, TRACEPARENT, Work};
pub use export::{Exporter, QUEUE, Resource};
pub use settings::{Settings, TracesError};
pub use span::{Kind, Span, Traces, Value};
