//! Who may do what: one rule for each method, and a line in the log for each change.
//!
//! With TLS every request has an identity, by the certificate of its connection or by a token, and `layer` lets it pass
//! by the table in `rules`. Tokens, workers that joined with them, and denied workers are in the `registry`; a worker that joins with a token gets a
//! certificate of the `signer`.
//! Without TLS (loopback, or `allow_insecure`) nobody has one, and everybody may do everything.
//! Rules about single runs and workers need the message: services ask [`Caller`].

mod audit;
mod caller;
mod joined;
mod layer;
mod lookup;
mod registry;
mod rules;
mod signer;
mod stored;

pub(crate) use audit::Subject;
pub(crate) use caller::{Caller, caller};
pub(crate) use layer::{Access, AccessLayer, Known};
pub(crate) use registry::{JoinRequest, NewToken, Registry, ShownToken};
pub(crate) use signer::{Signed, Signer, VALID_MS};
pub(crate) use stored::{Denied, StoredToken};
