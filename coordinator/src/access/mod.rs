//! Who may do what: one rule for each method, and a line in the log for each change.
//!
//! With TLS every request has an identity, and [`Access`] lets it pass by the table in `rules`.
//! Without TLS (loopback, or `allow_insecure`) nobody has one, and everybody may do everything.
//! Rules about single runs and workers need the message: services ask [`Caller`].

mod audit;
mod caller;
mod layer;
mod rules;

pub(crate) use audit::Subject;
pub(crate) use caller::{Caller, caller};
pub(crate) use layer::AccessLayer;
