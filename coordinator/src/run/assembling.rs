//! Assembling checkpoints: slices from all ranks become one file, and the file becomes a checkpoint.

use std::sync::{Arc, Weak};

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::googlenet::FlatLayout;
use fovea_core::run::{Event, Phase};
use tracing::{debug, info, warn};

use super::assembly::{Assembly, AssemblyKey, Slice, SliceTicket, next_to_store};
use super::state::{Actor, RunActorError};
use super::storing::Unfinished;
use super::validate::check_claim;
use super::{RunEvent, RunInput};
use crate::error::ApiError;
use crate::messages::{Reply, SliceClaim};
use crate::store::{AssemblyFile, Description, StoreError, header};

/// Checkpoints of one run that may be assembled at the same time. Workers upload in the order of steps, so more
/// means that one of them has given up on an older one.
const AT_ONCE: usize = 3;
/// Waits between attempts to store a checkpoint, milliseconds: the first and the longest.
const RETRY_MS: (u64, u64) = (500, 10_000);

impl Actor {
    /// A worker wants to upload its slice.
    pub(super) async fn begin_slice(
        &mut self,
        claim: SliceClaim,
        reply: Reply<SliceTicket>,
    ) -> Result<(), RunActorError> {
        let (key, rank, layout) = match check_claim(&self.run, &claim) {
            Ok(checked) => checked,
            Err(error) => {
                drop(reply.send(Err(error)));
                return Ok(());
            }
        };
        let stored = |c: &CheckpointInfo| (c.step, c.generation) == (key.step, key.generation);
        if self.run.checkpoints.iter().any(stored) {
            // Within a generation a step has one state: these are bytes that are there.
            debug!(run_id = %self.run.id, rank, step = key.step, "checkpoint is stored already");
            drop(reply.send(Ok(SliceTicket::Here)));
            return Ok(());
        }
        if !self.assemblies.0.contains_key(&key) {
            self.make_room().await?;
            if let Err(error) = self.open_assembly(key, &layout, &claim.state_digest) {
                drop(reply.send(Err(error)));
                return Ok(());
            }
        }
        let Some(assembly) = self.assemblies.0.get_mut(&key) else {
            drop(reply.send(Err(ApiError::Internal("no assembly".into()))));
            return Ok(());
        };
        if assembly.state_digest != claim.state_digest {
            // Which of them is right, the comparison of states decides. A file made of both would be wrong.
            let reason = format!(
                "the state of worker {} has digest {}, that of others {}",
                claim.worker, claim.state_digest, assembly.state_digest
            );
            self.assemblies.0.remove(&key);
            let error = ApiError::Precondition(format!("header.state_digest: {reason}"));
            drop(reply.send(Err(error)));
            return self.assembly_failed(key, reason).await;
        }
        if assembly.file.is_none() {
            assembly.waiting.push((claim, rank, reply));
            return Ok(());
        }
        drop(reply.send(assembly.claim(key, rank, &claim)));
        Ok(())
    }

    /// Begins an assembly: its file is opened on a thread for files, and [`opened`](Self::opened) follows.
    fn open_assembly(
        &mut self,
        key: AssemblyKey,
        layout: &FlatLayout,
        state_digest: &str,
    ) -> Result<(), ApiError> {
        let run = &self.run;
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
        let header = header(layout, &about).map_err(|e| ApiError::Internal(e.to_string()))?;
        let elements = layout.state_len() as u64;
        let lineage = run.lineage;
        let (store, id) = (self.cx.store.clone(), run.id.clone());
        self.on_files(move || {
            let result = store
                .begin(&id, key.step, key.generation, &header, elements)
                .map(Box::new);
            RunInput::Opened { key, result }
        });
        let slices = (0..ranks)
            .map(|_| Slice::Missing { claim: Weak::new() })
            .collect();
        let assembly = Assembly {
            file: None,
            waiting: Vec::new(),
            fingerprint,
            lineage,
            state_digest: state_digest.to_owned(),
            slices,
            whole: false,
            storing: false,
            retry_at: None,
            attempts: 0,
        };
        self.assemblies.0.insert(key, assembly);
        self.spans.assembling(&self.run, key);
        Ok(())
    }

