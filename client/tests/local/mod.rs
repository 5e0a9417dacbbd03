//! The embedded cluster with stand-in programs: signals, and processes that fail.
//!
//! The real programs are started by the workspace's end-to-end tests.

mod signals;
mod starting;

use crate::common;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{
    Fake, State, event, fovea_under, mode, prepared, run, run_after, sha256, stderr, stdout,
};
use fovea_proto::pb::{self, Phase};

/// A coordinator that writes the address of the test's own server and waits for the signal.
fn pretends_to_serve(address: &str) -> String {
    format!(
        "while [ $# -gt 0 ]; do case $1 in --address-file) file=$2;; esac; shift; done\n\
         printf '%s\\n' '{address}' > \"$file.part\" && mv \"$file.part\" \"$file\"\n\
         exec sleep 600\n"
    )
}

const WAITS: &str = "exec sleep 600\n";

/// A folder with the two programs as shell scripts.
fn programs(dir: &Path, coordinator: &str, worker: &str) -> PathBuf {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).unwrap();
    for (name, script) in [("fovea-coordinator", coordinator), ("fovea-worker", worker)] {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    bin
}

fn run_file(dir: &Path) -> PathBuf {
    let file = dir.join("run.toml");
    fs::write(
        &file,
        "name = \"dr\"\ndataset = \"set\"\n[train]\nepochs = 3\n",
    )
    .unwrap();
    file
}

async fn local(dir: &Path, bin: &Path, more: &[&str]) -> std::process::Output {
    let data = dir.join("data");
    let mut args = vec![
        "local",
        "--bin-dir",
        bin.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
    ];
    args.extend(more);
    fovea_under("022", "http://127.0.0.1:9", &args).await
}

#[tokio::test]
async fn from_a_run_file_to_model_and_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let set = prepared(dir);
    let model = b"a model's bytes".to_vec();
    let digest = sha256(&model);
    let mut done = run_after("dr-1", Phase::Completed, 3);
    if let Some(last) = done.checkpoints.last_mut() {
        last.sha256 = digest.clone();
    }
    let fake = Fake::new(State {
        watches: [vec![
            event::run(run("dr-1", Phase::Running)),
            event::run(done),
        ]]
        .into(),
        checkpoint: Some((model.clone(), digest)),
        ..State::default()
    });
    let bin = programs(dir, &pretends_to_serve(&fake.serve().await), WAITS);
    let file = run_file(dir);
    let args = [
        "-n",
        "2",
        "--dataset",
        set.to_str().unwrap(),
        file.to_str().unwrap(),
    ];
    let output = local(dir, &bin, &args).await;
    let printed = stdout(&output);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{printed}{}",
        stderr(&output)
    );
    let home = dir.join("data/dr-1");
    assert_eq!(fs::read(home.join("model.safetensors")).unwrap(), model);
    let metrics: serde_json::Value =
        serde_json::from_slice(&fs::read(home.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(metrics["run"], "dr-1");
    assert_eq!(metrics["epochs"].as_array().unwrap().len(), 3);
    assert_eq!(metrics["validation"]["auc"], 0.92);
    assert_eq!(
        metrics["model"],
        home.join("model.safetensors").to_str().unwrap()
    );
    assert_eq!(metrics["spec"]["train"]["epochs"], 3);
    for words in ["validation AUC 0.920", "model.safetensors", "metrics.json"] {
        assert!(printed.contains(words), "{words:?} is not in\n{printed}");
    }
    // For its owner alone, whatever the umask allows.
    for folder in ["", "coordinator", "logs", "workers/1", "dr-1"] {
        let path = dir.join("data").join(folder);
        assert_eq!(mode(&path), 0o700, "{folder:?}");
    }
    let state = fake.0.lock().unwrap();
    assert_eq!(state.created.len(), 1, "the dataset was not added");
    let workers = state.submitted[0].workers.clone().unwrap();
    assert_eq!((workers.min, workers.max), (Some(2), Some(2)));
    assert_eq!(state.submitted[0].dataset, "set");
}

/// Another client pauses the run: that is no error, and there are no results.
#[tokio::test]
async fn a_paused_run_leaves_no_model_and_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fake = Fake::new(State {
        watches: [vec![
            event::run(run("dr-1", Phase::Running)),
            event::run(run_after("dr-1", Phase::Paused, 1)),
        ]]
        .into(),
        ..State::default()
    });
    let bin = programs(dir, &pretends_to_serve(&fake.serve().await), WAITS);
    let output = local(dir, &bin, &[run_file(dir).to_str().unwrap()]).await;
    let printed = stdout(&output);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{printed}{}",
        stderr(&output)
    );
    let hint = format!(
        "continue it with: fovea local --data-dir {} --resume dr-1",
        dir.join("data").display()
    );
    assert!(printed.contains(&hint), "{hint:?} is not in\n{printed}");
    assert!(!dir.join("data/dr-1").exists(), "it left results");
}

fn never_ending() -> Fake {
    Fake::new(State {
        watches: [vec![event::run(run("dr-1", Phase::Queued))]].into(),
        hang: true,
        ..State::default()
    })
}

#[tokio::test]
async fn a_worker_that_dies_ends_the_command_with_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let fake = never_ending();
    let coordinator = pretends_to_serve(&fake.serve().await);
    let worker = "echo 'libtorch_cpu.so: cannot open' >&2\nexit 127\n";
    let bin = programs(dir.path(), &coordinator, worker);
    let file = run_file(dir.path());
    let output = local(dir.path(), &bin, &[file.to_str().unwrap()]).await;
    let printed = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("ended early (exit status: 127)"),
        "{printed}"
    );
    assert!(
        printed.contains("  libtorch_cpu.so: cannot open"),
        "{printed}"
    );
}

#[tokio::test]
async fn without_a_run_file_old_runs_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::new(State {
        run: Some(pb::Run {
            reason: "x".into(),
            ..run_after("dr-1", Phase::Cancelled, 1)
        }),
        ..State::default()
    });
    let bin = programs(dir.path(), &pretends_to_serve(&fake.serve().await), WAITS);
    fs::create_dir_all(dir.path().join("data/coordinator")).unwrap();
    let output = local(dir.path(), &bin, &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed = stdout(&output);
    assert!(printed.contains("dr-1  cancelled"), "{printed}");
    assert!(printed.contains("--resume RUN"), "{printed}");
}
