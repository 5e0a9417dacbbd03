//! The files of deploy/ on the engines that they are for: a run trains while its workers and its coordinator are killed,
//! moved and cut off, and ends in the weights of an undisturbed run, with a clean audit.
//!
//! `make test-deploy` runs this; it needs root, Debian 12 and what scripts/deploy_engines.sh installs.

mod client;
mod compose;
mod podman;
mod site;
mod slurm;
mod systemd;
