//! Checkpoints as a worker sees them: reading one into a state, and uploading a slice.

use bytes::Bytes;
use fovea_core::googlenet::FlatLayout;
use fovea_proto::{CHUNK_BYTES, pb};
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use tokio_stream::iter;
use tonic::transport::Channel;

use crate::training::Snapshot;

/// A checkpoint file that does not fit the run.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Not safetensors.
    #[error("the checkpoint is not a safetensors file: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// Another network or another list of frozen layers.
    #[error(
        "the checkpoint does not fit the run: tensor {name:?} {problem}; were model.classes or \
         model.frozen changed?"
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

/// SHA-256 of a state's little-endian floats, in hex.
pub fn digest(state: &[f32]) -> String {
    hex::encode(Sha256::digest(bytemuck::cast_slice::<f32, u8>(state)))
}

/// Streams one slice of a checkpoint to the coordinator. The state is not copied again on the way.
pub async fn upload(
    channel: Channel,
    run_id: String,
    worker_id: String,
    generation: u64,
    snapshot: Snapshot,
) -> Result<(), tonic::Status> {
    struct Floats(Vec<f32>);
    impl AsRef<[u8]> for Floats {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }

    let Snapshot {
        step,
        offset,
        values,
    } = snapshot;
    let elements = values.len() as u64;
    // Hashing takes long enough to keep other tasks waiting.
    let (sha256, bytes) =
        tokio::task::spawn_blocking(move || (digest(&values), Bytes::from_owner(Floats(values))))
            .await
            .map_err(|e| tonic::Status::internal(e.to_string()))?;
    let part = |part| pb::SliceUpload { part: Some(part) };
    let header = part(pb::slice_upload::Part::Header(pb::SliceHeader {
        run_id,
        generation,
        worker_id,
        step,
        offset,
        elements,
        sha256,
    }));
    let pieces = (0..bytes.len())
        .step_by(CHUNK_BYTES)
        .map(move |from| bytes.slice(from..bytes.len().min(from + CHUNK_BYTES)))
        .map(move |piece| part(pb::slice_upload::Part::Data(piece)));
    pb::workers_client::WorkersClient::new(channel)
        .upload_slice(iter(std::iter::once(header).chain(pieces)))
        .await?;
    Ok(())
}
