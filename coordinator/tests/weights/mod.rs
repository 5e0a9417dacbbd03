//! Weights as artefacts: added, checked, named by runs, fetched, damaged and repaired. Over a real server, with fake workers.

#[path = "../../../weights/src/testing.rs"]
mod crafted;

mod adding;
mod naming;
mod older;
mod stored;

use crate::common;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::*;
use fovea_core::googlenet::HEAD;
use fovea_proto::pb;
use pb::create_weights_request::Part;
use pb::weights_client::WeightsClient;
use sha2::{Digest, Sha256};
use tonic::Status;
use tonic::transport::Channel;

/// A file of GoogLeNet's weights, with an auxiliary classifier's layer.
fn googlenet() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| crafted::googlenet(&["loss1/fc", HEAD], |_| {}))
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn client(server: &Server) -> WeightsClient<Channel> {
    WeightsClient::new(server.channel.clone())
}

fn header(name: &str, file_name: &str, bytes: &[u8]) -> pb::WeightsHeader {
    pb::WeightsHeader {
        name: name.into(),
        file_name: file_name.into(),
        sha256: sha256(bytes),
        size_bytes: bytes.len() as u64,
    }
}

fn parts(header: pb::WeightsHeader, bytes: &[u8]) -> Vec<pb::CreateWeightsRequest> {
    let pieces = bytes.chunks(1 << 20);
    let pieces = pieces.map(|data| Part::Data(data.to_vec().into()));
    std::iter::once(Part::Header(header))
        .chain(pieces)
        .map(|part| pb::CreateWeightsRequest { part: Some(part) })
        .collect()
}

/// Uploads a file. Returns what is stored, and what was done.
async fn add(
    server: &Server,
    name: &str,
    file_name: &str,
    bytes: &[u8],
) -> Result<(pb::StoredWeights, pb::create_weights_response::Outcome), Status> {
    let parts = parts(header(name, file_name, bytes), bytes);
    let reply = client(server).create(tokio_stream::iter(parts)).await?;
    let reply = reply.into_inner();
    let outcome = reply.outcome();
    Ok((reply.weights.expect("the stored weights"), outcome))
}

async fn list(server: &Server) -> Vec<pb::StoredWeights> {
    let reply = client(server).list(pb::ListWeightsRequest {}).await;
    reply.unwrap().into_inner().weights
}

async fn fetch(server: &Server, sha256: &str) -> Result<Vec<u8>, Status> {
    let request = pb::FetchWeightsRequest {
        sha256: sha256.into(),
    };
    let mut stream = client(server).fetch(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.message().await? {
        bytes.extend_from_slice(&chunk.data);
    }
    Ok(bytes)
}

async fn remove(server: &Server, weights: &str) -> Result<u64, Status> {
    let request = pb::DeleteWeightsRequest {
        weights: weights.into(),
    };
    let reply = client(server).delete(request).await?;
    Ok(reply.into_inner().freed_bytes)
}

/// The run of `spec()` that starts from these weights.
fn spec_from(weights: &str, sha256: &str) -> pb::RunSpec {
    let mut spec = spec();
    let model = spec.model.as_mut().unwrap();
    model.weights = Some(weights.into());
    model.weights_sha256 = Some(sha256.into());
    spec
}

/// The file in the store.
fn stored_file(data: &Path, sha256: &str) -> PathBuf {
    data.join("weights").join(sha256).join("file")
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// A coordinator with the dataset `tiny`.
async fn server(dir: &tempfile::TempDir) -> Server {
    let server = Server::start(&dir.path().join("data"), |_| {}).await;
    let tiny = dataset(dir.path(), "tiny", 1);
    server.upload(&tiny).await.unwrap();
    server
}

/// Waits until the run's reason contains `text`.
async fn waits_for(server: &Server, run: &str, text: &str) -> pb::Run {
    let mut watch = server.watch(run).await;
    loop {
        if let Some(pb::run_event::Event::Run(run)) = watch.next().await
            && run.reason.contains(text)
        {
            return run;
        }
    }
}
