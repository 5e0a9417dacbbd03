//! Tables: how runs end and pause, and which checkpoints they leave.

use super::*;

fn finishing(of: &[u8], first: u8, outcome: Outcome, wish: Option<Event>) -> Run {
    let mut run = running(of);
    if let Some(wish) = wish {
        run.apply(0, wish);
    }
    run.apply(0, released(first, 1, outcome));
    run
}

fn steps(run: &Run) -> Vec<u64> {
    run.checkpoints.iter().map(|c| c.step).collect()
}

#[test]
fn wishes_in_every_phase() {
    // (phase, run before, request, phase after, aborted workers, stopped workers)
    type Case = (
        &'static str,
        fn() -> Run,
        Event,
        &'static str,
        &'static [u8],
        &'static [u8],
    );
    let forming: fn() -> Run = || {
        let mut run = queued();
        run.apply(0, assigned(&[0, 1]));
        run
    };
    let under_way: fn() -> Run = || running(&[0, 1]);
    let ends: fn() -> Run =
        || finishing(&[0, 1], 0, Outcome::Stopped { step: 4 }, Some(Event::Drain));
    let complete: fn() -> Run = || finishing(&[0, 1], 0, Outcome::Completed { step: 10 }, None);
    let rest: fn(Event) -> Run = |event| {
        let mut run = queued();
        run.apply(0, event);
        run
    };
    let table: Vec<Case> = vec![
        ("queued", queued, Event::Cancel, "cancelled", &[], &[]),
        ("queued", queued, Event::Pause, "paused", &[], &[]),
        ("queued", queued, Event::Drain, "queued", &[], &[]),
        ("forming", forming, Event::Cancel, "cancelled", &[0, 1], &[]),
        ("forming", forming, Event::Pause, "paused", &[0, 1], &[]),
        ("forming", forming, Event::Drain, "queued", &[0, 1], &[]),
        ("running", under_way, Event::Cancel, "running", &[], &[0, 1]),
        ("running", under_way, Event::Pause, "running", &[], &[0, 1]),
        ("running", under_way, Event::Drain, "running", &[], &[0, 1]),
        ("finishing", ends, Event::Cancel, "finishing", &[], &[]),
        ("finishing", ends, Event::Pause, "finishing", &[], &[]),
        ("finishing", ends, Event::Drain, "finishing", &[], &[]),
        ("finishing", complete, Event::Cancel, "finishing", &[], &[]),
        (
            "paused",
            || queued().after(Event::Pause),
            Event::Cancel,
            "cancelled",
            &[],
            &[],
        ),
        (
            "paused",
            || queued().after(Event::Pause),
            resume(None),
            "queued",
            &[],
            &[],
        ),
        (
            "cancelled",
            || queued().after(Event::Cancel),
            resume(None),
            "queued",
            &[],
            &[],
        ),
        (
            "cancelled",
            || queued().after(Event::Cancel),
            Event::Drain,
            "cancelled",
            &[],
            &[],
        ),
        ("running", under_way, resume(None), "running", &[], &[]),
    ];
    for (phase, before, wish, after, told_to_abort, told_to_stop) in table {
        let mut run = before();
        assert_eq!(run.phase_name(), phase);
        let effects = run.apply(1, wish.clone());
        let what = format!("{wish:?} when {phase}");
        assert_eq!(run.phase_name(), after, "{what}");
        let who: Vec<WorkerId> = aborted(&effects).into_iter().map(|(w, _)| w).collect();
        assert_eq!(who, workers(told_to_abort), "{what}");
        let who = stopped(&effects).map_or_else(Vec::new, |(who, _)| who);
        assert_eq!(who, workers(told_to_stop), "{what}");
    }
    // Requests that are refused.
    let refused = |run: &Run, event: &Event| run.admit(event).is_err();
    let cancelled = rest(Event::Cancel);
    assert!(refused(&cancelled, &Event::Cancel) && refused(&cancelled, &Event::Pause));
    assert!(refused(&rest(Event::Pause), &Event::Pause));
    assert!(refused(&running(&[0]), &resume(None)));
    assert!(refused(&cancelled, &resume(Some(4))));
}

