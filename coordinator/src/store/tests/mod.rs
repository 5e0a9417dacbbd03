//! What the checkpoint store promises, on real files.

mod inspecting;
mod keeping;
mod opening;
mod reading;
mod receiving;
mod writing;
