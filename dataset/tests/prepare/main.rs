//! Preparing drawn photographs: what is written, what is refused, what stays the same.

mod damaged;
mod refused;
mod study;
mod written;
