//! Every message that docs/troubleshooting.md quotes is one of the sources.
//!
//! The first column of its tables quotes in backticks; `...` stands for what differs from case to case.

use std::fs;

use super::pages::{Page, root};
use super::sources;

/// Crates whose messages people see.
const CRATES: [&str; 17] = [
    "core",
    "dataset",
    "proto",
    "security",
    "service",
    "kernels",
    "weights",
    "runfile",
    "evaluation",
    "export",
    "predict",
    "baseline",
    "report",
    "dashboard",
    "coordinator",
    "worker",
    "client",
];

/// How far the pieces of one message may be apart in the source, in bytes.
const NEAR: usize = 900;

/// The sources with each string on one line.
fn joined() -> Vec<String> {
    let mut files = Vec::new();
    for name in CRATES {
        sources::of_crate(&root().join(name).join("src"), &mut files);
    }
    let texts = files.iter().map(|file| {
        let text = fs::read_to_string(file).expect("a source file");
        one_line(&sources::code(&text))
    });
    texts.collect()
}

/// A text whose strings are not cut by `\` at the end of a line, and have plain quotation marks.
fn one_line(code: &str) -> String {
    let mut parts = code.split("\\\n");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text += part.trim_start();
    }
    text.replace("\\\"", "\"")
}

/// The messages that the page quotes.
fn quoted(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let first = row.split(" | ").next().expect("a row has a cell");
        let quotes = first.split('`').skip(1).step_by(2);
        found.extend(quotes.map(str::to_owned));
    }
    found
}

/// Whether the pieces of a message follow each other closely.
fn says(text: &str, message: &str) -> bool {
    let pieces: Vec<&str> = message
        .split("...")
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .collect();
    let first = pieces[0];
    text.match_indices(first).any(|(at, _)| {
        let mut at = at + first.len();
        pieces[1..].iter().all(|piece| {
            let found = text[at..].find(piece).filter(|far| *far < NEAR);
            at += found.map_or(0, |far| far + piece.len());
            found.is_some()
        })
    })
}

#[test]
fn every_quoted_message_is_one_of_the_sources() {
    let sources = joined();
    let quoted = quoted(&Page::read("docs/troubleshooting.md").text);
    assert!(quoted.len() > 50, "{} messages", quoted.len());
    let gone: Vec<&String> = quoted
        .iter()
        .filter(|message| !sources.iter().any(|text| says(text, message)))
        .collect();
    assert!(
        gone.is_empty(),
        "docs/troubleshooting.md quotes what no program says: {gone:#?}"
    );
}

#[test]
fn a_message_is_found_across_its_values_and_lines() {
    let code = one_line("    \"run {run} has \\\n         {n} of the \\\"best\\\" workers\"");
    assert!(says(&code, "run ... has ... of the \"best\" workers"));
    assert!(says(&code, "... of the"));
    assert!(!says(&code, "of the ... has"));
    assert!(!says(&code, "run ... have"));
    assert_eq!(
        quoted("| a: `x ... y` or `z` | `no` | b |\n`none`"),
        ["x ... y", "z"]
    );
}
