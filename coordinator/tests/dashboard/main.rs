//! The dashboard over real sockets: its pages, who may see and do what, what keeps them up to date, and its limits.

#[path = "../common/mod.rs"]
mod common;
#[path = "../security/pki.rs"]
mod pki;

mod browser;
mod changes;
mod limits;
mod live;
mod login;
mod pages;
