//! `model.labels`: a label scheme by its name. It stands for `model.classes` and, if the scheme says it,
//! `model.positive_from`, and is no key of the spec.

use fovea_core::spec::Labels;
use toml::Value;

use super::schema::WrongType;
use super::{Origin, Problem, RunFile};

pub(super) const KEY: &str = "model.labels";

/// The scheme that a value names. The error does not name the key.
pub(super) fn named(value: &Value) -> Result<Labels, WrongType> {
    let parsed: Result<Labels, toml::de::Error> = value.clone().try_into();
    parsed.map_err(|e| WrongType::of(e.message(), value))
}

/// The keys and values that a scheme stands for.
fn meaning(labels: Labels) -> impl Iterator<Item = (&'static str, Value)> {
    let classes = ("model.classes", Value::from(labels.classes()));
    let positive_from = labels.positive_from();
    std::iter::once(classes)
        .chain(positive_from.map(|from| ("model.positive_from", Value::from(from))))
}

impl RunFile {
    /// A scheme of the command line replaces what the file says of classes.
    pub(super) fn labels_override(&mut self, labels: Labels) {
        for (key, _) in meaning(labels) {
            if self
                .given
                .get(key)
                .is_some_and(|g| !matches!(g.origin, Origin::Flag(_) | Origin::Sweep(_)))
            {
                self.given.remove(key);
            }
        }
    }

    /// What `model.labels` stands for, if it is given; the mistake if another key contradicts it.
    pub(super) fn labels_meaning(&self) -> Result<Vec<(&'static str, Value)>, Problem> {
        let Some(given) = self.given.get(KEY) else {
            return Ok(Vec::new());
        };
        let problem = |message: String| Problem {
            place: self.place(KEY),
            message: format!("{KEY}: {message}"),
        };
        let labels = named(&given.value).map_err(|e| problem(e.to_string()))?;
        let meaning: Vec<_> = meaning(labels).collect();
        for (key, value) in &meaning {
            if let Some(other) = self.given.get(*key).filter(|g| g.value != *value) {
                return Err(problem(format!(
                    "\"{labels}\" means {key} = {value}, and {} says {}: leave one of them out",
                    self.place(key),
                    other.value
                )));
            }
        }
        Ok(meaning)
    }
}
