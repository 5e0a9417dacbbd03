//! Tables and random sequences against the life of a run.

use super::*;
use crate::ids::WorkerId;
use proptest::prelude::*;

fn worker(i: u8) -> WorkerId {
    WorkerId::new(format!("w{i}")).unwrap()
}

fn fingerprint() -> Fingerprint {
    Fingerprint {
        device: "cpu".into(),
        cpu: "x".into(),
        libtorch: "2.11.0".into(),
        threads: 1,
        precision: "float32".into(),
        fovea: "test".into(),
    }
}

fn queued() -> Run {
    let mut spec: RunSpec = toml::from_str("name='t'\ndataset='d'").unwrap();
    spec.train.virtual_ranks = 4;
    let extent = Extent {
        steps_per_epoch: 5,
        total_steps: 10,
        train_samples: 40,
        validation_samples: 2,
    };
    Run::new(
        RunId::new("t-1").unwrap(),
        1,
        spec,
        "d".repeat(64),
        extent,
        0,
    )
}

fn assigned(n: u8) -> Event {
    Event::Assigned {
        workers: (0..n).map(|i| (worker(i), format!("h:{i}"))).collect(),
    }
}

fn ready(i: u8, generation: u64, digest: &str) -> Event {
    Event::Ready {
        worker: worker(i),
        generation,
        state_digest: digest.into(),
        fingerprint: fingerprint(),
    }
}

fn released(i: u8, generation: u64, outcome: Outcome) -> Event {
    Event::Released {
        worker: worker(i),
        generation,
        outcome,
    }
}

fn stored(step: u64) -> Event {
    Event::CheckpointStored {
        info: CheckpointInfo {
            step,
            generation: 1,
            bytes: 1,
            sha256: "0".repeat(64),
            stored_at_ms: 0,
            fingerprint: fingerprint(),
        },
    }
}

fn committed(step: u64, generation: u64) -> Event {
    Event::StepCommitted {
        worker: worker(0),
        generation,
        report: StepReport {
            step,
            loss: 0.5,
            images: 8,
            images_per_s: 1.0,
            learning_rate: 0.1,
            phases: StepPhases::default(),
        },
    }
}

fn running() -> Run {
    let mut run = queued();
    run.apply(assigned(2));
    run.apply(ready(0, 1, "a"));
    run.apply(ready(1, 1, "a"));
    assert_eq!(run.phase_name(), "running");
    run
}

#[test]
fn an_undisturbed_run_completes_only_with_its_checkpoint() {
    let mut run = running();
    run.apply(released(0, 1, Outcome::Completed { step: 10 }));
    run.apply(released(1, 1, Outcome::Completed { step: 10 }));
    assert_eq!(run.phase_name(), "finishing");
    run.apply(stored(10));
    assert_eq!(run.phase, Phase::Completed);
}

#[test]
fn a_lost_worker_sends_the_run_back_to_the_newest_checkpoint() {
    let mut run = running();
    run.apply(committed(5, 1));
    run.apply(stored(5));
    let effects = run.apply(Event::WorkerLost {
        worker: worker(1),
        reason: "stream closed".into(),
    });
    assert!(
        effects
            .iter()
            .any(|e| matches!(e, Effect::SendAbort { workers, .. } if *workers == vec![worker(0)]))
    );
    assert_eq!(run.phase_name(), "finishing");
    run.apply(released(0, 1, Outcome::Aborted));
    assert_eq!(run.phase_name(), "queued");
    let effects = run.apply(assigned(1));
    let Some(Effect::SendRoster(roster)) = effects.last() else {
        panic!("no roster in {effects:?}")
    };
    assert_eq!((roster.generation, roster.start_step), (2, 5));
    assert_eq!(roster.virtual_ranks(), 4);
}

#[test]
fn messages_of_an_older_generation_change_nothing() {
    let mut run = running();
    run.apply(released(0, 1, Outcome::Aborted));
    run.apply(released(1, 1, Outcome::Aborted));
    run.apply(assigned(2));
    let before = run.clone();
    run.apply(ready(0, 1, "a"));
    run.apply(committed(3, 1));
    run.apply(released(0, 1, Outcome::Completed { step: 10 }));
    assert_eq!(run, before);
}

#[test]
fn different_first_states_fail_the_run_by_name() {
    let mut run = queued();
    run.apply(assigned(2));
    run.apply(ready(0, 1, "a"));
    run.apply(ready(1, 1, "b"));
    run.apply(released(0, 1, Outcome::Aborted));
    run.apply(released(1, 1, Outcome::Aborted));
    let Phase::Failed { reason } = &run.phase else {
        panic!("{:?}", run.phase)
    };
    assert!(reason.contains("w0") && reason.contains("w1"), "{reason}");
}

#[test]
fn cancel_waits_for_the_checkpoint_and_resume_starts_from_it() {
    let mut run = running();
    run.apply(Event::Cancel);
    run.apply(released(0, 1, Outcome::Stopped { step: 3 }));
    run.apply(released(1, 1, Outcome::Stopped { step: 3 }));
    assert_eq!(run.phase_name(), "finishing");
    run.apply(stored(3));
    assert_eq!(run.phase, Phase::Cancelled);
    assert!(matches!(
        run.admit(&Event::Resume {
            checkpoint: Some(4)
        }),
        Err(RunError::NoCheckpoint { .. })
    ));
    run.apply(Event::Resume { checkpoint: None });
    assert_eq!(run.start_checkpoint().unwrap().step, 3);
}

