//! What must be on disk after some acts, by the run's own decisions.

use std::collections::{BTreeMap, BTreeSet};

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::{RunId, WorkerId};
use fovea_core::ledger::Entry;
use fovea_core::run::{Effect, Event, Extent, Run, StepPhases, StepReport};
use fovea_core::state::StateId;
use sha2::{Digest, Sha256};

use super::SPLIT;
use super::story::Act::{self, *};
use super::story::Operation;
use crate::store::RunRecord;
use crate::store::test_support::{dataset, fingerprint, header, state};

/// What must be on disk after some acts.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    /// As their actors have them.
    pub(super) runs: BTreeMap<u64, Run>,
    /// As they were journalled last: steps alone do not write the run.
    pub(super) journalled: BTreeMap<u64, Run>,
    pub(super) ledgers: BTreeMap<u64, Vec<Entry>>,
    /// Lowest number that the next run may get.
    pub(super) next_run: u64,
    pub(super) dataset: bool,
    /// Step and generation of checkpoints that were removed while the run stayed.
    pub(super) removed: BTreeSet<(u64, u64)>,
    /// Steps are taken again with other samples after a rewind.
    pub(super) taken: u32,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            next_run: 1,
            ..Self::default()
        }
    }

    pub(super) fn after(acts: &[Act]) -> Self {
        let mut world = Self::new();
        for act in acts {
            world.perform(*act);
        }
        world
    }

    /// Changes the world by an act. Returns what that takes.
    pub(super) fn perform(&mut self, act: Act) -> Vec<Operation> {
        match act {
            Open => vec![Operation::Open],
            Close => vec![Operation::Close],
            AddDataset => {
                self.dataset = true;
                vec![Operation::AddDataset]
            }
            RemoveDataset => {
                self.dataset = false;
                vec![Operation::RemoveDataset]
            }
            Accept(number) => {
                self.runs.insert(number, accepted(number));
                self.ledgers.insert(number, Vec::new());
                self.next_run = number + 1;
                vec![self.put(number, None, Vec::new())]
            }
            Assign => {
                self.taken += 1;
                let workers = vec![(worker(), "h:1".to_owned())];
                self.apply(Event::Assigned { workers })
            }
            Ready(step) => {
                let (worker, generation) = (worker(), self.runs[&1].generation);
                let state = StateId { step, digest: 7 };
                self.apply(Event::Ready {
                    worker,
                    generation,
                    state,
                    fingerprint: fingerprint(),
                })
            }
            Steps(to) => {
                let steps = self.commit(to);
                vec![Operation::Put {
                    number: 1,
                    run: None,
                    rewind: None,
                    steps,
                }]
            }
            Checkpoint(step, with) => {
                let (info, record) = self.checkpoint(step);
                let store = Operation::Store(info.clone(), record);
                let steps = self.commit(self.head(1) + with);
                let mut operations = self.apply_with(Event::CheckpointStored { info }, steps);
                operations.insert(0, store);
                operations
            }
            Lose => self.apply(Event::WorkerLost {
                worker: worker(),
                reason: "its session ended".into(),
            }),
            Cancel => self.apply(Event::Cancel),
            Resume(step) => {
                let checkpoint = Some(step);
                let mut operations = self.apply(Event::Resume { checkpoint });
                let generation = self.listed(step).generation;
                operations.extend(self.apply(Event::CheckpointReadable { step, generation }));
                assert_eq!(
                    operations.len(),
                    1,
                    "one acknowledgement for one transaction"
                );
                operations
            }
            DeleteCheckpoint(step) => {
                let info = self.listed(step);
                let run = self.runs.get_mut(&1).unwrap();
                run.checkpoints.retain(|c| *c != info);
                self.removed.insert((info.step, info.generation));
                vec![self.put(1, None, Vec::new()), Operation::RemoveFile(info)]
            }
            DeleteRun => {
                self.runs.remove(&1);
                self.journalled.remove(&1);
                self.removed.clear();
                self.ledgers.remove(&1);
                vec![Operation::RemoveRun]
            }
        }
    }

    /// Whether the journal of `self`, which was read, is that of `other`.
    pub(super) fn is_written_as(&self, other: &Self) -> bool {
        let written = |(number, run): (&u64, &Run)| {
            // Without what is not written.
            let json = serde_json::to_string(run).unwrap();
            (*number, serde_json::from_str::<Run>(&json).unwrap())
        };
        let expected: BTreeMap<u64, Run> = other.journalled.iter().map(written).collect();
        self.journalled == expected
            && self.ledgers == other.ledgers
            && (self.next_run, self.dataset) == (other.next_run, other.dataset)
    }

    /// For messages of failures.
    pub(super) fn summary(&self) -> String {
        let run = |(number, run): (&u64, &Run)| {
            let key = |c: &CheckpointInfo| (c.step, c.generation);
            let checkpoints: Vec<_> = run.checkpoints.iter().map(key).collect();
            let (phase, steps) = (run.phase_name(), self.ledgers.get(number).map(Vec::len));
            format!(
                "{} {phase}, generation {}, lineage {}, checkpoints {checkpoints:?}, ledger {steps:?}",
                run.id, run.generation, run.lineage
            )
        };
        let runs: Vec<String> = self.journalled.iter().map(run).collect();
        let (next, dataset) = (self.next_run, self.dataset);
        format!("{runs:?}, next run {next}, dataset {dataset}")
    }

    fn listed(&self, step: u64) -> CheckpointInfo {
        let listed = &self.runs[&1].checkpoints;
        listed.iter().find(|c| c.step == step).unwrap().clone()
    }

    fn head(&self, number: u64) -> u64 {
        self.ledgers[&number].len() as u64
    }

    fn put(&mut self, number: u64, rewind: Option<u64>, steps: Vec<Entry>) -> Operation {
        let run = self.runs[&number].clone();
        self.journalled.insert(number, run.clone());
        Operation::Put {
            number,
            run: Some(Box::new(run)),
            rewind,
            steps,
        }
    }

    fn apply(&mut self, event: Event) -> Vec<Operation> {
        self.apply_with(event, Vec::new())
    }

    /// What the actor of run 1 does about an event: decides, journals (with the steps that wait), carries out.
    fn apply_with(&mut self, event: Event, steps: Vec<Entry>) -> Vec<Operation> {
        let effects = self.runs.get_mut(&1).unwrap().apply(0, event);
        let mut rewind = None;
        let mut removed = Vec::new();
        for effect in &effects {
            match effect {
                Effect::Rewind { step } => rewind = Some(*step),
                Effect::RemoveCheckpoint(info) => {
                    self.removed.insert((info.step, info.generation));
                    removed.push(Operation::RemoveFile(info.clone()));
                }
                _ => {}
            }
        }
        if let Some(step) = rewind {
            let ledger = self.ledgers.get_mut(&1).unwrap();
            ledger.retain(|entry| entry.step <= step);
        }
        let mut operations = Vec::new();
        if effects.contains(&Effect::Persist) {
            operations.push(self.put(1, rewind, steps));
        } else {
            assert!(rewind.is_none() && steps.is_empty());
        }
        operations.extend(removed);
        operations
    }

    /// Commits steps up to `to`, and returns them.
    fn commit(&mut self, to: u64) -> Vec<Entry> {
        let (taken, generation) = (self.taken, self.runs[&1].generation);
        let steps: Vec<Entry> = (self.head(1) + 1..=to)
            .map(|step| Entry {
                step,
                loss: step as f64 / 8.0,
                samples: vec![taken, 39, step as u32],
            })
            .collect();
        for entry in &steps {
            let report = StepReport {
                step: entry.step,
                loss: entry.loss,
                images: 3,
                images_per_s: 1.5,
                learning_rate: 0.1,
                phases: StepPhases::default(),
            };
            let effects = self
                .runs
                .get_mut(&1)
                .unwrap()
                .apply(0, Event::StepCommitted { generation, report });
            assert!(!effects.contains(&Effect::Persist));
        }
        self.ledgers.get_mut(&1).unwrap().extend(steps.clone());
        steps
    }

    /// The checkpoint of a step, as the store will describe it, and what is recorded with it.
    fn checkpoint(&self, step: u64) -> (CheckpointInfo, RunRecord) {
        let run = &self.runs[&1];
        let bytes = [header(), state(step, run.generation)].concat();
        let info = CheckpointInfo {
            step,
            generation: run.generation,
            bytes: bytes.len() as u64,
            sha256: hex::encode(Sha256::digest(bytes)),
            lineage: run.lineage,
            stored_at_ms: 7,
            fingerprint: fingerprint(),
        };
        let before = run
            .checkpoints
            .iter()
            .filter(|c| c.step < step && !run.is_void(c));
        let before = before.map(|c| c.step).max().unwrap_or(0);
        let since = |entry: &&Entry| entry.step > before && entry.step <= step;
        let record = RunRecord {
            number: 1,
            id: run.id.clone(),
            name: run.spec.name.clone(),
            epochs: Vec::new(),
            train_samples: SPLIT,
            ledger: self.ledgers[&1].iter().filter(since).cloned().collect(),
        };
        (info, record)
    }
}

fn worker() -> WorkerId {
    WorkerId::new("w1").unwrap()
}

fn accepted(number: u64) -> Run {
    let mut spec: fovea_core::spec::RunSpec =
        toml::from_str("name = 'r'\ndataset = 'eyes'").unwrap();
    spec.train.virtual_ranks = 1;
    spec.checkpoint.keep_last = 2;
    let extent = Extent {
        steps_per_epoch: 20,
        total_steps: 40,
        train_samples: SPLIT,
        validation_samples: 2,
    };
    let id = RunId::new(format!("r-{number}")).unwrap();
    let digest = dataset().manifest.digest.clone();
    Run::new(id, number, spec, digest, extent, 7)
}
