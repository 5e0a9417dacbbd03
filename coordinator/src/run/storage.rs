//! What the actor asks of the checkpoint store while the run lives, and what the store's answers mean for the run.
//!
//! Only a complete read that differs is corruption. A file that is missing or cannot be read stays listed; the run
//! waits for it (`fovea_core::run`).

use std::fs::File;
use std::io;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use fovea_core::removal;
use fovea_core::run::{Event, Phase};
use tracing::{info, warn};

use super::state::{Actor, RunActorError, not_written};
use super::{DeletedRun, RunInput};
use crate::blocking::{Panicked, blocking};
use crate::error::ApiError;
use crate::journal::OnFull;
use crate::remote::{Item, Remote, Wanted};
use crate::store::{CheckpointStore, StoreError};

/// What reading a stored checkpoint showed.
#[derive(Debug)]
pub(crate) struct FileReport {
    pub info: CheckpointInfo,
    pub result: Result<(), StoreError>,
    /// Whether the actor asked for it.
    pub asked: bool,
}

impl Actor {
    /// Does work on files on a thread for that; its answer comes as an input.
    pub(super) fn on_files(&mut self, work: impl FnOnce() -> RunInput + Send + 'static) {
        let Some(me) = self.me.upgrade() else {
            return;
        };
        self.files_busy += 1;
        self.cx.tasks.spawn(async move {
            let input = blocking(work).await.unwrap_or_else(RunInput::Panicked);
            // Fails only when the actor is gone.
            let _ = me.send(input);
        });
    }

    pub(super) fn probe_file(&mut self, info: CheckpointInfo) {
        let (store, remote, id) = (
            self.cx.store.clone(),
            self.cx.remote.clone(),
            self.run.id.clone(),
        );
        let Some(me) = self.me.upgrade() else {
            return;
        };
        self.files_busy += 1;
        self.cx.tasks.spawn(async move {
            let input = match opened(&store, &remote, &id, &info).await {
                Ok(result) => RunInput::File(FileReport {
                    info,
                    result: result.map(drop),
                    asked: true,
                }),
                Err(panicked) => RunInput::Panicked(panicked),
            };
            // Fails only when the actor is gone.
            let _ = me.send(input);
        });
    }

    /// After a checkpoint could not be stored: looks whether the next one could be, so that people do not read of a
    /// problem that is over.
    pub(super) fn probe_store(&mut self) {
        if self.storage_problem.is_none() || !self.assemblies.is_empty() || self.files_busy > 0 {
            return;
        }
        let (store, id) = (self.cx.store.clone(), self.run.id.clone());
        let last = self.run.checkpoints.last().map_or(0, |c| c.bytes);
        let bytes = last.max(self.storage_needed);
        self.on_files(move || RunInput::CouldStore(store.could_store(&id, bytes)));
    }

    /// What [`probe_store`](Self::probe_store) found.
    pub(super) fn could_store(&mut self, could: bool) {
        self.files_busy -= 1;
        // A run that ends tries to store its last checkpoint again and again: that shows.
        if could && self.assemblies.is_empty() && matches!(self.run.phase, Phase::Running { .. }) {
            self.storage_works();
        }
    }

    /// A checkpoint was stored, or could be.
    pub(super) fn storage_works(&mut self) {
        if self.storage_problem.take().is_some() {
            info!(run_id = %self.run.id, "checkpoint.delay_ended: {} can store checkpoints again", self.run.id);
        }
    }

    /// What reading a stored checkpoint showed, whoever read it.
    pub(super) async fn file_report(&mut self, report: FileReport) -> Result<(), RunActorError> {
        let FileReport {
            info,
            result,
            asked,
        } = report;
        if asked {
            self.files_busy -= 1;
        }
        let CheckpointInfo {
            step, generation, ..
        } = info;
        let event = match result {
            Ok(()) => Event::CheckpointReadable { step, generation },
            Err(error @ StoreError::Corrupt { .. }) => Event::CheckpointCorrupt {
                step,
                generation,
                reason: error.to_string(),
            },
            Err(error) => Event::CheckpointUnreadable {
                step,
                generation,
                reason: error.to_string(),
            },
        };
        self.apply(event).await
    }

