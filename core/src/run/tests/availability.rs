//! Tables: what a run does if a checkpoint or its dataset cannot be read at the coordinator.

use super::*;

const PATIENCE: u64 = 600_000;

/// A queued run with checkpoints at steps 2, 4 and 6.
fn stopped_at_six() -> Run {
    let mut run = running(&[0]);
    run.spec.checkpoint.keep_last = 0;
    for step in [2, 4, 6] {
        run.apply(0, committed(step, 1));
        run.apply(0, stored(step, 1));
    }
    let effects = run.apply(0, lost(0));
    assert_eq!(probed(&effects), [6], "on entering the queue");
    run
}

/// The steps of the checkpoints that the store is to probe.
fn probed(effects: &[Effect]) -> Vec<u64> {
    let step = |effect: &Effect| match effect {
        Effect::ProbeCheckpoint(info) => Some(info.step),
        _ => None,
    };
    effects.iter().filter_map(step).collect()
}

fn logged(effects: &[Effect], event: &str) -> bool {
    let starts = |effect: &Effect| matches!(effect, Effect::Log { message, .. } if message.starts_with(&format!("{event}: ")));
    effects.iter().any(starts)
}

fn steps(run: &Run) -> Vec<u64> {
    run.checkpoints.iter().map(|c| c.step).collect()
}

#[test]
fn a_queued_run_waits_for_a_checkpoint_and_goes_on_when_it_is_readable() {
    let mut run = stopped_at_six();
    assert_eq!((run.start_blocked(0), run.wake()), (None, None));
    assert!(run.apply(0, readable(6, 1)).is_empty());
    assert!(run.apply(0, unreadable(6, 9)).is_empty(), "another file");
    let effects = run.apply(1000, unreadable(6, 1));
    assert!(logged(&effects, "checkpoint.unreadable"), "{effects:?}");
    assert_eq!(
        run.start_blocked(8000).as_deref(),
        Some(
            "checkpoint 6 cannot be read (Permission denied); retrying, and going on from checkpoint 4 \
             in 593 s unless it can be"
        )
    );
    assert!(run.apply(8000, assigned(&[0])).is_empty(), "it is blocked");
    // It probes once a second, also the checkpoint from which it would continue. `wake` says when.
    assert_eq!(run.wake(), Some(2000));
    assert!(run.apply(1999, Event::Tick).is_empty());
    assert_eq!(probed(&run.apply(2000, Event::Tick)), [6, 4]);
    assert_eq!(run.wake(), Some(3000));
    // The same report again logs nothing.
    assert!(run.apply(2001, unreadable(6, 1)).is_empty());
    let effects = run.apply(3001, readable(6, 1));
    assert!(logged(&effects, "checkpoint.readable"), "{effects:?}");
    assert_eq!(run.start_blocked(3001), None);
    run.apply(3001, assigned(&[0]));
    assert_eq!(run.roster().unwrap().start_step, 6);
    assert_eq!((run.lineage, steps(&run)), (0, vec![2, 4, 6]));
}

#[test]
fn after_the_patience_a_run_goes_on_from_the_previous_readable_checkpoint() {
    let mut run = stopped_at_six();
    run.apply(1000, unreadable(6, 1));
    run.apply(1000, unreadable(4, 1));
    let late = 1000 + PATIENCE;
    assert!(run.start_blocked(late - 1).is_some());
    assert_eq!(run.start_checkpoint(late - 1), Some(&info(6, 1)));
    assert_eq!(run.start_blocked(late), None);
    assert_eq!(run.start_checkpoint(late), Some(&info(2, 1)));
    let effects = run.apply(late, assigned(&[0]));
    assert!(effects.contains(&Effect::Rewind { step: 2 }));
    assert!(logged(&effects, "run.rewound"), "{effects:?}");
    assert_eq!(run.roster().unwrap().start_step, 2);
    // No checkpoint is removed, and states of the previous lineage are void.
    assert_eq!((run.lineage, steps(&run)), (1, vec![2, 4, 6]));
    // A checkpoint that is readable again stays void.
    run.apply(late, readable(6, 1));
    assert_eq!(run.start_checkpoint(late), Some(&info(2, 1)));
}

