//! Tables: membership, and what follows from the members' health.

use std::collections::BTreeSet;

use super::*;

fn progress(i: u8, generation: u64, ticks: u64, waiting_for: Option<u32>, polls: u64) -> Event {
    Event::Progress {
        worker: worker(i),
        generation,
        heartbeat: Heartbeat {
            ticks,
            waiting_for,
            polls,
            scored: 0,
        },
    }
}

fn leaving(i: u8) -> Event {
    Event::WorkerLeaving { worker: worker(i) }
}

fn unreachable(i: u8, generation: u64, peers: &[u8]) -> Event {
    Event::Unreachable {
        worker: worker(i),
        generation,
        peers: workers(peers),
    }
}

#[test]
fn survivors_of_a_loss_go_on_at_once_in_their_order() {
    let mut run = running(&[2, 0, 1]);
    run.apply(1, stored(5, 1));
    let effects = run.apply(2, lost(0));
    let (roster, at_boundary, discard) = sent(&effects).expect("a roster");
    assert_eq!(
        (roster.generation, roster.start_step, at_boundary),
        (2, 5, false)
    );
    assert!(discard.is_empty());
    assert_eq!(members(&run), workers(&[2, 1]));
    assert_eq!(run.phase_name(), "forming");
    assert!(effects.contains(&Effect::Persist) && aborted(&effects).is_empty());
    // The loss of a worker that is no member changes nothing.
    assert!(run.apply(3, lost(0)).is_empty());
    // Another member is lost while the next generation forms.
    assert!(sent(&run.apply(4, lost(2))).is_some());
    assert_eq!((members(&run), run.generation), (workers(&[1]), 3));
}

#[test]
fn too_few_survivors_let_go_and_wait() {
    let mut run = running(&[0, 1]);
    run.spec.workers.min = 2;
    let effects = run.apply(1, lost(0));
    assert_eq!(aborted(&effects), [(worker(1), 1)]);
    let Phase::Queued { reason: Some(why) } = &run.phase else {
        panic!("{:?}", run.phase)
    };
    assert!(why.contains("1 worker left, at least 2 needed"), "{why}");
    assert_eq!(run.wake(), None);
    // It accepts no fewer workers than `workers.min`, and at most `workers.max` of them.
    assert!(run.apply(2, assigned(&[1])).is_empty());
    run.spec.workers.max = 3;
    run.apply(2, assigned(&[1, 2, 3, 0]));
    assert_eq!(members(&run), workers(&[1, 2, 3]));
}

#[test]
fn workers_join_at_a_boundary_as_far_as_there_is_room() {
    let mut run = running(&[0, 1]);
    run.spec.workers.max = 3;
    assert_eq!(run.vacancies(), 1);
    let effects = run.apply(1, joined(&[1, 2, 3]));
    let (roster, at_boundary, _) = sent(&effects).expect("a roster");
    assert_eq!((roster.generation, at_boundary), (2, true));
    assert_eq!(members(&run), workers(&[0, 1, 2]));
    assert_eq!(run.vacancies(), 0);
    // A run that is being stopped accepts none.
    let mut run = running(&[0]);
    run.apply(1, Event::Pause);
    assert_eq!(run.vacancies(), 0);
    assert!(run.apply(2, joined(&[1])).is_empty());
}

#[test]
fn joining_and_leaving_again_and_again_is_no_setback() {
    let mut run = running(&[0]);
    for _ in 0..2 * FUTILE_GENERATIONS {
        for event in [joined(&[1]), leaving(1)] {
            run.apply(1, event);
            for member in [0, 1] {
                run.apply(1, ready(member, run.generation, 0, "a"));
            }
            assert_eq!(run.phase_name(), "running");
        }
    }
}

#[test]
fn a_leaver_is_let_go_at_a_boundary_if_others_go_on() {
    let mut run = running(&[0, 1]);
    let effects = run.apply(1, leaving(0));
    let (roster, at_boundary, _) = sent(&effects).expect("a roster");
    assert_eq!((roster.generation, at_boundary), (2, true));
    assert_eq!(members(&run), workers(&[1]));
    let let_go = Effect::SendYield {
        worker: worker(0),
        generation: 1,
    };
    assert!(effects.contains(&let_go));
    assert!(
        run.apply(2, released(0, 1, Outcome::Yielded { step: 3 }))
            .is_empty()
    );
    // While a generation forms there is no step boundary to wait for.
    let mut run = running(&[0, 1, 2]);
    run.apply(1, lost(2));
    let effects = run.apply(2, leaving(0));
    assert_eq!(aborted(&effects), [(worker(0), 2)]);
    assert!(matches!(sent(&effects), Some((_, false, _))));
    // The last worker stores a checkpoint before it leaves.
    let mut run = running(&[0]);
    let effects = run.apply(1, leaving(0));
    assert_eq!(stopped(&effects), Some((workers(&[0]), 1)));
    run.apply(2, released(0, 1, Outcome::Stopped { step: 3 }));
    assert_eq!(run.phase_name(), "finishing");
    run.apply(3, stored(3, 1));
    assert!(matches!(run.phase, Phase::Queued { reason: Some(_) }));
}

