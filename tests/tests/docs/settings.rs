//! The reference of the run file and of both programs' configuration, from the comments of the example files in deploy/. Other
//! tests see to it that these hold every key with its default.

use std::fmt::Write;
use std::fs;

use super::pages::root;
use super::reference::{cell, check, origin, prose};

/// Some keys that one comment explains.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    /// Key and default as TOML; None where the key has no default, and with it what the file shows as an example.
    keys: Vec<(String, Option<String>, String)>,
    meaning: String,
}

/// A table of the file: its name (empty at the top), what is said of it, and its keys.
#[derive(Debug, Default, PartialEq, Eq)]
struct Section {
    name: String,
    meaning: String,
    entries: Vec<Entry>,
}

/// `key = value`, with a remark behind it at most.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(" = ")?;
    let is_key = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c));
    is_key.then(|| (key, value.split("    #").next().unwrap_or(value).trim()))
}

fn section(line: &str) -> Option<&str> {
    let name = line.strip_prefix('[')?.strip_suffix(']')?;
    name.chars().all(|c| c.is_ascii_lowercase()).then_some(name)
}

/// The sections of an example file. What stands before the first blank line is about the file itself.
fn parse(text: &str) -> Vec<Section> {
    let (_, text) = text.split_once("\n\n").expect("a comment at the top");
    let mut sections = vec![Section::default()];
    let mut comment: Vec<&str> = Vec::new();
    // Whether the next key belongs to the entry before.
    let mut goes_on = false;
    for line in text.lines() {
        let bare = line.strip_prefix("# ").or(line.strip_prefix('#'));
        let content = bare.unwrap_or(line);
        if line.is_empty() {
            goes_on = false;
        } else if let Some(name) = section(content) {
            sections.push(Section {
                name: name.into(),
                meaning: meaning(&std::mem::take(&mut comment)),
                entries: Vec::new(),
            });
            goes_on = false;
        } else if let Some((key, value)) = assignment(content) {
            let entries = &mut sections.last_mut().expect("the top").entries;
            if !goes_on || !comment.is_empty() {
                entries.push(Entry {
                    keys: Vec::new(),
                    meaning: meaning(&std::mem::take(&mut comment)),
                });
            }
            let default = bare.is_none().then(|| value.to_owned());
            let entry = entries.last_mut().expect("one was pushed");
            entry.keys.push((key.into(), default, value.into()));
            goes_on = true;
        } else {
            let text = bare.unwrap_or_else(|| panic!("neither a key nor a comment: {line:?}"));
            comment.push(text);
            goes_on = false;
        }
    }
    assert!(comment.is_empty(), "a comment without a key: {comment:?}");
    sections
}

/// The lines of a comment as a text. A line that is set in begins a new line of its own.
fn meaning(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        if !text.is_empty() {
            let is_item = line.starts_with("  \"");
            text += if is_item { "\n\n" } else { " " };
        }
        text += line.trim();
    }
    text
}

fn kind(value: &str) -> &'static str {
    match value.parse::<toml::Value>().or_else(|_| {
        format!("x = {value}")
            .parse::<toml::Table>()
            .map(|t| t["x"].clone())
    }) {
        Ok(toml::Value::String(_)) => "text",
        Ok(toml::Value::Integer(_)) => "whole number",
        Ok(toml::Value::Float(_)) => "number",
        Ok(toml::Value::Boolean(_)) => "true or false",
        Ok(toml::Value::Array(_)) => "list of texts",
        other => panic!("{value}: {other:?}"),
    }
}

/// A text with what is literal in it, quoted values, lists, flags and names with an underscore, between backticks.
fn marked(text: &str) -> String {
    let mut marked = String::new();
    for (number, part) in text.split('`').enumerate() {
        if number % 2 == 1 {
            marked += &format!("`{part}`");
            continue;
        }
        let words: Vec<String> = values(part).split(' ').map(word).collect();
        marked += &words.join(" ");
    }
    marked
}

/// Puts quoted values without spaces, and lists in brackets, between backticks.
fn values(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['"', '[']) {
        let (before, literal) = rest.split_at(at);
        let close = if literal.starts_with('"') { '"' } else { ']' };
        let end = literal[1..]
            .find(close)
            .map_or(literal.len(), |end| end + 2);
        let (literal, after) = literal.split_at(end);
        let is_value = close == ']' || !literal.contains(' ');
        let mark = if is_value { "`" } else { "" };
        out += &format!("{before}{mark}{literal}{mark}");
        rest = after;
    }
    out + rest
}

/// Puts a flag, or a name with an underscore, between backticks; what is marked or quoted already stays.
fn word(word: &str) -> String {
    let core = word.trim_matches(|c: char| "(),.;:".contains(c));
    let is_literal = core.starts_with("--") || (core.contains('_') && core != "_");
    match is_literal && !word.contains(['`', '"', '[', ']']) {
        true => word.replacen(core, &format!("`{core}`"), 1),
        false => word.to_owned(),
    }
}

