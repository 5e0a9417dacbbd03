//! Starts that are refused or fail, and what a cluster sees of its environment.

use super::*;

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
            &["--set", "model.weights=nowhere.caffemodel", file],
            2,
            "nowhere.caffemodel: No such file",
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