#[test]
fn an_interruption_waits_for_the_news_of_a_loss() {
    let mut run = running(&[0, 1, 2]);
    assert!(run.apply(1000, interrupted(0, 1)).is_empty());
    assert!(run.apply(1010, interrupted(1, 1)).is_empty());
    assert_eq!(run.wake(), Some(1200));
    assert!(run.apply(1199, Event::Tick).is_empty());
    let mut informed = run.clone();
    let effects = run.apply(1200, Event::Tick);
    assert!(matches!(sent(&effects), Some((_, false, _))));
    assert_eq!(members(&run), workers(&[0, 1, 2]));
    // A generation that begins meanwhile does not wait for a step boundary, which would not come.
    let effects = informed.clone().apply(1199, joined(&[3]));
    assert!(matches!(sent(&effects), Some((_, false, _))));
    informed.apply(1199, lost(2));
    assert_eq!(informed.generation, 2);
    assert!(informed.apply(1300, Event::Tick).is_empty());
    assert_eq!(informed.generation, 2);
}

#[test]
fn whom_most_cannot_reach_is_put_out() {
    let mut run = queued();
    run.apply(0, assigned(&[0, 1, 2]));
    for (from, to) in [(1, &[0, 2][..]), (0, &[1]), (2, &[1])] {
        assert!(run.apply(100, unreachable(from, 1, to)).is_empty());
    }
    assert!(run.apply(599, Event::Tick).is_empty());
    let effects = run.apply(600, Event::Tick);
    assert_eq!(aborted(&effects), [(worker(1), 1)]);
    assert_eq!(members(&run), workers(&[0, 2]));
    // Its address is named, and what to look at: in the run's reason, in the log, and to the worker itself.
    let expected =
        "worker w1 cannot be reached by its peers at h:1; check that this is its right address";
    let Phase::Forming {
        reason: Some(reason),
        ..
    } = &run.phase
    else {
        panic!("{:?}", run.phase)
    };
    assert!(reason.starts_with(expected), "{reason}");
    for hint in ["`advertise`", "firewall", "`listen`"] {
        assert!(reason.contains(hint), "{reason}");
    }
    let told = |effect: &Effect| match effect {
        Effect::Log { message, .. } => message.ends_with(reason),
        Effect::SendAbort { reason: sent, .. } => sent == reason,
        _ => false,
    };
    assert_eq!(
        effects.iter().filter(|effect| told(effect)).count(),
        2,
        "{effects:?}"
    );
    // A worker that reports only workers who are no members is not evicted for it.
    run.apply(700, unreachable(2, 2, &[5]));
    let effects = run.apply(1300, Event::Tick);
    assert!(aborted(&effects).is_empty());
    assert_eq!((members(&run), run.generation), (workers(&[0, 2]), 3));
    // A report is ignored once all members are connected.
    run.apply(1400, unreachable(0, 3, &[2]));
    run.apply(1450, ready(0, 3, 0, "a"));
    run.apply(1450, ready(2, 3, 0, "a"));
    assert!(run.apply(2000, Event::Tick).is_empty());
}

/// Ticks four times a second, with the workers' messages in between, until there are effects. Returns the time and the
/// effects.
fn watch(run: &mut Run, mut now: u64, says: impl Fn(u64) -> Vec<Event>) -> (u64, Vec<Effect>) {
    for _ in 0..1000 {
        now += 250;
        for event in says(now) {
            run.apply(now, event);
        }
        let effects = run.apply(now, Event::Tick);
        if !effects.is_empty() {
            return (now, effects);
        }
    }
    panic!("nothing ever follows")
}

#[test]
fn a_stuck_worker_is_put_out_after_ten_steps_time() {
    let mut run = running(&[0, 1]);
    let Event::StepCommitted { mut report, .. } = committed(1, 1) else {
        unreachable!()
    };
    report.phases.forward_ms = 800.0;
    let generation = 1;
    run.apply(0, Event::StepCommitted { generation, report });
    let waits = |now| vec![progress(0, 1, 5, Some(1), now), progress(1, 1, 5, None, 0)];
    let (now, effects) = watch(&mut run, 0, waits);
    // The first heartbeat, at 250 ms, counted as progress.
    assert_eq!(now, 8500);
    assert_eq!(aborted(&effects), [(worker(1), 1)]);
    assert_eq!(members(&run), workers(&[0]));
    // The evicted worker is barred for 8 s.
    assert_eq!(run.barred_until(&worker(1)), now + 8000);
}

