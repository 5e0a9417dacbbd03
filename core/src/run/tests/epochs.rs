//! The results of epochs, and the scores and losses that they are made of.

use super::*;

fn results(effects: &[Effect]) -> Vec<&EpochResult> {
    let mut results = Vec::new();
    for effect in effects {
        if let Effect::PublishEpoch(result) = effect {
            results.push(result);
        }
    }
    results
}

#[test]
fn an_epoch_has_one_result_when_every_sample_is_scored() {
    let mut run = running(&[0]);
    assert_eq!(run.next_epoch(), 0);
    // A repeated sample or one that does not exist does not complete the epoch.
    for sample in [0, 0, 9] {
        assert!(run.apply(0, scored(1, 0, sample)).is_empty());
    }
    let effects = run.apply(0, scored(1, 0, 1));
    let [result] = results(&effects)[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((result.step, result.validation.auc), (5, Some(1.0)));
    assert_eq!(result.train_loss, None, "no step was told");
    // Written together, before anybody hears of the result.
    let scores = EpochScores {
        epoch: 0,
        step: 5,
        classes: 2,
        probabilities: vec![0.8, 0.2, 0.2, 0.8],
        maps: None,
    };
    let [
        Effect::Persist,
        Effect::KeepScores(kept),
        Effect::PublishEpoch(_),
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(
        (kept.epoch, kept.step, kept.classes),
        (scores.epoch, scores.step, scores.classes)
    );
    let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
    assert!(
        kept.probabilities
            .iter()
            .zip(&scores.probabilities)
            .all(close),
        "{kept:?}"
    );
    for sample in [0, 1] {
        assert!(run.apply(0, scored(1, 0, sample)).is_empty());
    }
    assert_eq!(run.next_epoch(), 1);
}

#[test]
fn an_epochs_loss_is_that_of_its_steps_each_counted_once() {
    let lossy = |step, generation, loss, images| {
        let Event::StepCommitted { mut report, .. } = committed(step, generation) else {
            unreachable!()
        };
        (report.loss, report.images) = (loss, images);
        Event::StepCommitted { generation, report }
    };
    let mut run = running(&[0, 1]);
    for event in [
        lossy(1, 1, 4.0, 6),
        lossy(2, 1, 9.0, 2),
        lossy(2, 1, 9.0, 2),
    ] {
        run.apply(0, event);
    }
    // Only the lost worker took step 2; it is taken again.
    run.apply(0, lost(1));
    run.apply(0, ready(0, 2, 1, "a"));
    run.apply(0, lossy(2, 2, 2.0, 2));
    // Steps of the next epoch have been reported already.
    run.apply(0, lossy(6, 2, 100.0, 8));
    run.apply(0, scored(2, 0, 0));
    let effects = run.apply(0, scored(2, 0, 1));
    assert_eq!(
        results(&effects)[0].train_loss,
        Some((4.0 * 6.0 + 2.0 * 2.0) / 8.0)
    );
    // A repeated report after the epoch's result changes nothing.
    run.apply(0, lossy(5, 2, 50.0, 8));
    run.apply(0, scored(2, 1, 0));
    let effects = run.apply(0, scored(2, 1, 1));
    assert_eq!(results(&effects)[0].train_loss, Some(100.0));
}

#[test]
fn after_a_restart_losses_and_the_newest_step_come_from_the_ledger() {
    let mut run = running(&[0]);
    run.restore_losses([(1, 3.0, 8), (2, 1.0, 8)]);
    // The run was written before these steps.
    let newest = run.progress.unwrap();
    assert_eq!((newest.step, newest.loss, newest.images), (2, 1.0, 8));
    run.apply(0, scored(1, 0, 0));
    let effects = run.apply(0, scored(1, 0, 1));
    assert_eq!(results(&effects)[0].train_loss, Some(2.0));
}

/// What the workers have scored is added up while they score, and is never more than there is.
#[test]
fn an_evaluation_under_way_has_a_count() {
    let mut run = running(&[0, 1]);
    run.extent.validation_samples = 200;
    let mut beat = |i: u8, generation: u64, scored: u64| {
        let heartbeat = Heartbeat {
            scored,
            ..Heartbeat::default()
        };
        let worker = worker(i);
        run.apply(
            1000,
            Event::Progress {
                worker,
                generation,
                heartbeat,
            },
        );
        run.scored_so_far()
    };
    assert_eq!(beat(0, 1, 0), 0);
    assert_eq!(beat(0, 1, 1), 1);
    assert_eq!(beat(1, 1, 2), 3);
    assert_eq!(beat(1, 0, 1), 3, "of another generation");
    assert_eq!(beat(0, 1, u64::MAX), 200);
    run.apply(1000, lost(0));
    run.apply(1000, lost(1));
    assert_eq!((run.phase_name(), run.scored_so_far()), ("queued", 0));
}