    /// Removes the file of a checkpoint that retention has let go of.
    pub(super) fn remove_file(&mut self, info: CheckpointInfo) {
        let (store, remote, id) = (
            self.cx.store.clone(),
            self.cx.remote.clone(),
            self.run.id.clone(),
        );
        info!(run_id = %id, step = info.step, "checkpoint.removed: {id} step {}: retention", info.step);
        self.cx.tasks.spawn(async move {
            let step = info.step;
            let removed = remove(&store, &remote, &id, info).await;
            if let Ok(Err(error)) = removed {
                // The next start's sweep moves it to the trash.
                warn!(run_id = %id, step, %error, "checkpoint.not_removed: {id} step {step}: {error}");
            }
        });
    }

    /// Puts the file of a corrupt checkpoint into the trash.
    pub(super) fn quarantine_file(&mut self, info: CheckpointInfo) {
        let (store, id) = (self.cx.store.clone(), self.run.id.clone());
        self.cx.tasks.spawn_blocking(move || {
            // The store logs where the file lies now.
            if let Err(error) = store.quarantine(&id, &info) {
                warn!(run_id = %id, step = info.step, %error, "checkpoint.not_quarantined: {id} step {}: {error}", info.step);
            }
        });
    }

    /// A person removes a checkpoint. Returns the bytes given back.
    pub(super) async fn delete_checkpoint(
        &mut self,
        step: u64,
    ) -> Result<Result<u64, ApiError>, RunActorError> {
        let id = self.run.id.clone();
        let Some(at) = self.run.checkpoints.iter().position(|c| c.step == step) else {
            return Ok(Err(ApiError::NotFound(format!(
                "run {id} has no checkpoint at step {step}; `fovea checkpoints {id}` lists them"
            ))));
        };
        let start = self.run.start_checkpoint(self.cx.clock.now());
        if !self.run.is_terminal() && start.is_some_and(|c| c.step == step) {
            return Ok(Err(ApiError::Precondition(format!(
                "run {id} is {} and would resume from checkpoint {step}; cancel the run first, or remove an older one",
                self.run.phase_name()
            ))));
        }
        // Nothing is taken off the list whose files cannot be removed: they would stay and nobody would know of them.
        let (store, name) = (self.cx.store.clone(), id.clone());
        if let Err(error) = blocking(move || store.check_removable(&name)).await? {
            return Ok(Err(ApiError::kept(
                &format!("checkpoint {step} of run {id} was not removed and stays listed"),
                &error,
                &format!("fovea checkpoint rm {id} {step}"),
            )));
        }
        let before = self.run.clone();
        let info = self.run.checkpoints.remove(at);
        if let Err(error) = self.persist(None, None, OnFull::Refuse).await {
            if error.is_fatal() {
                return Err(error.into());
            }
            self.run = before;
            return Ok(Err(not_written(&error)));
        }
        self.show();
        let removed = match remove(&self.cx.store, &self.cx.remote, &id, info).await? {
            // It is not listed any more, which is what was asked for.
            Err(StoreError::Missing { .. }) => Ok(0),
            removed => removed,
        };
        Ok(match removed {
            Ok(bytes) => {
                info!(run_id = %id, step, bytes, "checkpoint.deleted: {id} step {step}: on request");
                Ok(bytes)
            }
            Err(error) => {
                warn!(run_id = %id, step, %error, "checkpoint.not_removed: {id} step {step}: {error}");
                Err(ApiError::Incomplete(format!(
                    "checkpoint {step} of run {id} is not listed any more, but its files could not be removed: {error}. \
                     Correct the cause; the next start of the coordinator moves them to the trash"
                )))
            }
        })
    }

