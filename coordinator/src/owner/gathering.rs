//! Checkpoints being gathered: who has brought which slice, and what becomes of the whole.

use std::sync::{Arc, Weak};

use fovea_core::checkpoint::{CheckpointInfo, Fingerprint};
use fovea_core::googlenet::FlatLayout;
use fovea_core::roster::slice_of;
use fovea_core::run::{Event, Run};
use tracing::{debug, info};

use super::state::{Owner, OwnerError, unix_ms};
use super::{GatheringKey, Message, SliceClaim, SliceTicket};
use crate::checkpoints::{AssemblyFile, Description, header};
use crate::error::ApiError;

/// Checkpoints of one run that may be gathered at the same time. Workers upload in the order of
/// steps, so more means that one of them has given up on an older one.
const AT_ONCE: usize = 3;

/// A checkpoint being gathered.
#[derive(Debug)]
pub(super) struct Gathering {
    file: Arc<AssemblyFile>,
    fingerprint: Fingerprint,
    /// Of the state that all slices are parts of.
    state_digest: String,
    /// By rank.
    slices: Vec<Slice>,
    /// All slices are here: it will be stored in its turn.
    pub whole: bool,
    /// The file is being verified and stored.
    storing: bool,
}

/// One rank's slice.
#[derive(Debug)]
enum Slice {
    /// Not here; the claim lives while somebody is writing it.
    Missing { claim: Weak<()> },
    /// Verified and on disk.
    Here { digest: String },
}

impl Owner {
    /// A worker wants to upload its slice. The outer error is fatal.
    pub(super) fn begin_slice(
        &mut self,
        claim: &SliceClaim,
    ) -> Result<Result<SliceTicket, ApiError>, OwnerError> {
        let (key, rank, layout) = match self.check_claim(claim) {
            Ok(checked) => checked,
            Err(error) => return Ok(Err(error)),
        };
        let stored = |c: &CheckpointInfo| (c.step, c.generation) == (key.step, key.generation);
        let run = &self.runs[&key.run].run;
        if run.checkpoints.iter().any(stored) {
            // Within a generation a step has one state: these are bytes that are there.
            debug!(run_id = %run.id, rank, step = key.step, "checkpoint is stored already");
            return Ok(Ok(SliceTicket::Here));
        }
        if !self.gatherings.contains_key(&key) {
            self.make_room(key)?;
            if let Err(error) = self.begin_gathering(key, &layout, &claim.state_digest) {
                return Ok(Err(error));
            }
        }
        let Some(gathering) = self.gatherings.get_mut(&key) else {
            return Ok(Err(ApiError::Internal("no gathering".into())));
        };
        if gathering.state_digest != claim.state_digest {
            // Which of them is right, the comparison of states says. A file made of both would be wrong.
            let reason = format!(
                "the state of worker {} has digest {}, that of others {}",
                claim.worker, claim.state_digest, gathering.state_digest
            );
            self.gatherings.remove(&key);
            let step = key.step;
            let error = ApiError::Precondition(format!("header.state_digest: {reason}"));
            let generation = key.generation;
            let event = Event::CheckpointFailed {
                generation,
                step,
                reason,
            };
            self.apply(key.run, event)?;
            return Ok(Err(error));
        }
        Ok(gathering.claim(key, rank, claim))
    }

    fn check_claim(
        &self,
        claim: &SliceClaim,
    ) -> Result<(GatheringKey, usize, FlatLayout), ApiError> {
        let number = self.number(&claim.run)?;
        let run = &self.runs[&number].run;
        let over = |why: String| {
            Err(ApiError::Precondition(format!(
                "header.generation: generation {} of run {} {why}",
                claim.generation, claim.run
            )))
        };
        let Some(roster) = run.roster().filter(|r| r.generation == claim.generation) else {
            return over(format!(
                "is not under way; the run is {} in generation {}",
                run.phase_name(),
                run.generation
            ));
        };
        let assigned = self
            .session_of(&claim.worker)
            .and_then(|id| self.sessions.get(&id))
            .is_some_and(|s| s.assignment == Some((number, claim.generation)));
        let (Some(rank), true) = (roster.rank_of(&claim.worker), assigned) else {
            return Err(ApiError::Precondition(format!(
                "header.worker_id: worker {} does not serve generation {} of run {}",
                claim.worker, claim.generation, claim.run
            )));
        };
        let first = roster.start_step.max(1);
        if claim.step < first || claim.step > run.extent.total_steps {
            return Err(ApiError::invalid(
                "header.step",
                format!(
                    "{} is not in {first}..={}",
                    claim.step, run.extent.total_steps
                ),
            ));
        }
        let layout = layout(run)?;
        let expected = slice_of(layout.state_len() as u64, roster.members.len(), rank);
        if claim.offset != expected.start || claim.elements != expected.end - expected.start {
            return Err(ApiError::invalid(
                "header.offset",
                format!(
                    "rank {rank} of {} has the elements {}..{}, not {} from {}",
                    roster.members.len(),
                    expected.start,
                    expected.end,
                    claim.elements,
                    claim.offset
                ),
            ));
        }
        let key = GatheringKey {
            run: number,
            generation: claim.generation,
            step: claim.step,
        };
        Ok((key, rank, layout))
    }

