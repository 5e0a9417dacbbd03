//! What the checkpoint store promises, on real files.

mod keeping;
mod opening;
mod reading;
mod writing;
