//! The dashboard over real sockets: its pages, who may see and do what, what keeps them up to date, and its limits.

use crate::security::pki;

mod browser;
mod changes;
mod groups;
mod large;
mod limits;
mod live;
mod login;
mod pages;
