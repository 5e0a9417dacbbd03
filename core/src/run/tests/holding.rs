//! A run that pauses for its group: at a rung, when its metric does not improve, and what follows from the decision.

use super::*;
use crate::selection::{Hold, Verdict};
use crate::spec::BestBy;

/// A running one that pauses after its first epoch, or without progress for one.
fn holding(until: Option<u32>, patience: Option<u32>) -> Run {
    let mut run = running(&[0]);
    run.spec.train.epochs = 4;
    run.extent.total_steps = 20;
    run.hold = Some(Hold {
        by: BestBy::Auc,
        until,
        patience,
    });
    run
}

fn evaluated(run: &mut Run, epoch: u32) -> Vec<Effect> {
    let generation = run.generation;
    run.apply(0, scored(generation, epoch, 0));
    run.apply(0, scored(generation, epoch, 1))
}

fn stops(effects: &[Effect]) -> bool {
    effects.iter().any(|e| matches!(e, Effect::SendStop { .. }))
}

/// Pauses it at `step`, as its workers were asked to.
fn pause_at(run: &mut Run, step: u64) {
    let generation = run.generation;
    run.apply(0, released(0, generation, Outcome::Stopped { step }));
    run.apply(0, stored(step, generation));
    assert_eq!(run.phase, Phase::Paused);
}

fn selected(rung: u32, verdict: Verdict) -> Event {
    Event::Selected { rung, verdict }
}

#[test]
fn it_pauses_at_its_rung_and_goes_on_when_its_group_says_so() {
    let mut run = holding(Some(1), None);
    let effects = evaluated(&mut run, 0);
    assert!(stops(&effects), "{effects:?}");
    assert!(effects.contains(&Effect::Persist));
    assert_eq!(run.waits_at(), None, "not before it is at rest");
    pause_at(&mut run, 6);
    assert_eq!((run.waits_at(), run.stopped_early()), (Some(1), false));
    // A decision about another rung is none about this.
    assert!(
        run.apply(0, selected(2, Verdict::GoOn { until: None }))
            .is_empty()
    );
    run.apply(0, selected(1, Verdict::GoOn { until: Some(3) }));
    assert_eq!(run.phase, Phase::Queued { reason: None });
    assert_eq!((run.waits_at(), &run.group_pause), (None, &None));
    // Twice is once.
    assert!(
        run.apply(0, selected(1, Verdict::GoOn { until: Some(3) }))
            .is_empty()
    );
    run.apply(0, assigned(&[0]));
    let generation = run.generation;
    run.apply(0, ready(0, generation, 6, "a"));
    assert!(!stops(&evaluated(&mut run, 1)));
    assert!(stops(&evaluated(&mut run, 2)), "the next rung");
    pause_at(&mut run, 16);
    run.apply(
        0,
        selected(
            3,
            Verdict::Drop {
                reason: "place 2 of 2".into(),
            },
        ),
    );
    assert_eq!((&run.phase, run.waits_at()), (&Phase::Paused, None));
    assert!(run.stopped_early());
    assert_eq!(run.group_pause.as_ref().unwrap().reason, "place 2 of 2");
    // A person who resumes it wants it trained to its end.
    run.apply(0, resume(None));
    assert_eq!((run.hold, &run.group_pause), (None, &None));
    assert_eq!(run.phase, Phase::Queued { reason: None });
}

#[test]
fn who_resumes_a_waiting_run_takes_it_out_of_the_selection() {
    let mut run = holding(Some(1), None);
    evaluated(&mut run, 0);
    pause_at(&mut run, 5);
    run.apply(0, resume(None));
    assert_eq!((run.hold, run.waits_at()), (None, None));
    let drop = Verdict::Drop { reason: "x".into() };
    assert!(run.apply(0, selected(1, drop)).is_empty());
    assert_eq!(run.phase, Phase::Queued { reason: None });
}

#[test]
fn one_that_a_person_paused_and_resumed_keeps_its_rung() {
    let mut run = holding(Some(1), None);
    run.apply(0, Event::Pause);
    pause_at(&mut run, 2);
    assert_eq!((run.waits_at(), run.stopped_early()), (None, false));
    run.apply(0, resume(None));
    run.apply(0, assigned(&[0]));
    let generation = run.generation;
    run.apply(0, ready(0, generation, 2, "a"));
    assert!(stops(&evaluated(&mut run, 0)));
    pause_at(&mut run, 6);
    assert_eq!(run.waits_at(), Some(1));
}

#[test]
fn it_stops_without_progress_but_not_after_its_last_epoch() {
    let mut run = holding(None, Some(1));
    assert!(!stops(&evaluated(&mut run, 0)));
    // The same AUC is no progress.
    assert!(stops(&evaluated(&mut run, 1)));
    pause_at(&mut run, 11);
    assert_eq!((run.waits_at(), run.stopped_early()), (None, true));
    let mut run = holding(Some(1), Some(1));
    run.spec.train.epochs = 1;
    assert!(!stops(&evaluated(&mut run, 0)));
}

#[test]
fn a_run_that_is_being_cancelled_is_not_paused() {
    let mut run = holding(Some(1), None);
    run.apply(0, Event::Cancel);
    evaluated(&mut run, 0);
    let generation = run.generation;
    run.apply(0, released(0, generation, Outcome::Stopped { step: 5 }));
    run.apply(0, stored(5, generation));
    assert_eq!(run.phase, Phase::Cancelled);
}

#[test]
fn what_is_known_of_it_survives_the_journal() {
    let mut run = holding(Some(1), Some(3));
    evaluated(&mut run, 0);
    pause_at(&mut run, 5);
    let text = serde_json::to_string(&run).unwrap();
    let back: Run = serde_json::from_str(&text).unwrap();
    assert_eq!((back.hold, back.waits_at()), (run.hold, Some(1)));
    // One of an earlier version has neither.
    let plain = serde_json::to_value(running(&[0])).unwrap();
    assert!(plain.get("hold").is_none() && plain.get("group_pause").is_none());
}
