//! Puts the commit into the version, where there is one.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../.git/HEAD");
    println!("cargo::rerun-if-changed=../.git/logs/HEAD");
    let commit = Command::new("git")
        .args(["rev-parse", "--short=10", "HEAD"])
        .output()
        .ok()
        .filter(|out| out.status.success())
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .map_or_else(|| "no commit".to_owned(), |commit| commit.trim().to_owned());
    println!("cargo::rustc-env=FOVEA_COMMIT={commit}");
}
