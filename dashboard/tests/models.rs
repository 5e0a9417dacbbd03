//! What is read from runs.

#[allow(dead_code)]
mod data;

use fovea_core::run::Phase as Core;
use fovea_core::spec::BestBy;
use fovea_dashboard::model::{Actions, Phase, RunRow, best_epoch, checkpoints, is_full_step};

#[test]
fn time_left_follows_from_the_rate_and_is_not_guessed_otherwise() {
    let run = data::training(7, 7);
    let row = data::row(&run, None);
    // 513 of 1,320 steps of 12 epochs of 28,100 images at 412.7 images a second.
    assert_eq!(row.left_ms, Some(317_538));
    assert_eq!((row.step, row.workers, row.most_workers), (807, 3, 8));
    // The last step of an epoch has fewer images: that says nothing of the others.
    let mut partial = run.clone();
    if let Some(newest) = &mut partial.progress {
        newest.images = 12;
    }
    assert_eq!(data::row(&partial, None).left_ms, row.left_ms);
    assert!(!is_full_step(&partial, &partial.progress.unwrap()));
    assert!(is_full_step(&run, &run.progress.unwrap()));
    let mut stalled = run.clone();
    if let Some(newest) = &mut stalled.progress {
        newest.images_per_s = 0.0;
    }
    let stalled = data::row(&stalled, None);
    assert_eq!((stalled.left_ms, stalled.speed()), (None, None));
    let mut paused = run;
    paused.phase = Core::Paused;
    assert_eq!(data::row(&paused, None).left_ms, None);
}

#[test]
fn epochs_done_are_those_behind_the_newest_step() {
    let mut run = data::training(7, 7);
    assert_eq!(data::row(&run, None).epochs_done, 7);
    // After a step back into the sixth epoch its result and the next hold when their steps are taken again.
    if let Some(newest) = &mut run.progress {
        newest.step = 5 * 110 + 3;
    }
    assert_eq!(data::row(&run, None).epochs_done, 5);
    run.progress = None;
    assert_eq!(data::row(&run, None).epochs_done, 7);
}

#[test]
fn kappa_is_shown_of_runs_of_two_classes_too() {
    let mut run = data::training(7, 7);
    run.spec.model.classes = 2;
    assert!(data::row(&run, None).kappa.is_some());
    assert!(checkpoints(&run).iter().all(|c| c.kappa.is_some()));
}

#[test]
fn the_best_epoch_and_checkpoint_are_those_of_the_runs_metric() {
    let mut run = data::run(1, 6);
    run.epochs[4].validation.auc = Some(0.99);
    run.epochs[2].validation.loss = 0.1;
    let best = |run: &_| best_epoch(run).map(|e| e.epoch);
    assert_eq!(best(&run), Some(4));
    let marked = |run: &_| -> Vec<u64> {
        let all = checkpoints(run).into_iter();
        all.filter(|c| c.is_best).map(|c| c.step).collect()
    };
    assert_eq!(marked(&run), [550]);
    run.spec.checkpoint.keep_best = BestBy::Loss;
    assert_eq!(best(&run), Some(2));
    // The oldest of those that are there.
    assert_eq!(marked(&run), [330]);
    run.epochs.clear();
    assert_eq!((best(&run), marked(&run)), (None, vec![]));
}

#[test]
fn why_a_run_waits_follows_why_it_was_interrupted() {
    let mut run = data::run(1, 0);
    run.phase = Core::Queued {
        reason: Some("worker.lost: w1 is gone".into()),
    };
    let row = RunRow::of(&run, None, Some("needs 2 workers; idle: 0"));
    assert_eq!(
        row.reason,
        "worker.lost: w1 is gone; needs 2 workers; idle: 0"
    );
}

#[test]
fn what_may_be_done_follows_from_the_phase_and_from_who_asks() {
    let of = |phase, may| {
        let Actions {
            pause,
            resume,
            cancel,
            prioritize,
        } = Actions::of(phase, may);
        assert_eq!(prioritize, cancel, "as long as it has not ended");
        (pause, resume, cancel)
    };
    assert_eq!(of(Phase::Running, true), (true, false, true));
    assert_eq!(of(Phase::Queued, true), (true, false, true));
    assert_eq!(of(Phase::Paused, true), (false, true, true));
    assert_eq!(of(Phase::Failed, true), (false, true, false));
    assert_eq!(of(Phase::Completed, true), (false, false, false));
    assert_eq!(of(Phase::Running, false), (false, false, false));
}
