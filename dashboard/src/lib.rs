//! The pages of the dashboard: what is shown in, HTML out. No clock, no file, no network: whoever serves them fills in the
//! models of [`model`] and asks [`page`] for the parts of a page, which [`document`] puts into a whole one.
//!
//! A page is a list of [`Part`]s, each one element with an id. A browser that runs [`SCRIPT`] is sent the parts that changed and
//! replaces them; without scripts the page is the same and stands still. Pages load [`STYLE`], [`SCRIPT`] and [`ICON`] from
//! where they come from and nothing else, and need neither inline styles nor inline scripts.

mod format;
pub mod model;
pub mod page;
mod thin;

pub use maud::{Markup, PreEscaped};
pub use page::{Here, Part, Sheet, Shell, Viewer, document};
pub use thin::{MOST_POINTS, thin};

/// The style sheet: that of the charts, and the pages' own.
pub const STYLE: &str = concat!(
    include_str!("../../report/src/charts/charts.css"),
    include_str!("assets/style.css")
);

/// The script that replaces parts of a page as they change.
pub const SCRIPT: &str = include_str!("assets/live.js");

/// The icon of the pages.
pub const ICON: &str = include_str!("assets/icon.svg");