#[test]
fn a_run_without_another_readable_checkpoint_waits_for_the_store() {
    let mut run = stopped_at_six();
    for step in [2, 4, 6] {
        run.apply(0, unreadable(step, 1));
    }
    let why = run.start_blocked(10 * PATIENCE).expect("it waits");
    assert!(why.contains("waits for the store"), "{why}");
    assert!(run.apply(10 * PATIENCE, assigned(&[0])).is_empty());
    assert_eq!(probed(&run.apply(10 * PATIENCE, Event::Tick)), [6, 4, 2]);
    run.apply(10 * PATIENCE, Event::Cancel);
    assert_eq!((run.phase_name(), run.wake()), ("cancelled", None));
}

#[test]
fn the_patience_begins_when_the_run_needs_the_checkpoint() {
    let mut run = running(&[0]);
    run.apply(0, stored(2, 1));
    run.apply(0, stored(4, 1));
    run.apply(0, unreadable(4, 1));
    assert_eq!(run.wake(), None, "those who train need no checkpoint");
    let later = 5 * PATIENCE;
    run.apply(later, lost(0));
    assert!(run.start_blocked(later + PATIENCE - 1).is_some());
    assert_eq!(run.start_blocked(later + PATIENCE), None);
}

#[test]
fn a_forming_generation_goes_on_from_an_older_checkpoint_and_one_that_runs_never_needed_it() {
    let mut run = stopped_at_six();
    run.apply(0, assigned(&[0, 1]));
    run.apply(0, unreadable(6, 1));
    let mut served = run.clone();
    let tick = |run: &mut Run, now| {
        // Both workers fetch data, so they make progress.
        for i in [0, 1] {
            let heartbeat = Heartbeat {
                ticks: now,
                ..Heartbeat::default()
            };
            let (worker, generation) = (worker(i), run.generation);
            run.apply(
                now,
                Event::Progress {
                    worker,
                    generation,
                    heartbeat,
                },
            );
        }
        run.apply(now, Event::Tick)
    };
    for now in (0..PATIENCE).step_by(1000) {
        assert!(sent(&tick(&mut run, now)).is_none(), "at {now}");
    }
    let effects = tick(&mut run, PATIENCE);
    let (roster, at_boundary, _) = sent(&effects).expect("a roster");
    assert_eq!((roster.start_step, at_boundary), (4, false));
    assert!(effects.contains(&Effect::Rewind { step: 4 }));
    assert_eq!(run.lineage, 1);
    // Members that hold a newer state do not need the checkpoint.
    served.apply(0, ready(0, 2, 7, "a"));
    served.apply(0, ready(1, 2, 7, "a"));
    for now in (0..2 * PATIENCE).step_by(1000) {
        assert!(tick(&mut served, now).is_empty(), "at {now}");
    }
    assert_eq!((served.phase_name(), served.lineage), ("running", 0));
}

#[test]
fn an_unreadable_checkpoint_makes_no_other_expendable() {
    let mut run = running(&[0]);
    run.spec.checkpoint.keep_last = 1;
    run.apply(0, stored(2, 1));
    run.apply(0, unreadable(2, 1));
    run.apply(0, stored(4, 1));
    assert_eq!(steps(&run), [2, 4], "nor is it removed");
    run.apply(0, unreadable(4, 1));
    run.apply(0, readable(2, 1));
    run.apply(0, stored(3, 1));
    assert_eq!(steps(&run), [3, 4], "3 is the newest that can be read");
    run.apply(0, readable(4, 1));
    run.apply(0, stored(6, 1));
    assert_eq!(steps(&run), [6]);
}

#[test]
fn a_restarted_coordinator_asks_the_store() {
    let json = serde_json::to_string(&stopped_at_six()).unwrap();
    let mut run = serde_json::from_str::<Run>(&json).unwrap().recovered(700);
    assert_eq!(run.wake(), Some(700));
    assert_eq!(probed(&run.apply(700, Event::Tick)), [6]);
    assert_eq!(run.wake(), None);
}

