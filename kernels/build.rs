//! Tells the tests whether this machine has AVX2, so that a test that needs it is reported as ignored elsewhere.

#[path = "../tests/requires.rs"]
mod requires;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    requires::emit(&[requires::Need::Avx2]);
}