#[test]
fn a_worker_that_hangs_within_a_wait_is_put_out_as_soon_as_one_that_hangs_elsewhere() {
    let mut run = running(&[0, 1]);
    run.apply(0, committed(1, 1));
    let waits = |now| {
        vec![
            progress(0, 1, 5, Some(1), now),
            progress(1, 1, 5, Some(0), 7),
        ]
    };
    let (now, effects) = watch(&mut run, 0, waits);
    assert_eq!(now, 5500);
    assert_eq!(aborted(&effects), [(worker(1), 1)]);
    // A worker that was ready before hangs while the next generation forms: it gets no longer limit.
    let mut run = running(&[0, 1, 2]);
    run.apply(0, committed(1, 1));
    run.apply(0, lost(2));
    let waits = |now| vec![progress(0, 2, 5, Some(1), now), progress(1, 2, 0, None, 0)];
    let (now, effects) = watch(&mut run, 0, waits);
    assert_eq!(now, 5250);
    assert_eq!(aborted(&effects), [(worker(1), 2)]);
}

#[test]
fn nobody_is_put_out_when_all_wait_for_each_other() {
    for forming in [false, true] {
        let mut run = if forming { queued() } else { running(&[0, 1]) };
        run.apply(0, assigned(&[0, 1]));
        let waits = |now| [(0, 1), (1, 0)].map(|(i, of)| progress(i, 1, 5, Some(of), now));
        let (_, effects) = watch(&mut run, 0, |now| waits(now).into());
        assert!(aborted(&effects).is_empty());
        assert!(matches!(sent(&effects), Some((_, false, _))), "{forming}");
        assert_eq!(members(&run), workers(&[0, 1]));
    }
}

#[test]
fn a_worker_that_is_stuck_while_the_first_generation_forms_is_evicted() {
    // Its heartbeats name the run but its progress counter stands still, or they do not name the run, because it has not
    // begun its assignment.
    for names_the_run in [true, false] {
        let mut run = queued();
        run.apply(0, assigned(&[0, 1]));
        let says = |now| {
            let mut says = vec![progress(0, 1, 7, Some(1), now)];
            says.extend(names_the_run.then(|| progress(1, 1, 0, None, 0)));
            says
        };
        let (now, effects) = watch(&mut run, 0, says);
        assert_eq!(now, 30_250, "{names_the_run}");
        assert_eq!(aborted(&effects), [(worker(1), 1)]);
        assert_eq!(members(&run), workers(&[0]));
        assert!(run.barred_until(&worker(1)) > now);
    }
    // Every increase of the progress counter resets the limit.
    let mut run = queued();
    run.apply(0, assigned(&[0]));
    for now in (0..300_000).step_by(250) {
        run.apply(now, progress(0, 1, now / 29_000, None, 0));
        assert!(run.apply(now, Event::Tick).is_empty(), "at {now}");
    }
    // A person's cancel does not wait for the limit: the assignments are aborted at once.
    let effects = run.apply(300_000, Event::Cancel);
    assert_eq!(aborted(&effects), [(worker(0), 1)]);
    assert_eq!(run.phase, Phase::Cancelled);
}

#[test]
fn a_coordinator_that_stood_still_blames_nobody() {
    let mut run = running(&[0, 1]);
    run.apply(0, committed(1, 1));
    run.apply(0, Event::Tick);
    assert!(run.apply(50_000, Event::Tick).is_empty());
    assert_eq!(members(&run), workers(&[0, 1]));
}

#[test]
fn a_generation_runs_from_the_step_that_all_stand_at() {
    let mut run = running(&[0, 1]);
    run.apply(0, stored(3, 1));
    run.apply(0, lost(0));
    run.apply(0, joined(&[2]));
    assert!(
        run.apply(0, ready(1, 1, 7, "a")).is_empty(),
        "of the generation before"
    );
    run.apply(0, ready(1, 2, 7, "a"));
    let Phase::Running { roster, .. } = &run.phase else {
        panic!("{:?}", run.phase)
    };
    assert_eq!(roster.start_step, 7);
}