    /// The file of an assembly was opened, or could not be.
    pub(super) async fn opened(
        &mut self,
        key: AssemblyKey,
        result: Result<Box<AssemblyFile>, StoreError>,
    ) -> Result<(), RunActorError> {
        self.files_busy -= 1;
        let Some(assembly) = self.assemblies.0.get_mut(&key) else {
            // Dropped meanwhile: so is the file.
            return Ok(());
        };
        if assembly.file.is_some() {
            // An assembly of the same name was dropped and begun again meanwhile; this file is of the first.
            return Ok(());
        }
        match result {
            Ok(file) => {
                info!(
                    run_id = %self.run.id,
                    generation = key.generation,
                    step = key.step,
                    slices = assembly.slices.len(),
                    "checkpoint.assembling: {} step {}", self.run.id, key.step
                );
                assembly.file = Some(Arc::new(*file));
                for (claim, rank, reply) in std::mem::take(&mut assembly.waiting) {
                    drop(reply.send(assembly.claim(key, rank, &claim)));
                }
                Ok(())
            }
            Err(error) => {
                let waiting = std::mem::take(&mut assembly.waiting);
                self.assemblies.0.remove(&key);
                self.spans.not_assembled(key, &error.to_string());
                self.storage_trouble(key, &error);
                for (_, _, reply) in waiting {
                    drop(reply.send(Err(ApiError::from(&error))));
                }
                // While the store has trouble the workers of an ending run try again.
                if error.is_transient() {
                    return Ok(());
                }
                self.assembly_failed(key, error.to_string()).await
            }
        }
    }

    /// Notes and logs that a checkpoint cannot be stored now.
    fn storage_trouble(&mut self, key: AssemblyKey, error: &StoreError) {
        let problem = format!("checkpoint {} cannot be stored: {error}", key.step);
        if let StoreError::Full { needed, .. } = error {
            self.storage_needed = *needed;
        }
        if self.storage_problem.as_ref() != Some(&problem) {
            warn!(
                run_id = %self.run.id,
                generation = key.generation,
                step = key.step,
                "checkpoint.delayed: {}: {problem}", self.run.id
            );
            self.publish(RunEvent::Note(format!("checkpoint.delayed: {problem}")));
            self.storage_problem = Some(problem);
        }
        self.show();
    }

    async fn assembly_failed(
        &mut self,
        key: AssemblyKey,
        reason: String,
    ) -> Result<(), RunActorError> {
        self.spans.not_assembled(key, &reason);
        let AssemblyKey { generation, step } = key;
        self.apply(Event::CheckpointFailed {
            generation,
            step,
            reason,
        })
        .await
    }

    /// Gives up the oldest assembly when there are too many.
    async fn make_room(&mut self) -> Result<(), RunActorError> {
        let mut under_way = self.assemblies.0.iter().filter(|(_, a)| !a.whole);
        let oldest = under_way.next().map(|(key, _)| *key);
        let others = under_way.count();
        if let Some(oldest) = oldest
            && others + 2 > AT_ONCE
        {
            self.assemblies.0.remove(&oldest);
            let reason = "newer ones were begun before all its slices came".to_owned();
            self.assembly_failed(oldest, reason).await?;
        }
        Ok(())
    }

    /// A slice is verified and on disk.
    pub(super) async fn slice_stored(
        &mut self,
        key: AssemblyKey,
        rank: usize,
        digest: String,
        claim: &Arc<()>,
    ) -> Result<Result<(), ApiError>, RunActorError> {
        // Not a slice of an assembly of the same name that was dropped and begun again meanwhile.
        let of_claim = |slice: &&mut Slice| matches!(slice, Slice::Missing { claim: of } if of.ptr_eq(&Arc::downgrade(claim)));
        let assembly = self.assemblies.0.get_mut(&key);
        let Some(assembly) = assembly.and_then(|assembly| {
            let slice = assembly.slices.get_mut(rank).filter(of_claim)?;
            *slice = Slice::Here { digest };
            Some(assembly)
        }) else {
            return Ok(Err(ApiError::Precondition(format!(
                "header.generation: the checkpoint of step {} in generation {} was given up while the slice came",
                key.step, key.generation
            ))));
        };
        let here = |slice: &Slice| matches!(slice, Slice::Here { .. });
        assembly.whole = assembly.slices.iter().all(here);
        self.store_next().await?;
        Ok(Ok(()))
    }