#[test]
fn a_step_taken_again_waits_for_its_own_checkpoint() {
    let mut run = running();
    run.apply(stored(5));
    run.apply(stored(8));
    run.apply(Event::Cancel);
    run.apply(released(0, 1, Outcome::Stopped { step: 8 }));
    run.apply(released(1, 1, Outcome::Stopped { step: 8 }));
    assert_eq!(run.phase, Phase::Cancelled);
    run.apply(Event::Resume {
        checkpoint: Some(5),
    });
    run.apply(assigned(1));
    run.apply(ready(0, 2, "a"));
    run.apply(Event::Cancel);
    run.apply(released(0, 2, Outcome::Stopped { step: 8 }));
    assert_eq!(
        run.phase_name(),
        "finishing",
        "the first step 8 will not do"
    );
    let Event::CheckpointStored { mut info } = stored(8) else {
        unreachable!()
    };
    info.generation = 2;
    run.apply(Event::CheckpointStored { info });
    assert_eq!(run.phase, Phase::Cancelled);
}

#[test]
fn attempts_without_a_step_end_in_failure() {
    let mut run = queued();
    for generation in 1..=u64::from(FUTILE_GENERATIONS) {
        assert_eq!(run.phase_name(), "queued");
        run.apply(assigned(1));
        run.apply(released(
            0,
            generation,
            Outcome::Failed {
                reason: "no space".into(),
                fatal: false,
            },
        ));
    }
    assert_eq!(run.phase_name(), "failed");
}

/// A run that dies at the same step again and again must not go on for ever, though each attempt
/// commits steps.
#[test]
fn attempts_that_repeat_the_same_steps_end_in_failure() {
    let mut run = queued();
    let mut attempts = 0;
    while run.phase_name() == "queued" {
        attempts += 1;
        assert!(attempts < 20, "it never gives up");
        run.apply(assigned(1));
        run.apply(ready(0, attempts, "a"));
        run.apply(committed(3, attempts));
        run.apply(Event::WorkerLost {
            worker: worker(0),
            reason: "stream closed".into(),
        });
    }
    assert_eq!(run.phase_name(), "failed");
}

#[test]
fn an_epoch_is_complete_with_every_score() {
    let mut run = running();
    let score = |sample, label, p: f32| Score {
        sample,
        label,
        probabilities: vec![1.0 - p, p],
        loss: 0.1,
    };
    let scored = |s| Event::Scored {
        worker: worker(0),
        generation: 1,
        epoch: 0,
        scores: vec![s],
    };
    run.apply(committed(5, 1));
    assert!(run.apply(scored(score(0, 0, 0.2))).is_empty());
    // Twice the same sample does not complete the epoch, nor does one that does not exist.
    assert!(run.apply(scored(score(0, 0, 0.2))).is_empty());
    assert!(run.apply(scored(score(9, 0, 0.2))).is_empty());
    let effects = run.apply(scored(score(1, 1, 0.9)));
    let Some(Effect::PublishEpoch(result)) = effects.last() else {
        panic!("{effects:?}")
    };
    assert_eq!(result.validation.auc, Some(1.0));
    assert_eq!((result.step, result.train_loss), (5, Some(0.5)));
}

fn any_event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        Just(Outcome::Completed { step: 10 }),
        Just(Outcome::Stopped { step: 4 }),
        Just(Outcome::Aborted),
        Just(Outcome::Failed {
            reason: "x".into(),
            fatal: false
        }),
        Just(Outcome::Failed {
            reason: "x".into(),
            fatal: true
        }),
    ];
    prop_oneof![
        (1u8..5).prop_map(assigned),
        (0u8..4, 0u64..4).prop_map(|(w, g)| ready(w, g, "a")),
        (1u64..11, 0u64..4).prop_map(|(s, g)| committed(s, g)),
        (1u64..11).prop_map(stored),
        (1u64..11).prop_map(|step| Event::CheckpointFailed {
            step,
            reason: "disk".into()
        }),
        (0u8..4, 0u64..4, outcome).prop_map(|(w, g, o)| released(w, g, o)),
        (0u8..4).prop_map(|w| Event::WorkerLost {
            worker: worker(w),
            reason: "x".into()
        }),
        Just(Event::Cancel),
        Just(Event::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Whatever happens: generations never fall, a roster covers every virtual rank, a run is
    /// complete only with its last checkpoint, an ended run stays ended, and a run whose members
    /// have all let go never hangs in `Finishing` without something that it waits for.
    #[test]
    fn invariants_hold_after_every_event(events in prop::collection::vec(any_event(), 1..60)) {
        let mut run = queued();
        for event in events {
            let before = run.clone();
            run.apply(event.clone());
            prop_assert!(run.generation >= before.generation);
            if before.is_terminal() {
                prop_assert_eq!(run.phase_name(), before.phase_name());
            }
            if let Some(roster) = run.roster() {
                prop_assert_eq!(roster.virtual_ranks(), 4);
                prop_assert_eq!(roster.generation, run.generation);
            }
            if run.phase == Phase::Completed {
                prop_assert!(run.checkpoints.iter().any(|c| c.step == 10));
            }
            if let Phase::Finishing { pending, next, .. } = &run.phase && pending.is_empty() {
                let waits = match next {
                    Next::Complete { .. } => true,
                    Next::Cancel { step } | Next::Requeue { step, .. } => step.is_some(),
                    Next::Fail { .. } => false,
                };
                prop_assert!(waits, "hangs after {:?}", event);
            }
            // What is journalled is what comes back.
            let json = serde_json::to_string(&run).unwrap();
            let back: Run = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back.phase, run.phase.clone());
        }
    }
}
