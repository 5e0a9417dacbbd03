//! What is said of a run, line by line.

use fovea_core::checkpoint::{CheckpointInfo, Fingerprint};
use fovea_core::metrics::Evaluation;
use fovea_core::run::StepPhases;
use fovea_core::spec::RunSpec;

use super::*;

fn run(phase: Phase) -> RunInfo {
    let spec: RunSpec = toml::from_str(
        "name = \"dr\"\ndataset = \"d\"\n[train]\nepochs = 3\n[checkpoint]\nevery_epochs = 2\n",
    )
    .unwrap();
    RunInfo {
        id: "dr-1".into(),
        phase,
        reason: String::new(),
        generation: u64::from(phase != Phase::Queued),
        workers: vec!["a".into(), "b".into()],
        steps_per_epoch: 12,
        total_steps: 36,
        train_samples: 357,
        validation_samples: 119,
        dataset_digest: "00".into(),
        submitted_at_ms: 0,
        progress: None,
        epochs: vec![],
        checkpoints: vec![],
        spec,
    }
}

fn epoch(epoch: u32) -> EpochResult {
    EpochResult {
        epoch,
        step: u64::from(epoch + 1) * 12,
        train_loss: Some(0.5),
        validation: Evaluation {
            samples: 119,
            positives: 44,
            loss: 0.61234,
            accuracy: 0.75,
            auc: Some(0.8126),
            sensitivity: None,
            specificity: Some(0.9),
            quadratic_kappa: None,
            confusion: vec![vec![0; 2]; 2],
        },
    }
}

fn checkpoint(step: u64) -> CheckpointInfo {
    CheckpointInfo {
        step,
        generation: 1,
        bytes: 41_200_000,
        sha256: "ab".into(),
        lineage: 0,
        stored_at_ms: 0,
        fingerprint: Fingerprint {
            device: "cpu".into(),
            cpu: "x".into(),
            libtorch: "2".into(),
            threads: 1,
            precision: "float32".into(),
            fovea: "0".into(),
        },
    }
}

fn step(step: u64) -> Update {
    Update::Step(StepReport {
        step,
        loss: 0.43219,
        images: 32,
        images_per_s: 40.0,
        learning_rate: 0.001,
        phases: StepPhases::default(),
    })
}

fn say(narrator: &mut Narrator, update: Update) -> Vec<String> {
    narrator.on(&update, Instant::now())
}

#[test]
fn a_run_from_queue_to_end() {
    let mut n = Narrator::new(false);
    let told = |n: &mut Narrator, r: RunInfo| say(n, Update::Run(Box::new(r)));
    assert_eq!(
        told(&mut n, run(Phase::Queued)),
        ["dr-1 waits for 1 worker"]
    );
    assert!(told(&mut n, run(Phase::Queued)).is_empty(), "said twice");
    assert_eq!(
        told(&mut n, run(Phase::Forming)),
        ["dr-1: 2 workers fetch data and connect (generation 1)"]
    );
    assert_eq!(
        told(&mut n, run(Phase::Running)),
        ["dr-1: training 357 images on 2 workers, 3 epochs of 12 steps, 119 held out"]
    );
    // No checkpoint is due after the first epoch: its line comes at once.
    assert_eq!(
        say(&mut n, Update::Epoch(epoch(0))),
        [
            EPOCH_HEADING,
            "    1/3      0.5000    0.6123  0.813     0.750            -        0.900  -",
        ]
    );
    // One is due after the second: the line waits for it.
    assert!(say(&mut n, Update::Epoch(epoch(1))).is_empty());
    assert_eq!(
        say(&mut n, Update::Checkpoint(checkpoint(24))),
        ["    2/3      0.5000    0.6123  0.813     0.750            -        0.900  step 24"]
    );
    // The last waits too, through the end of its generation, until the run is over.
    assert!(say(&mut n, Update::Epoch(epoch(2))).is_empty());
    assert!(told(&mut n, run(Phase::Finishing)).is_empty());
    let over = told(&mut n, run(Phase::Completed));
    assert_eq!(over.len(), 1);
    assert!(
        over[0].starts_with("    3/3") && over[0].ends_with("  -"),
        "{over:?}"
    );
}

#[test]
fn an_old_checkpoint_is_not_news() {
    let mut resumed = run(Phase::Queued);
    resumed.checkpoints = vec![checkpoint(17)];
    let mut n = Narrator::new(false);
    say(&mut n, Update::Run(Box::new(resumed)));
    assert!(say(&mut n, Update::Checkpoint(checkpoint(17))).is_empty());
    assert_eq!(
        say(&mut n, Update::Checkpoint(checkpoint(19))),
        ["checkpoint of step 19 stored (41.2 MB)"]
    );
}

#[test]
fn an_epoch_does_not_wait_for_its_checkpoint_for_ever() {
    let mut n = Narrator::new(false);
    say(&mut n, Update::Run(Box::new(run(Phase::Running))));
    say(&mut n, Update::Epoch(epoch(1)));
    let said: usize = (25..50).map(|s| say(&mut n, step(s)).len()).sum();
    assert_eq!(said, 2, "heading and line, once");
}

