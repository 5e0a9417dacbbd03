//! Event files, read back by TensorBoard's own reader: those of the live writer and those that `fovea tensorboard` writes, after
//! a coordinator was killed and the run resumed from an older checkpoint.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fovea_proto::pb;
use fovea_tests::launch::CoordinatorOptions;
use fovea_tests::{Cluster, synthetic_dataset};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);

/// Steps and values by tag, and hyperparameters by name.
type Read = (BTreeMap<String, Vec<(u64, f64)>>, Value);

/// What TensorBoard reads in a run's folder.
fn read(folder: &Path) -> Read {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(root.join(".model-tools/bin/python"))
        .arg(root.join("scripts/read_tensorboard.py"))
        .arg(folder)
        .output()
        .expect("Python starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let read: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let scalars = serde_json::from_value(read["scalars"].clone()).expect("scalars");
    (scalars, read["hparams"].clone())
}

fn spec() -> pb::RunSpec {
    pb::RunSpec {
        name: "drawn".into(),
        dataset: "synthetic".into(),
        seed: Some(11),
        train: Some(pb::TrainSpec {
            epochs: Some(12),
            virtual_ranks: Some(2),
            batch: Some(6),
            learning_rate: Some(0.0005),
            ..Default::default()
        }),
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(0),
            every_steps: Some(2),
            keep_last: Some(0),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg_attr(not(has_models), ignore = "needs .model-tools: run `make model-tools`")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tensorboard_reads_one_value_for_each_step() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    let prepared = synthetic_dataset(dir, 24, 64);
    let events = dir.join("events");
    let mut options = CoordinatorOptions::new(dir);
    let setting = (
        "FOVEA_TENSORBOARD_DIR".to_owned(),
        events.display().to_string(),
    );
    options.environment.push(setting);
    let mut cluster = Cluster::start_with(dir, 1, options);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    let run = cluster.submit(spec()).await;
    let live = events.join(&run.id);
    cluster.wait_step(&run.id, 5).await;
    let request = pb::PauseRequest {
        run_id: run.id.clone(),
    };
    cluster
        .runs()
        .await
        .pause(request)
        .await
        .expect("it can be paused");
    let paused = cluster
        .run_until(&run.id, |run| run.phase() == pb::Phase::Paused)
        .await;
    let last = paused.progress.expect("steps").step;
    assert!(last < paused.total_steps, "it was too late to pause");
    until_written(&live, "train/loss", last);
    cluster.coordinator.kill();
    cluster.restart_coordinator();
    let request = pb::ResumeRequest {
        run_id: run.id.clone(),
        checkpoint_step: Some(2),
    };
    cluster
        .runs()
        .await
        .resume(request)
        .await
        .expect("it can be resumed");
    let done = cluster.wait_completed(&run.id).await;
    let (drawn, hparams) = until_written(&live, "validation/loss", done.total_steps);
    assert_eq!(hparams["train.learning_rate"], 0.0005);
    assert_eq!(hparams["seed"], 11.0);

    let out = dir.join("exported");
    let out = out.to_str().expect("UTF-8");
    let text = cluster.fovea(&["tensorboard", &run.id, "--out", out]);
    let expected = format!("{} steps and 12 epochs of {}", done.total_steps, run.id);
    assert!(text.contains(&expected), "{text}");
    // A second time it is replaced.
    cluster.fovea(&["tensorboard", &run.id, "--out", out]);
    let (exported, same) = read(&Path::new(out).join(&run.id));
    assert_eq!(same, hparams);

    let steps = |scalars: &[(u64, f64)]| scalars.iter().map(|(step, _)| *step).collect::<Vec<_>>();
    for scalars in [&drawn, &exported] {
        let all: Vec<u64> = (1..=done.total_steps).collect();
        assert_eq!(steps(&scalars["train/loss"]), all);
        assert_eq!(steps(&scalars["train/learning_rate"]), all);
        for (tag, value) in [
            (
                "validation/loss",
                (|e| Some(e.loss)) as fn(&pb::Evaluation) -> Option<f64>,
            ),
            ("validation/auc", |e| e.auc),
            ("validation/kappa", |e| e.quadratic_kappa),
            ("validation/sensitivity", |e| e.sensitivity),
            ("validation/specificity", |e| e.specificity),
        ] {
            let of = |epoch: &pb::EpochResult| {
                let value = value(epoch.validation.as_ref().expect("metrics"))?;
                Some((epoch.step, f64::from(value as f32)))
            };
            let expected: Vec<(u64, f64)> = done.epochs.iter().filter_map(of).collect();
            assert_eq!(
                scalars.get(tag).cloned().unwrap_or_default(),
                expected,
                "{tag}"
            );
        }
    }
    for tag in ["train/loss", "train/learning_rate"] {
        assert_eq!(drawn[tag], exported[tag], "{tag}");
    }
    let newest = done.progress.expect("steps");
    let (_, loss) = exported["train/loss"].last().expect("losses");
    assert_eq!(*loss, f64::from(newest.loss as f32));
    let (_, rate) = exported["train/learning_rate"].last().expect("rates");
    assert_eq!(*rate, f64::from(newest.learning_rate as f32));
    // Speeds are those of some steps.
    assert!(
        drawn["system/images_per_s"]
            .iter()
            .all(|(_, speed)| *speed > 0.0)
    );
    assert!(
        drawn["system/workers"]
            .iter()
            .all(|(_, workers)| *workers == 1.0)
    );
    // Nothing is added to a folder of others.
    let other = Path::new(out)
        .join(&run.id)
        .join("events.out.tfevents.1.other");
    std::fs::write(other, "").expect("a file can be written");
    let refused = cluster.try_fovea(&["tensorboard", &run.id, "--out", out]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

/// What TensorBoard reads as soon as `tag` has a value of `step`.
fn until_written(folder: &Path, tag: &str, step: u64) -> Read {
    let end = Instant::now() + DEADLINE;
    loop {
        if folder.is_dir() {
            let read = read(folder);
            let newest = read.0.get(tag).and_then(|values| values.last().copied());
            if newest.is_some_and(|(newest, _)| newest == step) {
                return read;
            }
        }
        assert!(Instant::now() < end, "{tag} of step {step} was not written");
        std::thread::sleep(Duration::from_millis(200));
    }
}
