//! Finds out what the tests' machine lets them do.

#[path = "../tests/requires.rs"]
mod requires;

use requires::Need;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    requires::emit(&[Need::Mount, Need::Root, Need::Openssl, Need::S3]);
}
