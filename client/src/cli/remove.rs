//! `fovea runs rm`, `fovea group rm`, `fovea checkpoint rm`, `fovea dataset rm` and `fovea weights rm`.
//!
//! Several things can be named. A failure does not stop the others: each result is printed as it
//! comes, and the exit code is that of the first failure.

use std::collections::BTreeMap;

use super::args::Step;
use super::checkpoints::newest;
use super::format::bytes;
use super::groups::runs_of;
use super::output::Output;
use super::record::{Kind, Record};
use crate::client::Client;
use crate::error::Error;
use crate::view::Removed;
use fovea_core::count::{count, plural};
use fovea_core::removal;

/// Removes ended runs.
pub async fn runs(
    client: &Client,
    runs: &[String],
    with_checkpoints: bool,
    yes: bool,
    output: &Output,
) -> Result<(), Error> {
    let mut refused: BTreeMap<&str, Error> = BTreeMap::new();
    if !yes {
        let mut known = Vec::new();
        for id in runs {
            // What is not there is reported when it is removed.
            let Ok(run) = client.run(id).await else {
                known.push(id.clone());
                continue;
            };
            // No question is asked about what the coordinator would refuse then.
            let of_run = run.checkpoints.len();
            if let Err(error) = removal::check(id, run.phase.as_str(), of_run, with_checkpoints) {
                let (message, hint_text) = (error.to_string(), String::new());
                refused.insert(id, Error::Precondition { message, hint_text });
                continue;
            }
            let stored: u64 = run.checkpoints.iter().map(|c| c.bytes).sum();
            let kept = count(run.checkpoints.len(), "checkpoint", "checkpoints");
            known.push(format!(
                "{id} ({}, {kept}{})",
                run.phase.as_str(),
                if stored == 0 {
                    String::new()
                } else {
                    format!(" of {}", bytes(stored))
                }
            ));
        }
        let what = if with_checkpoints {
            "with all checkpoints"
        } else {
            "without checkpoints"
        };
        let question = format!(
            "Remove {what}: {}? This cannot be undone.",
            known.join(", ")
        );
        if !known.is_empty() && !output.confirm(&question)? {
            return Err(Error::NotConfirmed);
        }
    }
    let mut tally = Tally::new(Kind::Run, runs.len(), output);
    for id in runs {
        let removed = match refused.remove(id.as_str()) {
            Some(error) => Err(error),
            None => client
                .remove_run(id, with_checkpoints)
                .await
                .map_err(|error| {
                    error.with_hint(|| {
                        format!(
                            "A run that has not ended is ended by `fovea cancel {id}`; checkpoints \
                             are removed with it by --with-checkpoints"
                        )
                    })
                }),
        };
        tally.add(id, &format!("run {id}"), removed);
    }
    tally.finish()
}

/// Removes a group with all its runs.
pub async fn group(
    client: &Client,
    group_id: &str,
    with_checkpoints: bool,
    yes: bool,
    output: &Output,
) -> Result<(), Error> {
    if !yes {
        let group = client.group(group_id).await?;
        let runs = runs_of(client, &group).await?;
        // No question is asked about what the coordinator would refuse then.
        let facts = runs
            .iter()
            .map(|run| (run.id.as_str(), run.phase.as_str(), run.checkpoints.len()));
        if let Err(error) = removal::check_group(group_id, facts, with_checkpoints) {
            let (message, hint_text) = (error.to_string(), String::new());
            return Err(Error::Precondition { message, hint_text });
        }
        let checkpoints: Vec<u64> = runs
            .iter()
            .flat_map(|run| run.checkpoints.iter().map(|c| c.bytes))
            .collect();
        let question = format!(
            "Remove group {group_id}: {} with {} of {}? This cannot be undone.",
            count(runs.len(), "run", "runs"),
            count(checkpoints.len(), "checkpoint", "checkpoints"),
            bytes(checkpoints.iter().sum())
        );
        if !output.confirm(&question)? {
            return Err(Error::NotConfirmed);
        }
    }
    let (runs, removed) = client.remove_group(group_id, with_checkpoints).await?;
    output.record(&Record::Removed {
        kind: Kind::Group,
        name: group_id,
        checkpoints: removed.checkpoints,
        freed_bytes: removed.freed_bytes,
    });
    output.line(format!(
        "group {group_id} removed: {} with {}, {} freed",
        count(runs, "run", "runs"),
        count(removed.checkpoints, "checkpoint", "checkpoints"),
        bytes(removed.freed_bytes)
    ));
    Ok(())
}

