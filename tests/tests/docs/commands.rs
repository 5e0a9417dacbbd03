//! Every command line of ours in a page is one that its program takes, as far as the line goes: options, values, commands.
//!
//! The programs are asked for help at the end of each line, so they read all of it and do nothing.

use std::collections::BTreeMap;
use std::process::Command;

use fovea_tests::binary;

use super::pages::{self, Item};

const PROGRAMS: [&str; 3] = ["fovea", "fovea-coordinator", "fovea-worker"];

/// The words of each command of a script, without what a shell does with them.
fn commands(script: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in script.replace("\\\n", " ").lines() {
        let mut words: Vec<String> = Vec::new();
        let mut word: Option<String> = None;
        let mut quote: Option<char> = None;
        for letter in line.chars().chain(['\n']) {
            match (quote, letter) {
                (Some(open), _) if letter == open => quote = None,
                (Some(_), _) => word.get_or_insert_default().push(letter),
                (None, '\'' | '"') => {
                    quote = Some(letter);
                    word.get_or_insert_default();
                }
                (None, '#') if word.is_none() => break,
                (None, ' ' | '\n' | ';' | '&' | '|' | '>' | '<' | '(' | ')') => {
                    words.extend(word.take());
                    if !matches!(letter, ' ' | '\n') {
                        found.push(std::mem::take(&mut words));
                    }
                }
                (None, _) => word.get_or_insert_default().push(letter),
            }
        }
        found.push(words);
    }
    found.retain(|words| !words.is_empty());
    found
}

/// The program and its arguments, if it is one of ours.
fn ours(words: &[String]) -> Option<(&'static str, Vec<&str>)> {
    let begin = words
        .iter()
        .position(|word| !word.contains('=') && word != "export")?;
    let name = words[begin].rsplit('/').next()?;
    let program = PROGRAMS.into_iter().find(|program| *program == name)?;
    let arguments = words[begin + 1..].iter().map(String::as_str);
    Some((program, arguments.filter(|word| *word != "...").collect()))
}

#[test]
fn every_command_line_is_one_that_the_program_takes() {
    // Each once, with a page that has it.
    let mut lines = BTreeMap::new();
    for page in pages::all() {
        for item in page.items() {
            let Item::Code(language, text) = item else {
                continue;
            };
            if language != "sh" {
                continue;
            }
            for words in commands(&text) {
                if let Some((program, arguments)) = ours(&words) {
                    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
                    lines.insert((program, arguments), page.path.clone());
                }
            }
        }
    }
    assert!(lines.len() > 100, "{} command lines", lines.len());
    let mut refused = Vec::new();
    for ((program, arguments), page) in lines {
        let mut command = Command::new(binary(program));
        command.args(&arguments);
        let output = command.arg("--help").output().expect("the program starts");
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            let first = error.lines().next().unwrap_or_default().to_owned();
            refused.push(format!(
                "{}: {program} {}: {first}",
                page.display(),
                arguments.join(" ")
            ));
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn lines_are_split_as_a_shell_does() {
    let script = "export A=b PATH=/x\n(umask 077 && target/release/fovea --json 'a  b' \\\n  c) > out  # fovea no\nA=b fovea runs | jq '.x; y'";
    let found: Vec<String> = commands(script)
        .iter()
        .map(|words| words.join("_"))
        .collect();
    assert_eq!(
        found,
        [
            "export_A=b_PATH=/x",
            "umask_077",
            "target/release/fovea_--json_a  b_c",
            "out",
            "A=b_fovea_runs",
            "jq_.x; y"
        ]
    );
    let words: Vec<String> = "A=b fovea runs ...".split(' ').map(str::to_owned).collect();
    assert_eq!(ours(&words), Some(("fovea", vec!["runs"])));
}
