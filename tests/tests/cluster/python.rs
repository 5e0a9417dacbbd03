//! The Python package: every function and the notebook against a real cluster, a coordinator that is killed, TLS; its types, and
//! whether the code that is generated from the protocol is current.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fovea_proto::{PROTOCOL, pb};
use fovea_security::Role;
use fovea_tests::{Cluster, Process, synthetic_dataset};

const DEADLINE: Duration = Duration::from_secs(60);

/// A file of the package.
fn package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../python")
        .join(path)
}

/// Python with the package, without what the environment says of a coordinator.
fn python() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(root.join(".model-tools/bin/python"));
    command
        .env("PYTHONPATH", package("src"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    for name in [
        "COORDINATOR",
        "TLS_CERTIFICATE",
        "TLS_KEY",
        "TLS_CA",
        "TOKEN_FILE",
    ] {
        command.env_remove(format!("FOVEA_{name}"));
    }
    command
}

/// Runs it to its end, and returns its standard output.
fn run(command: &mut Command) -> String {
    let output = command.output().expect("Python starts");
    let (text, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command:?}: {text}\n{error}");
    text.into_owned()
}

/// A cluster of one worker with a dataset.
fn cluster(dir: &Path) -> Cluster {
    let prepared = synthetic_dataset(dir, 24, 64);
    let cluster = Cluster::start(dir, 1);
    cluster.fovea(&["dataset", "add", prepared.to_str().expect("UTF-8")]);
    cluster
}

#[cfg_attr(not(has_models), ignore = "needs .model-tools: run `make model-tools`")]
#[test]
fn the_package_and_its_notebook_drive_a_cluster() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    let cluster = cluster(dir);
    let out = dir.join("out");
    std::fs::create_dir(&out).expect("a folder can be made");
    run(python()
        .arg(package("tests/drive.py"))
        .args(["steer", &cluster.url()])
        .arg(&out)
        .args([env!("CARGO_PKG_VERSION"), &PROTOCOL.to_string()]));
    same_ranking(
        &cluster,
        &run(python().arg(package("tests/groups.py")).arg(cluster.url())),
    );
    let text = run(python()
        .arg(package("tests/run_notebook.py"))
        .arg(package("examples/quickstart.ipynb"))
        .env("FOVEA_COORDINATOR", cluster.url())
        .current_dir(&out));
    for said in [
        "epoch 2: validation loss",
        "\ncompleted\n",
        "(64, 192, 1, 1)",
    ] {
        assert!(text.contains(said), "{said:?} is not in: {text}");
    }
}

/// `told` is a group, and what the package says of its variants, the best first; the command says the same.
fn same_ranking(cluster: &Cluster, told: &str) {
    let mut told = told.lines();
    let group = told.next().expect("a group");
    let shown = cluster.fovea(&["group", "show", group]);
    let rows = shown.lines().filter(|line| line.contains("train.batch="));
    let ranked: Vec<String> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split_whitespace().collect();
            // After the variant come its two settings.
            [cells[0], cells[3], cells[4]].join(" ")
        })
        .collect();
    assert_eq!(told.collect::<Vec<_>>(), ranked, "{shown}");
    assert_eq!(ranked.len(), 2, "{shown}");
}