/// Removes checkpoints of one run.
pub async fn checkpoints(
    client: &Client,
    run: &str,
    steps: &[Step],
    yes: bool,
    output: &Output,
) -> Result<(), Error> {
    // Before the question, which names what is removed.
    let mut numbers = Vec::new();
    for step in steps {
        let number = match step {
            Step::At(step) => *step,
            Step::Newest => newest(client, run).await?,
        };
        // Named twice, such as by its number and as the newest.
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    let steps = numbers;
    if !yes {
        let listed: Vec<String> = steps.iter().map(u64::to_string).collect();
        let question = format!(
            "Remove {} of run {run} ({} {})? This cannot be undone.",
            count(steps.len(), "checkpoint", "checkpoints"),
            plural(steps.len(), "step", "steps"),
            listed.join(", ")
        );
        if !output.confirm(&question)? {
            return Err(Error::NotConfirmed);
        }
    }
    let mut tally = Tally::new(Kind::Checkpoint, steps.len(), output);
    for step in &steps {
        let removed = client.remove_checkpoint(run, *step).await.map_err(|error| {
            error.with_hint(|| format!("`fovea checkpoints {run}` lists what can be removed"))
        });
        let name = format!("{run}/{step}");
        tally.add(&name, &format!("checkpoint {step} of run {run}"), removed);
    }
    tally.finish()
}

/// Removes datasets.
pub async fn datasets(
    client: &Client,
    names: &[String],
    yes: bool,
    output: &Output,
) -> Result<(), Error> {
    if !yes {
        let question = format!(
            "Remove {} {} from the coordinator?",
            plural(names.len(), "dataset", "datasets"),
            names.join(", ")
        );
        if !output.confirm(&question)? {
            return Err(Error::NotConfirmed);
        }
    }
    let mut tally = Tally::new(Kind::Dataset, names.len(), output);
    for name in names {
        let removed = client
            .remove_dataset(name)
            .await
            .map_err(|error| error.with_hint(|| "`fovea runs` shows the runs that need it".into()));
        tally.add(name, &format!("dataset {name}"), removed);
    }
    tally.finish()
}

/// Removes weights.
pub async fn weights(
    client: &Client,
    names: &[String],
    yes: bool,
    output: &Output,
) -> Result<(), Error> {
    if !yes {
        let question = format!("Remove weights {} from the coordinator?", names.join(", "));
        if !output.confirm(&question)? {
            return Err(Error::NotConfirmed);
        }
    }
    let mut tally = Tally::new(Kind::Weights, names.len(), output);
    for name in names {
        let removed = client.remove_weights(name).await.map_err(|error| {
            error.with_hint(|| "`fovea runs` shows the runs that need them".into())
        });
        tally.add(name, &format!("weights {name}"), removed);
    }
    tally.finish()
}

/// The results of several removals.
struct Tally<'a> {
    kind: Kind,
    of: usize,
    failed: usize,
    first: Option<Error>,
    output: &'a Output,
}

impl<'a> Tally<'a> {
    fn new(kind: Kind, of: usize, output: &'a Output) -> Self {
        Self {
            kind,
            of,
            failed: 0,
            first: None,
            output,
        }
    }

    fn add(&mut self, name: &str, what: &str, result: Result<Removed, Error>) {
        match result {
            Ok(removed) => {
                self.output.record(&Record::Removed {
                    kind: self.kind,
                    name,
                    checkpoints: removed.checkpoints,
                    freed_bytes: removed.freed_bytes,
                });
                let with = match self.kind {
                    Kind::Run if removed.checkpoints > 0 => format!(
                        " with {}",
                        count(removed.checkpoints, "checkpoint", "checkpoints")
                    ),
                    Kind::Run | Kind::Group | Kind::Checkpoint | Kind::Dataset | Kind::Weights => {
                        String::new()
                    }
                };
                self.output.line(format!(
                    "{what} removed{with}, {} freed",
                    bytes(removed.freed_bytes)
                ));
            }
            Err(error) => {
                self.failed += 1;
                self.output.record(&Record::NotRemoved {
                    kind: self.kind,
                    name,
                    exit_code: error.exit_code(),
                    message: error.to_string(),
                });
                // The error of a single removal is the command's own.
                if self.of > 1 {
                    self.output.complain(&format!("{what}: {error}"));
                }
                self.first.get_or_insert(error);
            }
        }
    }

    fn finish(self) -> Result<(), Error> {
        match self.first {
            None => Ok(()),
            Some(error) if self.of == 1 => Err(error),
            Some(error) => Err(Error::Remove {
                failed: self.failed,
                of: self.of,
                exit_code: error.exit_code(),
            }),
        }
    }
}
