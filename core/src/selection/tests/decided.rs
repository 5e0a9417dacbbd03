//! Decisions: how they are carried out, shown in words, and inferred from results, while people cancel and pause runs.

use super::*;

/// Four variants of two runs at the rung 1, of which the second and the fourth go on.
fn at_the_rung() -> (Selection, Vec<Contender>) {
    let aucs = [0.6, 0.9, 0.7, 0.8];
    let runs = aucs.into_iter().enumerate();
    let runs = runs.flat_map(|(variant, auc)| [waiting(variant, &[auc]), waiting(variant, &[auc])]);
    (halving(&[1, 3], 2), runs.collect())
}

fn cancel(run: &mut Contender) {
    (run.waits, run.held, run.gone) = (None, false, Some(Gone::Cancelled));
}

fn in_words(selection: &Selection, runs: &[Contender]) -> (String, String) {
    let left = left(&standings(Some(selection), 4, runs));
    (left.to_string(), left.others)
}

#[test]
fn what_was_decided_stays_when_runs_are_cancelled() {
    let (selection, mut runs) = at_the_rung();
    let told = |n: &str, others: &str| (n.to_owned(), others.to_owned());
    assert_eq!(in_words(&selection, &runs), told("4 of 4", ""), "not yet");
    carry_out(&selection, &mut runs);
    let decided = standings(Some(&selection), 4, &runs);
    assert_eq!(in_words(&selection, &runs), told("2 of 4", "2 dropped"));
    let Standing::Dropped { reason } = &decided[2] else {
        panic!("{decided:?}");
    };
    assert!(reason.starts_with("dropped after epoch 1: place 3 of 4 by AUC (0.700)"));

    // The dropped ones are cancelled, and one of them is trained on: it stays dropped.
    let mut later = runs.clone();
    for run in [0, 1, 4] {
        cancel(&mut later[run]);
    }
    later[5] = Contender {
        merits: vec![Some(0.7), Some(0.99), Some(0.99)],
        ..waiting(2, &[])
    };
    (later[5].waits, later[5].dropped) = (None, None);
    assert_eq!(standings(Some(&selection), 4, &later), decided);
    // It is none of those that are compared at the next rung, though its metric is the best.
    for at in [2, 3, 6, 7] {
        let variant = later[at].variant;
        later[at] = Contender {
            went_on: Some(1),
            ..waiting(
                variant,
                &[later[at].merits[0].unwrap(), 0.5, 0.1 * variant as f64],
            )
        };
    }
    let decisions = decide(&selection, &later);
    assert_eq!(going_on(&decisions, &later), [3]);
    assert!(reason_of(&decisions, 2).contains("place 2 of 2"));

    // Whoever does not know what was journalled infers the same from the results.
    for run in &mut later {
        (run.dropped, run.went_on, run.waits) = (None, None, None);
    }
    let inferred = standings(Some(&selection), 4, &later);
    assert_eq!((&inferred[0], &inferred[2]), (&decided[0], &decided[2]));
    // So also if a person has trained all of a dropped variant to its end.
    later[4] = later[5].clone();
    let inferred = standings(Some(&selection), 4, &later);
    assert_eq!((&inferred[0], &inferred[2]), (&decided[0], &decided[2]));
    // The best but one was cancelled before the decision, and the next went on in its place.
    for (run, aucs) in later.iter_mut().zip([
        &[0.6][..],
        &[0.6],
        &[0.9, 0.1],
        &[0.9, 0.1],
        &[0.7, 0.7],
        &[0.7, 0.7],
        &[0.8],
        &[0.8],
    ]) {
        run.merits = aucs.iter().copied().map(Some).collect();
        run.gone = None;
    }
    cancel(&mut later[6]);
    let inferred = standings(Some(&selection), 4, &later);
    let words: Vec<&str> = inferred.iter().map(Standing::as_str).collect();
    assert_eq!(words[..3], ["dropped", "left", "left"]);

    // One that goes on is cancelled after the rung: it stays decided, and nobody takes its place.
    cancel(&mut runs[2]);
    assert_eq!(
        in_words(&selection, &runs),
        told("1 of 4", "2 dropped, 1 cancelled")
    );
    assert_eq!(decide(&selection, &runs), []);
    // All are cancelled: the dropped ones are told from those that would have gone on.
    runs.iter_mut().for_each(cancel);
    assert_eq!(
        in_words(&selection, &runs),
        told("0 of 4", "2 dropped, 2 cancelled")
    );
}

#[test]
fn a_run_that_is_cancelled_before_the_decision_takes_its_variant_out() {
    let (selection, mut runs) = at_the_rung();
    cancel(&mut runs[2]);
    assert_eq!(going_on(&decide(&selection, &runs), &runs), [2, 3]);
    let told = ("3 of 4".to_owned(), "1 cancelled".to_owned());
    assert_eq!(in_words(&selection, &runs), told);
    let mut removed = runs.clone();
    removed[2] = Contender {
        variant: 1,
        gone: Some(Gone::Removed),
        ..Contender::default()
    };
    assert_eq!(going_on(&decide(&selection, &removed), &removed), [2, 3]);
}

#[test]
fn a_run_that_a_person_has_paused_is_named() {
    let (selection, mut runs) = at_the_rung();
    assert_eq!(held_up(&selection, &runs), None);
    let pause = |run: &mut Contender| {
        (run.merits, run.waits, run.held) = (Vec::new(), None, true);
    };
    pause(&mut runs[3]);
    let held = held_up(&selection, &runs).unwrap();
    assert_eq!((held.rung, &held.by[..]), (1, &[3][..]));
    let names = ["a", "b", "c", "big.v20-49", "d", "e", "f", "g"];
    assert_eq!(
        held.in_words(|at| names[at]),
        "big.v20-49 was paused by a person and holds up the selection after epoch 1: resume or cancel it"
    );
    pause(&mut runs[4]);
    let two = held_up(&selection, &runs).unwrap();
    assert!(
        two.in_words(|at| names[at])
            .starts_with("big.v20-49, d were paused by a person and hold up")
    );
    // What is paused after the rung holds up the next one; what was dropped nothing.
    let (_, mut runs) = at_the_rung();
    carry_out(&selection, &mut runs);
    runs[2].held = true;
    runs[0].held = true;
    let held = held_up(&selection, &runs).unwrap();
    assert_eq!((held.rung, &held.by[..]), (3, &[2][..]));
}

#[test]
fn a_reason_is_read_as_it_was_written() {
    let hold = Hold {
        by: BestBy::Auc,
        until: Some(12),
        patience: None,
    };
    let waits = hold.after(&epochs(&[0.5; 12]), 20).unwrap();
    assert_eq!(
        PauseReason::read(&waits.reason),
        Some(PauseReason::Waits(12))
    );
    let patient = Hold {
        patience: Some(1),
        ..hold
    };
    let stopped = patient.after(&epochs(&[0.5, 0.4]), 20).unwrap();
    assert_eq!(
        PauseReason::read(&stopped.reason),
        Some(PauseReason::Stopped(2))
    );
    let (selection, mut runs) = at_the_rung();
    carry_out(&selection, &mut runs);
    let dropped = runs[0].dropped.as_ref().unwrap();
    assert_eq!(
        PauseReason::read(&dropped.reason),
        Some(PauseReason::Dropped(1))
    );
    for other in ["", "dropped after epoch ", "worker w1 is gone"] {
        assert_eq!(PauseReason::read(other), None, "{other}");
    }
}
