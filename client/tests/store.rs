//! Removing things and verifying the whole store: text, JSON and exit codes.

use crate::common;
use common::{Fake, State, fovea, run, run_after, stderr, stdout};
use fovea_proto::pb::verify_store_event::Event;
use fovea_proto::pb::{self, Phase};
use tonic::Status;

fn json(output: &std::process::Output) -> Vec<serde_json::Value> {
    stdout(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn removals_name_what_was_freed() {
    let fake = Fake::new(State {
        run: Some(run_after("dr-1", Phase::Completed, 3)),
        ..State::default()
    });
    let address = fake.serve().await;
    let cases: [(&[&str], &str); 4] = [
        (
            &["runs", "rm", "dr-1", "--with-checkpoints", "--yes"],
            "run dr-1 removed with 3 checkpoints, 141.00 MB freed\n",
        ),
        (
            &["runs", "rm", "dr-2", "-y"],
            "run dr-2 removed, 0 B freed\n",
        ),
        (
            &["checkpoint", "rm", "dr-1", "12", "24", "--yes"],
            "checkpoint 12 of run dr-1 removed, 47.00 MB freed\n\
             checkpoint 24 of run dr-1 removed, 47.00 MB freed\n",
        ),
        (
            &["dataset", "rm", "eyes", "--yes"],
            "dataset eyes removed, 1.50 GB freed\n",
        ),
    ];
    for (args, text) in cases {
        let output = fovea(&address, args).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stdout(&output), text);
        assert_eq!(stderr(&output), "");
    }
    assert_eq!(
        fake.0.lock().unwrap().deleted,
        [
            "dr-1 with checkpoints",
            "dr-2",
            "dr-1/12",
            "dr-1/24",
            "eyes"
        ]
    );
}

#[tokio::test]
async fn the_newest_checkpoint_is_removed_by_that_name() {
    let fake = Fake::new(State {
        run: Some(run_after("dr-1", Phase::Completed, 3)),
        ..State::default()
    });
    let address = fake.serve().await;
    let output = fovea(&address, &["checkpoint", "rm", "dr-1", "newest"]).await;
    assert!(
        stderr(&output).contains("Remove 1 checkpoint of run dr-1 (step 36)?"),
        "the question names the step: {}",
        stderr(&output)
    );
    let args = ["checkpoint", "rm", "dr-1", "36", "newest", "12", "--yes"];
    let output = fovea(&address, &args).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(fake.0.lock().unwrap().deleted, ["dr-1/36", "dr-1/12"]);
    for args in [
        &["checkpoint", "rm", "dr-1", "latest", "--yes"][..],
        &["resume", "dr-1", "--checkpoint", "latest"],
    ] {
        let output = fovea(&address, args).await;
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("give the step as a number, or `newest`"),
            "{}",
            stderr(&output)
        );
    }
}

