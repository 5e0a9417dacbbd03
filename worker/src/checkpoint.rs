//! Checkpoints as a worker uses them: reading one into a state, and uploading a slice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fovea_core::googlenet::FlatLayout;
use fovea_proto::{CHUNK_BYTES, pb};
use fovea_traces::TRACEPARENT;
use safetensors::{Dtype, SafeTensors};
use tokio::time::sleep;
use tokio_stream::iter;
use tonic::Request;
use tonic::transport::Channel;
use xxhash_rust::xxh3::xxh3_128;

use crate::progress::Progress;
use crate::training::Snapshot;
use crate::uploads::NotTaken;

/// A checkpoint file that does not fit the run.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Not safetensors.
    #[error("the checkpoint is not a safetensors file: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// Another network or another list of frozen layers.
    #[error(
        "the checkpoint does not fit the run: tensor {name:?} {problem}; were model.classes, \
         model.head or model.frozen changed?"
    )]
    Misfit {
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// The state (trainable parameters, velocities, frozen parameters) in a checkpoint's bytes.
pub fn read_state(layout: &FlatLayout, bytes: &[u8]) -> Result<Vec<f32>, CheckpointError> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut state = vec![0f32; layout.state_len()];
    for entry in layout.state_entries() {
        let misfit = |problem: String| CheckpointError::Misfit {
            name: entry.name.clone(),
            problem,
        };
        let tensor = file
            .tensor(&entry.name)
            .map_err(|_| misfit("is missing".into()))?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != entry.shape {
            return Err(misfit(format!(
                "is {:?} {:?}, expected F32 {:?}",
                tensor.dtype(),
                tensor.shape(),
                entry.shape
            )));
        }
        let into = &mut state[entry.offset..entry.offset + entry.len];
        for (value, bytes) in into.iter_mut().zip(tensor.data().chunks_exact(4)) {
            *value = f32::from_le_bytes(bytes.try_into().expect("chunks of 4"));
        }
    }
    Ok(state)
}

/// An upload of which nothing was taken, or whose answer has not come, for so long is broken off.
const STALLED: Duration = Duration::from_secs(60);

/// One slice of a checkpoint on its way to the coordinator.
pub struct Upload {
    /// The run.
    pub run_id: String,
    /// This worker.
    pub worker_id: String,
    /// The generation.
    pub generation: u64,
    /// The slice.
    pub snapshot: Snapshot,
    /// Context of the upload's span.
    pub traceparent: Option<fovea_traces::Context>,
}

impl Upload {
    /// Streams the slice to the coordinator. The state is not copied again on the way. An upload that stalls for a minute
    /// ends with an error.
    pub async fn send(self, channel: Channel, progress: Progress) -> Result<(), NotTaken> {
        let Self {
            run_id,
            worker_id,
            generation,
            snapshot,
            traceparent,
        } = self;
        let Snapshot {
            step,
            offset,
            bytes,
            digest,
        } = snapshot;
        let elements = (bytes.len() / size_of::<f32>()) as u64;
        let part = |part| pb::SliceUpload { part: Some(part) };
        let header = part(pb::slice_upload::Part::Header(pb::SliceHeader {
            run_id,
            generation,
            worker_id,
            step,
            offset,
            elements,
            digest: digest_text(xxh3_128(&bytes)),
            state_digest: digest_text(digest),
        }));
        let taken = Arc::new(AtomicU64::new(0));
        let count = taken.clone();
        let pieces = (0..bytes.len())
            .step_by(CHUNK_BYTES)
            .map(move |from| bytes.slice(from..bytes.len().min(from + CHUNK_BYTES)))
            .inspect(move |_| {
                progress.tick();
                count.fetch_add(1, Ordering::Relaxed);
            })
            .map(move |piece| part(pb::slice_upload::Part::Data(piece)));
        let mut client = pb::workers_client::WorkersClient::new(channel);
        let mut request = Request::new(iter(std::iter::once(header).chain(pieces)));
        if let Some(context) = traceparent
            && let Ok(text) = context.to_string().parse()
        {
            request.metadata_mut().insert(TRACEPARENT, text);
        }
        let upload = client.upload_slice(request);
        let uploaded = tokio::select! {
            uploaded = upload => uploaded.map(|_| ()),
            () = stalled(&taken, STALLED) => Err(tonic::Status::deadline_exceeded(format!(
                "the coordinator has taken nothing of the slice for {} s", STALLED.as_secs()
            ))),
        };
        Ok(uploaded?)
    }
}

/// Ends when `count` has not changed for `limit`.
async fn stalled(count: &AtomicU64, limit: Duration) {
    let mut before = None;
    loop {
        let now = count.load(Ordering::Relaxed);
        if before == Some(now) {
            return;
        }
        before = Some(now);
        sleep(limit).await;
    }
}

/// A state's digest as messages carry it: 32 lower-case hexadecimal digits.
pub fn digest_text(digest: u128) -> String {
    format!("{digest:032x}")
}
