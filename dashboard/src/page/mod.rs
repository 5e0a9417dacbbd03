//! The pages: each a function from its model to a [`Sheet`] of parts.

mod audit;
mod compare;
mod curves;
mod datasets;
mod evaluation;
mod group;
mod group_tables;
mod groups;
mod login;
mod message;
mod overview;
mod pieces;
mod run;
mod run_parts;
mod runs;
mod scores;
mod shell;
mod submit;
mod workers;

use maud::Markup;

pub use audit::audit;
pub use compare::{MOST_COMPARED, compare};
pub use datasets::datasets;
pub use group::group;
pub use groups::groups;
pub use login::login;
pub use message::{confirm_cancel, confirm_cancel_group, message};
pub use overview::overview;
pub use run::run;
pub use runs::runs;
pub use shell::{Here, Shell, Viewer, document};
pub use submit::{may_not_submit, submit};
pub use workers::workers;

/// A part of a page: one element that has this id. It is what changes at once.
#[derive(Debug, Clone)]
pub struct Part {
    /// The element's id, unique in the page.
    pub id: &'static str,
    /// The element.
    pub html: Markup,
}

/// The content of a page.
#[derive(Debug, Clone)]
pub struct Sheet {
    /// What it is about, for the browser's title.
    pub title: String,
    /// From top to bottom.
    pub parts: Vec<Part>,
}

impl Sheet {
    fn new(title: impl Into<String>, parts: Vec<Part>) -> Self {
        Self {
            title: title.into(),
            parts,
        }
    }
}

/// A part.
fn part(id: &'static str, html: Markup) -> Part {
    Part { id, html }
}
