//! With a device that queues its updates: steps are read late.

use super::*;

/// With `gradient` of a sample, or one that depends on the state.
fn queueing(gradient: Option<f32>) -> Manner {
    Manner {
        gradient,
        queues: true,
        ..Manner::default()
    }
}

#[test]
fn what_is_read_late_is_the_same_and_in_the_same_order() {
    let more = "every_steps = 4";
    let run = |queues| {
        let manner = Manner {
            queues,
            ..queueing(None)
        };
        Setting {
            manner,
            more,
            ..Setting::default()
        }
        .run()
    };
    let (late, at_once) = (run(true), run(false));
    assert_eq!(late.summary(), at_once.summary());
    let told = |ran: &Ran| -> Vec<String> {
        let told = ran.events.iter().map(|event| match event {
            TrainingEvent::Step { report, samples } => {
                format!(
                    "{} {} {} {samples:?}",
                    report.step, report.loss, report.learning_rate
                )
            }
            TrainingEvent::Digest { step, digest } => format!("{step} {digest:x}"),
            TrainingEvent::Snapshot(snapshot) => format!("{} {:x}", snapshot.step, snapshot.digest),
            TrainingEvent::Scores { epoch, scores } => format!("{epoch} {}", scores.len()),
        });
        told.collect()
    };
    assert_eq!(told(&late), told(&at_once));
    assert_eq!(late.asked.gradients, at_once.asked.gradients);
    assert_eq!(late.asked.updates, at_once.asked.updates);
    assert_eq!(late.outcome.unwrap(), at_once.outcome.unwrap());
    // The next step is computed before one is read, except where the state is looked at.
    let meanwhile = &late.asked.computed_meanwhile;
    assert_eq!(meanwhile.len() as u64, late.step);
    let per_epoch = late.plan.steps_per_epoch();
    for (step, computed) in (1u64..).zip(meanwhile) {
        let looked_at = step.is_multiple_of(4) || step.is_multiple_of(per_epoch);
        assert_eq!(*computed == 0, looked_at, "step {step}");
    }
}

#[test]
fn a_vote_that_is_read_late_ends_the_step_that_it_was_cast_in() {
    for (stops, outcome) in [
        (true, Outcome::Stopped { step: 1 }),
        (false, Outcome::Yielded { step: 1 }),
    ] {
        let setting = Setting {
            manner: queueing(Some(3.0)),
            ..Setting::default()
        };
        match stops {
            true => setting.control.stop(),
            false => setting.control.yield_(),
        }
        let ran = setting.run();
        let expected: &[_] = match stops {
            true => &["steps to 1", "snapshot 1"],
            false => &["steps to 1"],
        };
        assert_eq!(ran.summary(), expected);
        assert_eq!((ran.outcome.unwrap(), ran.step), (outcome, 1));
        // The second step's gradients were computed, and it was not taken.
        assert_eq!((ran.asked.gradients.len(), ran.asked.updates.len()), (8, 1));
    }
}

#[test]
fn numbers_that_are_not_finite_are_those_of_their_step_however_late_they_are_read() {
    for (loss, gradient, what) in [(f32::NAN, 3.0, "loss"), (0.5, f32::INFINITY, "gradient")] {
        let manner = Manner {
            loss,
            ..queueing(Some(gradient))
        };
        let ran = Setting {
            manner,
            start_step: 1,
            stored_step: 1,
            ..Setting::default()
        }
        .run();
        let error = ran.outcome.unwrap_err().to_string();
        assert!(
            error.contains(&format!("the {what} is not finite in step 2")),
            "{error}"
        );
        assert_eq!(ran.step, 1, "it was not taken");
        assert!(ran.asked.updates.is_empty() && ran.events.is_empty());
    }
}

#[test]
fn a_step_that_was_taken_is_told_although_the_next_one_fails() {
    // A step has one bucket here that is not empty, and four virtual ranks.
    let lost = Setting {
        manner: queueing(Some(3.0)),
        alone: Alone {
            lost_after: Some(2),
            ..Alone::default()
        },
        ..Setting::default()
    };
    let broken = Setting {
        manner: Manner {
            fails_at: Some(2 * 4),
            ..queueing(Some(3.0))
        },
        ..Setting::default()
    };
    for (setting, of_device) in [(lost, false), (broken, true)] {
        let ran = setting.run();
        assert_eq!(ran.summary(), ["steps to 2"]);
        assert_eq!((ran.step, ran.asked.updates.len()), (2, 2));
        let error = ran.outcome.unwrap_err();
        assert_eq!(
            matches!(error, TrainingError::Device(_)),
            of_device,
            "{error}"
        );
    }
}