/// The tables of an example file, below headings of this level.
fn tables(file: &str, heading: &str) -> String {
    let text = fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let sections = parse(&text);
    let given: toml::Table = text.parse().unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut page = String::new();
    for Section {
        name,
        meaning,
        entries,
    } in sections
    {
        if !name.is_empty() {
            let _ = write!(page, "\n{heading} \\[{name}\\]\n");
        }
        if !meaning.is_empty() {
            let _ = write!(page, "\n{}\n", prose(&meaning));
        }
        let held = match name.as_str() {
            "" => Some(&given),
            name => given.get(name).and_then(toml::Value::as_table),
        };
        let shown = entries
            .iter()
            .flat_map(|e| &e.keys)
            .filter(|(_, default, _)| default.is_some());
        let keys = held
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_table());
        assert_eq!(
            shown.count(),
            keys.count(),
            "{file}: a key of [{name}] was overlooked"
        );
        page += "\n| key | default | meaning |\n|---|---|---|\n";
        for Entry { keys, meaning } in entries {
            for (number, (key, default, example)) in keys.iter().enumerate() {
                let kind = kind(example);
                let required = file.ends_with("run.toml") && ["name", "dataset"].contains(&&**key);
                let default = match default {
                    // What the file shows is an example.
                    Some(_) if required => format!("required, {kind}"),
                    Some(value) => format!("`{value}`, {kind}"),
                    None => format!("none, {kind}"),
                };
                let meaning = match (number, meaning.is_empty()) {
                    (0, false) => cell(&prose(&marked(&meaning))),
                    (0, true) => "see above".to_owned(),
                    _ => format!("see `{}`", keys[0].0),
                };
                let _ = writeln!(page, "| `{key}` | {default} | {meaning} |");
            }
        }
    }
    page
}

#[test]
fn the_reference_of_the_run_file_is_current() {
    let mut page = format!("# Run file\n\n{}", origin("deploy/run.toml"));
    page += "Every key of the TOML file that `fovea submit` and `fovea local` take. Only `name` and `dataset` are required. \
             `deploy/run.toml` holds all of them, to be copied. On the command line, `--set train.epochs=20` overrides a key; \
             a key that does not exist is refused, with the nearest that does.\n";
    page += &tables("deploy/run.toml", "##");
    check("run-file.md", &page);
}

#[test]
fn the_reference_of_the_configuration_is_current() {
    let files = "deploy/coordinator.toml and deploy/worker.toml";
    let mut page = format!("# Configuration\n\n{}", origin(files));
    page += "Every key of the configuration of `fovea-coordinator` and `fovea-worker`. A value comes from the default, the TOML \
             file that `--config` names, the variable `FOVEA_<KEY>` of the environment (`FOVEA_DATA_DIR` for `data_dir`) or a \
             flag of the command line; each overrides those before it. `--dump-config` prints the result. \
             `deploy/coordinator.toml` and `deploy/worker.toml` hold all keys, to be copied.\n";
    for (heading, file) in [
        ("fovea-coordinator", "deploy/coordinator.toml"),
        ("fovea-worker", "deploy/worker.toml"),
    ] {
        let _ = write!(page, "\n## {heading}\n{}", tables(file, "###"));
    }
    check("configuration.md", &page);
}

#[test]
fn what_is_literal_is_marked() {
    let text =
        "Say \"a\" or [\"b\", \"c\"], (workers.min_x), --flag: \"two words\", `x_y` on [::]:0.";
    let expected = "Say `\"a\"` or `[\"b\", \"c\"]`, (`workers.min_x`), `--flag`: \"two words\", `x_y` on `[::]`:0.";
    assert_eq!(marked(text), expected);
}

#[test]
fn keys_are_read_with_their_comments() {
    let text = "# A file.\n#\n# More of it.\n\n# One:\n#   \"a\"  this\n#        and that;\n#   \"b\"  other.\n# one = \"a\"\n\n\
                [two]\n# Of both.\nx = 1\ny = 2      # \"z\"\n\n# What three is.\n# [three]\n# i = 1\n";
    let entry = |keys: &[(&str, Option<&str>, &str)], meaning: &str| Entry {
        keys: keys
            .iter()
            .map(|(k, d, e)| ((*k).into(), d.map(str::to_owned), (*e).into()))
            .collect(),
        meaning: meaning.into(),
    };
    let section = |name: &str, meaning: &str, entries: Vec<Entry>| Section {
        name: name.into(),
        meaning: meaning.into(),
        entries,
    };
    let expected = [
        section(
            "",
            "",
            vec![entry(
                &[("one", None, "\"a\"")],
                "One:\n\n\"a\"  this and that;\n\n\"b\"  other.",
            )],
        ),
        section(
            "two",
            "",
            vec![entry(
                &[("x", Some("1"), "1"), ("y", Some("2"), "2")],
                "Of both.",
            )],
        ),
        section(
            "three",
            "What three is.",
            vec![entry(&[("i", None, "1")], "")],
        ),
    ];
    assert_eq!(parse(text), expected);
}
