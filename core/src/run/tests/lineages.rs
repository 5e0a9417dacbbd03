//! Rewinds and void checkpoints, compared with a model that replays the history; checkpoints that a restored journal
//! adopts.

use proptest::prelude::*;

use super::*;
use crate::ledger::Entry;

#[derive(Debug, Clone)]
enum Turn {
    /// The next generation begins.
    Generation,
    /// A checkpoint of this step is taken; it may be reported much later.
    Taken(u64),
    /// The run is rewound.
    Rewind(u64),
}

fn any_turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        2 => Just(Turn::Generation),
        4 => (1u64..30).prop_map(Turn::Taken),
        2 => (0u64..30).prop_map(Turn::Rewind),
    ]
}

proptest! {
    /// A checkpoint is void if and only if the run was rewound to before its step after it was taken. This also holds for
    /// checkpoints of builds that did not record the lineage, and for the history of an old journal.
    #[test]
    fn voidness_is_that_of_a_replay(
        turns in prop::collection::vec(any_turn(), 0..60), lineage_known: bool,
    ) {
        let mut run = queued();
        run.generation = 1;
        let mut taken: Vec<(CheckpointInfo, bool)> = Vec::new();
        let mut rewound = false;
        for turn in turns {
            match turn {
                Turn::Generation => {
                    run.generation += 1;
                    rewound = false;
                }
                // A rewind ends the generation.
                Turn::Taken(_) if rewound => {}
                Turn::Taken(step) => {
                    let lineage = if lineage_known { run.lineage } else { 0 };
                    let checkpoint = CheckpointInfo { lineage, ..info(step, run.generation) };
                    taken.push((checkpoint, false));
                }
                Turn::Rewind(step) => {
                    run.rewind(Some(step), &mut Vec::new());
                    rewound = true;
                    taken.iter_mut().for_each(|(c, void)| *void |= c.step > step);
                }
            }
            let json = serde_json::to_string(&run).unwrap();
            let read: Run = serde_json::from_str(&json).unwrap();
            for (checkpoint, void) in &taken {
                prop_assert_eq!(run.is_void(checkpoint), *void, "{:?} {:?}", checkpoint, run.rewinds);
                prop_assert_eq!(read.is_void(checkpoint), *void);
            }
            prop_assert!(run.rewinds.windows(2).all(|w| w[0].step < w[1].step));
        }
    }
}

#[test]
fn the_first_of_two_rewinds_is_not_forgotten() {
    let mut run = queued();
    run.generation = 1;
    run.rewind(Some(2), &mut Vec::new());
    run.generation = 2;
    run.rewind(Some(7), &mut Vec::new());
    assert!(run.is_void(&info(5, 1)), "it came before the rewind to 2");
    assert!(!run.is_void(&info(5, 2)));
    run.rewind(Some(1), &mut Vec::new());
    assert_eq!(run.rewinds.len(), 1, "the last implies the others");
}

#[test]
fn an_old_journal_is_read() {
    let mut run = queued();
    run.generation = 3;
    run.lineage = 2;
    run.checkpoints = vec![info(2, 1), info(6, 2)];
    let mut json = serde_json::to_value(&run).unwrap();
    let object = json.as_object_mut().unwrap();
    assert!(object.remove("rewinds").is_some());
    let read = |value| {
        let mut old = object.clone();
        old.insert("rewound".into(), value);
        serde_json::from_value::<Run>(old.into()).unwrap()
    };
    let old = read(serde_json::json!({"generation": 2, "step": 4}));
    assert_eq!(old.start_checkpoint(0), Some(&info(2, 1)));
    let stored_since = CheckpointInfo {
        lineage: 2,
        ..info(6, 4)
    };
    assert!(!old.is_void(&stored_since) && !old.is_void(&info(6, 4)));
    let old = read(serde_json::Value::Null);
    assert_eq!(old.start_checkpoint(0), Some(&info(6, 2)));
    let older: Run = serde_json::from_value(object.clone().into()).unwrap();
    assert_eq!(older.start_checkpoint(0), Some(&info(6, 2)));
}

#[test]
fn the_next_epoch_is_the_first_without_a_result() {
    for (there, next) in [
        (&[][..], 0),
        (&[0], 1),
        (&[1], 0),
        (&[0, 1, 2], 3),
        (&[0, 1, 3, 4], 2),
    ] {
        let mut run = queued();
        run.epochs = there.iter().map(|epoch| result(*epoch)).collect();
        assert_eq!(run.next_epoch(), next, "{there:?}");
    }
}

fn result(epoch: u32) -> EpochResult {
    EpochResult {
        epoch,
        step: (u64::from(epoch) + 1) * 5,
        train_loss: None,
        validation: crate::metrics::evaluate(&[], crate::spec::Scheme::softmax(2, 1)),
    }
}

