//! Pausing, priorities, auditing and verifying: text, JSON and exit codes.

use crate::common;
use common::{Fake, State, event, fovea, run, run_after, stderr, stdout};
use fovea_proto::pb::{self, Phase};

fn with(run: pb::Run) -> Fake {
    Fake::new(State {
        run: Some(run),
        ..State::default()
    })
}

fn json(output: &std::process::Output) -> Vec<serde_json::Value> {
    stdout(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_run_is_paused_and_resumed() {
    let fake = with(run("dr-1", Phase::Running));
    let address = fake.serve().await;
    let output = fovea(&address, &["pause", "dr-1"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "run dr-1 will pause at its next step, with a checkpoint\ncontinue it with: fovea resume dr-1\n"
    );
    assert_eq!(fake.0.lock().unwrap().paused, ["dr-1"]);

    // One that waits for workers is paused at once.
    fake.0.lock().unwrap().run = Some(run("dr-1", Phase::Queued));
    let output = fovea(&address, &["--json", "pause", "dr-1"]).await;
    let printed = json(&output);
    assert_eq!(printed.len(), 1);
    assert_eq!(
        (printed[0]["type"].as_str(), printed[0]["phase"].as_str()),
        (Some("run"), Some("paused"))
    );

    let listed = stdout(&fovea(&address, &["runs"]).await);
    assert!(listed.contains("dr-1  paused  0/36"), "{listed}");
    let shown = stdout(&fovea(&address, &["run", "dr-1"]).await);
    assert!(shown.contains("phase       paused\n"), "{shown}");

    let output = fovea(&address, &["pause", "dr-1"]).await;
    assert_eq!(output.status.code(), Some(4));
    assert!(
        stderr(&output).contains("only a run that is queued or under way can be paused"),
        "{}",
        stderr(&output)
    );

    let output = fovea(&address, &["resume", "dr-1"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let state = fake.0.lock().unwrap();
    assert_eq!(state.run.as_ref().unwrap().phase(), Phase::Queued);
}

#[tokio::test]
async fn a_run_gets_another_priority() {
    let fake = with(run("dr-1", Phase::Queued));
    let address = fake.serve().await;
    let field = async || {
        let shown = stdout(&fovea(&address, &["run", "dr-1"]).await);
        let line = shown.lines().find(|line| line.starts_with("priority"));
        line.unwrap_or_default().to_owned()
    };
    // A coordinator that knows no other than that of the spec.
    assert_eq!(field().await, "priority    normal");
    let output = fovea(&address, &["priority", "dr-1", "high"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "run dr-1 has high priority from now on\nsee who comes first with: fovea queue\n"
    );
    assert_eq!(field().await, "priority    high (submitted with normal)");
    let output = fovea(&address, &["--json", "priority", "dr-1", "low"]).await;
    let printed = json(&output);
    assert_eq!(printed.len(), 1);
    let fields = [&printed[0]["type"], &printed[0]["priority"]].map(|field| field.as_str());
    assert_eq!(fields, [Some("run"), Some("low")]);

    let refused = async |line: &[&str], code: i32, named: &str| {
        let output = fovea(&address, line).await;
        let problem = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{problem}");
        assert!(problem.contains(named), "{problem}");
    };
    refused(&["priority", "dr-1", "urgent"], 2, "low, normal, high").await;
    let of_group = "dr-g1 is a group: `fovea group priority dr-g1 high`";
    refused(&["priority", "dr-g1", "high"], 2, of_group).await;
    fake.0.lock().unwrap().run = Some(run("dr-1", Phase::Completed));
    refused(&["priority", "dr-1", "high"], 4, "has ended").await;
}

#[tokio::test]
async fn a_watch_ends_with_the_pause() {
    // The coordinator keeps the stream open: the watch must not wait for its end.
    let fake = with(run("dr-1", Phase::Running));
    {
        let mut state = fake.0.lock().unwrap();
        state.hang = true;
        for _ in 0..2 {
            state.watches.push_back(vec![
                event::run(run("dr-1", Phase::Running)),
                event::epoch(0),
                event::run(run_after("dr-1", Phase::Paused, 1)),
            ]);
        }
    }
    let address = fake.serve().await;
    let output = fovea(&address, &["watch", "dr-1"]).await;
    let printed = stdout(&output);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{printed}{}",
        stderr(&output)
    );
    assert!(printed.contains("    1/3 "), "{printed}");
    assert!(
        printed.contains("continue it with: fovea resume dr-1"),
        "{printed}"
    );
    assert!(!printed.contains("completed"), "{printed}");

    let output = fovea(&address, &["--json", "watch", "dr-1"]).await;
    assert_eq!(output.status.code(), Some(0));
    let last = json(&output).pop().unwrap();
    assert_eq!(last["type"], "result");
    assert_eq!(last["phase"], "paused");
}

#[tokio::test]
async fn a_run_whose_workers_form_again_says_why() {
    let address = with(pb::Run {
        reason: "worker w1 was lost: no heartbeat".into(),
        ..run("dr-1", Phase::Forming)
    })
    .serve()
    .await;
    let shown = stdout(&fovea(&address, &["run", "dr-1"]).await);
    assert!(
        shown.contains("phase       forming: worker w1 was lost: no heartbeat\n"),
        "{shown}"
    );
}

/// 30 of 36 steps.
fn audited(clean_epochs: u32, problems: &[String]) -> Fake {
    let fake = with(run("dr-1", Phase::Running));
    fake.0.lock().unwrap().audit = pb::AuditReport {
        run_id: String::new(),
        train_samples: 357,
        steps: 30,
        total_steps: 36,
        clean_epochs,
        samples_used: 906,
        problems: problems.to_vec(),
        ledger_bytes: 3100,
    };
    fake
}

#[tokio::test]
async fn a_clean_audit_is_exit_0() {
    let address = audited(2, &[]).serve().await;
    let output = fovea(&address, &["runs", "audit", "dr-1"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stdout(&output),
        "run         dr-1\n\
         epochs      2 clean of 3 begun, the last of them incomplete, 3 in the whole run\n\
         steps       30/36\n\
         samples     906 used; 357 in the training split\n\
         ledger      3.10 kB\n\
         problems    none\n"
    );

    let output = fovea(&address, &["--json", "runs", "audit", "dr-1"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        json(&output),
        [serde_json::json!({
            "type": "audit", "run": "dr-1", "clean": true, "clean_epochs": 2, "begun_epochs": 3,
            "epochs": 3, "train_samples": 357, "samples_used": 906, "steps": 30, "total_steps": 36,
            "ledger_bytes": 3100, "problems": [],
        })]
    );
}

#[tokio::test]
async fn an_audit_with_problems_lists_them_and_is_exit_7() {
    let problems = ["steps 4 to 5 are missing", "step 9 is there twice"].map(String::from);
    let address = audited(1, &problems).serve().await;
    let output = fovea(&address, &["runs", "audit", "dr-1"]).await;
    assert_eq!(output.status.code(), Some(7));
    let printed = stdout(&output);
    assert!(
        printed.ends_with(
            "problems    2 problems\n  steps 4 to 5 are missing\n  step 9 is there twice\n"
        ),
        "{printed}"
    );
    assert_eq!(
        stderr(&output),
        "fovea: the audit of run dr-1 found 2 problems\n"
    );

    let printed = json(&fovea(&address, &["--json", "runs", "audit", "dr-1"]).await);
    assert_eq!(printed.len(), 2);
    assert_eq!(printed[0]["clean"], false);
    assert_eq!(printed[0]["problems"][1], "step 9 is there twice");
    assert_eq!(printed[1]["type"], "error");
    assert_eq!(printed[1]["exit_code"], 7);

    // The coordinator stops counting at 100.
    let many: Vec<String> = (0..100).map(|n| format!("problem {n}")).collect();
    let output = fovea(&audited(0, &many).serve().await, &["runs", "audit", "dr-1"]).await;
    assert!(
        stderr(&output).contains("found at least 100 problems"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn whole_checkpoints_are_exit_0() {
    let address = with(run_after("dr-1", Phase::Completed, 3)).serve().await;
    for (args, steps) in [
        (&["checkpoint", "verify", "dr-1"][..], &[12u64, 24, 36][..]),
        (&["checkpoint", "verify", "dr-1", "24"], &[24]),
        (&["checkpoint", "verify", "dr-1", "newest"], &[36]),
    ] {
        let output = fovea(&address, args).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let printed = stdout(&output);
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.len(), steps.len() + 1, "{printed}");
        for (line, step) in lines[1..].iter().zip(steps) {
            assert!(
                line.trim_start().starts_with(&step.to_string()),
                "{printed}"
            );
            assert!(line.ends_with("  ok"), "{printed}");
        }
        let output = fovea(&address, &[&["--json"], args].concat()).await;
        let printed = json(&output);
        let found: Vec<u64> = printed
            .iter()
            .map(|l| l["step"].as_u64().unwrap())
            .collect();
        assert_eq!(found, steps);
        assert!(
            printed.iter().all(|l| l["type"] == "verified"
                && l["ok"] == true
                && l["state"] == "ok"
                && l["problem"] == ""),
            "{printed:?}"
        );
    }
}

#[tokio::test]
async fn the_state_of_each_checkpoint_is_shown_and_decides_the_exit_code() {
    use pb::FileState::{Corrupt, Missing, Unreadable};
    let damaged = [
        (12, (Unreadable, "Input/output error (os error 5)")),
        (24, (Corrupt, "it has 5 bytes instead of 1000")),
        (36, (Missing, "there is no such file")),
    ];
    let cases = [
        (
            &damaged[..],
            7,
            "1 corrupt, 1 missing, 1 unreadable now (try again)",
        ),
        (&damaged[..1], 8, "1 unreadable now (try again)"),
        (&damaged[1..2], 7, "1 corrupt"),
        (&damaged[2..], 7, "1 missing"),
    ];
    for (damaged, code, found) in cases {
        let fake = with(run_after("dr-1", Phase::Completed, 3));
        fake.0.lock().unwrap().damaged = damaged
            .iter()
            .map(|(step, (state, problem))| (*step, (*state, (*problem).to_owned())))
            .collect();
        let address = fake.serve().await;
        let output = fovea(&address, &["checkpoint", "verify", "dr-1"]).await;
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let text = stdout(&output);
        let lines: Vec<&str> = text.lines().collect();
        for step in [12u64, 24, 36] {
            let file = match damaged.iter().find(|(s, _)| *s == step) {
                None => "  ok".to_owned(),
                Some((_, (Corrupt, problem))) => format!("  CORRUPT: {problem}"),
                Some((_, (Missing, problem))) => format!("  MISSING: {problem}"),
                Some((_, (_, problem))) => format!("  UNREADABLE: {problem}"),
            };
            assert!(
                lines[(step / 12) as usize].ends_with(&file),
                "{file}: {text}"
            );
        }
        let error = stderr(&output);
        assert!(
            // The manifests of whole files are files, too.
            error.ends_with(&format!(
                "fovea: run dr-1: of {} files, {found}\n",
                6 - damaged.len()
            )),
            "{error}"
        );
        assert_eq!(error.contains("were put aside"), found.contains("corrupt"));
    }

    let fake = with(run_after("dr-1", Phase::Completed, 3));
    fake.0.lock().unwrap().damaged = [(24, (Corrupt, "it has 5 bytes".into()))].into();
    let address = fake.serve().await;
    let lines = json(&fovea(&address, &["--json", "checkpoint", "verify", "dr-1"]).await);
    let states: Vec<Option<&str>> = lines.iter().map(|l| l["state"].as_str()).collect();
    assert_eq!(states, [Some("ok"), Some("corrupt"), Some("ok"), None]);
    assert_eq!(lines[1]["ok"], false);
    assert_eq!(lines[1]["problem"], "it has 5 bytes");
    assert_eq!(lines[1]["run"], "dr-1");
    assert_eq!(lines[3]["exit_code"], 7);

    // Another one is not judged by it.
    let output = fovea(&address, &["checkpoint", "verify", "dr-1", "36"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[tokio::test]
async fn a_manifest_is_a_problem_of_its_own() {
    use pb::FileState::{Corrupt, Missing, Unreadable};
    let cases = [
        (Missing, 7, "1 missing"),
        (Corrupt, 7, "1 corrupt"),
        (Unreadable, 8, "1 unreadable now (try again)"),
    ];
    for (state, code, found) in cases {
        let fake = with(run_after("dr-1", Phase::Completed, 3));
        fake.0.lock().unwrap().damaged_manifests =
            [(24, (state, "x.json is gone. The weights are good".into()))].into();
        let address = fake.serve().await;
        let output = fovea(&address, &["checkpoint", "verify", "dr-1"]).await;
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let text = stdout(&output);
        assert_eq!(text.lines().filter(|l| l.ends_with("  ok")).count(), 3);
        let line = format!(
            "{} manifest of checkpoint 24: x.json is gone. The weights are good\n",
            found.split(' ').nth(1).unwrap().to_uppercase()
        );
        assert!(text.ends_with(&line), "{text}");
        // Nothing was put aside.
        assert_eq!(
            stderr(&output),
            format!("fovea: run dr-1: of 6 files, {found}\n")
        );
        let lines = json(&fovea(&address, &["--json", "checkpoint", "verify", "dr-1"]).await);
        assert_eq!(lines[1]["ok"], false);
        assert_eq!(lines[1]["state"], "ok");
        assert_eq!(lines[1]["manifest_state"], found.split(' ').nth(1).unwrap());
        assert_eq!(lines[0]["ok"], true);
        assert_eq!(lines[0]["manifest_state"], "ok");
    }
}

#[tokio::test]
async fn nothing_to_verify_is_no_success() {
    let address = with(run("dr-1", Phase::Running)).serve().await;
    for (args, words) in [
        (
            &["checkpoint", "verify", "dr-1"][..],
            "run dr-1 has no checkpoint",
        ),
        (
            &["checkpoint", "verify", "dr-1", "newest"],
            "run dr-1 has no checkpoint",
        ),
        (
            &["checkpoint", "verify", "dr-1", "24"],
            "run dr-1 has no checkpoint at step 24",
        ),
    ] {
        let output = fovea(&address, args).await;
        assert_eq!(output.status.code(), Some(4), "{args:?}");
        assert!(stdout(&output).is_empty(), "{}", stdout(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}
