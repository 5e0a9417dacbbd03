//! Transfer strategies: training from scratch with auxiliary heads, and a linear probe on what that learnt, with the same bits
//! whoever computes them.

use std::path::Path;

use fovea_proto::pb;
use fovea_tests::{Cluster, synthetic_dataset, tensors};

const SIZE: u32 = 64;
const PATIENTS: u32 = 32;

fn spec(name: &str, (min, max): (u32, u32), epochs: u32, model: pb::ModelSpec) -> pb::RunSpec {
    pb::RunSpec {
        name: name.into(),
        dataset: "synthetic".into(),
        seed: Some(7),
        model: Some(model),
        train: Some(pb::TrainSpec {
            epochs: Some(epochs),
            virtual_ranks: Some(4),
            batch: Some(4),
            learning_rate: Some(0.0001),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            min: Some(min),
            max: Some(max),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn scratch(name: &str, workers: (u32, u32)) -> pb::RunSpec {
    let model = pb::ModelSpec {
        strategy: Some(pb::Strategy::FromScratch.into()),
        frozen: Some(pb::LayerList::default()),
        auxiliary: Some(0.3),
        ..Default::default()
    };
    spec(name, workers, 2, model)
}

fn probe(name: &str, workers: (u32, u32)) -> pb::RunSpec {
    let model = pb::ModelSpec {
        strategy: Some(pb::Strategy::LinearProbe.into()),
        weights: Some("scratch".into()),
        frozen: Some(pb::LayerList::default()),
        tap: Some("inception_4d/output".into()),
        ..Default::default()
    };
    // Epochs after the first take next to no time.
    spec(name, workers, 60, model)
}

/// The state that a run ends with, and its audit is clean.
async fn ended(
    cluster: &Cluster,
    spec: pb::RunSpec,
    kill: Option<(u64, usize)>,
) -> (pb::Run, Vec<u8>) {
    let run = cluster.submit(spec).await;
    if let Some((step, worker)) = kill {
        cluster.wait_step(&run.id, step).await;
        cluster.workers[worker].signal(libc::SIGKILL);
    }
    let run = cluster.wait_completed(&run.id).await;
    assert_eq!(
        kill.is_some(),
        run.generation >= 2,
        "nobody noticed the kill"
    );
    let audit = cluster.fovea(&["runs", "audit", &run.id]);
    let epochs = run.epochs.len();
    assert!(
        audit.contains(&format!("{epochs} clean of {epochs} begun")),
        "{audit}"
    );
    let file = cluster.checkpoint(&run.id, run.total_steps).await;
    (run, file)
}

/// One test, so that the dataset is drawn and the cluster is started once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strategies_have_the_same_bits_on_any_workers() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let prepared = synthetic_dataset(keep.path(), PATIENTS, SIZE);
    let cluster = Cluster::start(keep.path(), 4);
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    cluster.fovea(&["dataset", "add", &path(&prepared)]);

    let (one, file) = ended(&cluster, scratch("one", (1, 1)), None).await;
    let expected = tensors(&file);
    for (name, floats) in [
        ("loss1/conv.weight", 128 * 512),
        ("loss2/conv.weight", 128 * 528),
        ("loss1/fc.weight", 1024 * 2048),
        ("loss2/classifier.weight", 2 * 1024),
    ] {
        assert_eq!(expected[name].len(), 4 * floats, "{name}");
        let velocity = &expected[&format!("optimizer/velocity/{name}")];
        assert!(
            velocity.iter().any(|byte| *byte != 0),
            "{name} is not trained"
        );
    }
    for (name, workers, kill) in [
        ("two", (2, 2), None),
        ("four", (4, 4), None),
        ("killed", (1, 4), Some((3, 3))),
    ] {
        let (_, file) = ended(&cluster, scratch(name, workers), kill).await;
        assert!(tensors(&file) == expected, "{name}: other bits");
    }

    // The export is the network without the heads.
    let exported = keep.path().join("one.safetensors");
    cluster.fovea(&[
        "export",
        &one.id,
        "-o",
        &path(&exported),
        "--checkpoint",
        "newest",
    ]);
    let bytes = std::fs::read(&exported).expect("the export");
    assert!(
        tensors(&bytes)
            .keys()
            .all(|name| !name.starts_with("loss1/"))
    );

    // What was learnt is what probes read.
    let trunk = keep.path().join("scratch.safetensors");
    cluster.fovea(&["checkpoint", "get", &one.id, "newest", "-o", &path(&trunk)]);
    let trunk = path(&trunk);
    cluster.fovea(&["weights", "add", &trunk, "--name", "scratch"]);
    let (run, file) = ended(&cluster, probe("probe", (1, 1)), None).await;
    let probed = tensors(&file);
    assert_eq!(probed["loss3/classifier.weight"].len(), 2 * 528 * 4);
    let behind = probed.keys().find(|name| name.starts_with("inception_4e"));
    assert_eq!(behind, None, "a layer that nobody reads");
    assert_eq!(
        probed["inception_4d/3x3.weight"],
        expected["inception_4d/3x3.weight"]
    );
    let velocities = probed.keys().filter(|name| name.starts_with("optimizer/"));
    assert_eq!(velocities.count(), 2);
    for (name, workers, kill) in [
        ("probe2", (2, 2), None),
        ("probe3", (3, 3), None),
        ("probe-killed", (1, 3), Some((20, 2))),
    ] {
        let (_, file) = ended(&cluster, probe(name, workers), kill).await;
        assert!(tensors(&file) == probed, "{name}: other bits");
    }

    // Its checkpoint is scored on other photographs, too.
    let newest = [
        "evaluate",
        &run.id,
        "--checkpoint",
        "newest",
        "--split",
        "train",
    ];
    let figures = cluster.fovea(&newest);
    assert!(figures.contains("AUC"), "{figures}");

    let shown = cluster.fovea(&["run", &run.id]);
    assert!(
        shown.contains("linear_probe on inception_4d/output"),
        "{shown}"
    );
    let shown = cluster.fovea(&["run", &one.id]);
    assert!(
        shown.contains("from_scratch, auxiliary heads count 0.3"),
        "{shown}"
    );
}
