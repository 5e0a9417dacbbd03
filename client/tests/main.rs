//! The client and the command `fovea` against scripted servers: one program, so that tests of all modules run side by side and the crates
//! below are compiled into one only.

mod backup;
mod baseline;
mod commands;
mod common;
mod local;
mod predict;
mod prepare;
mod store;
mod transfer;
mod upkeep;
mod watch;
mod weights;