#[tokio::test]
async fn a_failed_removal_does_not_stop_the_others() {
    let fake = Fake::default();
    fake.0.lock().unwrap().delete_refusals = [
        (
            "dr-2".to_owned(),
            Status::not_found("there is no run \"dr-2\""),
        ),
        (
            "dr-3".to_owned(),
            Status::failed_precondition("run dr-3 is running"),
        ),
        (
            "eyes".to_owned(),
            Status::failed_precondition("runs dr-1 and dr-3 need it"),
        ),
    ]
    .into();
    let address = fake.serve().await;
    let args = ["runs", "rm", "dr-2", "dr-3", "dr-1", "--yes"];
    let output = fovea(&address, &args).await;
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(stdout(&output), "run dr-1 removed, 0 B freed\n");
    assert_eq!(
        stderr(&output),
        "fovea: run dr-2: the coordinator refused: there is no run \"dr-2\"\n\
         fovea: run dr-3: the coordinator refused: run dr-3 is running. A run that has not ended is \
         ended by `fovea cancel dr-3`; checkpoints are removed with it by --with-checkpoints\n\
         fovea: 2 of 3 were not removed\n"
    );

    let lines = json(&fovea(&address, &[&["--json"][..], &args].concat()).await);
    let types: Vec<&str> = lines.iter().map(|l| l["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["not_removed", "not_removed", "removed", "error"]);
    assert_eq!(lines[0]["kind"], "run");
    assert_eq!(lines[0]["exit_code"], 4);
    assert_eq!(lines[2]["name"], "dr-1");
    assert_eq!(lines[3]["exit_code"], 4);

    // The error of a single one is the command's own.
    let output = fovea(&address, &["dataset", "rm", "eyes", "--yes"]).await;
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(
        stderr(&output),
        "fovea: the coordinator refused: runs dr-1 and dr-3 need it. `fovea runs` shows the runs that \
         need it\n"
    );
}

#[tokio::test]
async fn nothing_is_removed_without_confirmation() {
    let fake = Fake::new(State {
        run: Some(run_after("dr-1", Phase::Completed, 3)),
        ..State::default()
    });
    let address = fake.serve().await;
    let cases: [(&[&str], &str); 4] = [
        (
            &["runs", "rm", "dr-1", "--with-checkpoints"],
            "Remove with all checkpoints: dr-1 (completed, 3 checkpoints of 3.00 kB)?",
        ),
        (
            &["--json", "runs", "rm", "dr-1", "--with-checkpoints"],
            "give --yes to confirm",
        ),
        (
            &["checkpoint", "rm", "dr-1", "12"],
            "Remove 1 checkpoint of run dr-1 (step 12)?",
        ),
        (
            &["dataset", "rm", "a", "b"],
            "Remove datasets a, b from the coordinator?",
        ),
    ];
    for (args, text) in cases {
        // The standard input of a test is no terminal.
        let output = fovea(&address, args).await;
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
        assert!(stderr(&output).contains("--yes"), "{}", stderr(&output));
    }
    assert!(fake.0.lock().unwrap().deleted.is_empty());
}

#[tokio::test]
async fn no_question_is_asked_about_what_would_be_refused() {
    let fake = |phase, epochs| {
        Fake::new(State {
            run: Some(run_after("dr-1", phase, epochs)),
            ..State::default()
        })
    };
    let cases: [(Fake, &[&str], &str); 4] = [
        (
            fake(Phase::Completed, 3),
            &["runs", "rm", "dr-1"],
            "run dr-1 has 3 checkpoints; --with-checkpoints removes them, too",
        ),
        (
            fake(Phase::Completed, 1),
            &["runs", "rm", "dr-1"],
            "run dr-1 has 1 checkpoint; --with-checkpoints removes it, too",
        ),
        (
            fake(Phase::Running, 1),
            &["runs", "rm", "dr-1", "--with-checkpoints"],
            "run dr-1 is running; cancel it first (`fovea cancel dr-1`)",
        ),
        (
            fake(Phase::Queued, 0),
            &["--json", "runs", "rm", "dr-1"],
            "run dr-1 is queued; cancel it first (`fovea cancel dr-1`)",
        ),
    ];
    for (fake, args, text) in cases {
        let address = fake.serve().await;
        let output = fovea(&address, args).await;
        assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
        assert_eq!(
            stderr(&output),
            format!("fovea: the coordinator refused: {text}\n")
        );
        assert!(fake.0.lock().unwrap().deleted.is_empty());
    }
}

fn event(event: Event) -> Result<pb::VerifyStoreEvent, Status> {
    Ok(pb::VerifyStoreEvent { event: Some(event) })
}

fn progress() -> Result<pb::VerifyStoreEvent, Status> {
    event(Event::Progress(pb::VerifyProgress {
        read_bytes: 5,
        total_bytes: 10,
        what: "dataset eyes, pack 0".into(),
    }))
}

fn problem(
    what: &str,
    state: pb::FileState,
    problem: &str,
) -> Result<pb::VerifyStoreEvent, Status> {
    event(Event::Problem(pb::VerifyProblem {
        what: what.into(),
        state: state.into(),
        problem: problem.into(),
        action: format!("see to {what}"),
    }))
}

fn summary(problems: u32) -> Result<pb::VerifyStoreEvent, Status> {
    event(Event::Summary(pb::VerifySummary {
        weights: 1,
        checkpoints: 3,
        packs: 14,
        objects: 0,
        read_bytes: 2_000_000_000,
        problems,
    }))
}

fn store(events: Vec<Result<pb::VerifyStoreEvent, Status>>) -> Fake {
    Fake::new(State {
        store: events,
        ..State::default()
    })
}

#[tokio::test]
async fn a_whole_store_is_exit_0() {
    // An event that this client does not know is skipped.
    let unknown = Ok(pb::VerifyStoreEvent { event: None });
    let fake = store(vec![progress(), unknown, progress(), summary(0)]);
    let address = fake.serve().await;
    let output = fovea(&address, &["admin", "verify", "--skip-checkpoints"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "verified 3 checkpoints, 14 packs and 1 weights file, 2.00 GB read: no problems\n"
    );
    assert_eq!(stderr(&output), "");
    let requests = fake.0.lock().unwrap().store_requests.clone();
    assert!(requests[0].skip_checkpoints && !requests[0].skip_datasets);

    let args = [
        "admin",
        "verify",
        "--skip-checkpoints",
        "--skip-datasets",
        "--skip-weights",
    ];
    let output = fovea(&address, &args).await;
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[tokio::test]
async fn each_problem_of_a_store_has_state_and_action() {
    use pb::FileState::{Corrupt, Missing, Unreadable};
    let corrupt = || {
        problem(
            "run dr-1, checkpoint 12",
            Corrupt,
            "its SHA-256 is ab, stored was cd",
        )
    };
    let missing = || problem("dataset eyes, pack 4", Missing, "there is no such file");
    let unreadable = || {
        problem(
            "dataset eyes, pack 5",
            Unreadable,
            "Input/output error (os error 5)",
        )
    };
    let address = store(vec![
        corrupt(),
        missing(),
        progress(),
        unreadable(),
        summary(3),
    ])
    .serve()
    .await;
    let output = fovea(&address, &["admin", "verify"]).await;
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "CORRUPT run dr-1, checkpoint 12: its SHA-256 is ab, stored was cd\n  \
           to do: see to run dr-1, checkpoint 12\n\
         MISSING dataset eyes, pack 4: there is no such file\n  \
           to do: see to dataset eyes, pack 4\n\
         UNREADABLE dataset eyes, pack 5: Input/output error (os error 5)\n  \
           to do: see to dataset eyes, pack 5\n\
         verified 3 checkpoints, 14 packs and 1 weights file, 2.00 GB read: 3 problems\n"
    );
    assert_eq!(
        stderr(&output),
        "fovea: the coordinator's store: 1 corrupt, 1 missing, 1 unreadable now (try again)\n"
    );

    let lines = json(&fovea(&address, &["--json", "admin", "verify"]).await);
    let types: Vec<&str> = lines.iter().map(|l| l["type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        [
            "verify_problem",
            "verify_problem",
            "verify_problem",
            "verify_summary",
            "error"
        ]
    );
    assert_eq!(lines[1]["state"], "missing");
    assert_eq!(lines[1]["action"], "see to dataset eyes, pack 4");
    assert_eq!(lines[3]["problems"], 3);
    assert_eq!(lines[4]["exit_code"], 7);

    let address = store(vec![unreadable(), summary(1)]).serve().await;
    let output = fovea(&address, &["admin", "verify"]).await;
    assert_eq!(output.status.code(), Some(8), "{}", stderr(&output));

    let unlisted = problem("checkpoints of t-9", pb::FileState::Unlisted, "no such run");
    let address = store(vec![unlisted, summary(1)]).serve().await;
    let output = fovea(&address, &["admin", "verify"]).await;
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.starts_with("UNLISTED checkpoints of t-9: no such run\n"),
        "{text}"
    );
    assert_eq!(
        stderr(&output),
        "fovea: the coordinator's store: 1 unlisted\n"
    );
}

#[tokio::test]
async fn a_verification_that_breaks_off_is_no_success() {
    let address = store(vec![progress()]).serve().await;
    let output = fovea(&address, &["admin", "verify"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let address = store(vec![progress(), Err(Status::unavailable("shutting down"))])
        .serve()
        .await;
    let output = fovea(&address, &["admin", "verify"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("shutting down"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn waiting_reasons_are_visible_everywhere() {
    let reason = "the checkpoint store is not mounted at /data; mount it";
    let mut waiting = run("dr-1", Phase::Queued);
    waiting.reason = format!("store.unavailable: {reason}");
    let mut ended = run_after("dr-1", Phase::Paused, 0);
    ended.reason = String::new();
    let fake = Fake::new(State {
        run: Some(waiting.clone()),
        watches: [vec![common::event::run(waiting), common::event::run(ended)]].into(),
        ..State::default()
    });
    let address = fake.serve().await;
    let listed = stdout(&fovea(&address, &["runs"]).await);
    assert!(
        listed
            .lines()
            .nth(1)
            .unwrap()
            .ends_with(&format!("  {reason}")),
        "{listed}"
    );
    let shown = format!("phase       queued: {reason}\n");
    for args in [
        &["run", "dr-1"][..],
        &["runs", "show", "dr-1"],
        &["runs", "get", "dr-1"],
    ] {
        let text = stdout(&fovea(&address, args).await);
        assert!(text.contains(&shown), "{text}");
    }
    let watched = stdout(&fovea(&address, &["watch", "dr-1"]).await);
    assert!(
        watched.contains(&format!("dr-1 waits: {reason}\n")),
        "{watched}"
    );
    let lines = json(&fovea(&address, &["--json", "runs"]).await);
    assert_eq!(lines[0]["reason"], format!("store.unavailable: {reason}"));
}
