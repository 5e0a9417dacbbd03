//! Reading run.toml and `--set key=value`. Every problem is reported with file, line and key.
//!
//! The known keys are taken from [`RunSpec`] itself, so a new field of the spec is known here at once.

mod labels;
mod schema;
pub mod sweep;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fovea_core::spec::{RunSpec, Strategy};
use toml::Value;
use toml::de::{DeTable, DeValue};

use schema::Schema;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `run.toml:7` or `--set train.batch=x`.
    pub place: String,
    /// The mistake, beginning with the key, and what would be right.
    pub message: String,
}

/// All mistakes of a run file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(|p| format!("{}: {}", p.place, p.message)).collect::<Vec<_>>().join("\n"))]
pub struct RunFileError(pub Vec<Problem>);

/// A run file with its overrides, not yet validated as a whole.
#[derive(Debug, Clone)]
pub struct RunFile {
    /// The file's path as the user gave it.
    name: String,
    /// Folder that a relative path in the file starts from.
    folder: PathBuf,
    /// The given values by dotted key.
    given: BTreeMap<String, Given>,
    problems: Vec<Problem>,
    schema: Schema,
}

#[derive(Debug, Clone)]
struct Given {
    value: Value,
    origin: Origin,
}

#[derive(Debug, Clone)]
enum Origin {
    /// A line of the file, from 1.
    File(usize),
    /// `--set`, or another flag of the command line.
    Flag(String),
    /// A value of a sweep. A relative path in it starts where those of the file do.
    Sweep(String),
    /// The command's own default.
    Default(String),
}

