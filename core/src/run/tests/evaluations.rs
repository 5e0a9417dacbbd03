//! Evaluations: runs that score a checkpoint and take no step.

use super::*;
use crate::spec::{EvaluateSpec, Part};

/// An evaluation begins with a copy of a checkpoint at the end of its only epoch, so nothing is left but the scoring.
#[test]
fn an_evaluation_completes_without_a_step_and_removes_its_copy() {
    let mut spec = queued().spec;
    spec.evaluate = Some(EvaluateSpec {
        run: RunId::new("dr-7").unwrap(),
        step: 8,
        part: Part::All,
    });
    let extent = Extent {
        steps_per_epoch: 8,
        total_steps: 8,
        train_samples: 0,
        validation_samples: 2,
    };
    let id = RunId::new("dr-7.all-9").unwrap();
    let mut run = Run::new(id, 9, spec, "d".into(), extent, 0).evaluating(info(8, 3));
    run.apply(0, assigned(&[0]));
    let effects = run.apply(0, ready(0, 4, 8, "a"));
    assert!(matches!(run.phase, Phase::Running { .. }), "{effects:?}");
    for sample in [0, 1] {
        run.apply(0, scored(4, 0, sample));
    }
    assert_eq!((run.epochs.len(), run.epochs[0].step), (1, 8));
    let effects = run.apply(0, released(0, 4, Outcome::Completed { step: 8 }));
    assert_eq!(run.phase, Phase::Completed);
    assert!(
        effects.contains(&Effect::RemoveCheckpoint(info(8, 3))),
        "{effects:?}"
    );
    assert!(run.checkpoints.is_empty());
}
