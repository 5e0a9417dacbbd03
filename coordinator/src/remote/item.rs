//! What is mirrored, and under which keys.
//!
//! ```text
//! store.json                                              identity
//! checkpoints/<run>/step-<10 digits>.g<n>.safetensors     then .json, which makes it a checkpoint
//! ledger/<run>/step-<10 digits>.g<n>.json                 what stays of a removed checkpoint
//! datasets/<digest>/index.csv, packs/*                    then manifest.json, which makes it a dataset
//! weights/<sha256>/file                                   then manifest.json, which makes it weights
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fovea_core::ids::RunId;
use serde::{Deserialize, Serialize};

/// The identity's key.
pub(super) const IDENTITY: &str = "store.json";

/// Something that is mirrored. What comes first is uploaded first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Item {
    /// The ledger of a removed checkpoint.
    Ledger {
        run: RunId,
        step: u64,
        generation: u64,
    },
    /// A checkpoint of a run.
    Checkpoint {
        run: RunId,
        step: u64,
        generation: u64,
    },
    /// Weights, by SHA-256.
    Weights(String),
    /// A dataset, by digest.
    Dataset(String),
    /// All of a run: only for removal.
    Run(RunId),
}

impl Item {
    /// The key of its manifest, which is written last and removed first. None: it has no such key of its own.
    pub(super) fn manifest(&self) -> Option<String> {
        match self {
            Self::Checkpoint {
                run,
                step,
                generation,
            } => Some(format!(
                "checkpoints/{run}/{}.json",
                stem(*step, *generation)
            )),
            Self::Ledger {
                run,
                step,
                generation,
            } => Some(format!("ledger/{run}/{}.json", stem(*step, *generation))),
            Self::Dataset(digest) => Some(format!("datasets/{digest}/manifest.json")),
            Self::Weights(sha256) => Some(format!("weights/{sha256}/manifest.json")),
            Self::Run(_) => None,
        }
    }

    /// The key of its one large object, for checkpoints and weights.
    pub(super) fn data(&self) -> Option<String> {
        match self {
            Self::Checkpoint {
                run,
                step,
                generation,
            } => Some(format!(
                "checkpoints/{run}/{}.safetensors",
                stem(*step, *generation)
            )),
            Self::Weights(sha256) => Some(format!("weights/{sha256}/file")),
            Self::Ledger { .. } | Self::Dataset(_) | Self::Run(_) => None,
        }
    }

    /// Whether the object of this key is a part of it.
    pub(super) fn owns(&self, key: &str) -> bool {
        match self {
            Self::Checkpoint { .. } | Self::Ledger { .. } => {
                let own = [self.manifest(), self.data()];
                own.iter().flatten().any(|own| own == key)
            }
            Self::Dataset(digest) => within(key, "datasets/", digest),
            Self::Weights(sha256) => within(key, "weights/", sha256),
            Self::Run(run) => {
                within(key, "checkpoints/", run.as_str()) || within(key, "ledger/", run.as_str())
            }
        }
    }

    /// The item whose manifest has this key.
    pub(super) fn of_manifest(key: &str) -> Option<Self> {
        let (folder, rest) = key.split_once('/')?;
        let (name, file) = rest.split_once('/')?;
        match (folder, file) {
            ("datasets", "manifest.json") => Some(Self::Dataset(name.to_owned())),
            ("weights", "manifest.json") => Some(Self::Weights(name.to_owned())),
            ("checkpoints" | "ledger", file) => {
                let run = RunId::new(name).ok()?;
                let (step, generation) = parse_stem(file.strip_suffix(".json")?)?;
                Some(match folder {
                    "ledger" => Self::Ledger {
                        run,
                        step,
                        generation,
                    },
                    _ => Self::Checkpoint {
                        run,
                        step,
                        generation,
                    },
                })
            }
            _ => None,
        }
    }

    /// What is complete among these objects.
    pub(super) fn complete(objects: &BTreeMap<String, u64>) -> BTreeSet<Self> {
        objects
            .keys()
            .filter_map(|key| Self::of_manifest(key))
            .collect()
    }

    /// The run that it belongs to.
    pub(crate) fn run(&self) -> Option<&RunId> {
        match self {
            Self::Checkpoint { run, .. } | Self::Ledger { run, .. } | Self::Run(run) => Some(run),
            Self::Dataset(_) | Self::Weights(_) => None,
        }
    }
}

/// As in the local folders.
fn stem(step: u64, generation: u64) -> String {
    format!("step-{step:010}.g{generation}")
}

fn parse_stem(text: &str) -> Option<(u64, u64)> {
    let (step, generation) = text.strip_prefix("step-")?.split_once(".g")?;
    let (step, generation) = (step.parse().ok()?, generation.parse().ok()?);
    // Not other spellings of the same numbers.
    (stem(step, generation) == text).then_some((step, generation))
}

fn within(key: &str, folder: &str, name: &str) -> bool {
    let rest = key
        .strip_prefix(folder)
        .and_then(|rest| rest.strip_prefix(name));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint { run, step, .. } => write!(f, "{run} step {step}"),
            Self::Ledger { run, step, .. } => write!(f, "ledger of {run} up to step {step}"),
            Self::Weights(sha256) => write!(f, "weights {sha256}"),
            Self::Dataset(digest) => write!(f, "dataset {digest}"),
            Self::Run(run) => write!(f, "all of {run}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_name_their_items_and_items_own_their_objects() {
        let run = RunId::new("r-1").unwrap();
        let other = RunId::new("r-12").unwrap();
        let checkpoint = Item::Checkpoint {
            run: run.clone(),
            step: 10,
            generation: 2,
        };
        let ledger = Item::Ledger {
            run: run.clone(),
            step: 10,
            generation: 2,
        };
        for item in [
            &checkpoint,
            &ledger,
            &Item::Dataset("d".into()),
            &Item::Weights("w".into()),
        ] {
            let manifest = item.manifest().unwrap();
            assert_eq!(Item::of_manifest(&manifest).as_ref(), Some(item));
            assert!(item.owns(&manifest));
            assert!(item.data().is_none_or(|data| item.owns(&data)));
        }
        assert_eq!(
            checkpoint.manifest().unwrap(),
            "checkpoints/r-1/step-0000000010.g2.json"
        );
        assert!(!checkpoint.owns(&ledger.manifest().unwrap()));
        for item in [&checkpoint, &ledger] {
            assert!(Item::Run(run.clone()).owns(&item.manifest().unwrap()));
            assert!(!Item::Run(other.clone()).owns(&item.manifest().unwrap()));
        }
        assert!(Item::Dataset("d".into()).owns("datasets/d/packs/train-0.pack"));
        for key in [
            "store.json",
            "checkpoints/r-1/x.json",
            "checkpoints/r-1/step-10.g2.json",
            "weights/w/file",
            "a",
        ] {
            assert_eq!(Item::of_manifest(key), None, "{key}");
        }
    }
}
