//! Layered configuration: defaults < file < FOVEA_* environment < flags.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use config::{Config, Environment, File, FileFormat};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::nearest::nearest;

/// What names of variables begin with.
const PREFIX: &str = "FOVEA_";

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or holds a key that does not exist.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What and where.
        problem: String,
    },
    /// A value that cannot be.
    #[error("configuration: {0}; --dump-config shows every key with its value")]
    Value(String),
}

/// The configuration `T`: its defaults, overridden by the TOML file, by environment variables named
/// FOVEA_ and the key in capitals, and by `flags` (key, value).
///
/// Keys that `T` does not have are refused in the file; `T` must derive `deny_unknown_fields`.
/// Environment variables with other names are left alone: they may belong to another program. Those
/// that look misspelt are for [`warn_misspelt`]. Every key of `T` must be a plain value and no table,
/// so that a variable can set it.
pub fn layered<T>(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    flags: &[(&str, String)],
) -> Result<T, ConfigError>
where
    T: Default + Serialize + DeserializeOwned,
{
    let value = |e: config::ConfigError| ConfigError::Value(e.to_string());
    let defaults =
        toml::Table::try_from(T::default()).map_err(|e| ConfigError::Value(e.to_string()))?;
    let mut builder = Config::builder().add_source(Config::try_from(&T::default()).map_err(value)?);
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        // Alone first: the error then has a line and speaks of this file.
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| problem(path, &e))?;
        if let Some(unknown) = table.keys().find(|key| !defaults.contains_key(*key)) {
            let known: Vec<&str> = defaults.keys().map(String::as_str).collect();
            let place = match line_of(&text, unknown) {
                Some(line) => format!("line {line}: "),
                None => String::new(),
            };
            return Err(ConfigError::File {
                path: path.to_owned(),
                problem: format!("{place}unknown key {unknown:?}; {}", meant(unknown, &known)),
            });
        }
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }
    let ours: HashMap<String, String> = environment
        .filter(|(name, _)| {
            name.strip_prefix(PREFIX)
                .is_some_and(|key| defaults.contains_key(&key.to_lowercase()))
        })
        .collect();
    builder = builder.add_source(
        Environment::with_prefix("FOVEA")
            .prefix_separator("_")
            .try_parsing(true)
            .source(Some(ours)),
    );
    for (key, text) in flags {
        builder = builder.set_override(*key, text.as_str()).map_err(value)?;
    }
    builder
        .build()
        .and_then(Config::try_deserialize)
        .map_err(unfit)
}

/// What somebody who wrote `unknown` may have meant.
fn meant(unknown: &str, known: &[&str]) -> String {
    match nearest(unknown, known.iter().copied()) {
        Some(key) => format!("did you mean {key}?"),
        None => format!("known keys: {}", known.join(", ")),
    }
}

/// The number of the line that gives `key` a value, or begins a table of that name.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let names = |line: &str| {
        let line = line.trim_start().trim_start_matches('[').trim_start();
        let quoted = |quote| {
            line.strip_prefix(quote)?
                .strip_prefix(key)?
                .strip_prefix(quote)
        };
        let rest = line
            .strip_prefix(key)
            .or_else(|| quoted('"'))
            .or_else(|| quoted('\''));
        rest.is_some_and(|rest| rest.trim_start().starts_with(['=', '.', ']']))
    };
    text.lines().position(names).map(|index| index + 1)
}

/// A value that does not fit its key, as a sentence.
fn unfit(error: config::ConfigError) -> ConfigError {
    let text = error.to_string();
    // Numbers below zero are read as numbers, and fit none of the keys. The library's text speaks of bits.
    let negative = text
        .split_once("integer `-")
        .and_then(|(_, rest)| rest.split_once('`'));
    match (
        negative,
        text.rsplit_once("for key `")
            .and_then(|(_, rest)| rest.split_once('`')),
    ) {
        (Some((digits, _)), Some((key, place))) => {
            let place = match place.trim() {
                "" => String::new(),
                place => format!(" ({place})"),
            };
            ConfigError::Value(format!("{key} is -{digits}{place}; use 0 or more"))
        }
        _ => ConfigError::Value(text),
    }
}

/// Logs a warning for each environment variable whose name is close to that of a key of `T`, without
/// being one: it has no effect, and is probably misspelt.
pub fn warn_misspelt<T: Default + Serialize>(environment: impl Iterator<Item = (String, String)>) {
    let Ok(defaults) = toml::Table::try_from(T::default()) else {
        return;
    };
    let keys: Vec<&str> = defaults.keys().map(String::as_str).collect();
    let names: Vec<String> = environment.map(|(name, _)| name).collect();
    for (variable, key) in misspelt(&keys, names.iter().map(String::as_str)) {
        let meant = key.to_uppercase();
        warn!(
            variable,
            "configuration.misspelt: the environment variable {variable} has no effect; did you mean \
             {PREFIX}{meant}?"
        );
    }
}

