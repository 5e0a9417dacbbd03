//! Evaluations: runs that score a checkpoint and take no step.

use super::*;
use crate::class_map::ClassMap;
use crate::run::EpochMaps;
use crate::spec::{EvaluateSpec, Part};

/// An evaluation begins with a copy of a checkpoint at the end of its only epoch, so nothing is left but the scoring.
#[test]
fn an_evaluation_completes_without_a_step_and_removes_its_copy() {
    let mut spec = queued().spec;
    spec.evaluate = Some(EvaluateSpec {
        run: RunId::new("dr-7").unwrap(),
        step: 8,
        part: Part::All,
        rotations: false,
        maps: false,
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

/// A score without the map that was asked for counts as none, so that maps and scores are of the same samples.
#[test]
fn maps_are_kept_with_the_scores() {
    let mut spec = queued().spec;
    spec.evaluate = Some(EvaluateSpec {
        run: RunId::new("dr-7").unwrap(),
        step: 8,
        part: Part::All,
        rotations: true,
        maps: true,
    });
    assert_eq!(spec.scored_turns(), [0, 1, 2, 3]);
    let extent = Extent {
        steps_per_epoch: 8,
        total_steps: 8,
        train_samples: 0,
        validation_samples: 2,
    };
    let id = RunId::new("dr-7.predict-9").unwrap();
    let mut run = Run::new(id, 9, spec, "d".into(), extent, 0).evaluating(info(8, 3));
    run.apply(0, assigned(&[0]));
    run.apply(0, ready(0, 4, 8, "a"));
    for sample in [0, 1] {
        assert!(run.apply(0, scored(4, 0, sample)).is_empty());
    }
    let mut effects = Vec::new();
    for sample in [1, 0] {
        let mut score = score(sample, 0, 0.5);
        score.map = Some(ClassMap {
            height: 1,
            width: 2,
            values: vec![sample as f32, 0.5],
        });
        let scores = vec![score];
        effects = run.apply(
            0,
            Event::Scored {
                generation: 4,
                epoch: 0,
                scores,
            },
        );
    }
    let kept = effects.iter().find_map(|effect| match effect {
        Effect::KeepScores(scores) => scores.maps.clone(),
        _ => None,
    });
    let expected = EpochMaps {
        height: 1,
        width: 2,
        values: vec![0.0, 0.5, 1.0, 0.5],
    };
    assert_eq!(kept, Some(expected));
}
