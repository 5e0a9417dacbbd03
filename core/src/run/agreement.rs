//! All members compute the same: the states that they start from, and those that they come to, are compared.

use std::collections::BTreeSet;

use super::liveness::Verdict;
use super::membership::{Cause, ids, peers};
use super::{Effect, FormationReason, Phase, Run, Trouble};
use crate::checkpoint::{CheckpointInfo, Fingerprint};
use crate::ids::WorkerId;
use crate::machine::Machines;
use crate::state::StateId;

impl Run {
    /// A member of a forming generation has everything that it needs, and holds `state`.
    pub(super) fn ready(
        &mut self,
        now: u64,
        worker: WorkerId,
        state: StateId,
        fingerprint: Fingerprint,
        out: &mut Vec<Effect>,
    ) {
        let is_member = match &self.phase {
            Phase::Forming { roster, .. } => roster.rank_of(&worker).is_some(),
            _ => false,
        };
        if !is_member {
            return;
        }
        if let Some(reason) = self.other_fingerprint(&worker, fingerprint, out) {
            self.unfit(now, &worker, Trouble::Device, reason, out);
            return;
        }
        let Phase::Forming { ready, .. } = &mut self.phase else {
            return;
        };
        ready.insert(worker.clone(), state);
        let other = ready.iter().find(|(_, theirs)| **theirs != state);
        if let Some((other, theirs)) = other {
            let differ = format!(
                "workers {worker} and {other} start from different states ({state}; {theirs})"
            );
            let from_the_start = (state.step, theirs.step) == (0, 0);
            self.start_differs(now, from_the_start, differ, out);
            return;
        }
        self.troubles.over(&worker);
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
        roster.start_step = state.step;
        let workers: Vec<WorkerId> = ids(&peers(&roster));
        self.liveness.all_ready();
        self.troubles.settled();
        // Those that were further are gone: their steps are taken, and reported, again.
        self.go_back(state.step);
        self.enter(Phase::Running { roster, stopping }, out);
        if stopping.is_some() {
            out.push(Effect::SendStop {
                workers,
                generation: self.generation,
            });
        }
    }

    /// Two members start from different states. Another attempt would not make the first states equal; different
    /// later states are void.
    fn start_differs(
        &mut self,
        now: u64,
        from_the_start: bool,
        differ: String,
        out: &mut Vec<Effect>,
    ) {
        let members = self.present();
        if from_the_start {
            let reason = format!(
                "{differ}, though weights are verified by their digest: do all workers have the same version of Fovea?"
            );
            self.fail(reason, &ids(&members), out);
            return;
        }
        self.rewind(None, out);
        let back = self.newest_valid().map_or(0, |c| c.step);
        let reason = format!("{differ}; rewinding to checkpoint {back}");
        let cause = Cause {
            kind: FormationReason::Rewound,
            log: format!("run.rewound: {reason}"),
            reason,
        };
        self.regroup(now, members, false, BTreeSet::new(), cause, out);
    }

    /// The machines that it wants: those of its first generation, unless its spec or a person says otherwise.
    pub fn machines(&self) -> Machines {
        let machine = self.fingerprint.as_ref().map(Fingerprint::machine);
        match machine {
            _ if self.spec.workers.mixed => Machines::Any,
            Some(machine) if !self.released => Machines::Only(machine),
            rather => Machines::Alike { rather },
        }
    }

    /// Takes note of the fingerprint of a member. Returns why it cannot be one, if so.
    fn other_fingerprint(
        &mut self,
        worker: &WorkerId,
        fingerprint: Fingerprint,
        out: &mut Vec<Effect>,
    ) -> Option<String> {
        if let Some(then) = &self.fingerprint {
            let differences = fingerprint.differences(then);
            let changes = !differences.is_empty();
            if changes && let Machines::Only(_) = self.machines() {
                return Some(format!(
                    "it computes under another numeric fingerprint than the run: {}",
                    differences.join("; ")
                ));
            }
            if changes {
                out.push(Effect::Log {
                    warning: !self.spec.workers.mixed,
                    message: format!(
                        "fingerprint.changed: worker {worker} computes under another numeric fingerprint than the run \
                         so far; its bits may differ: {}",
                        differences.join("; ")
                    ),
                });
            }
        }
        self.released = false;
        self.fingerprint = Some(fingerprint);
        None
    }

    /// No worker is left that can say which samples the steps after `head` used: they are taken again.
    pub(super) fn unaccounted(&mut self, now: u64, head: u64, last: u64, out: &mut Vec<Effect>) {
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
            "no surviving worker can account for steps {}-{last}; rewinding to checkpoint {back}",
            head + 1
        );
        let members = self.present();
        let cause = Cause {
            kind: FormationReason::Rewound,
            log: format!("run.rewound: {reason}"),
            reason,
        };
        self.regroup(now, members, false, BTreeSet::new(), cause, out);
    }

    /// A member's state after `step`: compared when all have come.
    pub(super) fn digest(
        &mut self,
        now: u64,
        worker: WorkerId,
        step: u64,
        digest: u128,
        out: &mut Vec<Effect>,
    ) {
        let Phase::Running { roster, .. } = &self.phase else {
            return;
        };
        let all = ids(&peers(roster));
        match self.liveness.compare(&all, worker, step, digest) {
            Verdict::Incomplete | Verdict::Agreed => {}
            Verdict::Differ(odd) => self.diverged(now, step, odd, out),
            Verdict::Disputed => {
                let members = self.present();
                self.rewind(None, out);
                let back = self.newest_valid().map_or(0, |c| c.step);
                let reason = format!(
                    "the workers' states differ after step {step} and none has a majority; rewinding to checkpoint \
                     {back}"
                );
                let cause = Cause {
                    kind: FormationReason::Rewound,
                    log: format!("run.rewound: {reason}"),
                    reason,
                };
                self.regroup(now, members, false, BTreeSet::new(), cause, out);
            }
        }
    }

    /// The states of `odd` differ from that of the majority: they discard theirs and take over the majority's.
    fn diverged(&mut self, now: u64, step: u64, odd: BTreeSet<WorkerId>, out: &mut Vec<Effect>) {
        let mut staying = self.present();
        let names: Vec<&str> = odd.iter().map(WorkerId::as_str).collect();
        let mut reason = format!(
            "the state of worker {} differs from that of the majority after step {step}; it is discarded and replaced. \
             Steps since the last comparison may carry its error",
            names.join(" "),
        );
        for worker in &odd {
            if self.liveness.differed(worker) {
                reason.push_str(&format!(
                    "; worker {worker} is barred from this run after its second difference: test its memory"
                ));
                self.abort(vec![worker.clone()], &reason, out);
                staying.retain(|(other, _)| other != worker);
            }
        }
        if staying.len() < self.spec.workers.min as usize {
            // No roster is sent now that would make the workers discard the wrong state; so no state that is held
            // counts.
            self.rewind(None, out);
        }
        let cause = Cause {
            kind: FormationReason::Diverged,
            log: format!("worker.diverged: {reason}"),
            reason,
        };
        self.regroup(now, staying, false, odd, cause, out);
    }
}
