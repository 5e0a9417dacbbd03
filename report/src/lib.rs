//! The report of a run: one HTML file that holds all that it shows. It loads nothing and runs no script, so it can be mailed,
//! archived and printed.
//!
//! [`Report`] is what is reported; whoever fetches it fills it in. [`html`] writes the page. [`GroupReport`] and [`group_html`] do
//! the same for a group of runs. [`charts`] draws each chart by
//! itself, for other pages.

pub mod charts;
mod group;
mod model;
pub mod number;
mod page;
mod prose;

pub use group::{GroupReport, GroupRun, SpreadRow};
pub use maud::Markup;
pub use model::{
    Cost, Dataset, DatasetFacts, Duplicates, Judged, JudgedPart, Labels, LeakCheck, LearningRate,
    Patients, PointsFrom, Report, RunFacts, Split, TestUse, WorstError, WorstErrors,
};
pub use number::sentence;
pub use page::{POLICY_FRAMED, group_html, html, html_from};
pub use prose::prose;
