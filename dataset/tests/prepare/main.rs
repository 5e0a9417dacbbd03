//! Preparing drawn photographs: output, refusals and reproducibility.

mod damaged;
mod pictures;
mod places;
mod preprocessed;
mod refused;
mod study;
mod tables;
mod written;
