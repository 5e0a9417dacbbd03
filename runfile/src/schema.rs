//! The keys and values that a run file may have, taken from the serde form of [`RunSpec`].

use std::collections::BTreeMap;

use fovea_core::googlenet::{POOL5, Pooling};
use fovea_core::ids::DatasetName;
use fovea_core::priority::Priority;
use fovea_core::spec::{
    CheckpointSpec, FoldSpec, Head, Labels, ModelSpec, RunSpec, Strategy, TrainSpec, WorkersSpec,
};
use fovea_service::nearest;
use toml::Value;

use super::{insert, labels};

/// A value does not have the type of its key. The text does not name the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct WrongType(String);

impl WrongType {
    /// From serde's message on `value`.
    pub fn of(message: &str, value: &Value) -> Self {
        Self(in_plain_language(message, value))
    }
}

/// The keys of a run file.
#[derive(Debug, Clone)]
pub(super) struct Schema {
    /// A valid run with every key present.
    sample: toml::Table,
    /// Every key that has a value, dotted, with the sample's value.
    leaves: BTreeMap<String, Value>,
}

impl Schema {
    pub fn new() -> Self {
        let sample = RunSpec {
            name: "run".into(),
            dataset: DatasetName::new("dataset").expect("a valid name"),
            seed: 0,
            priority: Priority::default(),
            model: ModelSpec::default(),
            train: TrainSpec::default(),
            workers: WorkersSpec::default(),
            checkpoint: CheckpointSpec::default(),
            // Nobody writes it.
            evaluate: None,
            fold: Some(FoldSpec { index: 1, of: 5 }),
        };
        let mut sample = toml::Table::try_from(&sample).expect("a spec is a table");
        // As defaults these are left out of a spec.
        let text = |value: Result<Value, toml::ser::Error>| value.expect("it is a text");
        for (key, value) in [
            ("priority", Priority::default().as_str().into()),
            ("model.head", text(Value::try_from(Head::default()))),
            ("model.strategy", text(Value::try_from(Strategy::FineTune))),
            ("model.tap", POOL5.into()),
            ("model.pooling", text(Value::try_from(Pooling::default()))),
            ("model.auxiliary", 0.0.into()),
            ("workers.device", "".into()),
            ("workers.mixed", false.into()),
        ] {
            insert(&mut sample, key, value);
        }
        let mut leaves = BTreeMap::new();
        flatten("", &sample, &mut leaves);
        leaves.insert(labels::KEY.into(), Labels::Referable.name().into());
        Self { sample, leaves }
    }

    /// The sample value of a key that has one.
    pub fn leaf(&self, key: &str) -> Option<&Value> {
        self.leaves.get(key)
    }

    /// Every key that has a value, with the value in the sample: the default, if there is one.
    #[cfg(test)]
    pub fn leaves(&self) -> &BTreeMap<String, Value> {
        &self.leaves
    }

    /// Whether keys lie below `key`.
    pub fn is_table(&self, key: &str) -> bool {
        matches!(self.sample.get(key), Some(Value::Table(_)))
    }

    /// A `key=value` below a table, as an example.
    pub fn example_below(&self, table: &str) -> String {
        let prefix = format!("{table}.");
        self.leaves
            .iter()
            .find(|(key, _)| key.starts_with(&prefix))
            .map_or(String::new(), |(key, value)| format!("{key}={value}"))
    }

    /// Checks the type of a value, alone.
    pub fn check(&self, key: &str, value: &Value) -> Result<(), WrongType> {
        if key == labels::KEY {
            return labels::named(value).map(|_| ());
        }
        let mut trial = self.sample.clone();
        insert(&mut trial, key, value.clone());
        match Value::Table(trial).try_into::<RunSpec>() {
            Ok(_) => Ok(()),
            Err(e) => Err(WrongType::of(e.message(), value)),
        }
    }

    /// The message for a key that does not exist.
    pub fn unknown(&self, key: &str) -> String {
        let last = |k: &str| k.rsplit('.').next().unwrap_or(k).to_owned();
        // The right name in the wrong table comes first, then similar names.
        let elsewhere = self.leaves.keys().find(|k| last(k) == last(key));
        let tables = self
            .sample
            .iter()
            .filter(|(_, v)| v.is_table())
            .map(|(k, _)| k.as_str());
        // What is right already does not make a name alike: in a table that there is, names are compared without it.
        let in_table = key
            .rsplit_once('.')
            .filter(|(table, _)| self.is_table(table));
        let alike = || {
            let whole = || nearest(key, self.leaves.keys().map(String::as_str).chain(tables));
            let own = |(table, name): (&str, &str)| {
                let names = self
                    .leaves
                    .keys()
                    .filter_map(|k| k.strip_prefix(table)?.strip_prefix('.'));
                Some(format!("{table}.{}", nearest(name, names)?))
            };
            let found = match in_table {
                Some(parts) => own(parts),
                None => whole().map(str::to_owned),
            };
            found.or_else(|| {
                let names: Vec<String> = self.leaves.keys().map(|k| last(k)).collect();
                let name = nearest(&last(key), names.iter().map(String::as_str))?;
                self.leaves.keys().find(|k| last(k) == name).cloned()
            })
        };
        match elsewhere.cloned().or_else(alike) {
            Some(right) => format!("{key}: there is no such key; did you mean {right}?"),
            None => {
                let prefix = key.rsplit_once('.').map_or("", |(table, _)| table);
                let table = if self.is_table(prefix) { prefix } else { "" };
                let known: Vec<&str> = self
                    .leaves
                    .keys()
                    .filter_map(|k| match table {
                        "" => Some(k.as_str()),
                        _ => k.strip_prefix(table)?.strip_prefix('.'),
                    })
                    .collect();
                format!(
                    "{key}: there is no such key; known here: {}",
                    known.join(", ")
                )
            }
        }
    }
}

fn flatten(prefix: &str, table: &toml::Table, leaves: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let key = super::join(prefix, name);
        match value {
            Value::Table(inner) => flatten(&key, inner, leaves),
            _ => {
                leaves.insert(key, value.clone());
            }
        }
    }
}

/// Rewrites a message of serde for people who do not know Rust's types.
fn in_plain_language(message: &str, value: &Value) -> String {
    let wanted = |kind: &str| -> Option<&'static str> {
        Some(match kind {
            "u8" | "u16" | "u32" | "u64" => "a whole number, 0 or more",
            "f32" | "f64" => "a number",
            "a boolean" => "true or false",
            "a string" => "a text in quotes",
            "a sequence" => "a list, such as [\"conv1/7x7_s2\"]",
            _ => return None,
        })
    };
    if let Some((_, kind)) = message.rsplit_once(", expected ") {
        let misfit = message.starts_with("invalid type") || message.starts_with("invalid value");
        if let (true, Some(wanted)) = (misfit, wanted(kind.trim())) {
            return format!("{value} is not {wanted}");
        }
        if let Some(given) = message.strip_prefix("unknown variant ") {
            let given = given.split('`').nth(1).unwrap_or_default();
            let choices: Vec<&str> = kind.split('`').skip(1).step_by(2).collect();
            let hint = nearest(given, choices.iter().copied()).map_or(String::new(), |right| {
                format!("; did you mean \"{right}\"?")
            });
            let choices: Vec<String> = choices.iter().map(|c| format!("\"{c}\"")).collect();
            return format!("\"{given}\" is not one of {}{hint}", choices.join(", "));
        }
    }
    message.to_owned()
}
