//! Preparing drawn photographs: output, refusals and reproducibility.

mod damaged;
mod pictures;
mod refused;
mod study;
mod written;
