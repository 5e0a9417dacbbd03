//! Preparing drawn photographs: output, refusals and reproducibility.

mod damaged;
mod places;
mod pictures;
mod refused;
mod study;
mod tables;
mod written;
