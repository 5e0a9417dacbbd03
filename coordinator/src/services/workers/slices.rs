//! The upload of a checkpoint's slices.

use std::sync::Arc;

use fovea_proto::pb::slice_upload::Part;
use fovea_proto::{CHUNK_BYTES, pb};
use tonic::Streaming;
use xxhash_rust::xxh3::Xxh3;

use crate::error::ApiError;
use crate::owner::{Message, SliceClaim, SliceTicket};
use crate::services::datasets::on_disk_thread;
use crate::services::{Context, check, transfer};

/// Takes a slice: checked, written at its place, verified, made to last, reported to the owner.
pub(super) async fn take_slice(
    context: &Context,
    mut stream: Streaming<pb::SliceUpload>,
) -> Result<(), ApiError> {
    let first = transfer::next(&mut stream, context).await?;
    let Some(Part::Header(header)) = first.and_then(|message| message.part) else {
        return Err(ApiError::invalid("header", "must come first"));
    };
    let slice = claim(header)?;
    let digest = slice.digest.clone();
    let begin = |reply| Message::BeginSlice { slice, reply };
    let (key, rank, file, byte, bytes, claim) = match context.owner.ask(begin).await? {
        SliceTicket::Here => return Ok(()),
        SliceTicket::Write {
            key,
            rank,
            file,
            byte,
            bytes,
            claim,
        } => (key, rank, file, byte, bytes, claim),
    };
    let disk = |e: std::io::Error| ApiError::disk("cannot store the slice", &e);
    let mut hash = Xxh3::new();
    let mut written = 0u64;
    while let Some(message) = transfer::next(&mut stream, context).await? {
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
        hash = on_disk_thread(move || {
            let _writing = writing;
            file.write_at(&data, at).map_err(disk)?;
            hash.update(&data);
            Ok(hash)
        })
        .await?;
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
    on_disk_thread(move || file.sync().map_err(disk)).await?;
    let stored = |reply| Message::SliceStored {
        key,
        rank,
        digest,
        reply,
    };
    let answer = context.owner.ask(stored).await;
    // Held until the owner knows, so that nobody else began in between.
    drop(claim);
    answer
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
