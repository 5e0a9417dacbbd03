//! Class weights and oversampling: the same bits on any number of workers, and an audit of what was planned.

use std::path::Path;

use fovea_proto::pb;
use fovea_tests::{Cluster, synthetic_dataset, tensors};

const SIZE: u32 = 64;
const PATIENTS: u32 = 24;

fn spec(name: &str, imbalance: pb::Imbalance, workers: u32) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(3),
        // Only grade 4: much fewer than the others.
        model: Some(pb::ModelSpec {
            positive_from: Some(3),
            ..Default::default()
        }),
        train: Some(pb::TrainSpec {
            epochs: Some(2),
            virtual_ranks: Some(2),
            batch: Some(4),
            learning_rate: Some(0.0005),
            imbalance: Some(imbalance.into()),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(workers),
            max: Some(workers),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smaller_classes_count_more_with_the_same_bits_on_any_number_of_workers() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let prepared = synthetic_dataset(keep.path(), PATIENTS, SIZE);
    let cluster = Cluster::start(keep.path(), 2);
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    cluster.fovea(&["dataset", "add", &path(&prepared)]);
    let mut results = Vec::new();
    for (name, imbalance) in [
        ("none", pb::Imbalance::None),
        ("weights", pb::Imbalance::ClassWeights),
        ("over", pb::Imbalance::Oversample),
    ] {
        let mut bits = Vec::new();
        for workers in [1, 2] {
            let run = cluster.submit(spec(name, imbalance, workers)).await;
            let done = cluster.wait_completed(&run.id).await;
            let audit = cluster.fovea(&["runs", "audit", &run.id]);
            assert!(audit.contains("2 clean of 2 begun"), "{name}: {audit}");
            let file = cluster.checkpoint(&run.id, done.total_steps).await;
            bits.push(tensors(&file));
            results.push((name, done.total_steps));
        }
        assert!(
            bits[0] == bits[1],
            "{name}: two workers have other bits than one"
        );
    }
    let steps = |wanted: &str| {
        results
            .iter()
            .find(|(name, _)| *name == wanted)
            .expect("ran")
            .1
    };
    assert_eq!(steps("weights"), steps("none"));
    assert!(steps("over") > steps("none"), "{results:?}");
}
