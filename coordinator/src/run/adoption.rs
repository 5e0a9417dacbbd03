//! At the start of a run's actor: adopting checkpoints that the journal does not know, then sweeping.
//!
//! The journal may have been restored from a backup, or the coordinator may have died between storing a checkpoint and
//! writing so. `fovea_core::run` decides what follows on from what the run knows. What retention removed in between left
//! its part of the ledger ([`Segment`]), with which [`bridge`] closes the gap.

use std::time::Duration;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::count::count;
use fovea_core::ids::RunId;
use fovea_core::run::{FoundCheckpoint, Phase, Run};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::state::{Actor, RunActorError};
use crate::blocking::blocking;
use crate::journal::{OnFull, RunChange, Urgency};
use crate::remote::{Item, Remote, Wanted};
use crate::store::{CheckpointStore, Segment, StoreError};

/// How long a run waits at its start for the store to list its folder.
const TIDY: Duration = Duration::from_secs(10);
/// How long it waits for newer checkpoints from the object store.
const FETCH: Duration = Duration::from_secs(300);

/// What lies in a run's folder without being listed.
#[derive(Debug, Default)]
struct Unlisted {
    found: Vec<FoundCheckpoint>,
    segments: Vec<Segment>,
}

impl Actor {
    /// Adopts what follows on from what the journal knows, and moves the rest to the trash, except what is newer than
    /// the journal: a person may have a newer journal. Then makes sure that the run's checkpoint can be read.
    pub(super) async fn tidy(&mut self) -> Result<(), RunActorError> {
        let id = self.run.id.clone();
        let known_generation = self.run.generation;
        fetch_newer(&self.run, &self.cx.store, &self.cx.remote).await;
        let (store, run) = (self.cx.store.clone(), self.run.clone());
        let unlisted = blocking(move || unlisted(&store, &run));
        let unlisted = match tokio::time::timeout(TIDY, unlisted).await {
            Ok(Ok(Ok(unlisted))) => unlisted,
            Ok(Ok(Err(error))) => {
                warn!(run_id = %id, %error, "store.unlisted: the folder of {id} cannot be listed: {error}");
                self.probe_start();
                return Ok(());
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {
                warn!(run_id = %id, "store.slow: the folder of {id} could not be listed within {TIDY:?}");
                self.probe_start();
                return Ok(());
            }
        };
        let newer: Vec<CheckpointInfo> = unlisted
            .found
            .iter()
            .map(|f| f.info.clone())
            .filter(|info| info.generation > known_generation)
            .collect();
        let found: Vec<CheckpointInfo> = unlisted.found.iter().map(|f| f.info.clone()).collect();
        self.adopt(unlisted).await?;
        let mut keep = self.run.checkpoints.clone();
        for info in newer.into_iter().filter(|info| !is_listed(&self.run, info)) {
            error!(
                run_id = %id,
                step = info.step,
                generation = info.generation,
                "checkpoint.not_adopted: {id} step {} of generation {} is newer than the journal (generation \
                 {known_generation}) and does not follow on from it; its file stays. Restore a newer journal, or \
                 move the file away if nobody needs it",
                info.step,
                info.generation
            );
            keep.push(info);
        }
        forget_replaced(&self.cx.remote, &id, &found, &keep).await;
        let (store, name) = (self.cx.store.clone(), id.clone());
        let sweep = blocking(move || store.sweep(&name, &keep));
        match tokio::time::timeout(TIDY, sweep).await {
            // The store logs what it moves.
            Ok(Ok(Ok(_))) => {}
            Ok(Ok(Err(error))) => {
                warn!(run_id = %id, %error, "store.unswept: the folder of {id} cannot be swept: {error}");
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {
                warn!(run_id = %id, "store.slow: the folder of {id} could not be swept within {TIDY:?}");
            }
        }
        self.probe_start();
        Ok(())
    }

    async fn adopt(&mut self, unlisted: Unlisted) -> Result<(), RunActorError> {
        let Unlisted {
            mut found,
            segments,
        } = unlisted;
        // A completed run has all that it needs.
        if found.is_empty() || self.run.phase == Phase::Completed {
            return Ok(());
        }
        bridge(&mut found, &segments, &self.run, self.ledger.head());
        let adopted = self.run.adopt(found, self.ledger.head());
        if adopted.infos.is_empty() {
            return Ok(());
        }
        let id = &self.run.id;
        for info in &adopted.infos {
            self.cx.remote.checkpoint_adopted(id, info);
            info!(run_id = %id, step = info.step, "checkpoint.adopted: {id} step {}: it is in the store and was not in the journal", info.step);
        }
        let head = self
            .cx
            .journal
            .put_run(
                RunChange {
                    number: self.run.number,
                    run: Some(&self.run),
                    rewind: adopted.rewind,
                    steps: adopted.entries,
                    scores: None,
                    train_samples: self.run.extent.train_samples,
                    head: self.ledger.head(),
                },
                Urgency::Now,
                OnFull::Wait,
            )
            .await?;
        self.ledger.wrote(head);
        self.show();
        Ok(())
    }

    fn probe_start(&mut self) {
        if self.run.is_terminal() {
            return;
        }
        if let Some(info) = self.run.start_checkpoint(self.cx.clock.now()).cloned() {
            self.probe_file(info);
        }
    }
}

/// Brings back what the object store holds beyond the newest checkpoint that the journal lists: the journal may have been
/// restored from a backup, on a new machine. Without such checkpoints, nothing is waited for.
async fn fetch_newer(run: &Run, store: &CheckpointStore, remote: &Remote) {
    if run.phase == Phase::Completed {
        return;
    }
    let newest = run.checkpoints.iter().map(|c| c.step).max().unwrap_or(0);
    let newer = |wanted: &Wanted| match wanted {
        Wanted::Checkpoint {
            step, generation, ..
        } => *step > newest || *generation > run.generation,
        _ => true,
    };
    let mut wanted = remote.unlisted(&run.id, &run.checkpoints);
    wanted.retain(newer);
    let (checkpoints, ledgers): (Vec<_>, Vec<_>) = wanted
        .into_iter()
        .partition(|wanted| matches!(wanted, Wanted::Checkpoint { .. }));
    if checkpoints.is_empty() {
        return;
    }
    info!(
        run_id = %run.id,
        "remote.newer: {}: the object store holds {} that the journal does not list; fetching what is missing here",
        run.id,
        count(checkpoints.len(), "checkpoint", "checkpoints")
    );
    let store = store.clone();
    let look = move || {
        let is_missing = |wanted: &Wanted| match wanted {
            Wanted::Checkpoint {
                run,
                step,
                generation,
                ..
            } => !store.is_here(run, *step, *generation),
            _ => true,
        };
        checkpoints
            .into_iter()
            .filter(is_missing)
            .collect::<Vec<_>>()
    };
    let Ok(missing) = blocking(look).await else {
        return;
    };
    let fetched = async {
        // The fetcher takes several at a time.
        let mut asked = JoinSet::new();
        for wanted in missing.into_iter().chain(ledgers) {
            let remote = remote.clone();
            asked.spawn(async move { remote.fetch(wanted).await });
        }
        // The fetcher has logged what failed; what is not here is not adopted. What comes after the timeout lies unlisted
        // until the next start.
        while asked.join_next().await.is_some() {}
    };
    if tokio::time::timeout(FETCH, fetched).await.is_err() {
        warn!(run_id = %run.id, "remote.slow: not everything of {} came within {FETCH:?}; it goes on with what is here", run.id);
    }
}

/// What was not adopted and is no newer than what is listed was removed by retention, or replaced: a kill kept that from
/// being written down for the object store.
async fn forget_replaced(
    remote: &Remote,
    run: &RunId,
    found: &[CheckpointInfo],
    keep: &[CheckpointInfo],
) {
    let newest = keep.iter().map(|c| c.step).max().unwrap_or(0);
    let kept = |info: &CheckpointInfo| {
        let same = |c: &CheckpointInfo| (c.step, c.generation) == (info.step, info.generation);
        info.step > newest || keep.iter().any(same)
    };
    let gone = found.iter().filter(|info| !kept(info));
    let items = gone.map(|info| Item::checkpoint(run, info)).collect();
    remote.remove(items).await;
}

fn is_listed(run: &Run, info: &CheckpointInfo) -> bool {
    let same = |c: &CheckpointInfo| (c.step, c.generation) == (info.step, info.generation);
    run.checkpoints.iter().any(same)
}

/// Reads what is unlisted. Segments are read only when there is a checkpoint to adopt.
fn unlisted(store: &CheckpointStore, run: &Run) -> Result<Unlisted, StoreError> {
    let found = store.found(&run.id, &run.checkpoints)?;
    // What an older version stored has no record, and cannot be adopted.
    let found: Vec<FoundCheckpoint> = found
        .into_iter()
        .filter_map(|(info, manifest)| {
            let record = manifest.record?;
            Some(FoundCheckpoint {
                info,
                epochs: record.epochs,
                ledger: record.ledger,
            })
        })
        .collect();
    let segments = match found.is_empty() || run.phase == Phase::Completed {
        true => Vec::new(),
        false => store.segments(&run.id)?,
    };
    Ok(Unlisted { found, segments })
}

/// Extends the ledgers of found checkpoints backwards over checkpoints that were removed, as far as needed and known.
///
/// The checkpoint before a ledger is the one of that step in the same lineage, or the youngest older one: what a rewind
/// made void has an older lineage than what replaced it.
fn bridge(found: &mut [FoundCheckpoint], segments: &[Segment], run: &Run, head: u64) {
    let present: Vec<(u64, u64, u64)> = found
        .iter()
        .map(|f| (f.info.step, f.info.lineage, f.info.generation))
        .collect();
    for checkpoint in found {
        let (mut lineage, generation) = (checkpoint.info.lineage, checkpoint.info.generation);
        while let Some(first) = checkpoint.ledger.first() {
            let before = first.step.saturating_sub(1);
            let listed = |c: &CheckpointInfo| c.step == before && !run.is_void(c);
            if before == 0
                || (lineage == run.lineage && before <= head && checkpoint.info.lineage == lineage)
                || run.checkpoints.iter().any(listed)
            {
                break;
            }
            let older = |l: u64, g: u64| l <= lineage && g <= generation;
            let there = present
                .iter()
                .filter(|(step, l, g)| *step == before && older(*l, *g))
                .map(|(_, l, g)| (*l, *g))
                .max();
            let removed = segments
                .iter()
                .filter(|s| s.ledger.last().is_some_and(|e| e.step == before))
                .filter(|s| older(s.lineage, s.generation))
                .max_by_key(|s| (s.lineage, s.generation));
            let Some(segment) = removed.filter(|s| there < Some((s.lineage, s.generation))) else {
                break;
            };
            lineage = segment.lineage;
            let after = std::mem::take(&mut checkpoint.ledger);
            checkpoint.ledger = segment.ledger.iter().cloned().chain(after).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use fovea_core::ledger::Entry;

    use super::*;

    fn entries(steps: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        let entry = |step| Entry {
            step,
            loss: 0.5,
            samples: vec![step as u32],
        };
        steps.map(entry).collect()
    }

    fn segment(steps: std::ops::RangeInclusive<u64>, lineage: u64) -> Segment {
        Segment {
            lineage,
            generation: lineage + 1,
            ledger: entries(steps),
        }
    }

    fn found(steps: std::ops::RangeInclusive<u64>, lineage: u64) -> FoundCheckpoint {
        let info = serde_json::json!({
            "step": *steps.end(),
            "generation": lineage + 1,
            "bytes": 1,
            "sha256": "",
            "lineage": lineage,
            "stored_at_ms": 0,
            "fingerprint": {
                "device": "cpu", "cpu": "", "libtorch": "", "threads": 1, "precision": "", "fovea": ""
            },
        });
        FoundCheckpoint {
            info: serde_json::from_value(info).unwrap(),
            epochs: Vec::new(),
            ledger: entries(steps),
        }
    }

    fn run() -> Run {
        use fovea_core::run::Extent;
        let spec = toml::from_str("name = 'r'\ndataset = 'tiny'").unwrap();
        let extent = Extent {
            steps_per_epoch: 100,
            total_steps: 1_000,
            train_samples: 1_000,
            validation_samples: 0,
        };
        Run::new(
            RunId::new("r-1").unwrap(),
            1,
            spec,
            String::new(),
            extent,
            0,
        )
    }

    fn first(checkpoint: &FoundCheckpoint) -> u64 {
        checkpoint.ledger[0].step
    }

    #[test]
    fn removed_checkpoints_between_the_journal_and_the_found_ones_are_bridged() {
        let mut found = vec![found(31..=40, 0), found(41..=50, 0)];
        let segments = [segment(1..=10, 0), segment(11..=20, 0), segment(21..=30, 0)];
        // The journal knows 15 steps: the second segment reaches into them.
        bridge(&mut found, &segments, &run(), 15);
        assert_eq!((first(&found[0]), found[0].ledger.len()), (11, 30));
        // What follows on from a checkpoint that is there needs no bridge.
        assert_eq!(first(&found[1]), 41);
    }

    #[test]
    fn a_gap_stays_a_gap() {
        let mut found = vec![found(31..=40, 0)];
        bridge(&mut found, &[segment(1..=10, 0)], &run(), 10);
        assert_eq!(first(&found[0]), 31);
    }

    #[test]
    fn after_a_rewind_the_steps_that_it_replaced_are_not_used() {
        // Lineage 0 took 1..=20; a rewind to 10 made 11..=20 void, and lineage 1 took them again.
        let mut found = vec![found(21..=30, 1)];
        let mut replaced = segment(11..=20, 0);
        replaced.ledger[0].samples = vec![666];
        let segments = [segment(1..=10, 0), replaced, segment(11..=20, 1)];
        bridge(&mut found, &segments, &run(), 0);
        assert_eq!(found[0].ledger, entries(1..=30));
    }
}
