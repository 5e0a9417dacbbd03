//! The coordinator restarts while a run is under way.

use super::*;

fn back(i: u8, serving: Option<u64>) -> Event {
    Event::WorkerBack {
        worker: worker(i),
        serving,
    }
}

/// The run after it was written to the journal and read by another coordinator.
fn restarted(run: &Run, now: u64) -> Run {
    let json = serde_json::to_string(run).unwrap();
    serde_json::from_str::<Run>(&json).unwrap().recovered(now)
}

#[test]
fn after_a_restart_members_that_come_back_go_on() {
    let mut run = restarted(&running(&[0, 1]), 500);
    assert_eq!(run.wake(), Some(10_500));
    assert_eq!(run.vacancies(), 0, "who knows who is there");
    assert!(run.apply(600, back(0, Some(1))).is_empty());
    assert!(run.apply(600, back(1, Some(1))).is_empty());
    assert_eq!((run.phase_name(), run.generation), ("running", 1));
    assert_eq!((run.wake(), run.vacancies()), (None, 2));
    // A second return changes nothing.
    assert!(run.apply(700, back(1, None)).is_empty());
}

#[test]
fn after_a_restart_the_run_goes_on_without_who_does_not_come_back() {
    let mut run = restarted(&running(&[0, 1, 2]), 0);
    run.apply(100, back(0, Some(1)));
    let mut silent = run.clone();
    run.apply(100, back(1, Some(1)));
    let effects = run.apply(200, back(2, None));
    assert!(sent(&effects).is_some());
    assert_eq!(members(&run), workers(&[0, 1]));
    silent.apply(8500, Event::Tick);
    assert!(silent.apply(9999, Event::Tick).is_empty());
    silent.apply(10_000, Event::Tick);
    assert_eq!((members(&silent), silent.generation), (workers(&[0]), 2));
    // A new generation does not wait for members that have not returned.
    let mut run = restarted(&running(&[0, 1]), 0);
    run.apply(100, back(0, Some(1)));
    run.apply(200, interrupted(0, 1));
    run.apply(400, Event::Tick);
    assert_eq!(members(&run), workers(&[0]));
}

/// Who has let go of a run, or was to, is not waited for: workers would be kept for a run that wants none, or that begins anew.
#[test]
fn whoever_is_not_waited_for_any_more_does_not_hold_up_others() {
    let ended = Outcome::Stopped { step: 6 };
    // (asked for, members that have let go before the restart, phase afterwards)
    for (asked, gone, phase) in [
        (Event::Pause, &[0, 1][..], "paused"),
        (Event::Drain, &[0, 1], "queued"),
        (Event::Pause, &[0], "paused"),
        (Event::Drain, &[0], "queued"),
    ] {
        let mut run = running(&[0, 1]);
        run.apply(0, asked.clone());
        for member in gone {
            run.apply(0, released(*member, 1, ended.clone()));
        }
        assert_eq!(run.phase_name(), "finishing");
        let mut run = restarted(&run, 0);
        let awaited: Vec<WorkerId> = run.awaited().cloned().collect();
        let others = (0..2).filter(|member| !gone.contains(member));
        assert_eq!(awaited, others.map(worker).collect::<Vec<_>>());
        run.apply(10, not_stored(6, 1));
        if gone.len() < 2 {
            run.apply(20, lost(1));
        }
        assert_eq!(run.phase_name(), phase, "{asked:?}");
        assert_eq!(run.awaited().count(), 0, "{asked:?}");
    }
    // Cancelled before its members have come back.
    let mut run = restarted(&running(&[0, 1]), 0);
    assert_eq!(run.awaited().count(), 2);
    run.apply(1, back(0, None));
    run.apply(2, Event::Cancel);
    run.apply(3, lost(0));
    run.apply(4, lost(1));
    assert!(run.roster().is_none(), "{}", run.phase_name());
    assert_eq!(run.awaited().count(), 0);
}

#[test]
fn a_word_to_stop_survives_a_restart() {
    let mut run = running(&[0]);
    run.apply(0, Event::Cancel);
    let mut run = restarted(&run, 0);
    let effects = run.apply(100, back(0, Some(1)));
    assert_eq!(stopped(&effects), Some((workers(&[0]), 1)));
}
