//! Fovea's domain, pure: no tokio, tonic, prost, tch, clock or file.
//!
//! What is decided here is decided from values alone, so it can be tested by tables and by random
//! sequences: the run's spec, who trains what and when, the learning rate, metrics, and the
//! life of a run.

pub mod adoption;
pub mod advice;
pub mod checkpoint;
pub mod class_map;
pub mod count;
pub mod dropout;
pub mod fold;
pub mod googlenet;
pub mod group;
pub mod ids;
pub mod ledger;
pub mod machine;
pub mod memory;
pub mod metrics;
mod oversample;
pub mod pipeline;
pub mod plan;
pub mod priority;
pub mod random;
pub mod ranking;
pub mod removal;
pub mod retention;
pub mod roster;
pub mod run;
pub mod schedule;
pub mod selection;
pub mod spec;
pub mod spread;
pub mod state;
pub mod weights;
