//! A coordinator with TLS, over real sockets: who gets in, who may do what, and what the log says.

#[path = "../common/mod.rs"]
mod common;

mod certificates;
mod crowds;
mod denied;
mod joining;
mod log;
mod openssl;
mod pki;
mod roles;
mod roles_of_workers;
mod tokens;
