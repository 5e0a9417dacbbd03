//! Tables: workers that go to a run of higher priority.

use super::*;

fn give(of: &[u8]) -> Event {
    Event::Give {
        workers: workers(of),
        taker: RunId::new("urgent-2").unwrap(),
    }
}

#[test]
fn workers_are_given_at_a_boundary_if_enough_are_left() {
    let mut run = running(&[0, 1, 2]);
    let effects = run.apply(1, give(&[2, 1, 9]));
    let (roster, at_boundary, _) = sent(&effects).expect("a roster");
    assert_eq!((roster.generation, at_boundary), (2, true));
    assert_eq!(members(&run), workers(&[0]));
    for gone in [1, 2] {
        let let_go = Effect::SendYield {
            worker: worker(gone),
            generation: 1,
        };
        assert!(effects.contains(&let_go), "{effects:?}");
    }
    // While a generation forms there is no step boundary to wait for.
    let mut run = queued();
    run.apply(1, assigned(&[0, 1]));
    let effects = run.apply(2, give(&[1]));
    assert_eq!(aborted(&effects), [(worker(1), 1)]);
    assert_eq!(members(&run), workers(&[0]));
    // Those of others are none of its business.
    assert!(run.apply(3, give(&[5])).is_empty());
}

#[test]
fn a_run_that_gives_too_many_stores_a_checkpoint_and_waits() {
    let mut run = running(&[0, 1]);
    run.spec.workers.min = 2;
    let effects = run.apply(1, give(&[1]));
    assert_eq!(stopped(&effects), Some((workers(&[0, 1]), 1)));
    // It is asked once.
    assert!(run.apply(1, give(&[0])).is_empty());
    for member in [0, 1] {
        run.apply(2, released(member, 1, Outcome::Stopped { step: 3 }));
    }
    assert_eq!(run.phase_name(), "finishing");
    run.apply(3, stored(3, 1));
    let Phase::Queued {
        reason: Some(reason),
    } = &run.phase
    else {
        panic!("{:?}", run.phase);
    };
    assert!(reason.contains("urgent-2"), "{reason}");
    // A person's wish counts more.
    let mut run = running(&[0]);
    run.apply(1, give(&[0]));
    run.apply(1, Event::Pause);
    run.apply(2, released(0, 1, Outcome::Stopped { step: 3 }));
    run.apply(3, stored(3, 1));
    assert_eq!(run.phase, Phase::Paused);
    // Before the first step there is nothing to store.
    let mut run = queued();
    run.apply(1, assigned(&[0]));
    let effects = run.apply(2, give(&[0]));
    assert_eq!(aborted(&effects), [(worker(0), 1)]);
    assert_eq!(run.phase_name(), "queued");
}

#[test]
fn giving_again_and_again_is_no_setback() {
    let mut run = running(&[0]);
    for _ in 0..2 * FUTILE_GENERATIONS {
        for event in [joined(&[1]), give(&[1])] {
            run.apply(1, event);
            for member in [0, 1] {
                run.apply(1, ready(member, run.generation, 0, "a"));
            }
            assert_eq!(run.phase_name(), "running");
        }
    }
}