/// The variables that are no key but within two edits of one (insert, delete, replace, swap of
/// neighbours; one edit if the name is short), each with the nearest key.
///
/// Variables of the other programs must not be taken for misspelt ones, hence so few edits.
pub fn misspelt<'a>(
    keys: &[&'a str],
    variables: impl Iterator<Item = &'a str>,
) -> Vec<(&'a str, &'a str)> {
    let near = |variable: &'a str| {
        let name = variable.strip_prefix(PREFIX)?.to_lowercase();
        if keys.contains(&name.as_str()) {
            return None;
        }
        let edits = match name.chars().count() {
            0..=3 => return None,
            4..=9 => 1,
            10..=79 => 2,
            // The distance takes time quadratic in the length, and no key is so long.
            _ => return None,
        };
        keys.iter()
            .map(|key| (strsim::osa_distance(&name, key), *key))
            .filter(|(distance, _)| *distance <= edits)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, key)| (variable, key))
    };
    variables.filter_map(near).collect()
}

fn problem(path: &Path, error: &toml::de::Error) -> ConfigError {
    ConfigError::File {
        path: path.to_owned(),
        problem: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        listen: String,
        patience_s: u64,
        insecure: bool,
    }

    impl Default for Sample {
        fn default() -> Self {
            Self {
                listen: "default".into(),
                patience_s: 1,
                insecure: false,
            }
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn environment(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        pairs.into_iter()
    }

    #[test]
    fn later_layers_win() {
        let file = file("listen = 'file'\npatience_s = 2\ninsecure = true");
        let env = environment(&[
            ("FOVEA_PATIENCE_S", "3"),
            ("FOVEA_LISTEN", "env"),
            ("FOVEA_X", ""),
        ]);
        let flags = [("listen", "flag".to_owned())];
        let got: Sample = layered(Some(file.path()), env, &flags).unwrap();
        let want = Sample {
            listen: "flag".into(),
            patience_s: 3,
            insecure: true,
        };
        assert_eq!(got, want);
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = file("lisen = 'x'");
        let error = layered::<Sample>(Some(unknown.path()), environment(&[]), &[]).unwrap_err();
        let text = error.to_string();
        let expected = "line 1: unknown key \"lisen\"; did you mean listen?";
        assert!(text.ends_with(expected), "{text}");
        for (content, expected) in [
            (
                "# x = 1\nlisten = 'x'\n\n \"patience\" = 3",
                "line 4: unknown key \"patience\"; did",
            ),
            (
                "listen = 'nosuch = 1'\n[nosuch]\nx = 1",
                "line 2: unknown key \"nosuch\"; known keys: ",
            ),
            (
                "nosuch.x = 1",
                "line 1: unknown key \"nosuch\"; known keys: insecure, listen, patience_s",
            ),
        ] {
            let unknown = file(content);
            let error = layered::<Sample>(Some(unknown.path()), environment(&[]), &[]);
            let text = error.unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
        let negative = file("patience_s = -1");
        let from_file = layered::<Sample>(Some(negative.path()), environment(&[]), &[]);
        let negative = environment(&[("FOVEA_PATIENCE_S", "-1")]);
        let from_environment = layered::<Sample>(None, negative, &[]);
        for error in [from_file, from_environment] {
            let text = error.unwrap_err().to_string();
            assert!(
                text.contains("patience_s is -1") && text.contains("; use 0 or more"),
                "{text}"
            );
        }
        let bad = environment(&[("FOVEA_PATIENCE_S", "soon")]);
        let error = layered::<Sample>(None, bad, &[]).unwrap_err();
        assert!(error.to_string().contains("patience_s"), "{error}");
        let not_a_flag = [("insecure", "perhaps".to_owned())];
        let error = layered::<Sample>(None, environment(&[]), &not_a_flag).unwrap_err();
        assert!(error.to_string().contains("insecure"), "{error}");
        let broken = file("listen = ");
        assert!(layered::<Sample>(Some(broken.path()), environment(&[]), &[]).is_err());
    }

    #[test]
    fn misspelt_variables_are_found_and_those_of_others_are_not() {
        let keys = ["listen", "data_dir", "drain_timeout_s", "on_stop"];
        let variables = [
            "FOVEA_LISTEN",
            "FOVEA_LISEN",
            "FOVEA_DATADIR",
            "FOVEA_DRAIN_TIMOUT",
            "FOVEA_DRAIN_TIMEOUTS",
            "FOVEA_STOP_TIMEOUT_S",
            "FOVEA_OPS_LISTEN",
            "FOVEA_ONSTOP",
            "FOVEA_COORDINATOR",
            "FOVEA_X",
            "FOVEA_",
            "LISEN",
        ];
        let found = misspelt(&keys, variables.into_iter());
        let expected = [
            ("FOVEA_LISEN", "listen"),
            ("FOVEA_DATADIR", "data_dir"),
            ("FOVEA_DRAIN_TIMEOUTS", "drain_timeout_s"),
            ("FOVEA_ONSTOP", "on_stop"),
        ];
        assert_eq!(found, expected);
    }
}
