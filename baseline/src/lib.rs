//! The older way to grade fundus photographs, to compare a network with: explicit features and classical classifiers.
//!
//! [`measure`] takes a [`Photograph`] and gives its [`Features`] and the [`Masks`] that they were measured on. [`fit`] fits a
//! support vector machine or a small perceptron to the features of training samples, with parameters that a cross-validation
//! over patients chooses. `docs/baselines.md` names the sources.

mod classify;
mod feature_set;
mod features;
mod photograph;
mod resample;
#[cfg(test)]
mod testing;

pub use classify::{
    Chosen, Classifier, Criterion, FitError, Kernel, Method, SEARCH_AT_MOST, Settings, Training,
    fit,
};
pub use feature_set::FeatureSet;
pub use features::{Features, LEGEND, Mask, Masks, SET, measure, overlay};
pub use photograph::{DIAMETER, Photograph, PhotographError};