    /// A person removes the run, which has ended.
    pub(super) async fn delete(
        &mut self,
        with_checkpoints: bool,
    ) -> Result<Result<DeletedRun, ApiError>, RunActorError> {
        let id = self.run.id.clone();
        if self.run.is_terminal() && !self.assemblies.is_empty() {
            return Ok(Err(ApiError::Precondition(format!(
                "run {id} has ended, but its last checkpoint is still being stored; try again in a moment"
            ))));
        }
        let checkpoints = self.run.checkpoints.len();
        let phase = self.run.phase_name();
        if let Err(refused) = removal::check(id.as_str(), phase, checkpoints, with_checkpoints) {
            return Ok(Err(ApiError::Precondition(refused.to_string())));
        }
        let with = match with_checkpoints {
            true => " --with-checkpoints",
            false => "",
        };
        let again = format!("fovea runs rm {id}{with}");
        let (store, name) = (self.cx.store.clone(), id.clone());
        if let Err(error) = blocking(move || store.check_removable(&name)).await? {
            let what = format!("run {id} was not removed and stays listed");
            return Ok(Err(ApiError::kept(&what, &error, &again)));
        }
        self.cx.remote.remove(vec![Item::Run(id.clone())]).await;
        // Files first: a removal that is cut off can be repeated as long as the run is listed.
        let (store, name) = (self.cx.store.clone(), id.clone());
        let bytes = match blocking(move || store.remove_run(&name)).await? {
            Ok(bytes) => bytes,
            Err(error) => {
                warn!(run_id = %id, %error, "run.not_deleted: {id}: {error}");
                return Ok(Err(ApiError::Incomplete(format!(
                    "run {id} stays listed, and some of its files may be gone: {error}. Correct the cause, then `{again}` \
                     removes the rest"
                ))));
            }
        };
        self.flush().await?;
        if let Err(error) = self.cx.journal.remove_run(self.run.number).await {
            if error.is_fatal() {
                return Err(error.into());
            }
            return Ok(Err(not_written(&error)));
        }
        info!(run_id = %id, checkpoints, bytes, "run.deleted: {id}: on request");
        self.deleted = true;
        self.tell_group();
        Ok(Ok(DeletedRun {
            checkpoints: checkpoints as u32,
            bytes,
        }))
    }
}

/// Opens a checkpoint's file; one that is missing here is fetched from the object store, if it is there.
pub(crate) async fn opened(
    store: &CheckpointStore,
    remote: &Remote,
    run: &RunId,
    info: &CheckpointInfo,
) -> Result<Result<File, StoreError>, Panicked> {
    let open = || {
        let (store, run, info) = (store.clone(), run.clone(), info.clone());
        blocking(move || store.open_file(&run, &info))
    };
    let path = match open().await? {
        Err(StoreError::Missing { path }) if remote.has(&Item::checkpoint(run, info)) => path,
        result => return Ok(result),
    };
    let wanted = Wanted::Checkpoint {
        run: run.clone(),
        step: info.step,
        generation: info.generation,
        info: Some(info.clone()),
    };
    match remote.fetch(wanted).await {
        Ok(()) => open().await,
        // It is here or there: nothing is known to be lost.
        Err(error) => Ok(Err(StoreError::Unreadable {
            path,
            source: io::Error::other(format!("it is not here, and {error}")),
        })),
    }
}

/// Removes a checkpoint that the journal no longer lists, here and in the object store; what stays of it goes there.
async fn remove(
    store: &CheckpointStore,
    remote: &Remote,
    run: &RunId,
    info: CheckpointInfo,
) -> Result<Result<u64, StoreError>, Panicked> {
    // Written down before: a kill after the removal here must not leave it there.
    remote.remove(vec![Item::checkpoint(run, &info)]).await;
    let ledger = Item::ledger(run, &info);
    let (store, of) = (store.clone(), run.clone());
    let removed = blocking(move || store.remove(&of, &info)).await?;
    remote.stored(ledger);
    Ok(removed)
}
