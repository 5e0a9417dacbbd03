//! Tables: the priority in force.

use super::*;
use crate::priority::Priority::{self, High, Low, Normal};

fn set(priority: Priority) -> Event {
    Event::SetPriority {
        priority,
        by: Some("ann".into()),
    }
}

#[test]
fn a_run_has_the_priority_that_it_was_given_last_and_its_spec_stays() {
    let mut run = running(&[0]);
    let spec = run.spec.clone();
    for (priority, note) in [
        (High, Some("priority changed from normal to high by ann")),
        (High, None),
        (Low, Some("priority changed from high to low by ann")),
        (Normal, Some("priority changed from low to normal by ann")),
        (Normal, None),
    ] {
        assert_eq!(run.admit(&set(priority)), Ok(()));
        let effects = run.apply(1, set(priority));
        let expected = note.map(|note| {
            let message = format!("run.priority_changed: {note}");
            let warning = false;
            vec![Effect::Persist, Effect::Log { warning, message }]
        });
        assert_eq!(effects, expected.unwrap_or_default(), "{priority}");
        assert_eq!((run.priority(), &run.spec), (priority, &spec));
        // As the journal has it, also for versions that know no change of the priority.
        let written = serde_json::to_value(&run).unwrap();
        let is_other = priority != spec.priority;
        assert_eq!(written.get("changed_priority").is_some(), is_other);
        let read: Run = serde_json::from_value(written).unwrap();
        assert_eq!(read.priority(), priority);
    }
    let by = None;
    let effects = run.apply(2, Event::SetPriority { priority: Low, by });
    let message = "run.priority_changed: priority changed from normal to low".into();
    let warning = false;
    assert!(effects.contains(&Effect::Log { warning, message }));
}

#[test]
fn an_ended_run_keeps_its_priority_until_it_is_resumed() {
    let mut run = queued();
    run.apply(0, set(High));
    run.apply(0, Event::Pause);
    assert_eq!(run.admit(&set(Low)), Ok(()), "a paused one may be changed");
    run.apply(0, Event::Cancel);
    let refused = run.admit(&set(Low)).unwrap_err().to_string();
    let expected = "run t-1 is cancelled; the priority of a run that has ended cannot be changed";
    assert!(refused.contains(expected), "{refused}");
    run.apply(0, resume(None));
    assert_eq!((run.phase_name(), run.priority()), ("queued", High));
}
