//! The coordinator against fake peers and real files: one program, so that tests of all modules run side by side and the crates below
//! are compiled into one only.

mod common;
mod dashboard;
mod elastic;
mod evaluations;
mod groups;
mod lifecycle;
mod limits;
mod long_queue;
mod malformed;
mod migration;
mod objects;
mod program;
mod security;
mod store_faults;
mod weights;
