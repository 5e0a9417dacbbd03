//! The texts of the sources: Rust files of the crates, without their tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Rust files of a crate's `src`, those of tests excepted.
pub fn of_crate(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                of_crate(&path, found);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// The code of a file: before its module of tests, which comes last, and without lines of comments, which may name what is
/// printed elsewhere.
pub fn code(text: &str) -> String {
    let tests = ["#[cfg(test)]\nmod tests {", "#[cfg(all(test,"].map(|begin| text.find(begin));
    let end = tests.into_iter().flatten().min().unwrap_or(text.len());
    let code: Vec<&str> = text[..end]
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    code.join("\n")
}