#[test]
fn different_first_weights_fail_the_run_by_name() {
    let mut run = queued();
    run.apply(0, assigned(&[0, 1]));
    run.apply(0, ready(0, 1, 0, "a"));
    let effects = run.apply(0, ready(1, 1, 0, "b"));
    assert_eq!(aborted(&effects), [(worker(0), 1), (worker(1), 1)]);
    let Phase::Failed { reason } = &run.phase else {
        panic!("{:?}", run.phase)
    };
    assert!(reason.contains("w0") && reason.contains("w1"), "{reason}");
}

#[test]
fn different_later_states_are_void() {
    for other in [(7, "b"), (0, "a"), (8, "a")] {
        let mut run = running(&[0, 1]);
        run.apply(0, stored(3, 1));
        run.apply(0, interrupted(0, 1));
        run.apply(200, Event::Tick);
        run.apply(200, ready(0, 2, 7, "a"));
        let effects = run.apply(200, ready(1, 2, other.0, other.1));
        assert!(effects.contains(&Effect::Rewind { step: 3 }));
        assert_eq!((run.lineage, run.generation), (1, 3));
        assert_eq!(sent(&effects).expect("a roster").0.start_step, 3);
    }
}

#[test]
fn a_state_that_the_majority_does_not_share_is_discarded_and_the_second_time_its_worker() {
    let mut run = running(&[0, 1, 2]);
    for generation in [1, 2] {
        for (i, of) in [(0, "a"), (1, "b")] {
            assert!(run.apply(0, digest(i, generation, 5, of)).is_empty());
        }
        let effects = run.apply(0, digest(2, generation, 5, "a"));
        let (_, at_boundary, discard) = sent(&effects).expect("a roster");
        assert!(!at_boundary);
        assert_eq!(*discard, BTreeSet::from([worker(1)]));
        if generation == 1 {
            assert_eq!(members(&run), workers(&[0, 1, 2]));
            assert_eq!(run.barred_until(&worker(1)), 0);
            (0..3).for_each(|i| drop(run.apply(0, ready(i, 2, 5, "a"))));
        } else {
            assert_eq!(aborted(&effects), [(worker(1), 2)]);
            assert_eq!(members(&run), workers(&[0, 2]));
            assert_eq!(run.barred_until(&worker(1)), u64::MAX);
        }
    }
    assert_eq!(run.lineage, 0);
    // A digest of a worker that is no member is ignored.
    assert!(run.apply(0, digest(9, 3, 6, "c")).is_empty());
}

#[test]
fn without_a_majority_the_run_goes_back_and_not_for_ever() {
    let mut run = running(&[0, 1]);
    run.apply(0, stored(3, 1));
    let mut rounds = 0;
    while run.phase_name() == "running" {
        rounds += 1;
        assert!(rounds < 100, "it never gives up");
        let generation = run.generation;
        (4..6).for_each(|step| drop(run.apply(0, committed(step, generation))));
        run.apply(0, digest(0, generation, 5, "a"));
        let effects = run.apply(0, digest(1, generation, 5, "b"));
        assert!(effects.contains(&Effect::Rewind { step: 3 }));
        assert_eq!(run.lineage, rounds);
        (0..2).for_each(|i| drop(run.apply(0, ready(i, generation + 1, 3, "a"))));
    }
    assert_eq!(run.phase_name(), "failed");
    assert!(rounds >= 5, "gave up after {rounds}");
}

#[test]
fn failures_and_futile_generations_end_the_run() {
    // (how a generation ends, after how many)
    let table = [
        (released(0, 0, failure(false)), FUTILE_FAILURES),
        // The first generation made progress.
        (lost(0), FUTILE_GENERATIONS + 1),
    ];
    for (ends, limit) in table {
        let mut run = running(&[0]);
        let mut ended = 0;
        while run.phase_name() != "failed" {
            ended += 1;
            assert!(ended <= limit, "it never gives up");
            let generation = run.generation;
            let event = match &ends {
                Event::Released { outcome, .. } => released(0, generation, outcome.clone()),
                other => other.clone(),
            };
            // Taking the same steps again is no progress.
            run.apply(0, committed(3, generation));
            run.apply(0, event);
            run.apply(0, assigned(&[0]));
            run.apply(0, ready(0, run.generation, 0, "a"));
        }
        assert_eq!(ended, limit);
        run.apply(0, resume(None));
        assert!(matches!(run.phase, Phase::Queued { .. }));
        assert_eq!((run.futile, run.failures, run.lineage), (0, 0, 1));
    }
    let mut run = running(&[0, 1]);
    let effects = run.apply(0, released(0, 1, failure(true)));
    assert_eq!(aborted(&effects), [(worker(1), 1)]);
    assert_eq!(run.phase_name(), "failed");
}
