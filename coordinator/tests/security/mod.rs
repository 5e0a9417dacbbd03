//! A coordinator with TLS, over real sockets: who gets in, who may do what, and what the log says.

mod certificates;
mod crowds;
mod denied;
mod joining;
mod log;
mod openssl;
pub mod pki;
mod roles;
mod roles_of_workers;
mod tokens;
