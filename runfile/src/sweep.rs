//! Reading sweep.toml: which keys of a run file a sweep varies, and how its runs are selected.

mod draws;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fovea_core::group::MAX_RUNS;
use fovea_core::selection::{Halving, Selection};
use fovea_core::spec::BestBy;
use serde::Deserialize;
use toml::Value;

use crate::{Problem, RunFile, RunFileError, line_of};
use draws::{Draw, Drawn};

/// One variant of so many goes on at a rung, unless the file says.
const KEEP_ONE_OF: u32 = 3;

/// A sweep as its file describes it. The variants' run files are not validated yet.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Its variants: what each sets, and the run file with these settings.
    pub variants: Vec<(String, RunFile)>,
    /// The run file as it is.
    pub base: RunFile,
    /// Number of folds; 0: none.
    pub folds: u32,
    /// The seeds; none: that of the run file.
    pub seeds: Vec<u64>,
    /// How its runs are selected.
    pub selection: Option<Selection>,
}

/// The file's keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    run: PathBuf,
    name: Option<String>,
    #[serde(default)]
    method: Method,
    samples: Option<u32>,
    seed: Option<u64>,
    #[serde(default)]
    folds: u32,
    #[serde(default)]
    seeds: Vec<u64>,
    vary: toml::Table,
    selection: Option<Choosing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    /// Every combination of the values.
    #[default]
    Grid,
    /// `samples` combinations that are drawn.
    Random,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Choosing {
    #[serde(default)]
    metric: Metric,
    #[serde(default)]
    halving: Vec<u32>,
    keep_one_of: Option<u32>,
    patience: Option<u32>,
}

/// The metrics that can be selected by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Metric {
    #[default]
    Auc,
    Kappa,
    Loss,
}

impl From<Metric> for BestBy {
    fn from(metric: Metric) -> Self {
        match metric {
            Metric::Auc => Self::Auc,
            Metric::Kappa => Self::Kappa,
            Metric::Loss => Self::Loss,
        }
    }
}

/// What a key can be.
#[derive(Debug, Clone, PartialEq)]
enum Values {
    List(Vec<Value>),
    Drawn(Draw),
}

impl Sweep {
    /// Reads a sweep's file, and the run file that it names. `overrides` are settings of the run file, as `--set` has them.
    ///
    /// # Errors
    /// A file cannot be read or is not TOML, or the sweep has no variants. Mistakes in the runs are reported by
    /// [`RunFile::spec`] of each variant.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, RunFileError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| {
            one(
                name.clone(),
                match e.kind() {
                    std::io::ErrorKind::NotFound => {
                        "there is no such file; deploy/sweep.toml is an example to copy".into()
                    }
                    _ => format!("cannot be read: {e}"),
                },
            )
        })?;
        let file: File = toml::from_str(&text).map_err(|e| {
            let place = match e.span() {
                Some(span) => format!("{name}:{}", line_of(&text, span.start)),
                None => name.clone(),
            };
            one(place, e.message().replace('\n', ", "))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut base = RunFile::read(&folder.join(&file.run))?;
        for assignment in overrides {
            base.set(assignment);
        }
        if let Some(given) = &file.name {
            base.set_by_sweep("name", Value::String(given.clone()), &name);
        }
        file.sweep(&name, base)
    }
}

impl File {
    fn sweep(self, name: &str, base: RunFile) -> Result<Sweep, RunFileError> {
        let Self {
            run: _,
            name: _,
            method,
            samples,
            seed,
            folds,
            seeds,
            vary,
            selection,
        } = self;
        let problem = |message: String| one(name.to_owned(), message);
        let mut values = BTreeMap::new();
        flatten("", &vary, &mut values).map_err(problem)?;
        if values.is_empty() {
            return Err(problem(
                "vary: names no key; write one such as \"train.learning_rate\" = [0.001, 0.003]"
                    .into(),
            ));
        }
        for own in ["name", "seed"] {
            if values.contains_key(own) {
                return Err(problem(format!(
                    "vary.{own}: a sweep gives its runs their names, and `seeds` their seeds"
                )));
            }
        }
        let combinations = match method {
            Method::Grid => {
                for (key, given) in [("samples", samples.is_some()), ("seed", seed.is_some())] {
                    if given {
                        return Err(problem(format!(
                            "{key}: is for method = \"random\"; a grid has every combination"
                        )));
                    }
                }
                grid(&values).map_err(problem)?
            }
            Method::Random => {
                let samples = samples.ok_or_else(|| {
                    problem("samples: say how many combinations are drawn".into())
                })?;
                random(&values, samples, seed.unwrap_or(0)).map_err(problem)?
            }
        };
        let variants = combinations.into_iter().map(|combination| {
            let mut file = base.clone();
            let mut label = Vec::new();
            for (key, value) in combination {
                let setting = format!("{key}={}", shown(&value));
                file.set_by_sweep(&key, value, &format!("{name}: {setting}"));
                label.push(setting);
            }
            (label.join(" "), file)
        });
        Ok(Sweep {
            variants: variants.collect(),
            base,
            folds,
            seeds,
            selection: selection
                .map(|choosing| choosing.selection(name))
                .transpose()?,
        })
    }
}

