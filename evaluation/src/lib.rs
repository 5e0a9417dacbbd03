//! How good a screening model is, and how sure that is.
//!
//! [`Samples`] are a model's outputs on labelled photographs. [`evaluate`] computes the figures that people report: AUC,
//! sensitivity, specificity and predictive values at operating points, quadratic weighted kappa, recall of each class,
//! calibration. Each has a 95 % interval by bootstrap over *patients*: two eyes of a patient are not independent, so an
//! interval over images would be too narrow. Operating points are chosen on one set ([`choose`], on validation) and used on
//! another; a threshold that is chosen on the set that it is reported on looks better than it is.
//!
//! [`auc_difference`] compares two models on the same photographs. [`fellow_eye`] gives what copying the other eye's grade would score, with no model at all.

mod bootstrap;
mod calibration;
mod error;
mod evaluate;
mod fellow;
mod figures;
mod interval;
mod paired;
mod points;
mod samples;

pub use bootstrap::Draws;
pub use calibration::Bin;
pub use error::SamplesError;
pub use evaluate::{Evaluated, GradeCalls, PointResult, evaluate};
pub use fellow::{FellowEye, fellow_eye};
pub use interval::{Estimate, Method};
pub use paired::{PairError, auc_difference};
pub use points::{Choice, Point, Wanted, choose};
pub use samples::{Eye, Sample, Samples};