impl Run {
    fn after(mut self, event: Event) -> Self {
        self.apply(0, event);
        self
    }
}

#[test]
fn the_end_waits_for_members_and_for_the_checkpoint() {
    type Case = (Outcome, Option<Event>, &'static str);
    let stop = |step| Outcome::Stopped { step };
    let give = Event::Give {
        workers: workers(&[0, 1]),
        taker: RunId::new("urgent-2").unwrap(),
    };
    let table: [Case; 5] = [
        (Outcome::Completed { step: 10 }, None, "completed"),
        (stop(10), Some(Event::Cancel), "cancelled"),
        (stop(10), Some(Event::Pause), "paused"),
        (stop(10), Some(Event::Drain), "queued"),
        (stop(10), Some(give), "queued"),
    ];
    for (outcome, wish, end) in table {
        for members_first in [true, false] {
            let mut run = finishing(&[0, 1], 1, outcome.clone(), wish.clone());
            let mut events = [released(0, 1, outcome.clone()), stored(10, 1)];
            if !members_first {
                events.reverse();
            }
            let [first, second] = events;
            run.apply(1, first);
            assert_eq!(run.phase_name(), "finishing");
            run.apply(2, second);
            assert_eq!(run.phase_name(), end);
        }
    }
}

#[test]
fn a_stop_is_carried_over_a_loss() {
    let mut run = running(&[0, 1, 2]);
    run.apply(0, Event::Pause);
    let effects = run.apply(1, lost(1));
    assert!(stopped(&effects).is_none());
    run.apply(2, ready(0, 2, 3, "a"));
    let effects = run.apply(2, ready(2, 2, 3, "a"));
    assert_eq!(stopped(&effects), Some((workers(&[0, 2]), 2)));
    // No worker is left to stop: the run is paused, as requested.
    run.apply(3, lost(0));
    run.apply(3, lost(2));
    assert_eq!(run.phase, Phase::Paused);
}

#[test]
fn a_loss_spoils_the_last_checkpoint() {
    let stop = || Outcome::Stopped { step: 4 };
    let table = [
        (Outcome::Completed { step: 10 }, None, "queued"),
        (stop(), Some(Event::Cancel), "cancelled"),
        (stop(), Some(Event::Pause), "paused"),
        (stop(), Some(Event::Drain), "queued"),
    ];
    for (outcome, wish, end) in table {
        let Some(step) = (match outcome {
            Outcome::Completed { step } | Outcome::Stopped { step } => Some(step),
            _ => None,
        }) else {
            unreachable!()
        };
        let run = finishing(&[0, 1], 0, outcome, wish);
        let mut spoiled = run.clone();
        spoiled.apply(1, lost(1));
        assert_eq!(spoiled.phase_name(), end);
        // The loss of a worker that has done its part, or whose checkpoint is stored, changes nothing.
        let mut run = run;
        assert!(run.apply(1, lost(0)).is_empty());
        let mut refused = run.clone();
        refused.apply(1, not_stored(step + 1, 1));
        assert_eq!(refused.phase_name(), "finishing");
        run.apply(1, stored(step, 1));
        run.apply(2, not_stored(step, 1));
        assert_eq!(run.phase_name(), "finishing");
        run.apply(2, released(1, 1, failure(true)));
        let end = if step == 10 { "completed" } else { end };
        assert_eq!(run.phase_name(), end);
    }
}

#[test]
fn a_member_that_cannot_do_its_last_part_is_given_up() {
    // It is interrupted before the others are done, or after.
    for before in [true, false] {
        let mut run = running(&[0, 1, 2]);
        let mut events = [
            interrupted(1, 1),
            released(0, 1, Outcome::Completed { step: 10 }),
        ];
        if !before {
            events.reverse();
        }
        for event in events {
            run.apply(1000, event);
        }
        assert_eq!(run.phase_name(), "finishing");
        let effects = run.apply(1200, Event::Tick);
        assert_eq!(aborted(&effects), [(worker(1), 1), (worker(2), 1)]);
        assert_eq!((run.phase_name(), run.wake()), ("queued", None));
    }
    // Or it hangs, or waits for a worker that is done. A worker that is done sends no progress and is not stuck.
    for waiting_for in [None, Some(0)] {
        let stop = Outcome::Stopped { step: 4 };
        let mut run = finishing(&[0, 1], 0, stop, Some(Event::Cancel));
        let mut told = Vec::new();
        for now in (0..70_000).step_by(1000) {
            run.apply(
                now,
                Event::Progress {
                    worker: worker(1),
                    generation: 1,
                    heartbeat: Heartbeat {
                        ticks: 1,
                        waiting_for,
                        polls: now,
                        scored: 0,
                    },
                },
            );
            told.extend(aborted(&run.apply(now, Event::Tick)));
        }
        assert_eq!(told, [(worker(1), 1)], "{waiting_for:?}");
        assert_eq!(run.phase, Phase::Cancelled);
    }
}

#[test]
fn a_last_checkpoint_that_cannot_be_stored_fails_the_run_in_the_end() {
    for event in [not_stored(10, 0), released(1, 0, failure(false))] {
        let mut run = queued();
        let mut attempts = 0;
        while run.phase_name() != "failed" {
            attempts += 1;
            assert!(attempts <= FUTILE_FAILURES, "it never gives up");
            run.apply(0, assigned(&[0, 1]));
            let generation = run.generation;
            run.apply(0, released(0, generation, Outcome::Completed { step: 10 }));
            assert_eq!(run.phase_name(), "finishing");
            let event = match event.clone() {
                Event::Released { outcome, .. } => released(1, generation, outcome),
                Event::CheckpointFailed { step, .. } => not_stored(step, generation),
                other => other,
            };
            run.apply(0, event);
        }
        assert_eq!(attempts, FUTILE_FAILURES);
    }
}

#[test]
fn a_damaged_checkpoint_counts_no_more() {
    let mut run = running(&[0, 1]);
    run.spec.checkpoint.keep_last = 0;
    run.apply(0, stored(3, 1));
    run.apply(0, stored(6, 1));
    run.apply(0, lost(1));
    assert_eq!(run.roster().unwrap().start_step, 6);
    assert!(run.apply(0, damaged(6, 9)).is_empty(), "another file");
    let effects = run.apply(0, damaged(6, 1));
    assert!(effects.contains(&Effect::QuarantineCheckpoint(info(6, 1))));
    let (roster, at_boundary, _) = sent(&effects).expect("a roster");
    assert_eq!(
        (roster.generation, roster.start_step, at_boundary),
        (3, 3, false)
    );
    // A generation that trains holds its state and needs no checkpoint.
    run.apply(0, ready(0, 3, 7, "a"));
    assert!(sent(&run.apply(0, damaged(3, 1))).is_none());
    assert_eq!(
        (run.phase_name(), run.start_checkpoint(0)),
        ("running", None)
    );
    // The checkpoint that the run's end waits for.
    let mut run = finishing(&[0, 1], 0, Outcome::Completed { step: 10 }, None);
    run.apply(0, stored(10, 1));
    run.apply(0, damaged(10, 1));
    assert_eq!(run.phase_name(), "queued");
}

#[test]
fn checkpoints_expire_but_not_under_a_readers_hands() {
    let mut run = running(&[0, 1]);
    run.spec.checkpoint.keep_last = 1;
    run.apply(0, stored(3, 1));
    let effects = run.apply(0, stored(6, 1));
    assert!(effects.contains(&Effect::RemoveCheckpoint(info(3, 1))));
    run.apply(0, lost(1));
    run.apply(0, stored(9, 1));
    assert_eq!(
        steps(&run),
        [6, 9],
        "a worker may be fetching that of step 6"
    );
    run.apply(0, ready(0, 2, 7, "a"));
    run.apply(0, stored(9, 2));
    assert_eq!(run.checkpoints, [info(9, 2)]);
    // A late checkpoint of an older generation does not replace it.
    let effects = run.apply(0, stored(9, 1));
    assert_eq!(effects, [Effect::RemoveCheckpoint(info(9, 1))]);
    assert_eq!(run.checkpoints, [info(9, 2)]);
}

/// A run with the results of one epoch and three checkpoints, cancelled at step 8.
fn cancelled() -> Run {
    let mut run = running(&[0]);
    run.spec.checkpoint.keep_last = 3;
    for step in [4, 5, 8] {
        run.apply(0, stored(step, 1));
    }
    for sample in 0..2 {
        run.apply(0, scored(1, 0, sample));
    }
    run.apply(0, Event::Cancel);
    run.apply(0, released(0, 1, Outcome::Stopped { step: 8 }));
    assert_eq!(run.phase, Phase::Cancelled);
    assert_eq!(run.epochs.len(), 1);
    run
}

#[test]
fn a_resume_from_an_older_checkpoint_voids_what_came_after() {
    let mut run = cancelled();
    let effects = run.apply(0, resume(Some(4)));
    assert!(effects.contains(&Effect::Rewind { step: 4 }));
    assert_eq!((run.lineage, steps(&run)), (1, vec![4, 5, 8]));
    assert_eq!(run.start_checkpoint(0), Some(&info(4, 1)));
    assert!(run.epochs.is_empty());
    // A checkpoint that was still being written is not listed, and the void ones are no start.
    run.apply(0, stored(7, 1));
    assert_eq!(steps(&run), [4, 5, 8]);
    run.apply(0, Event::Pause);
    assert!(matches!(
        run.admit(&resume(Some(8))),
        Err(RunError::NoCheckpoint { have, .. }) if have == "4"
    ));
    run.apply(0, resume(None));
    assert_eq!(run.lineage, 1, "a mere pause voids nothing");
    run.apply(0, assigned(&[0]));
    run.apply(0, ready(0, 2, 4, "a"));
    // The void checkpoint of step 8 does not count as the run's last one.
    run.apply(0, Event::Cancel);
    run.apply(0, released(0, 2, Outcome::Stopped { step: 8 }));
    assert_eq!(run.phase_name(), "finishing");
    let effects = run.apply(0, stored(8, 2));
    assert_eq!(run.phase, Phase::Cancelled);
    for gone in [info(5, 1), info(8, 1)] {
        assert!(effects.contains(&Effect::RemoveCheckpoint(gone)));
    }
    // The checkpoint that a person chose stays.
    assert_eq!(run.checkpoints, [info(4, 1), info(8, 2)]);
}

/// Who was furthest is gone: the step that is shown is the one from which the others go on, and not none.
#[test]
fn a_step_back_is_shown_as_the_step_that_is_gone_back_to() {
    let mut run = running(&[0, 1]);
    (1..=8).for_each(|step| drop(run.apply(0, committed(step, 1))));
    run.apply(0, stored(6, 1));
    run.apply(0, lost(1));
    run.apply(0, ready(0, 2, 7, "a"));
    assert_eq!(run.phase_name(), "running");
    let shown = run.progress.expect("there are steps");
    assert_eq!((shown.step, shown.loss, shown.images), (7, 0.5, 8));
    // A rewind, too, and one to the beginning.
    run.apply(0, Event::Cancel);
    run.apply(0, released(0, 2, Outcome::Stopped { step: 7 }));
    run.apply(0, stored(7, 2));
    assert_eq!(run.phase, Phase::Cancelled);
    run.apply(0, resume(Some(6)));
    assert_eq!(run.progress.map(|p| p.step), Some(6));
    let mut run = running(&[0]);
    run.apply(0, committed(1, 1));
    run.apply(0, lost(0));
    run.apply(0, assigned(&[2]));
    run.apply(0, ready(2, 2, 0, "a"));
    assert_eq!(run.progress, None);
}

#[test]
fn an_early_end_of_an_adopted_state_takes_the_checkpoint_that_is_there() {
    let mut run = running(&[0, 1]);
    run.apply(0, stored(8, 1));
    run.apply(0, lost(1));
    run.apply(0, ready(0, 2, 8, "a"));
    run.apply(0, Event::Pause);
    run.apply(0, released(0, 2, Outcome::Stopped { step: 8 }));
    assert_eq!(run.phase, Phase::Paused);
}
