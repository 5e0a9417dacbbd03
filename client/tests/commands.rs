//! The built program: exit codes, text and JSON.

use crate::common;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{Fake, State, event, fovea, run, run_after, stderr, stdout};
use fovea_proto::pb::{self, Phase};

fn watched(last: pb::Run) -> Fake {
    Fake::new(State {
        run: Some(last.clone()),
        watches: [vec![
            event::run(run("dr-1", Phase::Running)),
            event::step(12),
            event::epoch(0),
            event::checkpoint(12),
            event::run(last),
        ]]
        .into(),
        ..State::default()
    })
}

fn ended(phase: Phase, reason: &str) -> pb::Run {
    pb::Run {
        reason: reason.into(),
        ..run_after("dr-1", phase, 3)
    }
}

#[tokio::test]
async fn the_end_of_a_run_is_the_exit_code() {
    let cases = [
        (
            Phase::Completed,
            "",
            0,
            "dr-1 completed: 36 steps in 3 epochs",
        ),
        (
            Phase::Failed,
            "the loss is not finite",
            5,
            "run dr-1 failed: the loss is not finite",
        ),
        (
            Phase::Cancelled,
            "",
            6,
            "run dr-1 was cancelled; `fovea resume dr-1`",
        ),
        (
            Phase::Paused,
            "",
            0,
            "dr-1 is paused at step 0/36; continue it with: fovea resume dr-1",
        ),
    ];
    for (phase, reason, code, words) in cases {
        let address = watched(ended(phase, reason)).serve().await;
        let output = fovea(&address, &["watch", "dr-1"]).await;
        let printed = stdout(&output) + &stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{printed}");
        assert!(printed.contains(words), "{printed}");
        // Every epoch is in the table, once.
        for epoch in ["    1/3 ", "    2/3 ", "    3/3 "] {
            assert_eq!(printed.matches(epoch).count(), 1, "{printed}");
        }
    }
}

#[tokio::test]
async fn every_line_of_json_says_what_it_is() {
    let address = watched(ended(Phase::Completed, "")).serve().await;
    let output = fovea(&address, &["--json", "watch", "dr-1"]).await;
    assert!(output.stderr.is_empty(), "{}", stderr(&output));
    let lines: Vec<serde_json::Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let types: Vec<&str> = lines.iter().map(|l| l["type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        [
            "run",
            "step",
            "epoch",
            "checkpoint",
            "epoch",
            "checkpoint",
            "epoch",
            "checkpoint",
            "run",
            "result"
        ]
    );
    assert_eq!(lines[0]["spec"]["train"]["epochs"], 3);
    assert_eq!(lines[0]["total_steps"], 36);
    assert_eq!(lines[1]["images_per_s"], 40.0);
    assert_eq!(lines[2]["validation"]["confusion"][1][1], 40);
    assert_eq!(lines[3]["sha256"].as_str().unwrap().len(), 64);
    let result = &lines[9];
    assert_eq!(result["phase"], "completed");
    assert_eq!(result["step"], 36);
    assert_eq!(result["validation"]["auc"], 0.92);
    assert_eq!(result["checkpoint"]["step"], 36);

    let refused = fovea(&address, &["--json", "run", "dr-9"]).await;
    let error: serde_json::Value = serde_json::from_str(&stdout(&refused)).unwrap();
    assert_eq!(error["type"], "error");
    assert_eq!(error["exit_code"], 4);
}

#[tokio::test]
async fn refusals_are_one_clear_sentence() {
    let address = watched(run("dr-1", Phase::Running)).serve().await;
    for args in [
        &["run", "x"][..],
        &["watch", "x"],
        &["cancel", "x"],
        &["pause", "x"],
        &["runs", "audit", "x"],
        &["checkpoint", "verify", "x"],
        &["resume", "dr-1"],
    ] {
        let output = fovea(&address, args).await;
        let printed = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{args:?}: {printed}");
        assert!(
            printed.starts_with("fovea: the coordinator refused: "),
            "{printed}"
        );
        assert_eq!(printed.lines().count(), 1, "{printed}");
        assert!(
            !printed.contains("Status") && !printed.contains("metadata"),
            "a debug dump: {printed}"
        );
    }
}

