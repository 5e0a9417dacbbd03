//! Preparing drawn photographs: output, refusals and reproducibility.

mod damaged;
mod refused;
mod study;
mod tables;
mod written;
