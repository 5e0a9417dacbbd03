//! Whole clusters: coordinators, workers and clients as processes of their own, over real sockets, with faults.
//!
//! One program, so that tests of all modules run side by side and the crates below are compiled into one only.

mod chaos;
mod config;
mod divergence;
mod elastic;
mod faults;
mod groups;
mod hostile;
mod imbalance;
mod labels;
mod mesh;
mod monitoring;
mod predict;
mod python;
mod queue;
mod real;
mod security;
mod store;
mod strategies;
mod supervisor;
mod sweep;
mod tensorboard;
mod tokens;
mod traces;
mod troubles;
