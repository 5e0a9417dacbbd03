//! From a run's scores to its figures and its report. Nothing is asked for here: the command line and the dashboard bring what the
//! coordinator says.

pub mod checkpoint;
pub mod dataset;
pub mod error;
pub mod evaluation;
pub mod judge;
pub mod material;
pub mod reporting;
pub mod run;
pub mod samples;
pub mod scores;
pub mod shared;

pub use checkpoint::{Chosen, Which, choose, epoch_at};
pub use dataset::Described;
pub use error::Error;
pub use evaluation::EvaluationInfo;
pub use judge::{HALF, Judged, Scored, judge};
pub use run::{LeftOutInfo, Phase, RunInfo};
pub use samples::{ready, samples};
pub use scores::{Receiving, Scores};
pub use shared::{Seen, Shared};
