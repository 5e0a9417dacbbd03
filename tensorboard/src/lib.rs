//! TensorBoard's event files: bytes in, bytes out.
//!
//! An event file is a sequence of records (`record`: TensorFlow's TFRecord), each an `Event` (`event`: the messages of
//! tensorflow/core/util/event.proto that are used here). The first one says `brain.Event:2`; by then on a SessionLog START says
//! that all later steps of the files before it are void.
//!
//! `scalars` says which figures of a run become which tags, `name` how files are called so that TensorBoard reads them in order.

mod event;
mod hparams;
mod name;
mod record;
mod scalars;

pub use event::{Event, scalar, session_start, version};
pub use hparams::hparams;
pub use name::FileName;
pub use record::{Records, append, events};
pub use scalars::{Known, TAGS, epoch, speed, training};
