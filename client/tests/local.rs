//! The embedded cluster with stand-in programs: signals, and processes that fail.
//!
//! The real programs are started by the workspace's end-to-end tests.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Fake, State, event, fovea, prepared, run, run_after, sha256, stderr, stdout};
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
    fovea("http://127.0.0.1:9", &args).await
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
    let state = fake.0.lock().unwrap();
    assert_eq!(state.created.len(), 1, "the dataset was not added");
    let workers = state.submitted[0].workers.unwrap();
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

/// What `fovea local` says when its coordinator is this script, which fails.
async fn without_coordinator(dir: &Path, script: &str) -> String {
    let bin = programs(dir, script, WAITS);
    let file = run_file(dir);
    let output = local(dir, &bin, &[file.to_str().unwrap()]).await;
    let printed = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    printed
}

#[tokio::test]
async fn a_coordinator_that_does_not_start_shows_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo 'the folder is locked by another' >&2\nexit 4\n";
    let printed = without_coordinator(dir.path(), script).await;
    for part in [
        "coordinator ended early (exit status: 4)",
        "  the folder is locked by another",
        "coordinator.log",
    ] {
        assert!(printed.contains(part), "{part:?} is not in\n{printed}");
    }
}

#[tokio::test]
async fn a_folder_that_is_still_in_use_says_to_wait() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo 'fovea-coordinator: data_dir d is used by another coordinator; stop it' >&2\nexit 4\n";
    let printed = without_coordinator(dir.path(), script).await;
    let folder = dir.path().join("data").display().to_string();
    for part in [
        &*format!("{folder} is used by another coordinator."),
        "that is stopping, wait a moment and try again",
    ] {
        assert!(printed.contains(part), "{part:?} is not in\n{printed}");
    }
}

#[tokio::test]
async fn settings_of_another_cluster_do_not_reach_the_local_one() {
    let dir = tempfile::tempdir().unwrap();
    let bin = programs(dir.path(), "env | grep ^FOVEA_ | sort >&2\nexit 1\n", WAITS);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fovea"));
    command
        .args(["local", "--bin-dir", bin.to_str().unwrap(), "--data-dir"])
        .arg(dir.path().join("data"))
        .arg(run_file(dir.path()))
        .envs([
            ("FOVEA_ADVERTISE", "nowhere.invalid"),
            ("FOVEA_COORDINATOR", "http://127.0.0.1:9"),
            ("FOVEA_LISTEN", "0.0.0.0:7071"),
            ("FOVEA_LOG_LEVEL", "debug"),
        ]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let printed = stderr(&output.await.unwrap());
    assert!(printed.contains("FOVEA_LOG_LEVEL=debug"), "{printed}");
    for other in ["FOVEA_ADVERTISE", "FOVEA_COORDINATOR", "FOVEA_LISTEN"] {
        assert!(!printed.contains(other), "{other} is in\n{printed}");
    }
}

#[tokio::test]
async fn what_a_killed_start_left_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let bin = programs(dir.path(), "exit 1\n", WAITS);
    let file = run_file(dir.path());
    let data = dir.path().join("data");
    let left = data.join(".start-dead");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("address"), "127.0.0.1:1").unwrap();
    local(dir.path(), &bin, &[file.to_str().unwrap()]).await;
    let starts: Vec<_> = fs::read_dir(&data)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".start-"))
        .collect();
    assert!(starts.is_empty(), "{starts:?}");
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
async fn impossible_requests_are_refused_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let file = run_file(dir.path());
    let file = file.to_str().unwrap();
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let bin = programs(dir.path(), "exit 9\n", "exit 9\n");
    let cases: [(&Path, &[&str], i32, &str); 7] = [
        (&empty, &[file], 1, "fovea-coordinator is not in"),
        (
            &bin,
            &["-n", "4", file],
            2,
            "-n 4: workers.min: 4 is not in 1..=2 (train.virtual_ranks)",
        ),
        (
            &bin,
            &["-n", "1", "--set", "workers.min=2", file],
            2,
            "workers.max",
        ),
        (
            &bin,
            &[
                "-n",
                "1",
                "--set",
                "workers.min=2",
                "--set",
                "workers.max=2",
                file,
            ],
            2,
            "--set workers.min=2: the run waits for 2 workers, and only 1 is started; give -n 2",
        ),
        (
            &bin,
            &["--set", "model.weights=nowhere", file],
            2,
            "model.weights cannot be read",
        ),
        (&bin, &["--resume", "dr-1"], 2, "has no runs yet"),
        (
            &bin,
            &["--dataset", "nowhere", file],
            1,
            "nowhere is not a prepared dataset",
        ),
    ];
    for (bin, args, code, words) in cases {
        let output = local(dir.path(), bin, args).await;
        let printed = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {printed}");
        assert!(
            printed.contains(words),
            "{args:?}: {words:?} is not in {printed}"
        );
        assert_eq!(printed.trim_end().lines().count(), 1, "{printed}");
    }
}

/// Waits for something with a deadline.
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::yield_now();
    }
}