impl Choosing {
    fn selection(self, name: &str) -> Result<Selection, RunFileError> {
        let Self {
            metric,
            halving,
            keep_one_of,
            patience,
        } = self;
        if halving.is_empty() && keep_one_of.is_some() {
            let message =
                "selection.keep_one_of: is for halving; name its epochs, such as halving = [2, 5]";
            return Err(one(name.to_owned(), message.into()));
        }
        Ok(Selection {
            by: metric.into(),
            halving: (!halving.is_empty()).then_some(Halving {
                after: halving,
                keep_one_of: keep_one_of.unwrap_or(KEEP_ONE_OF),
            }),
            patience,
        })
    }
}

fn one(place: String, message: String) -> RunFileError {
    RunFileError(vec![Problem { place, message }])
}

/// A value in a label: a text without its quotes.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The keys below a table of `vary`, dotted.
fn flatten(
    prefix: &str,
    table: &toml::Table,
    into: &mut BTreeMap<String, Values>,
) -> Result<(), String> {
    for (name, value) in table {
        let key = crate::join(prefix, name);
        let values = match value {
            Value::Array(values) if values.is_empty() => {
                return Err(format!("vary.{key}: has no values"));
            }
            Value::Array(values) => {
                for (at, value) in values.iter().enumerate() {
                    if values[..at].contains(value) {
                        return Err(format!("vary.{key}: has {} twice", shown(value)));
                    }
                }
                Values::List(values.clone())
            }
            Value::Table(inner) if Draw::is_one(inner) => {
                Values::Drawn(Draw::read(inner).map_err(|e| format!("vary.{key}: {e}"))?)
            }
            Value::Table(inner) => {
                flatten(&key, inner, into)?;
                continue;
            }
            _ => {
                return Err(format!(
                    "vary.{key}: write a list of values, such as [{}], or {{ min = ..., max = ... }}",
                    value
                ));
            }
        };
        if into.insert(key.clone(), values).is_some() {
            return Err(format!("vary.{key}: is there twice"));
        }
    }
    Ok(())
}

type Combination = Vec<(String, Value)>;

/// Every combination, the last key changing fastest.
fn grid(values: &BTreeMap<String, Values>) -> Result<Vec<Combination>, String> {
    let mut all: Vec<Combination> = vec![Vec::new()];
    for (key, values) in values {
        let Values::List(values) = values else {
            return Err(format!(
                "vary.{key}: a grid needs a list of values; a range is for method = \"random\""
            ));
        };
        if all.len() * values.len() > MAX_RUNS {
            return Err(format!(
                "the grid has more than the {MAX_RUNS} variants that a group can have: give fewer values, or method = \"random\""
            ));
        }
        all = all
            .into_iter()
            .flat_map(|before| {
                values.iter().map(move |value| {
                    let mut combination = before.clone();
                    combination.push((key.clone(), value.clone()));
                    combination
                })
            })
            .collect();
    }
    Ok(all)
}

/// `samples` combinations, each different. What is drawn for a key does not depend on the others.
fn random(
    values: &BTreeMap<String, Values>,
    samples: u32,
    seed: u64,
) -> Result<Vec<Combination>, String> {
    /// Draws for each sample before there are thought to be no more combinations.
    const TRIES: u32 = 100;
    if !(1..=MAX_RUNS as u32).contains(&samples) {
        return Err(format!(
            "samples: {samples} is not 1 to {MAX_RUNS}, which a group can have"
        ));
    }
    let mut all: Vec<Combination> = Vec::new();
    for draw in 0..samples * TRIES {
        let drawn = |(key, values): (&String, &Values)| {
            let mut drawn = Drawn::new(key, seed, draw);
            let value = match values {
                Values::List(values) => drawn.one_of(values),
                Values::Drawn(range) => drawn.within(range),
            };
            (key.clone(), value)
        };
        let combination: Combination = values.iter().map(drawn).collect();
        if !all.contains(&combination) {
            all.push(combination);
        }
        if all.len() == samples as usize {
            return Ok(all);
        }
    }
    Err(format!(
        "samples: only {} different combinations were found of {samples}: ask for fewer, or use method = \"grid\"",
        all.len()
    ))
}

#[cfg(test)]
mod tests;
