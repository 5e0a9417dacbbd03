//! Charts, each an SVG or a table with nothing outside it but [`STYLE`].
//!
//! A chart is a struct of what it shows; `draw` gives its markup. Each has a title and a description in words for those who do
//! not see it. Colours are those of Okabe and Ito (2008), darkened or lightened for text contrast; what a colour says is said
//! by a shape, a dash pattern or a word, too. Charts take the width of their container; texts are readable from 300 px on.

mod confusion;
mod frame;
mod intervals;
mod lines;
mod many;
mod people;
mod reliability;
mod roc;
mod shares;

pub use crate::number::Unit;
pub use confusion::ConfusionTable;
pub use intervals::{IntervalChart, IntervalRow};
pub use lines::{LineChart, Mark, Series};
pub use many::{MOST_TOLD_APART, ManyLine, ManyLines, many_swatch};
pub use people::{PeopleChart, Screened};
pub use reliability::ReliabilityChart;
pub use roc::{RocChart, RocPoint, Shape};
pub use shares::{ShareChart, ShareRow};

/// The style sheet of all charts, for a light and a dark page. A page may set the variables that begin with `--c-` anew.
pub const STYLE: &str = include_str!("charts.css");
