//! The lines shown for a run.

use fovea_core::checkpoint::{CheckpointInfo, Fingerprint};
use fovea_core::metrics::Evaluation;
use fovea_core::run::StepPhases;
use fovea_core::spec::RunSpec;

use super::*;

pub fn run(phase: Phase) -> RunInfo {
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
        group: String::new(),
        dataset_digest: "00".into(),
        submitted_at_ms: 0,
        left_out: Vec::new(),
        began_at_ms: 0,
        ended_at_ms: 0,
        most_workers: 0,
        priority: spec.priority,
        pipeline: None,
        scored: 0,
        evaluations: Vec::new(),
        submitted_by: String::new(),
        progress: None,
        epochs: vec![],
        checkpoints: vec![],
        spec,
    }
}

pub fn epoch(epoch: u32) -> EpochResult {
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
            kernels: String::new(),
            path: String::new(),
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

fn lines(narrator: &mut Narrator, update: Update) -> Vec<String> {
    narrator.on(&update, Instant::now())
}

#[test]
fn a_run_from_queue_to_end() {
    let mut n = Narrator::new(false);
    let shown = |n: &mut Narrator, r: RunInfo| lines(n, Update::Run(Box::new(r)));
    assert_eq!(shown(&mut n, run(Phase::Queued)), ["dr-1: queued"]);
    assert!(shown(&mut n, run(Phase::Queued)).is_empty(), "shown twice");
    assert_eq!(
        shown(&mut n, run(Phase::Forming)),
        ["dr-1: 2 workers fetch data and connect (generation 1)"]
    );
    assert_eq!(
        shown(&mut n, run(Phase::Running)),
        ["dr-1: training on 357 images with 2 workers, 3 epochs of 12 steps; 119 held out"]
    );
    // No checkpoint is due after the first epoch: its line comes at once.
    assert_eq!(
        lines(&mut n, Update::Epoch(epoch(0))),
        [
            epoch_heading(&epoch(0)),
            "    1/3      0.5000    0.6123  0.813     0.750            -        0.900  -",
        ]
    );
    // One is due after the second: the line waits for it.
    assert!(lines(&mut n, Update::Epoch(epoch(1))).is_empty());
    assert_eq!(
        lines(&mut n, Update::Checkpoint(checkpoint(24))),
        ["    2/3      0.5000    0.6123  0.813     0.750            -        0.900  step 24"]
    );
    // The last waits too, through the end of its generation, until the run is over.
    assert!(lines(&mut n, Update::Epoch(epoch(2))).is_empty());
    assert!(shown(&mut n, run(Phase::Finishing)).is_empty());
    let over = shown(&mut n, run(Phase::Completed));
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
    lines(&mut n, Update::Run(Box::new(resumed)));
    assert!(lines(&mut n, Update::Checkpoint(checkpoint(17))).is_empty());
    assert_eq!(
        lines(&mut n, Update::Checkpoint(checkpoint(19))),
        ["checkpoint of step 19 stored (41.20 MB)"]
    );
}

/// The updates of a run with `every_steps`, in all orders of an epoch's result and the checkpoints around
/// it: each checkpoint is shown once, in its epoch's row or as a line.
#[test]
fn every_checkpoint_is_shown_once_whichever_comes_first() {
    let shows = |lines: &[String], step: u64| {
        let row = format!("  step {step}");
        let line = format!("checkpoint of step {step} stored");
        lines
            .iter()
            .filter(|l| l.ends_with(&row) || l.starts_with(&line))
            .count()
    };
    let steps = |n: u64| (0..n).map(|s| step(25 + s)).collect::<Vec<_>>();
    let row = || vec![Update::Epoch(epoch(1))];
    let stored = |s| vec![Update::Checkpoint(checkpoint(s))];
    let note = || vec![Update::Note("worker b was lost".into())];
    let queued = || vec![Update::Run(Box::new(run(Phase::Queued)))];
    let cases: [(&str, Vec<Vec<Update>>); 9] = [
        ("row, checkpoint", vec![row(), stored(24)]),
        ("checkpoint, row", vec![stored(24), row()]),
        (
            "the row has been waiting too long",
            vec![row(), steps(30), stored(24)],
        ),
        (
            "the checkpoint has been waiting too long",
            vec![stored(24), steps(30), row()],
        ),
        ("a note ends the wait", vec![row(), note(), stored(24)]),
        ("a note before the row", vec![stored(24), note(), row()]),
        ("an interruption", vec![row(), queued(), stored(24)]),
        ("the row never comes", vec![stored(24), queued()]),
        (
            "the next checkpoint comes before the row",
            vec![stored(24), stored(25), row()],
        ),
    ];
    for (what, updates) in cases {
        // The epoch's end is no step at which a checkpoint is due here, in the second half.
        for every_epochs in [2, 0] {
            let mut first = run(Phase::Running);
            first.spec.checkpoint.every_epochs = every_epochs;
            first.spec.checkpoint.every_steps = 5;
            let mut n = Narrator::new(false);
            lines(&mut n, Update::Run(Box::new(first)));
            let mut shown: Vec<String> = Vec::new();
            for update in updates.iter().flatten() {
                shown.extend(lines(&mut n, update.clone()));
            }
            shown.extend(n.flush());
            assert_eq!(shows(&shown, 24), 1, "{what}: {shown:#?}");
            let others = updates.iter().flatten().any(|u| *u == stored(25)[0]);
            assert_eq!(shows(&shown, 25), usize::from(others), "{what}: {shown:#?}");
        }
    }
}

#[test]
fn a_checkpoint_that_was_taken_again_is_shown_again() {
    let mut n = Narrator::new(false);
    lines(&mut n, Update::Run(Box::new(run(Phase::Running))));
    lines(&mut n, Update::Epoch(epoch(1)));
    let first = lines(&mut n, Update::Checkpoint(checkpoint(24)));
    assert!(first[1].ends_with("  step 24"), "{first:?}");
    // The run was rewound behind it; the epoch's result is the same and not reported again.
    let mut again = checkpoint(24);
    again.sha256 = "cd".into();
    let line = ["checkpoint of step 24 stored (41.20 MB)"];
    assert_eq!(lines(&mut n, Update::Checkpoint(again.clone())), line);
    assert!(lines(&mut n, Update::Checkpoint(again)).is_empty());
}

#[test]
fn a_new_run_that_needs_workers_is_no_alarm() {
    let mut n = Narrator::new(false);
    let mut queued = run(Phase::Queued);
    queued.reason = "needs 2 workers; idle: 0".into();
    assert_eq!(
        lines(&mut n, Update::Run(Box::new(queued.clone()))),
        ["dr-1: waiting for workers to join (needs 2 workers; idle: 0)"]
    );
    let mut n = Narrator::new(false);
    queued.reason.clear();
    queued.spec.workers.min = 2;
    assert_eq!(
        lines(&mut n, Update::Run(Box::new(queued.clone()))),
        ["dr-1: queued (needs 2 workers)"]
    );
    // One that had workers and lost them says so.
    let mut n = Narrator::new(false);
    lines(&mut n, Update::Run(Box::new(run(Phase::Running))));
    queued.generation = 1;
    queued.reason = "needs 2 workers; idle: 1".into();
    assert_eq!(
        lines(&mut n, Update::Run(Box::new(queued))),
        ["dr-1 waits: needs 2 workers; idle: 1"]
    );
}

#[test]
fn an_epoch_does_not_wait_for_its_checkpoint_for_ever() {
    let mut n = Narrator::new(false);
    lines(&mut n, Update::Run(Box::new(run(Phase::Running))));
    lines(&mut n, Update::Epoch(epoch(1)));
    let shown: usize = (25..50).map(|s| lines(&mut n, step(s)).len()).sum();
    assert_eq!(shown, 2, "heading and line, once");
}

#[test]
fn an_interruption_is_shown_with_its_reason() {
    let mut n = Narrator::new(false);
    lines(&mut n, Update::Run(Box::new(run(Phase::Running))));
    let mut queued = run(Phase::Queued);
    queued.generation = 1;
    queued.reason = "worker b was lost: no heartbeat".into();
    assert_eq!(
        lines(&mut n, Update::Run(Box::new(queued))),
        ["dr-1 waits: worker b was lost: no heartbeat"]
    );
    // A reason that was just shown as a note is not repeated.
    let mut stopping = run(Phase::Finishing);
    stopping.reason = "the loss is not finite".into();
    let note = Update::Note("worker a: the loss is not finite".into());
    let mut other = Narrator::new(false);
    assert_eq!(
        lines(&mut other, note),
        ["note: worker a: the loss is not finite"]
    );
    assert!(lines(&mut other, Update::Run(Box::new(stopping.clone()))).is_empty());
    stopping.reason = "is being cancelled".into();
    assert_eq!(
        lines(&mut other, Update::Run(Box::new(stopping.clone()))),
        ["dr-1: stopping: is being cancelled"]
    );
    // Nor is one that the phase before had already.
    stopping.phase = Phase::Running;
    assert!(lines(&mut other, Update::Run(Box::new(stopping))).is_empty());
    let mut again = run(Phase::Running);
    again.generation = 2;
    again.workers.pop();
    if let Update::Step(progress) = step(13) {
        again.progress = Some(progress);
    }
    assert_eq!(
        lines(&mut n, Update::Run(Box::new(again))),
        ["dr-1: continues from step 13 on 1 worker"]
    );
    assert_eq!(lines(&mut n, Update::Note("x".into())), ["note: x"]);
}

#[test]
fn workers_that_form_again_say_why() {
    let mut n = Narrator::new(false);
    lines(&mut n, Update::Run(Box::new(run(Phase::Running))));
    let mut forming = run(Phase::Forming);
    forming.generation = 2;
    forming.workers.pop();
    forming.reason = "worker b was lost: no heartbeat".into();
    assert_eq!(
        lines(&mut n, Update::Run(Box::new(forming.clone()))),
        [
            "dr-1: 1 worker fetches data and connects (generation 2): worker b was lost: no heartbeat"
        ]
    );
    // After a note with the reason, the reason is left out, but not the number of workers.
    let mut n = Narrator::new(false);
    lines(&mut n, Update::Run(Box::new(run(Phase::Running))));
    lines(&mut n, Update::Note(forming.reason.clone()));
    assert_eq!(
        lines(&mut n, Update::Run(Box::new(forming))),
        ["dr-1: 1 worker fetches data and connects (generation 2)"]
    );
}

#[test]
fn a_pause_is_shown_once_and_its_summary_has_the_command_to_continue() {
    let mut n = Narrator::new(false);
    lines(&mut n, Update::Run(Box::new(run(Phase::Running))));
    let mut pausing = run(Phase::Running);
    pausing.reason = "is being paused".into();
    assert_eq!(
        lines(&mut n, Update::Run(Box::new(pausing.clone()))),
        ["dr-1: is being paused"]
    );
    pausing.phase = Phase::Finishing;
    assert!(lines(&mut n, Update::Run(Box::new(pausing))).is_empty());
    let mut paused = run(Phase::Paused);
    if let Update::Step(progress) = step(17) {
        paused.progress = Some(progress);
    }
    assert!(lines(&mut n, Update::Run(Box::new(paused.clone()))).is_empty());
    assert_eq!(
        summary(&paused),
        ["dr-1 is paused at step 17/36; continue it with: fovea resume dr-1"]
    );
}

#[test]
fn steps_are_lines_only_without_a_bar_and_not_too_often() {
    let start = Instant::now();
    let mut n = Narrator::new(true);
    n.on(&Update::Run(Box::new(run(Phase::Running))), start);
    let mut shown = Vec::new();
    // 24 steps of six seconds.
    for s in 1..=24 {
        shown.extend(n.on(&step(s), start + Duration::from_secs(6 * s)));
    }
    assert_eq!(shown.len(), 5, "{shown:?}");
    assert_eq!(
        shown[3],
        "step 16/36  epoch 2/3  loss 0.4322  40 images/s  ETA 00:00:14"
    );
    let (done, total, text) = n.bar();
    assert_eq!((done, total), (24, 36));
    assert_eq!(text, "epoch 2/3  loss 0.4322  40 images/s  ETA 00:00:08");

    let mut n = Narrator::new(false);
    lines(&mut n, Update::Run(Box::new(run(Phase::Running))));
    assert!(lines(&mut n, step(1)).is_empty());
}

#[test]
fn a_broken_connection_is_shown_once_it_lasts() {
    let mut n = Narrator::new(false);
    let broken = |cause, attempt| Update::Reconnecting {
        cause,
        reason: "refused".into(),
        attempt,
        wait: Duration::from_millis(400),
    };
    assert!(lines(&mut n, broken(Cause::Away, 1)).is_empty());
    assert_eq!(
        lines(&mut n, broken(Cause::Away, 2)),
        ["the coordinator is away (refused); attempt 2 in 0.4 s"]
    );
    // A refusal for a limit is not a passing matter: it is shown at once.
    assert_eq!(
        lines(&mut n, broken(Cause::Limit, 1)),
        ["the coordinator refused this watch, it is at a limit: refused; attempt 1 in 0.4 s"]
    );
}

/// With more classes than two, how far off a prediction is matters.
#[test]
fn grades_have_a_kappa() {
    let mut graded = epoch(0);
    graded.validation.confusion = vec![vec![1; 5]; 5];
    graded.validation.quadratic_kappa = Some(-0.0421);
    assert_eq!(
        [
            epoch_heading(&graded).to_owned(),
            epoch_line(&graded, 3, true)
        ],
        [
            "  epoch  train loss  val loss    AUC   kappa  accuracy  sensitivity  specificity  checkpoint",
            "    1/3      0.5000    0.6123  0.813  -0.042     0.750            -        0.900  step 12",
        ]
    );
    let mut done = run(Phase::Completed);
    done.epochs = vec![graded];
    let figures = "validation AUC 0.813, kappa -0.042, accuracy 0.750, ";
    assert!(summary(&done)[1].starts_with(figures));
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
            "checkpoint of step 36: 41.20 MB, sha256 ab",
        ]
    );
}

