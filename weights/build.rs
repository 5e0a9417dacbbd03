//! Finds out whether the real weights that some tests need are there.

#[path = "../tests/requires.rs"]
mod requires;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    requires::emit(&[requires::Need::Shared]);
}
