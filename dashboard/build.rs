//! Finds out whether there is a browser for the test that looks at the pages.

#[path = "../tests/requires.rs"]
mod requires;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    requires::emit(&[requires::Need::Browser, requires::Need::Axe]);
}