/// A checkpoint of (lineage, step, generation) whose manifest holds the ledger after step `before`.
fn found(lineage: u64, step: u64, generation: u64, before: u64) -> FoundCheckpoint {
    let entry = |step| Entry {
        step,
        loss: 0.5,
        samples: vec![1, 2, 3],
    };
    FoundCheckpoint {
        info: CheckpointInfo {
            lineage,
            ..info(step, generation)
        },
        epochs: (0..(step / 5) as u32).map(result).collect(),
        ledger: (before + 1..=step).map(entry).collect(),
    }
}

#[test]
fn checkpoints_that_follow_on_are_adopted() {
    // The journal ends at step 5 of lineage 0, with checkpoints at steps 2 and 4 of generation 1.
    type Case = (
        &'static str,
        Vec<FoundCheckpoint>,
        &'static [u64],
        Option<u64>,
        &'static [u64],
    );
    let table: Vec<Case> = vec![
        ("nothing", vec![], &[], None, &[]),
        ("listed already", vec![found(0, 4, 1, 2)], &[], None, &[]),
        ("the next", vec![found(0, 6, 1, 4)], &[6], None, &[6]),
        (
            "two, in any order",
            vec![found(0, 8, 2, 6), found(0, 6, 1, 4)],
            &[6, 8],
            None,
            &[6, 7, 8],
        ),
        ("a gap", vec![found(0, 9, 1, 7)], &[], None, &[]),
        (
            "a gap after the next",
            vec![found(0, 6, 1, 4), found(0, 9, 2, 7)],
            &[6],
            None,
            &[6],
        ),
        (
            "its steps are known already",
            vec![found(0, 5, 1, 4)],
            &[5],
            None,
            &[],
        ),
        (
            "the step was taken again later",
            vec![found(0, 4, 2, 2)],
            &[4],
            None,
            &[],
        ),
        (
            "after a rewind that the journal does not know",
            vec![found(1, 4, 3, 2), found(1, 6, 3, 4)],
            &[4, 6],
            Some(2),
            &[3, 4, 5, 6],
        ),
        (
            "the start of the later lineage is missing",
            vec![found(1, 7, 3, 5)],
            &[],
            None,
            &[],
        ),
        (
            "an unknown rewind after the next",
            vec![found(0, 6, 1, 4), found(1, 6, 3, 2)],
            &[6],
            Some(2),
            &[3, 4, 5, 6],
        ),
        ("beyond the end", vec![found(0, 11, 1, 5)], &[], None, &[]),
        (
            "a ledger with a hole",
            vec![{
                let mut holed = found(0, 8, 1, 4);
                holed.ledger.remove(2);
                holed
            }],
            &[],
            None,
            &[],
        ),
    ];
    for (what, found, infos, rewind, entries) in table {
        let mut run = running(&[0]);
        run.spec.checkpoint.keep_last = 0;
        run.apply(0, stored(2, 1));
        run.apply(0, stored(4, 1));
        (1..6).for_each(|step| drop(run.apply(0, committed(step, 1))));
        let adopted = run.adopt(found, 5);
        let steps: Vec<u64> = adopted.infos.iter().map(|c| c.step).collect();
        assert_eq!(steps, infos, "{what}");
        assert_eq!(adopted.rewind, rewind, "{what}");
        let steps: Vec<u64> = adopted.entries.iter().map(|e| e.step).collect();
        assert_eq!(steps, entries, "{what}");
        for info in &adopted.infos {
            assert!(
                run.checkpoints.contains(info) && !run.is_void(info),
                "{what}"
            );
        }
        if let Some(newest) = adopted.infos.last() {
            assert_eq!(run.generation, newest.generation.max(1), "{what}");
            assert_eq!(run.lineage, newest.lineage, "{what}");
            assert_eq!(run.start_checkpoint(0), Some(newest), "{what}");
            assert!(
                run.progress.is_some_and(|p| p.step >= newest.step),
                "{what}"
            );
            assert_eq!(run.next_epoch() > 0, newest.step >= 5, "{what}");
            // The members serve a generation that the restored journal does not know.
            let expected = if newest.generation > 1 {
                "queued"
            } else {
                "running"
            };
            assert_eq!(run.phase_name(), expected, "{what}");
        } else {
            assert_eq!((run.lineage, run.phase_name()), (0, "running"), "{what}");
        }
    }
}

#[test]
fn an_older_lineage_or_a_void_checkpoint_is_not_adopted() {
    let mut run = running(&[0]);
    run.apply(0, stored(4, 1));
    run.rewind(Some(4), &mut Vec::new());
    run.generation = 2;
    for old in [found(0, 6, 1, 4), found(0, 5, 1, 4)] {
        assert_eq!(run.adopt(vec![old], 4), Adopted::default());
    }
    let adopted = run.adopt(vec![found(1, 6, 2, 4)], 4);
    assert_eq!((adopted.infos.len(), adopted.rewind), (1, None));
}
