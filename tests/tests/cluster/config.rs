//! The configuration of both programs: each key is a plain value that a variable of the environment can set, and the keys of
//! one program are not taken for misspelt ones of the other.

use std::process::{Command, Output};

use fovea_service::misspelt;
use fovea_tests::binary;
use toml::{Table, Value};

const PROGRAMS: [&str; 2] = ["fovea-coordinator", "fovea-worker"];

/// Variables of other programs that may be in the same environment.
const OTHERS: [&str; 4] = [
    "FOVEA_REQUIRE",
    "FOVEA_COMMIT",
    "FOVEA_SOFT_GPU",
    "FOVEA_WRITE_REFERENCE",
];

/// `--dump-config` of a program with this one variable of ours, or its error.
fn dump(program: &str, variable: Option<(&str, &str)>) -> Result<Table, String> {
    let mut command = Command::new(binary(program));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FOVEA_")) {
        command.env_remove(name);
    }
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .arg("--dump-config")
        .envs(variable)
        .output()
        .expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    match status.success() {
        true => Ok(text(stdout).parse().expect("TOML")),
        false => Err(text(stderr)),
    }
}

fn defaults(program: &str) -> Table {
    let defaults = dump(program, None).expect("the defaults are valid");
    assert!(defaults.len() > 10, "{program}: {defaults:?}");
    defaults
}

fn variable(key: &str) -> String {
    format!("FOVEA_{}", key.to_uppercase())
}

#[test]
fn every_key_is_a_plain_value_that_a_variable_sets() {
    for program in PROGRAMS {
        for (key, default) in defaults(program) {
            // Another value of the same type.
            let other = match &default {
                Value::String(text) => Value::String(format!("{text}x")),
                Value::Integer(number) => Value::Integer(number + 1),
                Value::Boolean(yes) => Value::Boolean(!yes),
                Value::Float(number) => Value::Float(number + 0.5),
                Value::Table(_) | Value::Array(_) | Value::Datetime(_) => {
                    panic!("{program}: {key} is {default}: no variable can set it")
                }
            };
            let text = match &other {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            match dump(program, Some((&variable(&key), &text))) {
                Ok(dumped) => assert_eq!(dumped[&key], other, "{program}: {key}"),
                // Not every value is possible; that it was read shows in the error.
                Err(error) => assert!(error.contains(&*key), "{program}: {key} = {text}: {error}"),
            }
        }
    }
}

#[test]
fn variables_of_other_programs_do_not_look_misspelt() {
    let [coordinator, worker] = PROGRAMS.map(defaults);
    for (keys, others) in [(&coordinator, &worker), (&worker, &coordinator)] {
        let keys: Vec<&str> = keys.keys().map(String::as_str).collect();
        let others: Vec<String> = others.keys().map(|key| variable(key)).collect();
        let variables = others.iter().map(String::as_str).chain(OTHERS);
        let found = misspelt(&keys, variables);
        assert!(found.is_empty(), "{found:?}");
    }
}
