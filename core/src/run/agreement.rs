//! That all members compute the same: the states that they start from, and those that they come to.

use std::collections::BTreeSet;

use super::membership::{ids, peers};
use super::vitals::Verdict;
use super::{Effect, Phase, Rewound, Run, StateId};
use crate::checkpoint::{CheckpointInfo, Fingerprint};
use crate::ids::WorkerId;

impl Run {
    pub(super) fn ready(
        &mut self,
        now: u64,
        worker: WorkerId,
        standing: StateId,
        fingerprint: Fingerprint,
        out: &mut Vec<Effect>,
    ) {
        let Phase::Forming { roster, ready, .. } = &mut self.phase else {
            return;
        };
        if roster.rank_of(&worker).is_none() {
            return;
        }
        ready.insert(worker.clone(), standing.clone());
        let other = ready.iter().find(|(_, theirs)| **theirs != standing);
        if let Some((other, theirs)) = other {
            let differ = format!(
                "workers {worker} and {other} start from different states (step {}, {} and step {}, {})",
                standing.step,
                short(&standing.digest),
                theirs.step,
                short(&theirs.digest),
            );
            let from_the_start = (standing.step, theirs.step) == (0, 0);
            let members = self.present();
            if from_the_start {
                let reason = format!(
                    "{differ}: do they read the same weights file? Give model.weights_sha256 to be sure"
                );
                self.fail(reason, &ids(&members), out);
            } else {
                self.rewind(None, out);
                self.regroup(now, members, false, BTreeSet::new(), differ, out);
            }
            return;
        }
        if let Some(then) = &self.fingerprint {
            let differences = fingerprint.differences(then);
            if !differences.is_empty() {
                out.push(Effect::Log {
                    warning: true,
                    message: format!(
                        "worker {worker} computes under another numeric fingerprint than the run so \
                         far; its bits may differ: {}",
                        differences.join("; ")
                    ),
                });
            }
        }
        self.fingerprint = Some(fingerprint);
        let Phase::Forming {
            roster,
            ready,
            stopping,
            ..
        } = &self.phase
        else {
            return;
        };
        if ready.len() < roster.members.len() {
            return;
        }
        let (mut roster, stopping) = (roster.clone(), *stopping);
        roster.start_step = standing.step;
        let workers: Vec<WorkerId> = ids(&peers(&roster));
        self.vitals.all_ready();
        // All that were further are gone: their steps are taken, and told, again.
        self.progress = self.progress.filter(|p| p.step <= standing.step);
        self.enter(Phase::Running { roster, stopping }, out);
        if stopping.is_some() {
            out.push(Effect::SendStop {
                workers,
                generation: self.generation,
            });
        }
    }

    /// Nobody is left who could say which samples the steps after `head` used: they are taken again.
    pub(super) fn unaccounted(&mut self, now: u64, head: u64, out: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Running { .. }) {
            return;
        }
        let known = |c: &&CheckpointInfo| c.step <= head && !self.is_void(c);
        let back = self
            .checkpoints
            .iter()
            .rev()
            .find(known)
            .map_or(0, |c| c.step);
        self.rewind(Some(back), out);
        let reason = format!(
            "those who knew what the steps after {head} used are gone: going back to step {back}"
        );
        let members = self.present();
        self.regroup(now, members, false, BTreeSet::new(), reason, out);
    }

    /// A member's state after `step`: compared when all have come.
    pub(super) fn digest(
        &mut self,
        now: u64,
        worker: WorkerId,
        step: u64,
        digest: String,
        out: &mut Vec<Effect>,
    ) {
        let Phase::Running { roster, .. } = &self.phase else {
            return;
        };
        let all = ids(&peers(roster));
        let members = self.present();
        match self.vitals.compare(&all, worker, step, digest) {
            Verdict::Incomplete | Verdict::Agreed => {}
            Verdict::Differ(odd) => {
                let names: Vec<&str> = odd.iter().map(WorkerId::as_str).collect();
                let mut reason = format!(
                    "the state of worker {} differs from that of the majority after step {step}: it is \
                     put out and takes theirs over; steps since the last comparison may carry its error",
                    names.join(" "),
                );
                let mut staying = members;
                for worker in &odd {
                    if self.vitals.differed(worker) {
                        reason.push_str(&format!(
                            "; worker {worker} does not serve this run again: test its memory"
                        ));
                        self.abort(vec![worker.clone()], &reason, out);
                        staying.retain(|(other, _)| other != worker);
                    }
                }
                if staying.len() < self.spec.workers.min as usize {
                    // Nobody is told now to forget the wrong state; so none that is held counts.
                    self.rewind(None, out);
                }
                self.regroup(now, staying, false, odd, reason, out);
            }
            Verdict::Disputed => {
                self.rewind(None, out);
                let back = self.start_checkpoint().map_or(0, |c| c.step);
                let reason = format!(
                    "the workers' states differ after step {step} and none has a majority: going back \
                     to step {back}"
                );
                self.regroup(now, members, false, BTreeSet::new(), reason, out);
            }
        }
    }

    /// Sends the run back to a checkpoint, the newest if None: states that workers hold are void.
    pub(super) fn rewind(&mut self, step: Option<u64>, out: &mut Vec<Effect>) {
        let newest = self.start_checkpoint().map_or(0, |c| c.step);
        let step = step.unwrap_or(newest);
        self.lineage += 1;
        self.rewound = Some(Rewound {
            generation: self.generation,
            step,
        });
        self.epochs.retain(|e| e.step <= step);
        self.losses.retain(|s, _| *s <= step);
        self.progress = self.progress.filter(|p| p.step <= step);
        // `furthest` stays: a run that is sent back again and again gets nowhere, though it takes steps.
        out.push(Effect::Rewind { step });
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
