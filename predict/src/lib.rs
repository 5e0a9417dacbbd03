//! What a model says of photographs: reading them as the model's own were prepared, the table of scores, and pictures of where
//! the evidence lies. The offline worker and the client use it; the network is elsewhere.

pub mod args;
mod eyes;
pub mod files;
mod overlay;
pub mod pace;
pub mod patients;
mod progress;
mod reading;
mod table;

pub use overlay::{Caption, Picture, draw, overlay, pair};
pub use progress::{Bar, is_dumb};
pub use reading::{Photograph, Readable, Unreadable, read_ahead};
pub use table::{Outcome, Row, Scored, Table, TableError};

/// The program's exit code where some photographs could not be read and the others were scored.
pub const SOME_UNREADABLE: u8 = 9;