#[tokio::test]
async fn an_unreachable_coordinator_is_exit_3_and_a_wrong_address_is_2() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let output = fovea(&address, &["runs"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("is fovea-coordinator running there?"),
        "{}",
        stderr(&output)
    );

    let output = fovea("not an address", &["runs"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[tokio::test]
async fn a_bad_run_file_is_exit_2_without_a_coordinator() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("run.toml");
    std::fs::write(
        &file,
        "name = \"dr\"\ndataset = \"d\"\n[train]\nepoch = 3\nbatch = 0\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    // Nobody listens at this address.
    let output = fovea("http://127.0.0.1:9", &["submit", file]).await;
    let printed = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert_eq!(
        printed.trim_end(),
        format!("{file}:4: train.epoch: there is no such key; did you mean train.epochs?")
    );
    let output = fovea("http://127.0.0.1:9", &["submit", "nowhere.toml"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("nowhere.toml: there is no such file"));
}

#[tokio::test]
async fn runs_and_details_read_well() {
    let mut one = run_after("dr-1", Phase::Failed, 2);
    one.reason = "worker a ran out of memory".into();
    let address = Fake::new(State {
        run: Some(one),
        ..State::default()
    })
    .serve()
    .await;
    let listed = stdout(&fovea(&address, &["runs"]).await);
    let lines: Vec<&str> = listed.lines().collect();
    assert!(
        lines[0].starts_with("run   phase   step  epoch    AUC  dataset  workers  submitted"),
        "{listed}"
    );
    assert!(
        lines[1].starts_with("dr-1  failed  0/36    2/3  0.910  d  "),
        "{listed}"
    );
    let shown = stdout(&fovea(&address, &["run", "dr-1"]).await);
    for words in [
        "phase       failed: worker a ran out of memory",
        "model       GoogLeNet, 2 classes, positive from grade 2, from scratch",
        "2 virtual ranks x batch 16",
        "checkpoints the newest 3 and the one of the best AUC are kept",
        "    2/3      0.5000    0.4000  0.910",
        "2 checkpoints, the newest of step 24",
    ] {
        assert!(shown.contains(words), "{words:?} is not in\n{shown}");
    }
    let none = stdout(&fovea(&Fake::default().serve().await, &["runs"]).await);
    assert!(none.starts_with("no runs yet"), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_a_watch_with_130_and_the_run_alone() {
    let fake = Fake::new(State {
        run: Some(run("dr-1", Phase::Running)),
        watches: [vec![event::run(run("dr-1", Phase::Running))]].into(),
        hang: true,
        ..State::default()
    });
    let address = fake.serve().await;
    let output = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fovea"))
            .args(["--coordinator", &address, "watch", "dr-1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It watches once it has printed the first line.
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains("training on 357 images"), "{line}");
        // SAFETY: a signal to our own child.
        unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(
        stderr(&output).contains("run dr-1 continues"),
        "{}",
        stderr(&output)
    );
    assert!(fake.0.lock().unwrap().cancelled.is_empty());
}

#[test]
fn version_and_help() {
    let say = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_fovea"))
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        stdout(&output)
    };
    let version = say(&["--version"]);
    assert!(
        version.starts_with("fovea 0.") && version.contains('('),
        "{version}"
    );
    let help = say(&["--help"]);
    for words in [
        "Exit codes:",
        "130  stopped by a signal",
        "reconnecting run, cause (away, limit), reason",
        "  7    stored data are wrong",
        "  8    stored data cannot be read now",
        "  audit        run, clean,",
        "  verified     run, ok, state",
        "  not_removed  kind, name, exit_code, message",
        "Examples:",
    ] {
        assert!(help.contains(words), "{words:?} is not in the help");
    }
    let wrong = Command::new(env!("CARGO_BIN_EXE_fovea"))
        .arg("trian")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test]
async fn at_the_limit_of_connections_the_coordinators_sentence_is_shown() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let text = b"connection refused: the limit of 512 connections is reached (max_connections)";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    // Empty SETTINGS, then GOAWAY: no stream was worked on, ENHANCE_YOUR_CALM, the reason.
    let mut farewell = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    farewell.extend([0, 0, 8 + text.len() as u8, 7, 0, 0, 0, 0, 0]);
    farewell.extend([0, 0, 0, 0, 0, 0, 0, 0xb]);
    farewell.extend(text);
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&farewell).await.unwrap();
            // Until the client closes; a reset would take the reason with it.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    });
    // Each time, however early the connection ends.
    for _ in 0..10 {
        let output = fovea(&address, &["runs"]).await;
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert_eq!(
            text,
            "fovea: the coordinator is at a limit: the limit of 512 connections is reached \
             (max_connections). Try again later, or have the limit raised in the coordinator's \
             configuration\n"
        );
    }
    server.abort();
}

#[tokio::test]
async fn event_files_are_written_for_all_runs_or_none_and_once_each() {
    let fake = Fake::new(State {
        run: Some(run_after("dr-1", Phase::Completed, 3)),
        ..State::default()
    });
    let address = fake.serve().await;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("events");
    let out = out.to_str().unwrap();
    let output = fovea(&address, &["tensorboard", "dr-1", "nope", "--out", out]).await;
    assert!(!output.status.success());
    assert!(stderr(&output).contains("nope"), "{}", stderr(&output));
    assert_eq!(
        (stdout(&output), folder.path().join("events").exists()),
        (String::new(), false)
    );
    let output = fovea(&address, &["tensorboard", "dr-1", "dr-1", "--out", out]).await;
    let printed = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(printed.matches("epochs of dr-1").count(), 1, "{printed}");
}
