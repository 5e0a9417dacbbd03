//! Why generations formed is counted, and survives the journal.

use super::*;

fn counts(run: &Run) -> Vec<(FormationReason, u64)> {
    let all = FormationReason::ALL.into_iter();
    all.map(|reason| (reason, run.formations.count(reason)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[test]
fn every_generation_is_counted_with_its_reason() {
    use FormationReason::*;
    let mut run = running(&[0, 1, 2]);
    run.note_time(1);
    assert_eq!(counts(&run), [(Started, 1)]);
    run.apply(1, lost(2));
    assert_eq!(run.formations.last(), Some(WorkerLost));
    run.apply(2, Event::WorkerLeaving { worker: worker(1) });
    run.apply(3, ready(0, run.generation, 0, "s"));
    run.apply(4, joined(&[3]));
    let generation = run.generation;
    run.apply(5, released(3, generation, failure(false)));
    let unfit = Outcome::Unfit {
        trouble: Trouble::Disk,
        reason: "full".into(),
    };
    run.apply(6, ready(0, run.generation, 0, "s"));
    run.apply(7, joined(&[4]));
    run.apply(8, released(4, run.generation, unfit));
    let expected = [
        (Started, 1),
        (WorkerJoined, 2),
        (WorkerLeft, 1),
        (WorkerLost, 1),
        (WorkerFailed, 1),
        (WorkerUnfit, 1),
    ];
    assert_eq!(counts(&run), expected);
    assert_eq!(run.formations.total(), run.generation);

    // Nobody is left: it is queued for that, and goes on later.
    run.apply(9, lost(0));
    assert_eq!(run.phase_name(), "queued");
    assert_eq!(run.formations.last(), Some(WorkerLost));
    assert_eq!(run.formations.total(), run.generation);
    run.apply(10, assigned(&[5]));
    assert_eq!(run.formations.last(), Some(Resumed));
    assert_eq!(run.formations.count(WorkerLost), 1);

    let text = serde_json::to_string(&run).unwrap();
    let read: Run = serde_json::from_str(&text).unwrap();
    assert_eq!(read.formations, run.formations);
    assert!(text.contains(r#""worker_lost":1"#), "{text}");
}

#[test]
fn a_checkpoint_that_is_given_up_is_counted_whatever_generation_took_it() {
    let mut run = running(&[0]);
    for generation in [1, 9] {
        let effects = run.apply(1, not_stored(4, generation));
        assert!(effects.contains(&Effect::Persist), "{effects:?}");
    }
    assert_eq!(run.checkpoint_failures, 2);
    let text = serde_json::to_string(&run).unwrap();
    let read: Run = serde_json::from_str(&text).unwrap();
    assert_eq!(read.checkpoint_failures, 2);
    // An older journal counted neither.
    let mut older: serde_json::Value = serde_json::from_str(&text).unwrap();
    let fields = older.as_object_mut().unwrap();
    fields.remove("checkpoint_failures").unwrap();
    fields.remove("formations").unwrap();
    let read: Run = serde_json::from_value(older).unwrap();
    assert!(read.formations.is_empty());
    assert_eq!(read.checkpoint_failures, 0);
}

#[test]
fn names_are_those_of_the_journal() {
    for reason in FormationReason::ALL {
        let text = serde_json::to_string(&reason).unwrap();
        assert_eq!(text, format!("{:?}", reason.as_str()));
    }
}