#[cfg_attr(not(has_models), ignore = "needs .model-tools: run `make model-tools`")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_outlives_a_coordinator_and_reports_every_epoch_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    let mut cluster = cluster(dir);
    let submitted = cluster.submit(spec()).await;
    let mut follow = python();
    follow
        .arg(package("tests/drive.py"))
        .args(["follow", &cluster.url(), &submitted.id]);
    let mut follow = Process::start(follow, dir.join("follow.log"));
    let end = Instant::now() + DEADLINE;
    while !follow.log().contains("StepCommitted") {
        assert!(Instant::now() < end, "{}", follow.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.coordinator.kill();
    cluster.restart_coordinator();
    let done = cluster.wait_completed(&submitted.id).await;
    while follow.is_running() {
        assert!(Instant::now() < end + DEADLINE, "{}", follow.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = follow.log();
    let mut events: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
    for line in log.lines() {
        let (kind, number): (String, serde_json::Value) =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}\n{log}"));
        events.entry(kind).or_default().push(number);
    }
    let epochs: Vec<u32> = done.epochs.iter().map(|epoch| epoch.epoch).collect();
    assert_eq!(events["EpochEvaluated"], epochs, "{log}");
    let mut steps: Vec<u64> = done.checkpoints.iter().map(|c| c.step).collect();
    let mut stored: Vec<u64> = events["CheckpointStored"]
        .iter()
        .map(|step| step.as_u64().expect("a step"))
        .collect();
    steps.sort_unstable();
    stored.sort_unstable();
    assert_eq!(stored, steps, "{log}");
    assert!(events.contains_key("Reconnecting"), "{log}");
    assert_eq!(events["RunUpdated"].last().expect("the run"), "completed");
}

fn spec() -> pb::RunSpec {
    pb::RunSpec {
        name: "followed".into(),
        dataset: "synthetic".into(),
        train: Some(pb::TrainSpec {
            epochs: Some(16),
            batch: Some(6),
            ..Default::default()
        }),
        workers: Some(pb::WorkersSpec {
            max: Some(1),
            ..Default::default()
        }),
        checkpoint: Some(pb::CheckpointSpec {
            every_epochs: Some(2),
            keep_last: Some(0),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg_attr(
    not(has_torch),
    ignore = "needs PyTorch beside .model-tools: `.model-tools/bin/pip install torch`"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pytorch_takes_a_checkpoint_as_a_state_dict() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    let cluster = cluster(dir);
    let short = pb::RunSpec {
        train: Some(pb::TrainSpec {
            epochs: Some(1),
            ..Default::default()
        }),
        ..spec()
    };
    let submitted = cluster.submit(short).await;
    let done = cluster.wait_completed(&submitted.id).await;
    let file = dir.join("short.safetensors");
    let bytes = cluster.checkpoint(&submitted.id, done.total_steps).await;
    std::fs::write(&file, bytes).expect("a file can be written");
    let mut paths = vec![package("src")];
    // PyTorch may be in a folder of its own.
    let given = std::env::var_os("PYTHONPATH").unwrap_or_default();
    paths.extend(std::env::split_paths(&given));
    let paths = std::env::join_paths(paths).expect("paths without a colon");
    let text = run(python()
        .arg(package("tests/torch_state.py"))
        .arg(&file)
        .env("PYTHONPATH", paths)
        // The build's libtorch is another one.
        .env_remove("LD_LIBRARY_PATH"));
    assert!(text.contains("116 tensors in PyTorch"), "{text}");
}

#[cfg_attr(not(has_models), ignore = "needs .model-tools: run `make model-tools`")]
#[test]
fn certificates_and_tokens_speak_for_a_caller_and_the_coordinator_is_verified() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    let cluster = Cluster::start_secure(dir, 0);
    let worker = cluster.certificates().member(Role::Worker, "node");
    let token = cluster.fovea(&["token", "create", "--role", "viewer", "--name", "eve"]);
    let viewer = dir.join("viewer.token");
    fovea_security::write_private(&viewer, token.trim()).expect("a file can be written");
    run(python()
        .arg(package("tests/drive.py"))
        .args(["secure", &cluster.url()])
        .arg(worker.ca.parent().expect("a folder"))
        .arg(&viewer));
}

#[cfg_attr(not(has_models), ignore = "needs .model-tools: run `make model-tools`")]
#[test]
fn the_package_has_strict_types_and_current_generated_code_and_bears_what_breaks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    run(python().arg(package("tests/offline.py")).arg(folder.path()));
    run(python().arg(package("generate.py")).arg("--check"));
    run(python()
        .args(["-m", "mypy", "--cache-dir"])
        .arg(env!("CARGO_TARGET_TMPDIR"))
        .current_dir(package("")));
}