    /// Stores the run's oldest whole checkpoint, one after the other: watchers see them in their order, and the last
    /// one comes last.
    pub(super) async fn store_next(&mut self) -> Result<(), RunActorError> {
        let now = self.cx.clock.now();
        let of_run = self.assemblies.0.iter();
        let next = next_to_store(of_run.map(|(k, a)| {
            let waits = a.retry_at.is_some_and(|at| at > now);
            (*k, a.whole && a.file.is_some(), a.storing || waits)
        }));
        let Some(key) = next else {
            return Ok(());
        };
        // Its manifest carries the ledger up to its step.
        self.flush().await?;
        let Some(assembly) = self.assemblies.0.get_mut(&key) else {
            return Ok(());
        };
        let Some(file) = assembly.file.clone() else {
            return Ok(());
        };
        assembly.storing = true;
        assembly.retry_at = None;
        let info = Unfinished {
            digest: assembly.state_digest.clone(),
            fingerprint: assembly.fingerprint.clone(),
            lineage: assembly.lineage,
            step: key.step,
        };
        let (journal, run) = (self.cx.journal.clone(), self.run.clone());
        let Some(me) = self.me.upgrade() else {
            return Ok(());
        };
        self.files_busy += 1;
        self.cx.tasks.spawn(async move {
            let input = match info.store(file, &journal, &run).await {
                Ok(result) => RunInput::Assembled { key, result },
                Err(panicked) => RunInput::Panicked(panicked),
            };
            // Fails only when the actor is gone; the journal then never heard of it.
            let _ = me.send(input);
        });
        Ok(())
    }

    /// A checkpoint was stored, or could not be.
    pub(super) async fn assembled(
        &mut self,
        key: AssemblyKey,
        result: Result<CheckpointInfo, StoreError>,
    ) -> Result<(), RunActorError> {
        self.files_busy -= 1;
        match result {
            Ok(info) => {
                self.assemblies.0.remove(&key);
                self.spans.assembled(key, info.bytes);
                self.storage_works();
                self.apply(Event::CheckpointStored { info }).await?;
            }
            Err(error) if error.is_transient() && self.assemblies.0.contains_key(&key) => {
                self.storage_trouble(key, &error);
                let newest = self.assemblies.0.iter().rev().find(|(_, a)| a.whole);
                let superseded = newest.is_some_and(|(newest, _)| *newest != key);
                let now = self.cx.clock.now();
                if superseded {
                    // What has a successor need not be kept until the store is back.
                    self.assemblies.0.remove(&key);
                    self.assembly_failed(key, error.to_string()).await?;
                } else if let Some(assembly) = self.assemblies.0.get_mut(&key) {
                    assembly.storing = false;
                    let (first, longest) = RETRY_MS;
                    let wait = (first << assembly.attempts.min(10)).min(longest);
                    assembly.attempts += 1;
                    assembly.retry_at = Some(now + wait);
                }
            }
            Err(error) => {
                self.assemblies.0.remove(&key);
                self.assembly_failed(key, error.to_string()).await?;
            }
        }
        self.store_next().await
    }

    /// Removes what was begun in generations that are over.
    pub(super) fn drop_dead_assemblies(&mut self) {
        let alive = self.run.roster().map(|roster| roster.generation);
        let id = &self.run.id;
        self.assemblies.0.retain(|key, assembly| {
            let keep = assembly.whole || Some(key.generation) == alive;
            if !keep {
                info!(
                    run_id = %id,
                    generation = key.generation,
                    step = key.step,
                    "checkpoint.dropped: {id} step {}: its generation is over", key.step
                );
            }
            keep
        });
        let assemblies = &self.assemblies.0;
        self.spans.assemblies(|key| assemblies.contains_key(key));
    }

    /// A run that waits for a checkpoint whose slices can no longer come must not wait for ever.
    pub(super) fn hopeless_assembly(&self) -> Option<Event> {
        let Phase::Finishing { pending, next, .. } = &self.run.phase else {
            return None;
        };
        let step = next.awaited().filter(|_| pending.is_empty())?;
        let generation = self.run.generation;
        let reason = self.assemblies.hopeless(AssemblyKey { generation, step })?;
        Some(Event::CheckpointFailed {
            generation,
            step,
            reason,
        })
    }
}
