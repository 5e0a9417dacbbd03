//! Every event that the sources log is explained in docs/events.md, and every event there is logged.
//!
//! An event is a string literal that starts with a dotted name and a colon, such as "worker.evicted: ".

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use super::pages::root;
use super::sources;

/// The crates that log.
const CRATES: [&str; 11] = [
    "core",
    "dataset",
    "proto",
    "security",
    "service",
    "traces",
    "kernels",
    "weights",
    "coordinator",
    "worker",
    "client",
];

/// Texts of the same form that name a file or a field of a message, of a run file or of the configuration, by their first
/// word or their last.
const FIELDS: [&str; 11] = [
    "selection",
    "header",
    "spec",
    "train",
    "model",
    "workers",
    "piece",
    "hello",
    "scores",
    "step",
    "ready",
];
const FILES: [&str; 4] = ["csv", "json", "toml", "db"];

/// The name at the start of what follows a quotation mark: `[a-z]+(\.[a-z_]+)+: `.
fn event(literal: &str) -> Option<&str> {
    let name = literal
        .split(": ")
        .next()
        .filter(|n| n.len() < literal.len())?;
    let mut parts = name.split('.');
    let first = parts.next()?;
    let word = |part: &str, more: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || more.contains(c))
    };
    let rest: Vec<&str> = parts.collect();
    let last = *rest.last()?;
    let is_name = word(first, "") && rest.iter().all(|part| word(part, "_"));
    (is_name && !FIELDS.contains(&first) && !FILES.contains(&last)).then_some(name)
}

/// The events of a source text.
fn events(text: &str) -> BTreeSet<String> {
    let code = sources::code(text);
    code.split('"')
        .filter_map(event)
        .map(str::to_owned)
        .collect()
}

/// The first column of the table, and the level.
fn listed() -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join("docs/events.md")).expect("docs/events.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "a row has four columns: {row}");
        assert!(!cells[2].is_empty() && !cells[3].is_empty(), "{row}");
        (cells[0].trim_matches('`').to_owned(), cells[1].to_owned())
    })
    .collect()
}

#[test]
fn every_event_is_documented_and_every_documented_event_is_logged() {
    let mut logged: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut files = Vec::new();
    for name in CRATES {
        let folder = root().join(name).join("src");
        // A crate that comes with another change.
        if folder.is_dir() {
            sources::of_crate(&folder, &mut files);
        }
    }
    assert!(files.len() > 100, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file");
        for event in events(&text) {
            logged.entry(event).or_insert_with(|| file.clone());
        }
    }
    let listed = listed();
    let missing: Vec<_> = logged
        .iter()
        .filter(|(name, _)| !listed.contains_key(*name))
        .collect();
    assert!(missing.is_empty(), "not in docs/events.md: {missing:#?}");
    let stale: Vec<_> = listed
        .keys()
        .filter(|name| !logged.contains_key(*name))
        .collect();
    assert!(
        stale.is_empty(),
        "in docs/events.md, but logged nowhere: {stale:?}"
    );
    for (name, level) in &listed {
        let levels = ["debug", "info", "warn", "error"];
        assert!(
            level.split(", ").all(|level| levels.contains(&level)),
            "{name}: level {level:?}"
        );
    }
}

#[test]
fn events_are_told_from_other_texts() {
    let text = r#"
        // warn!("comment.only: not this");
        warn!(worker = %id, "worker.evicted: {id} made no progress");
        info!("run.accepted: {run}");
        let key = "train.epochs";
        let (file, field) = ("index.csv: line 3", "header.step: is 0");
        let other = "Worker.lost: no"; let sentence = "not one: of these";
        format!("checkpoint.stored_late: step {step}")
        #[cfg(test)]
mod tests { fn x() { f("test.only: no"); } }
    "#;
    let expected = ["checkpoint.stored_late", "run.accepted", "worker.evicted"];
    assert_eq!(events(text).into_iter().collect::<Vec<_>>(), expected);
}
