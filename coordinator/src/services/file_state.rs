//! What reading a stored file showed: on the wire, for people, and for the run that it belongs to.

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use fovea_proto::pb;

use super::Context;
use crate::error::ApiError;
use crate::run::{FileReport, RunInput};
use crate::store::StoreError;

/// What a file turned out to be, on the wire.
pub(super) fn file_state(result: &Result<(), StoreError>) -> pb::FileState {
    match result {
        Ok(()) => pb::FileState::Ok,
        Err(StoreError::Corrupt { .. }) => pb::FileState::Corrupt,
        Err(StoreError::Missing { .. }) => pb::FileState::Missing,
        Err(
            StoreError::Unavailable { .. }
            | StoreError::Unreadable { .. }
            | StoreError::TooNew { .. }
            | StoreError::Full { .. }
            | StoreError::Write { .. }
            | StoreError::Remove { .. },
        ) => pb::FileState::Unreadable,
    }
}

/// What the problem of a checkpoint's manifest means, and what to do.
pub(super) fn manifest_cure(run: &RunId, error: &StoreError) -> String {
    let meaning = "The weights are good and can be used; only a journal that is restored from an older backup cannot \
                   adopt this checkpoint";
    let cure = match error {
        StoreError::Missing { .. } | StoreError::Corrupt { .. } => format!(
            "put the manifest back from a copy, or back up journal.db now; the next checkpoint of {run} has a manifest of \
             its own"
        ),
        StoreError::TooNew { .. } => "start the newer version".to_owned(),
        StoreError::Unavailable { .. }
        | StoreError::Unreadable { .. }
        | StoreError::Full { .. }
        | StoreError::Write { .. }
        | StoreError::Remove { .. } => "correct the cause and verify again".to_owned(),
    };
    format!("{meaning}: {cure}")
}

/// Whether the run lists the checkpoint now.
pub(super) async fn is_listed(
    context: &Context,
    run: &RunId,
    info: &CheckpointInfo,
) -> Result<bool, ApiError> {
    match context.runs.shown(run).await {
        Ok(shown) => Ok(shown.run.checkpoints.contains(info)),
        Err(ApiError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tells a run's actor what reading one of its checkpoints showed, where that changes anything.
pub(super) async fn report_file(
    context: &Context,
    run: &RunId,
    info: CheckpointInfo,
    result: Result<(), StoreError>,
) {
    // An ended run waits for nothing: only corruption is worth waking it for.
    let actor = match &result {
        Err(StoreError::Corrupt { .. }) => context.runs.actor(run).await.ok(),
        _ => context.runs.cluster.find(run).await.ok().flatten(),
    };
    if let Some(actor) = actor {
        actor.send(RunInput::File(FileReport {
            info,
            result,
            asked: false,
        }));
        // Who asks next sees what follows from it. None: the actor has closed. Then whoever reads the file next reports
        // it again.
        let flush = actor.query(|reply| RunInput::Flush { reply });
        let _ = context.runs.unless_blocked(flush).await;
    }
}