#[test]
fn an_interruption_is_told_with_its_reason() {
    let mut n = Narrator::new(false);
    say(&mut n, Update::Run(Box::new(run(Phase::Running))));
    let mut queued = run(Phase::Queued);
    queued.generation = 1;
    queued.reason = "worker b was lost: no heartbeat".into();
    assert_eq!(
        say(&mut n, Update::Run(Box::new(queued))),
        ["dr-1 waits: worker b was lost: no heartbeat"]
    );
    // A reason that was just told as a note is not told again.
    let mut stopping = run(Phase::Finishing);
    stopping.reason = "the loss is not finite".into();
    let note = Update::Note("worker a: the loss is not finite".into());
    let mut other = Narrator::new(false);
    assert_eq!(
        say(&mut other, note),
        ["note: worker a: the loss is not finite"]
    );
    assert!(say(&mut other, Update::Run(Box::new(stopping.clone()))).is_empty());
    stopping.reason = "is being cancelled".into();
    assert_eq!(
        say(&mut other, Update::Run(Box::new(stopping.clone()))),
        ["dr-1: stopping, is being cancelled"]
    );
    // Nor is one that the phase before had already.
    stopping.phase = Phase::Running;
    assert!(say(&mut other, Update::Run(Box::new(stopping))).is_empty());
    let mut again = run(Phase::Running);
    again.generation = 2;
    again.workers.pop();
    if let Update::Step(progress) = step(13) {
        again.progress = Some(progress);
    }
    assert_eq!(
        say(&mut n, Update::Run(Box::new(again))),
        ["dr-1: goes on from step 13 on 1 worker"]
    );
    assert_eq!(say(&mut n, Update::Note("x".into())), ["note: x"]);
}

#[test]
fn workers_that_form_again_say_why() {
    let mut n = Narrator::new(false);
    say(&mut n, Update::Run(Box::new(run(Phase::Running))));
    let mut forming = run(Phase::Forming);
    forming.generation = 2;
    forming.workers.pop();
    forming.reason = "worker b was lost: no heartbeat".into();
    assert_eq!(
        say(&mut n, Update::Run(Box::new(forming.clone()))),
        ["dr-1: 1 worker fetch data and connect (generation 2): worker b was lost: no heartbeat"]
    );
    // Told by a note before, the reason is left out, but not who goes on.
    let mut n = Narrator::new(false);
    say(&mut n, Update::Run(Box::new(run(Phase::Running))));
    say(&mut n, Update::Note(forming.reason.clone()));
    assert_eq!(
        say(&mut n, Update::Run(Box::new(forming))),
        ["dr-1: 1 worker fetch data and connect (generation 2)"]
    );
}

#[test]
fn a_pause_is_told_once_and_its_summary_says_how_to_go_on() {
    let mut n = Narrator::new(false);
    say(&mut n, Update::Run(Box::new(run(Phase::Running))));
    let mut pausing = run(Phase::Running);
    pausing.reason = "is being paused".into();
    assert_eq!(
        say(&mut n, Update::Run(Box::new(pausing.clone()))),
        ["dr-1 is being paused"]
    );
    pausing.phase = Phase::Finishing;
    assert!(say(&mut n, Update::Run(Box::new(pausing))).is_empty());
    let mut paused = run(Phase::Paused);
    if let Update::Step(progress) = step(17) {
        paused.progress = Some(progress);
    }
    assert!(say(&mut n, Update::Run(Box::new(paused.clone()))).is_empty());
    assert_eq!(
        summary(&paused),
        ["dr-1 is paused at step 17/36; go on with: fovea resume dr-1"]
    );
}

#[test]
fn steps_are_lines_only_without_a_bar_and_not_too_often() {
    let start = Instant::now();
    let mut n = Narrator::new(true);
    n.on(&Update::Run(Box::new(run(Phase::Running))), start);
    let mut said = Vec::new();
    // 24 steps, one a second.
    for s in 1..=24 {
        said.extend(n.on(&step(s), start + Duration::from_secs(s)));
    }
    assert_eq!(said.len(), 5, "{said:?}");
    assert_eq!(
        said[3],
        "step 16/36  epoch 2/3  loss 0.4322  40 images/s  ETA 0:16"
    );
    let (done, total, text) = n.bar();
    assert_eq!((done, total), (24, 36));
    assert_eq!(text, "epoch 2/3  loss 0.4322  40 images/s  ETA 0:09");

    let mut n = Narrator::new(false);
    say(&mut n, Update::Run(Box::new(run(Phase::Running))));
    assert!(say(&mut n, step(1)).is_empty());
}

#[test]
fn a_broken_connection_is_told_once_it_lasts() {
    let mut n = Narrator::new(false);
    let broken = |attempt| Update::Reconnecting {
        reason: "refused".into(),
        attempt,
        wait: Duration::from_millis(400),
    };
    assert!(say(&mut n, broken(1)).is_empty());
    assert_eq!(
        say(&mut n, broken(2)),
        ["the coordinator is away (refused); attempt 2 in 0.4 s"]
    );
}

#[test]
fn the_summary_has_the_figures() {
    let mut done = run(Phase::Completed);
    done.epochs = vec![epoch(2)];
    done.checkpoints = vec![checkpoint(36)];
    assert_eq!(
        summary(&done),
        [
            "dr-1 completed: 36 steps in 3 epochs",
            "validation AUC 0.813, accuracy 0.750, sensitivity -, specificity 0.900 (119 images held out, 44 positive)",
            "checkpoint of step 36: 41.2 MB, sha256 ab",
        ]
    );
}
