//! Evaluating a model: what is scored on the cluster has the bits of the run's own scores, whoever scores and whatever
//! happens meanwhile, and every use is recorded.

use std::path::Path;
use std::time::{Duration, Instant};

use fovea_proto::pb;
use fovea_tests::{Cluster, synthetic_dataset};

mod refused;
mod rotations;
mod scored;
mod test_part;

const SIZE: u32 = 64;
const PATIENTS: u32 = 24;
/// The coordinator removes files a moment after it says that a run has ended.
const DEADLINE: Duration = Duration::from_secs(30);

fn spec(name: &str) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(5),
        train: Some(pb::TrainSpec {
            epochs: Some(2),
            virtual_ranks: Some(2),
            batch: Some(6),
            learning_rate: Some(0.0005),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(1),
            max: Some(2),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn evaluate(
    cluster: &Cluster,
    run: &pb::Run,
    step: u64,
    part: pb::Part,
) -> Result<pb::EvaluateResponse, tonic::Status> {
    let request = pb::EvaluateRequest {
        run_id: run.id.clone(),
        step,
        dataset: String::new(),
        part: part.into(),
        ..Default::default()
    };
    let reply = cluster.runs().await.evaluate(request).await;
    reply.map(tonic::Response::into_inner)
}

/// What was scored, and the probabilities' bits.
async fn scores(cluster: &Cluster, run: &str, step: u64) -> (pb::ScoresInfo, Vec<u32>) {
    let request = pb::ScoresRequest {
        run_id: run.to_owned(),
        step,
        maps: false,
    };
    let reply = cluster.runs().await.scores(request).await;
    let mut stream = reply.expect("there are scores").into_inner();
    let (mut info, mut bits) = (None, Vec::new());
    while let Some(part) = stream.message().await.expect("the stream goes on") {
        info = info.or(part.info);
        bits.extend(part.probabilities.iter().map(|p| p.to_bits()));
    }
    (info.expect("what they are comes first"), bits)
}

fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let name =
        |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    entries.map(name).collect()
}
