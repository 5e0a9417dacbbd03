//! The dashboard over real sockets: its pages, who may see and do what, what keeps them up to date, and its limits.

#[path = "../common/mod.rs"]
mod common;
// What other tests need of it, too.
#[allow(dead_code)]
#[path = "../security/pki.rs"]
mod pki;

mod browser;
mod changes;
mod groups;
mod large;
mod limits;
mod live;
mod login;
mod pages;
