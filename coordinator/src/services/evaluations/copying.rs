//! The copy of a checkpoint that an evaluation begins with, from file to file.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::RunId;
use fovea_core::run::Run;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;

use crate::blocking::blocking_with;
use crate::clock::unix_ms;
use crate::error::ApiError;
use crate::run::opened;
use crate::services::Context;
use crate::store::{
    CheckpointRecord, CheckpointStore, Description, RunRecord, StoreError, Unjournalled, header,
    low_priority,
};

/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// Copies a checkpoint of `run` into the folder of `to`, which owns it from then on. The copy is marked until the journal has
/// `to`.
pub(super) async fn copy_checkpoint(
    context: &Context,
    run: &Run,
    info: &CheckpointInfo,
    to: &Run,
) -> Result<CheckpointInfo, ApiError> {
    // A file that is verified before it is stored is in memory as a whole. The turn comes before the file is opened, so that
    // those who wait hold no descriptor, and lasts as long as the work.
    let turn = tokio::select! {
        biased;
        () = context.closing.cancelled() => return Err(ApiError::ShuttingDown),
        turn = Arc::clone(&context.copying).acquire_owned() => turn,
    };
    let opened = opened(&context.checkpoints, &context.remote, &run.id, info).await?;
    let source = opened.map_err(|error| ApiError::from(&error))?;
    let (store, from, info, to) = (
        context.checkpoints.clone(),
        run.id.clone(),
        info.clone(),
        to.clone(),
    );
    let copying = move || low_priority(|| copy(&store, source, &from, &info, &to));
    blocking_with(turn, copying).await?
}

/// Copies the checkpoint `info` of the run `from`, whose file is `source`: its state, behind a header that names the run `to`.
fn copy(
    store: &CheckpointStore,
    mut source: File,
    from: &RunId,
    info: &CheckpointInfo,
    to: &Run,
) -> Result<CheckpointInfo, ApiError> {
    let internal = |problem: String| ApiError::Internal(problem);
    let failed = |error: StoreError| ApiError::from(&error);
    let layout = to.spec.model.layout();
    let layout = layout.map_err(|e| internal(e.to_string()))?;
    let elements = layout.state_len() as u64;
    let state_at = info.bytes.checked_sub(elements * 4);
    let state_at = state_at
        .ok_or_else(|| internal(format!("checkpoint {} is too short for its run", info.step)))?;
    let about = Description {
        run: to,
        generation: info.generation,
        step: info.step,
        fingerprint: &info.fingerprint,
    };
    let header = header(&layout, &about).map_err(|e| internal(e.to_string()))?;
    store
        .mark(&Unjournalled::new(&to.id, info))
        .map_err(failed)?;
    let file = store
        .begin(&to.id, info.step, info.generation, &header, elements)
        .map_err(failed)?;

    let (mut sha256, mut state_digest) = (Sha256::new(), Xxh3::new());
    let (mut piece, mut at) = (vec![0; PIECE], 0);
    // A file that grew is not what was stored.
    while at <= info.bytes {
        let read = read(&mut source, &mut piece).map_err(|e| {
            ApiError::Unavailable(format!("checkpoint {} of {from}: {e}", info.step))
        })?;
        if read == 0 {
            break;
        }
        sha256.update(&piece[..read]);
        let of_header = state_at.saturating_sub(at).min(read as u64);
        at += read as u64;
        let state = &piece[of_header as usize..read];
        if !state.is_empty() && at <= info.bytes {
            state_digest.update(state);
            let place = at - state.len() as u64 - state_at;
            file.write_at(state, place).map_err(failed)?;
        }
    }
    if at != info.bytes || hex::encode(sha256.finalize()) != info.sha256 {
        return Err(ApiError::Damaged(format!(
            "checkpoint {} of run {from} is not what was stored: `fovea checkpoint verify {from} --step {}`",
            info.step, info.step
        )));
    }
    let record = CheckpointRecord {
        fingerprint: info.fingerprint.clone(),
        lineage: to.lineage,
        stored_at_ms: unix_ms(),
        run: RunRecord {
            number: to.number,
            id: to.id.clone(),
            name: to.spec.name.clone(),
            epochs: Vec::new(),
            train_samples: 0,
            ledger: Vec::new(),
        },
    };
    file.finish(&format!("{:032x}", state_digest.digest128()), &record)
        .map_err(failed)
}

fn read(source: &mut File, piece: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