impl RunFile {
    /// Reads a file. Only a file that cannot be read or is not TOML fails here; other problems are
    /// reported by [`RunFile::spec`], all at once.
    pub fn read(path: &Path) -> Result<Self, RunFileError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| {
            RunFileError(vec![Problem {
                place: name.clone(),
                message: match e.kind() {
                    std::io::ErrorKind::NotFound => {
                        "there is no such file; deploy/run.toml is an example to copy".into()
                    }
                    _ => format!("cannot be read: {e}"),
                },
            }])
        })?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Self::parse(&name, &folder, &text)
    }

    /// Reads the text of a file called `name`, whose relative paths start from `folder`.
    pub fn parse(name: &str, folder: &Path, text: &str) -> Result<Self, RunFileError> {
        let not_toml = |message: &str, span: Option<std::ops::Range<usize>>| {
            let line = span.map(|s| line_of(text, s.start));
            RunFileError(vec![Problem {
                place: line.map_or(name.to_owned(), |n| format!("{name}:{n}")),
                message: format!("not TOML: {}", message.replace('\n', ", ")),
            }])
        };
        let spans = DeTable::parse(text).map_err(|e| not_toml(e.message(), e.span()))?;
        let values: toml::Table =
            toml::from_str(text).map_err(|e| not_toml(e.message(), e.span()))?;
        let mut file = Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            given: BTreeMap::new(),
            problems: Vec::new(),
            schema: Schema::new(),
        };
        file.collect("", spans.get_ref(), &values, text);
        file.problems.sort_by_key(|p| line_number(&p.place));
        Ok(file)
    }

    /// Overrides the file with a `key=value` of the command line.
    pub fn set(&mut self, assignment: &str) {
        let place = format!("--set {assignment}");
        let Some((key, text)) = assignment.split_once('=') else {
            self.problem(
                place,
                "write it as key=value, such as train.epochs=3".into(),
            );
            return;
        };
        let (key, text) = (key.trim(), text.trim());
        let Some(default) = self.known(key, &place) else {
            return;
        };
        let default = default.clone();
        // A text needs no quotes here, because the shell removes them.
        let parsed = toml::from_str::<toml::Table>(&format!("value = {text}"))
            .ok()
            .and_then(|mut t| t.remove("value"));
        let value = match (default, parsed) {
            (Value::String(_), Some(Value::String(s))) => Value::String(s),
            (Value::String(_), _) | (_, None) => Value::String(text.to_owned()),
            (_, Some(value)) => value,
        };
        self.give(key, value, Origin::Flag(place));
    }

    /// Sets a value of a sweep; `place` names it in messages.
    pub fn set_by_sweep(&mut self, key: &str, value: Value, place: &str) {
        if self.known(key, place).is_some() {
            self.give(key, value, Origin::Sweep(place.to_owned()));
        }
    }

    /// The default of a key that is to be set; None, and a problem, if it cannot be.
    fn known(&mut self, key: &str, place: &str) -> Option<&Value> {
        let message = if self.schema.is_table(key) {
            let example = self.schema.example_below(key);
            format!("{key}: is a table; set a key of it, such as {example}")
        } else if self.schema.leaf(key).is_none() {
            self.schema.unknown(key)
        } else {
            return self.schema.leaf(key);
        };
        self.problem(place.to_owned(), message);
        None
    }

    /// Sets a value that follows from another flag, named `flag` in messages.
    pub fn set_by_flag(&mut self, key: &str, value: impl Into<Value>, flag: &str) {
        self.give(key, value.into(), Origin::Flag(flag.to_owned()));
    }

    /// Sets a value unless file or `--set` give one; `why` names it in messages.
    pub fn set_default(&mut self, key: &str, value: impl Into<Value>, why: &str) {
        if !self.gives(key) {
            self.give(key, value.into(), Origin::Default(why.to_owned()));
        }
    }

    /// Whether the file or a flag gives `key`.
    pub fn gives(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    /// The text given for `key`, if it is one.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.given.get(key).and_then(|g| g.value.as_str())
    }

    /// The run, or all mistakes.
    pub fn spec(&self) -> Result<RunSpec, RunFileError> {
        let mut problems = self.problems.clone();
        let mut table = toml::Table::new();
        let given = self.given.iter().filter(|(key, _)| *key != labels::KEY);
        for (key, given) in given {
            insert(&mut table, key, given.value.clone());
        }
        for (key, hint) in [
            ("name", "give the run a name, such as name = \"dr\""),
            (
                "dataset",
                "name a dataset; `fovea dataset list` shows those of the coordinator",
            ),
        ] {
            if !self.gives(key) {
                problems.push(Problem {
                    place: self.name.clone(),
                    message: format!("{key}: is missing; {hint}"),
                });
            }
        }
        if !problems.is_empty() {
            return Err(RunFileError(problems));
        }
        let meaning = self.labels_meaning().map_err(|p| RunFileError(vec![p]))?;
        for (key, value) in meaning {
            insert(&mut table, key, value);
        }
        let mut spec: RunSpec = Value::Table(table)
            .try_into()
            .map_err(|e: toml::de::Error| {
                RunFileError(vec![Problem {
                    place: self.name.clone(),
                    message: e.message().to_owned(),
                }])
            })?;
        // The default list is that of fine-tuning: elsewhere it would keep random layers as they are.
        if spec.model.strategy() != Strategy::FineTune && !self.gives("model.frozen") {
            spec.model.frozen.clear();
        }
        spec.validate().map_err(|e| {
            RunFileError(
                e.0.into_iter()
                    .map(|p| Problem {
                        place: self.place(&p.key),
                        message: format!("{}: {}", p.key, p.message),
                    })
                    .collect(),
            )
        })?;
        Ok(spec)
    }

    /// Where `key` was given, for messages.
    pub fn place(&self, key: &str) -> String {
        match self.given.get(key).map(|g| &g.origin) {
            Some(Origin::File(line)) => format!("{}:{line}", self.name),
            Some(Origin::Flag(text) | Origin::Sweep(text)) => text.clone(),
            Some(Origin::Default(why)) => why.clone(),
            None => self.name.clone(),
        }
    }

    /// The path that a text given for `key` names: a relative one starts from the run file's folder, or from the current
    /// folder if it was given by a flag.
    ///
    /// # Errors
    /// The current folder is not known.
    pub fn absolute(&self, key: &str, path: &str) -> std::io::Result<PathBuf> {
        let from_flag = matches!(
            self.given.get(key).map(|g| &g.origin),
            Some(Origin::Flag(_))
        );
        let path = if from_flag {
            PathBuf::from(path)
        } else {
            self.folder.join(path)
        };
        // Resolved where the file exists, because a path with `..` is hard to read in a message.
        std::fs::canonicalize(&path).or_else(|_| std::path::absolute(&path))
    }

    fn problem(&mut self, place: String, message: String) {
        self.problems.push(Problem { place, message });
    }

    /// Checks one value alone, so that a wrong type is reported with its key, and stores it.
    fn give(&mut self, key: &str, value: Value, origin: Origin) {
        let checked = self.schema.check(key, &value);
        if key == labels::KEY
            && matches!(origin, Origin::Flag(_) | Origin::Sweep(_))
            && let Ok(labels) = labels::named(&value)
        {
            self.labels_override(labels);
        }
        self.given.insert(key.to_owned(), Given { value, origin });
        if let Err(error) = checked {
            let place = self.place(key);
            self.problem(place, format!("{key}: {error}"));
            self.given.remove(key);
            // A stand-in, so that the key is not reported as missing as well.
            let stand_in = self.schema.leaf(key).cloned();
            if let Some(value) = stand_in {
                let origin = Origin::Default(self.name.clone());
                self.given.insert(key.to_owned(), Given { value, origin });
            }
        }
    }

    fn collect(&mut self, prefix: &str, spans: &DeTable<'_>, values: &toml::Table, text: &str) {
        for (name, item) in spans.iter() {
            let key = join(prefix, name.get_ref());
            let line = line_of(text, name.span().start);
            let Some(value) = values.get(name.get_ref().as_ref()) else {
                continue;
            };
            match (item.get_ref(), value) {
                (DeValue::Table(inner), Value::Table(inner_values))
                    if self.schema.is_table(&key) =>
                {
                    self.collect(&key, inner, inner_values, text);
                }
                _ if self.schema.leaf(&key).is_some() => {
                    self.give(&key, value.clone(), Origin::File(line));
                }
                _ => {
                    let message = if self.schema.is_table(&key) {
                        format!("{key}: is a table; write [{key}] and its keys below")
                    } else {
                        self.schema.unknown(&key)
                    };
                    self.problem(format!("{}:{line}", self.name), message);
                }
            }
        }
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}.{name}")
    }
}

fn insert(table: &mut toml::Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = table
                .entry(head)
                .or_insert_with(|| Value::Table(toml::Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// The 1-based line of a byte offset.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|b| **b == b'\n')
        .count()
}

fn line_number(place: &str) -> usize {
    place
        .rsplit_once(':')
        .and_then(|(_, n)| n.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