/// Starts `fovea local` on a run that never ends, by `launcher` if given; returns it once its workers
/// have written their ids.
fn started(
    dir: &Path,
    address: &str,
    launcher: Option<&str>,
    stdout: Stdio,
) -> (std::process::Child, Vec<i32>) {
    let worker = format!("echo $$ > {}/$$.pid\n{WAITS}", dir.display());
    let bin = programs(dir, &pretends_to_serve(address), &worker);
    let mut command = match launcher {
        None => Command::new(env!("CARGO_BIN_EXE_fovea")),
        Some(launcher) => {
            let mut command = Command::new(launcher);
            command.arg(env!("CARGO_BIN_EXE_fovea"));
            command
        }
    };
    // The tests themselves may run under nohup.
    // SAFETY: between fork and exec only async-signal-safe calls are allowed, and signal is one.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    let child = command
        .args(["local", "-n", "2", "--bin-dir"])
        .arg(&bin)
        .arg("--data-dir")
        .arg(dir.join("data"))
        .arg(run_file(dir))
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ids = Vec::new();
    eventually("two workers", || {
        ids = fs::read_dir(dir)
            .unwrap()
            .filter_map(|e| {
                let path = e.unwrap().path();
                path.extension().filter(|x| *x == "pid")?;
                fs::read_to_string(&path).ok()?.trim().parse().ok()
            })
            .collect();
        ids.len() == 2
    });
    (child, ids)
}

/// Whether a process is alive: it exists and is not a zombie.
fn lives(id: i32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_do_not_outlive_a_killed_client() {
    let address = never_ending().serve().await;
    tokio::task::spawn_blocking(move || {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, workers) = started(dir.path(), &address, None, Stdio::null());
        assert!(workers.iter().all(|id| lives(*id)));
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("the workers are gone", || {
            !workers.iter().any(|id| lives(*id))
        });
    })
    .await
    .unwrap();
}

fn send(child: &std::process::Child, signal: i32) {
    // SAFETY: a signal to our own child, which has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

/// The first signal cancels the run, which takes a checkpoint; the second stops the processes.
#[tokio::test(flavor = "multi_thread")]
async fn each_signal_that_asks_to_stop_cancels_the_run_and_stops_the_processes() {
    for signal in [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ] {
        let fake = never_ending();
        let address = fake.serve().await;
        tokio::task::spawn_blocking(move || {
            let dir = tempfile::tempdir().unwrap();
            let (child, workers) = started(dir.path(), &address, None, Stdio::null());
            send(&child, signal);
            if signal == libc::SIGHUP {
                // A closing terminal sends two. They are one request.
                std::thread::sleep(Duration::from_millis(100));
                send(&child, signal);
            }
            eventually("the run is cancelled", || {
                fake.0.lock().unwrap().cancelled == ["dr-1"]
            });
            assert!(
                workers.iter().all(|id| lives(*id)),
                "no time for a checkpoint"
            );
            // The stand-in never ends the run, so a second signal is needed.
            if signal == libc::SIGHUP {
                // Not of the same bunch any more.
                std::thread::sleep(Duration::from_millis(1100));
                assert!(workers.iter().all(|id| lives(*id)), "one request");
            }
            send(&child, signal);
            let output = child.wait_with_output().unwrap();
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(130), "signal {signal}: {text}");
            assert!(text.contains("run dr-1 was stopped at once"), "{text}");
            assert!(!workers.iter().any(|id| lives(*id)), "a worker is left");
        })
        .await
        .unwrap();
    }
}

/// The signals that a process ignores, as a bit mask.
fn ignored(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let mask = status
        .lines()
        .find_map(|l| l.strip_prefix("SigIgn:"))
        .unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    let hangup = 1 << (libc::SIGHUP - 1);
    for (launcher, ignores) in [(Some("nohup"), true), (None, false)] {
        let fake = never_ending();
        let address = fake.serve().await;
        tokio::task::spawn_blocking(move || {
            let dir = tempfile::tempdir().unwrap();
            let (mut child, workers) = started(dir.path(), &address, launcher, Stdio::null());
            assert_eq!(ignored(child.id()) & hangup != 0, ignores);
            // Its processes inherit that.
            assert_eq!(ignored(workers[0] as u32) & hangup != 0, ignores);
            child.kill().unwrap();
            child.wait().unwrap();
        })
        .await
        .unwrap();
    }
}

/// A closed terminal or pipe must not end the command by itself: that would kill the processes
/// without a checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_output_does_not_end_the_run() {
    let fake = never_ending();
    fake.0.lock().unwrap().watches = [vec![
        event::run(run("dr-1", Phase::Running)),
        event::step(1),
        event::epoch(0),
        event::epoch(1),
    ]]
    .into();
    let address = fake.serve().await;
    tokio::task::spawn_blocking(move || {
        let dir = tempfile::tempdir().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (child, workers) = started(dir.path(), &address, None, writer.into());
        eventually("the run is watched", || fake.0.lock().unwrap().watched == 1);
        assert!(workers.iter().all(|id| lives(*id)));
        send(&child, libc::SIGTERM);
        eventually("the run is cancelled", || {
            fake.0.lock().unwrap().cancelled == ["dr-1"]
        });
        send(&child, libc::SIGTERM);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    })
    .await
    .unwrap();
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