#[test]
fn a_blocked_worker_ends_the_generation_and_counts_as_no_failure() {
    let mut run = queued();
    let mut now = 0;
    for wait in [2000, 4000, 8000, 16_000, 30_000, 30_000] {
        run.apply(now, assigned(&[0, 1, 2]));
        if wait == 8000 {
            (0..3).for_each(|i| drop(run.apply(now, ready(i, run.generation, 0, "a"))));
            assert_eq!(run.phase_name(), "running");
        }
        let generation = run.generation;
        let effects = run.apply(now, released(1, generation, blocked()));
        let let_go = [(worker(0), generation), (worker(2), generation)];
        assert_eq!(aborted(&effects), let_go);
        assert!(logged(&effects, "worker.blocked"), "{effects:?}");
        let Phase::Queued { reason: Some(why) } = &run.phase else {
            panic!("{:?}", run.phase)
        };
        assert!(why.contains("pack 3 cannot be read"), "{why}");
        assert_eq!((run.failures, run.futile, run.stale), (0, 0, 0));
        assert_eq!(run.barred_until(&worker(1)), 0);
        assert_eq!(run.wake(), Some(now + wait));
        assert!(run.start_blocked(now + wait - 1).is_some());
        now += wait;
        assert_eq!(run.start_blocked(now), None);
        run.apply(now, Event::Tick);
        assert_eq!(run.wake(), None);
    }
    // Blocked workers never fail a run, however often.
    for _ in 0..3 * STALE_GENERATIONS {
        run.apply(now, assigned(&[0]));
        run.apply(now, released(0, run.generation, blocked()));
        now += 30_000;
    }
    assert_eq!(run.phase_name(), "queued");
    // Progress resets the delay.
    run.apply(now, assigned(&[0]));
    run.apply(now, ready(0, run.generation, 0, "a"));
    run.apply(now, committed(1, run.generation));
    run.apply(now, released(0, run.generation, blocked()));
    assert_eq!(run.wake(), Some(now + 2000));
    // A person's request does not wait for the delay to end.
    run.apply(now, Event::Pause);
    assert_eq!(run.phase, Phase::Paused);
    run.apply(now, resume(None));
    assert_eq!(run.start_blocked(now), None);
}

#[test]
fn a_run_that_is_to_stop_stops_when_it_is_blocked_and_one_that_ends_goes_on_ending() {
    let mut run = running(&[0, 1]);
    run.apply(0, Event::Cancel);
    run.apply(0, released(0, 1, blocked()));
    assert_eq!(run.phase, Phase::Cancelled);
    let mut run = running(&[0, 1]);
    run.apply(0, released(0, 1, Outcome::Completed { step: 10 }));
    run.apply(0, stored(10, 1));
    run.apply(0, released(1, 1, blocked()));
    assert_eq!(run.phase, Phase::Completed);
}

#[test]
fn a_run_whose_data_cannot_be_read_is_held_back_until_they_can() {
    let unavailable = || Event::DataUnavailable {
        reason: "pack 3 is damaged: run `fovea dataset add DIR`".into(),
    };
    for mut run in [queued(), queued(), running(&[0, 1])] {
        run.apply(0, unavailable());
        assert_eq!(run.phase_name(), "queued");
        let why = run.start_blocked(u64::MAX).expect("it is held back");
        assert!(why.contains("fovea dataset add DIR"), "{why}");
        assert!(run.apply(0, assigned(&[0])).is_empty());
        let mut cancelled = run.clone();
        cancelled.apply(0, Event::Cancel);
        assert_eq!(cancelled.phase, Phase::Cancelled);
        run.apply(0, Event::DataAvailable);
        assert_eq!(run.start_blocked(0), None);
        run.apply(0, assigned(&[0]));
        assert_eq!(run.phase_name(), "forming");
        assert_eq!(run.stale, 1);
    }
    let effects = running(&[0, 1]).apply(0, unavailable());
    assert_eq!(aborted(&effects), [(worker(0), 1), (worker(1), 1)]);
}

#[test]
fn a_checkpoint_that_an_older_generation_could_not_store_is_counted_and_changes_nothing_else() {
    let mut run = running(&[0, 1]);
    run.apply(0, lost(1));
    run.apply(0, ready(0, 2, 0, "a"));
    run.apply(0, released(0, 2, Outcome::Completed { step: 10 }));
    assert_eq!(run.phase_name(), "finishing");
    let mut expected = run.clone();
    expected.checkpoint_failures = 1;
    let effects = run.apply(0, not_stored(10, 1));
    assert!(logged(&effects, "checkpoint.failed"));
    assert_eq!(
        (&effects[1..], run.clone()),
        (&[Effect::Persist][..], expected)
    );
    run.apply(0, not_stored(10, 2));
    assert_eq!(run.phase_name(), "queued");
}

#[test]
fn people_are_shown_messages_without_the_events_name() {
    for (message, shown) in [
        (
            "worker.lost: worker w1 was lost: reset",
            "worker w1 was lost: reset",
        ),
        ("worker w1: no name", "worker w1: no name"),
        ("no colon", "no colon"),
    ] {
        assert_eq!(without_event_name(message), shown);
    }
}