    fn begin_gathering(
        &mut self,
        key: GatheringKey,
        layout: &FlatLayout,
        state_digest: &str,
    ) -> Result<(), ApiError> {
        let run = &self.runs[&key.run].run;
        let ranks = run.roster().map_or(0, |roster| roster.members.len());
        let fingerprint = run.fingerprint.clone().ok_or_else(|| {
            ApiError::Precondition("header.step: no worker of the run has been ready yet".into())
        })?;
        let about = Description {
            run,
            generation: key.generation,
            step: key.step,
            fingerprint: &fingerprint,
        };
        let header = header(layout, &about).map_err(ApiError::Internal)?;
        let file = AssemblyFile::create(
            &self.run_folder(&run.id),
            key.step,
            key.generation,
            &header,
            layout.state_len() as u64,
        )
        .map_err(|e| ApiError::disk("cannot begin the checkpoint", &e))?;
        info!(
            run_id = %run.id,
            generation = key.generation,
            step = key.step,
            slices = ranks,
            "gathering a checkpoint"
        );
        let slices = (0..ranks)
            .map(|_| Slice::Missing { claim: Weak::new() })
            .collect();
        let gathering = Gathering {
            file: Arc::new(file),
            fingerprint,
            state_digest: state_digest.to_owned(),
            slices,
            whole: false,
            storing: false,
        };
        self.gatherings.insert(key, gathering);
        Ok(())
    }

    /// Gives up the oldest gathering of the run when there are too many.
    fn make_room(&mut self, key: GatheringKey) -> Result<(), OwnerError> {
        let mut under_way = self
            .gatherings
            .iter()
            .filter(|(k, g)| k.run == key.run && !g.whole)
            .map(|(k, _)| *k);
        let oldest = under_way.next();
        let others = under_way.count();
        if let Some(oldest) = oldest
            && others + 2 > AT_ONCE
        {
            self.gatherings.remove(&oldest);
            let event = Event::CheckpointFailed {
                generation: oldest.generation,
                step: oldest.step,
                reason: "newer ones were begun before all its slices came".into(),
            };
            self.apply(oldest.run, event)?;
        }
        Ok(())
    }

    /// A slice is verified and on disk.
    pub(super) fn slice_stored(
        &mut self,
        key: GatheringKey,
        rank: usize,
        digest: String,
    ) -> Result<(), ApiError> {
        let Some(gathering) = self.gatherings.get_mut(&key) else {
            return Err(ApiError::Precondition(format!(
                "header.generation: generation {} ended while the slice came",
                key.generation
            )));
        };
        gathering.slices[rank] = Slice::Here { digest };
        let here = |slice: &Slice| matches!(slice, Slice::Here { .. });
        gathering.whole = gathering.slices.iter().all(here);
        self.store_next(key.run);
        Ok(())
    }

    /// Stores the run's oldest whole checkpoint, one after the other: who watches is told of them in their order, and
    /// the last one comes last.
    fn store_next(&mut self, run: u64) {
        let of_run = self.gatherings.iter().filter(|(k, _)| k.run == run);
        let next = next_to_store(of_run.map(|(k, g)| (*k, g.whole, g.storing)));
        let Some(key) = next else {
            return;
        };
        let Some(gathering) = self.gatherings.get_mut(&key) else {
            return;
        };
        gathering.storing = true;
        let file = Arc::clone(&gathering.file);
        let fingerprint = gathering.fingerprint.clone();
        let digest = gathering.state_digest.clone();
        let inbox = self.inbox.clone();
        self.tasks.spawn_blocking(move || {
            let finish = || file.finish(&digest, fingerprint, unix_ms());
            let result = in_idle_time(finish).map_err(|e| e.to_string());
            // Before anyone hears of it: a file that is not stored is gone by then.
            drop(file);
            if let Some(inbox) = inbox.upgrade() {
                // Fails only when the owner is gone; the journal then never heard of it.
                let _ = inbox.blocking_send(Message::Gathered { key, result });
            }
        });
    }

