//! Real photographs and real ImageNet weights.

use fovea_proto::pb;
use fovea_tests::{Cluster, binary, shared};

/// Three epochs of the recipe on real photographs must already tell referable retinopathy from the rest far
/// better than chance: preprocessing, channel order, weights, split and metrics all have to be right for
/// that. (With the channels swapped or the means left out it stays well below.)
#[cfg_attr(
    not(has_shared),
    ignore = "needs ../shared: real photographs and weights"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_photographs_are_learnt_from() {
    let shared = shared();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let prepared = dir.path().join("fundus");
    let output = std::process::Command::new(binary("fovea"))
        .arg("prepare")
        .arg(shared.join("data/fundus512"))
        .arg("--out")
        .arg(&prepared)
        .args(["--name", "fundus", "--size", "160"])
        .output()
        .expect("fovea starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let cluster = Cluster::start(dir.path(), 2);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    let weights = shared
        .join("weights/bvlc_googlenet_trunk_v1.caffemodel")
        .canonicalize()
        .expect("the weights are beside the photographs");
    let weights = weights.to_str().expect("UTF-8");
    cluster.fovea(&["weights", "add", weights, "--name", "bvlc"]);
    let spec = pb::RunSpec {
        name: "real".into(),
        dataset: "fundus".into(),
        model: Some(pb::ModelSpec {
            weights: Some("bvlc".into()),
            frozen: Some(pb::LayerList {
                names: ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"]
                    .map(String::from)
                    .to_vec(),
            }),
            ..Default::default()
        }),
        train: Some(pb::TrainSpec {
            epochs: Some(3),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(2),
            max: Some(2),
            ..Default::default()
        }),
        ..Default::default()
    };
    let run = cluster.submit(spec).await;
    let done = cluster.wait_completed(&run.id).await;
    let last = done.epochs.last().expect("three epochs were evaluated");
    let validation = last.validation.as_ref().expect("with metrics");
    assert_eq!(validation.samples, done.validation_samples);
    let auc = validation.auc.expect("both kinds of label are there");
    println!("validation AUC after 3 epochs at 160 px: {auc:.3}");
    assert!(auc > 0.70, "AUC {auc}");
}