#[test]
fn event_names_are_shown_with_notes_and_left_out_of_reasons() {
    let mut n = Narrator::new(false);
    lines(&mut n, Update::Run(Box::new(run(Phase::Running))));
    let text = "w1 made no progress for 5.04 s (limit 5.00 s)";
    assert_eq!(
        lines(&mut n, Update::Note(format!("worker.evicted: {text}"))),
        [format!("worker.evicted: {text}")]
    );
    // The same reason of the next phase is known, and another one is shown as a sentence.
    let mut queued = run(Phase::Queued);
    queued.reason = format!("worker.evicted: {text}");
    assert!(lines(&mut n, Update::Run(Box::new(queued.clone()))).is_empty());
    queued.reason = "store.unavailable: the checkpoint store is not mounted".into();
    assert_eq!(
        lines(&mut n, Update::Run(Box::new(queued))),
        ["dr-1 waits: the checkpoint store is not mounted"]
    );
    assert_eq!(n.bar().2, "waiting: the checkpoint store is not mounted");
}

#[test]
fn an_evaluation_says_how_far_it_is() {
    let mut scoring = run(Phase::Running);
    scoring.scored = 30;
    assert_eq!(
        scored_line(&scoring),
        "dr-1: 30 of 119 images scored (25 %)"
    );
    scoring.scored = 119;
    assert_eq!(
        scored_line(&scoring),
        "dr-1: 119 of 119 images scored (100 %)"
    );
}