    /// A gathered file was stored, or could not be.
    pub(super) fn gathered(
        &mut self,
        key: GatheringKey,
        result: Result<CheckpointInfo, String>,
    ) -> Result<(), OwnerError> {
        self.gatherings.remove(&key);
        self.store_next(key.run);
        let info = match result {
            Ok(info) => info,
            Err(reason) => {
                let step = key.step;
                let generation = key.generation;
                let event = Event::CheckpointFailed {
                    generation,
                    step,
                    reason,
                };
                return self.apply(key.run, event);
            }
        };
        self.apply(key.run, Event::CheckpointStored { info })
    }

    /// Why the checkpoint will never be whole; None while it can still come.
    pub(super) fn missing_slices(&self, run: u64, generation: u64, step: u64) -> Option<String> {
        let key = GatheringKey {
            run,
            generation,
            step,
        };
        match self.gatherings.get(&key) {
            Some(gathering) if gathering.whole => None,
            Some(gathering) => {
                let missing: Vec<String> = (0..gathering.slices.len())
                    .filter(|&rank| matches!(gathering.slices[rank], Slice::Missing { .. }))
                    .map(|rank| rank.to_string())
                    .collect();
                Some(format!(
                    "its workers let go without uploading the slices of ranks {}",
                    missing.join(", ")
                ))
            }
            None => Some("its workers let go without uploading their slices".into()),
        }
    }

    /// Removes what was begun in generations that are over.
    pub(super) fn drop_dead_gatherings(&mut self, run: u64) {
        let Some(entry) = self.runs.get(&run) else {
            return;
        };
        let alive = entry.run.roster().map(|roster| roster.generation);
        self.gatherings.retain(|key, gathering| {
            let keep = key.run != run || gathering.whole || Some(key.generation) == alive;
            if !keep {
                info!(
                    run_id = %entry.run.id,
                    generation = key.generation,
                    step = key.step,
                    "giving up a checkpoint: its generation is over"
                );
            }
            keep
        });
    }
}

impl Gathering {
    fn claim(
        &mut self,
        key: GatheringKey,
        rank: usize,
        wanted: &SliceClaim,
    ) -> Result<SliceTicket, ApiError> {
        match &mut self.slices[rank] {
            Slice::Here { digest } if *digest == wanted.digest => {
                debug!(rank, step = key.step, "slice is here already");
                Ok(SliceTicket::Here)
            }
            Slice::Here { .. } => Err(ApiError::Precondition(format!(
                "header.digest: rank {rank} has uploaded other bytes for step {} before",
                key.step
            ))),
            Slice::Missing { claim } if claim.strong_count() > 0 => {
                Err(ApiError::Conflict(format!(
                    "header.step: rank {rank}'s slice of step {} is being uploaded already",
                    key.step
                )))
            }
            Slice::Missing { claim } => {
                let mine = Arc::new(());
                *claim = Arc::downgrade(&mine);
                Ok(SliceTicket::Write {
                    key,
                    rank,
                    file: Arc::clone(&self.file),
                    byte: wanted.offset * 4,
                    bytes: wanted.elements * 4,
                    claim: mine,
                })
            }
        }
    }
}

/// Which of a run's checkpoints is stored next, given in their order: whether each is whole, and whether it is being
/// stored. One that is not whole may never be, and holds up none.
fn next_to_store<K>(of_run: impl IntoIterator<Item = (K, bool, bool)>) -> Option<K> {
    let mut next = None;
    for (key, whole, storing) in of_run {
        if storing {
            return None;
        }
        if whole && next.is_none() {
            next = Some(key);
        }
    }
    next
}

fn layout(run: &Run) -> Result<FlatLayout, ApiError> {
    FlatLayout::new(run.spec.model.classes, &run.spec.model.frozen)
        .map_err(|e| ApiError::Internal(format!("run {}: {e}", run.id)))
}

/// Does `work` on a thread of its own that leaves the processor to others: where workers run on the same
/// machine, a checkpoint need not make their steps longer.
fn in_idle_time<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: changes nothing but this thread's priority; it is always allowed to lower it.
            #[cfg(target_os = "linux")]
            unsafe {
                libc::setpriority(libc::PRIO_PROCESS, 0, 19);
            }
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::next_to_store;

    #[test]
    fn whole_checkpoints_are_stored_one_after_the_other_in_their_order() {
        let (missing, whole, storing) = ((false, false), (true, false), (true, true));
        for (checkpoints, next) in [
            (vec![], None),
            (vec![missing, missing], None),
            (vec![whole, whole], Some(0)),
            (vec![missing, whole, whole], Some(1)),
            (vec![storing, whole], None),
            (vec![whole, storing], None),
        ] {
            let numbered = checkpoints
                .iter()
                .enumerate()
                .map(|(i, (w, s))| (i, *w, *s));
            assert_eq!(next_to_store(numbered), next, "{checkpoints:?}");
        }
    }
}
