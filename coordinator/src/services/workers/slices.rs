//! The upload of a checkpoint's slices.

use std::sync::Arc;

use fovea_proto::pb::slice_upload::Part;
use fovea_proto::{CHUNK_BYTES, pb};
use fovea_traces::{Context as TraceContext, Kind, names};
use tonic::Streaming;
use xxhash_rust::xxh3::Xxh3;

use crate::access::Caller;
use crate::blocking::blocking;
use crate::error::ApiError;
use crate::messages::SliceClaim;
use crate::run::{RunInput, SliceTicket};
use crate::services::transfer::Receiving;
use crate::services::{Context, check};

/// Takes a slice: checked, written at its place, verified, flushed to disk, reported to the run.
pub(super) async fn take_slice(
    context: &Context,
    caller: &Caller,
    parent: Option<TraceContext>,
    stream: Streaming<pb::SliceUpload>,
) -> Result<(), ApiError> {
    let mut stream = Receiving::new(stream, |message| match &message.part {
        Some(Part::Data(data)) => data.len(),
        Some(Part::Header(_)) | None => 0,
    });
    let first = stream.next(context).await?;
    let Some(Part::Header(header)) = first.and_then(|message| message.part) else {
        return Err(ApiError::invalid("header", "must come first"));
    };
    let slice = claim(header)?;
    caller.may_speak_for("header.worker_id", &slice.worker)?;
    let span = context
        .traces
        .child(names::SLICE, slice.run.as_str(), parent)
        .of_kind(Kind::Server)
        .with(names::GENERATION, slice.generation)
        .with(names::WORKER, slice.worker.as_str())
        .with(names::STEP, slice.step);
    let taken = take(context, slice, &mut stream).await;
    match &taken {
        Ok(bytes) => span.with(names::BYTES, *bytes).end(),
        Err(error) => span.fail(&error.to_string()),
    }
    taken.map(|_| ())
}

/// Takes the bytes of a slice; how many were written.
async fn take(
    context: &Context,
    slice: SliceClaim,
    stream: &mut Receiving<pb::SliceUpload>,
) -> Result<u64, ApiError> {
    let digest = slice.digest.clone();
    let actor = context.runs.cluster.find(&slice.run).await?;
    let actor = actor.ok_or_else(|| ApiError::no_run(&slice.run))?;
    let begin = |reply| RunInput::BeginSlice {
        claim: slice,
        reply,
    };
    let gone = || ApiError::Precondition("header.run_id: the run has ended".into());
    let ticket = actor.ask(begin).await.ok_or_else(gone)??;
    let (key, rank, file, byte, bytes, claim) = match ticket {
        SliceTicket::Here => return Ok(0),
        SliceTicket::Write {
            key,
            rank,
            file,
            byte,
            bytes,
            claim,
        } => (key, rank, file, byte, bytes, claim),
    };
    let mut hash = Xxh3::new();
    let mut written = 0u64;
    while let Some(message) = stream.next(context).await? {
        let data = match message.part {
            Some(Part::Data(data)) => data,
            Some(Part::Header(_)) => {
                return Err(ApiError::invalid("header", "comes only once"));
            }
            None => return Err(ApiError::invalid("part", "is missing")),
        };
        if data.len() > CHUNK_BYTES {
            return Err(ApiError::invalid(
                "data",
                format!("has {} bytes; at most {CHUNK_BYTES} are taken", data.len()),
            ));
        }
        if written + data.len() as u64 > bytes {
            return Err(ApiError::invalid(
                "data",
                format!("goes beyond the {bytes} bytes of the slice"),
            ));
        }
        let at = byte + written;
        written += data.len() as u64;
        let file = Arc::clone(&file);
        // This call may be dropped while the bytes are being written; the slice is not free for
        // another try before they are.
        let writing = Arc::clone(&claim);
        hash = blocking(move || {
            let _writing = writing;
            file.write_at(&data, at).map_err(|e| ApiError::from(&e))?;
            hash.update(&data);
            Ok::<_, ApiError>(hash)
        })
        .await??;
    }
    if written != bytes {
        return Err(ApiError::invalid(
            "data",
            format!("the stream ended early: {written} of {bytes} bytes came"),
        ));
    }
    let found = format!("{:032x}", hash.digest128());
    if found != digest {
        return Err(ApiError::invalid(
            "header.digest",
            format!("says {digest}, but the bytes that came have {found}"),
        ));
    }
    blocking(move || file.sync().map_err(|e| ApiError::from(&e))).await??;
    // With the claim, so that nobody else began in between.
    let stored = |reply| RunInput::SliceStored {
        key,
        rank,
        digest,
        claim,
        reply,
    };
    actor.ask(stored).await.ok_or_else(gone)??;
    Ok(written)
}

fn claim(header: pb::SliceHeader) -> Result<SliceClaim, ApiError> {
    let pb::SliceHeader {
        run_id,
        generation,
        worker_id,
        step,
        offset,
        elements,
        digest,
        state_digest,
    } = header;
    Ok(SliceClaim {
        run: check::run_id("header.run_id", &run_id)?,
        generation: check::generation("header.generation", generation)?,
        worker: check::worker_id("header.worker_id", &worker_id)?,
        step,
        offset,
        elements,
        digest: check::xxh3("header.digest", &digest)?,
        state_digest: check::xxh3("header.state_digest", &state_digest)?,
    })
}
