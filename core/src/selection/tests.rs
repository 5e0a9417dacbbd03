//! Tables: who goes on, who is dropped, and when a run pauses.

use super::*;
use crate::metrics::Evaluation;
use crate::run::EpochResult;

fn halving(after: &[u32], keep_one_of: u32) -> Selection {
    Selection {
        by: BestBy::Auc,
        halving: Some(Halving {
            after: after.to_vec(),
            keep_one_of,
        }),
        patience: None,
    }
}

fn evaluation(auc: Option<f64>) -> Evaluation {
    Evaluation {
        samples: 4,
        positives: 2,
        loss: 0.5,
        accuracy: 0.5,
        auc,
        sensitivity: None,
        specificity: None,
        quadratic_kappa: None,
        confusion: Vec::new(),
    }
}

fn epochs(aucs: &[f64]) -> Vec<EpochResult> {
    let result = |(epoch, auc): (u32, &f64)| EpochResult {
        epoch,
        step: u64::from(epoch + 1) * 5,
        train_loss: None,
        validation: evaluation(Some(*auc)),
    };
    (0..).zip(aucs).map(result).collect()
}

/// A run that waits at the rung `merits.len()`.
fn waiting(variant: usize, merits: &[f64]) -> Contender {
    Contender {
        variant,
        merits: merits.iter().copied().map(Some).collect(),
        waits: Some(merits.len() as u32),
        went_on: Some(0),
        ..Contender::default()
    }
}

fn going_on(decisions: &[Decision], contenders: &[Contender]) -> Vec<usize> {
    let goes = |d: &&Decision| matches!(d.verdict, Verdict::GoOn { .. });
    let mut variants: Vec<usize> = decisions
        .iter()
        .filter(goes)
        .map(|d| contenders[d.at].variant)
        .collect();
    variants.dedup();
    variants
}

fn reason_of(decisions: &[Decision], at: usize) -> &str {
    let one = decisions.iter().find(|d| d.at == at).unwrap();
    match &one.verdict {
        Verdict::Drop { reason } => reason,
        Verdict::GoOn { .. } => panic!("{one:?} goes on"),
    }
}

#[test]
fn the_best_go_on_when_all_have_come_to_the_rung() {
    let selection = halving(&[1, 3], 2);
    let mut runs = vec![
        waiting(0, &[0.6]),
        waiting(1, &[0.9]),
        waiting(2, &[0.7]),
        waiting(3, &[0.8]),
        waiting(4, &[0.5]),
    ];
    // One is under way: nothing is decided.
    runs[4] = Contender {
        merits: Vec::new(),
        waits: None,
        ..runs[4].clone()
    };
    assert_eq!(decide(&selection, &runs), []);
    runs[4] = waiting(4, &[0.5]);
    let decisions = decide(&selection, &runs);
    assert_eq!(going_on(&decisions, &runs), [1, 3], "5 / 2 = 2");
    assert_eq!(
        reason_of(&decisions, 0),
        "dropped after epoch 1: place 4 of 5 by AUC (0.600), of which 2 went on; `fovea resume` trains it on"
    );
    assert_eq!(decisions[1].verdict, Verdict::GoOn { until: Some(3) });
    // Carried out for one of them only, the rest is the same decision, also when that one has gone further.
    runs[1] = waiting(1, &[0.9, 0.1, 0.1]);
    let rest = decide(&selection, &runs);
    let expected: Vec<Decision> = decisions.iter().filter(|d| d.at != 1).cloned().collect();
    assert_eq!(rest, expected);
    // At the next rung only those are compared that went on.
    for (at, run) in runs.iter_mut().enumerate() {
        if !matches!(at, 1 | 3) {
            (run.waits, run.stopped) = (None, true);
        }
    }
    runs[3] = waiting(3, &[0.8, 0.1, 0.2]);
    let decisions = decide(&selection, &runs);
    assert_eq!(going_on(&decisions, &runs), [3]);
    assert_eq!(decisions.len(), 2);
    assert_eq!(decisions[1].verdict, Verdict::GoOn { until: None });
    assert!(reason_of(&decisions, 1).starts_with("dropped after epoch 3: place 2 of 2"));
}

#[test]
fn a_variant_counts_by_the_mean_of_its_runs() {
    let selection = halving(&[1], 2);
    let runs = [
        waiting(0, &[0.9]),
        waiting(0, &[0.5]),
        waiting(1, &[0.8]),
        waiting(1, &[0.7]),
    ];
    let decisions = decide(&selection, &runs);
    assert_eq!(going_on(&decisions, &runs), [1]);
    assert_eq!(decisions.len(), 4);
    // Equal means: the earlier goes on.
    let runs = [waiting(0, &[0.7]), waiting(1, &[0.7])];
    assert_eq!(going_on(&decide(&selection, &runs), &runs), [0]);
}

/// Also where the other one was better at the rung before.
#[test]
fn of_equals_the_earlier_variant_goes_on_at_every_rung() {
    let selection = halving(&[1, 3], 2);
    let mut runs: Vec<Contender> = (0..)
        .zip([0.7, 0.9, 0.5, 0.6])
        .map(|(variant, auc)| waiting(variant, &[auc]))
        .collect();
    carry_out(&selection, &mut runs);
    for (at, first) in [(0, 0.7), (1, 0.9)] {
        runs[at] = Contender {
            went_on: Some(1),
            ..waiting(at, &[first, 0.1, 0.8])
        };
    }
    assert_eq!(going_on(&decide(&selection, &runs), &runs), [0]);
}

#[test]
fn a_run_that_failed_or_stopped_does_not_keep_the_others_waiting() {
    let selection = halving(&[2], 2);
    let out = Contender {
        merits: vec![Some(0.99)],
        gone: Some(Gone::Failed),
        waits: None,
        ..waiting(0, &[])
    };
    let stopped = Contender {
        merits: vec![Some(0.9)],
        stopped: true,
        waits: None,
        ..waiting(1, &[])
    };
    let runs = [
        out.clone(),
        stopped.clone(),
        waiting(2, &[0.1, 0.8]),
        waiting(3, &[0.1, 0.7]),
    ];
    // The one that stopped early counts with its last result; nothing is to be done about it.
    let decisions = decide(&selection, &runs);
    assert_eq!(going_on(&decisions, &runs), [2]);
    assert_eq!(decisions.len(), 2);
    // Only failed ones: nobody goes on in the place of them.
    let runs = [
        out.clone(),
        Contender {
            variant: 1,
            ..out.clone()
        },
    ];
    assert_eq!(decide(&selection, &runs), []);
    // A failed one does not go on, whatever its results were.
    let sibling = waiting(0, &[0.99, 0.99]);
    let runs = [out, sibling, waiting(1, &[0.1, 0.2])];
    let decisions = decide(&selection, &runs);
    assert_eq!(going_on(&decisions, &runs), [1]);
    assert!(reason_of(&decisions, 1).contains("place 2 of 2 by AUC (not defined)"));
}

#[test]
fn a_metric_that_is_not_defined_is_the_worst() {
    let selection = halving(&[1], 2);
    let undefined = Contender {
        merits: vec![None],
        ..waiting(0, &[0.0])
    };
    let runs = [undefined.clone(), waiting(1, &[0.1])];
    assert_eq!(going_on(&decide(&selection, &runs), &runs), [1]);
    // If none is defined somebody goes on all the same.
    let runs = [
        undefined.clone(),
        Contender {
            variant: 1,
            ..undefined
        },
    ];
    assert_eq!(going_on(&decide(&selection, &runs), &runs), [0]);
}

#[test]
fn a_run_pauses_at_its_rung_and_when_it_does_not_improve() {
    let hold = Hold {
        by: BestBy::Auc,
        until: Some(2),
        patience: None,
    };
    assert_eq!(hold.after(&epochs(&[0.5]), 10), None);
    let held = hold.after(&epochs(&[0.5, 0.6]), 10).unwrap();
    assert_eq!(held.rung, Some(2));
    // After its last epoch it completes.
    assert_eq!(hold.after(&epochs(&[0.5, 0.6]), 2), None);

    let hold = Hold {
        until: None,
        patience: Some(2),
        ..hold
    };
    for improving in [&[0.5][..], &[0.5, 0.4], &[0.5, 0.4, 0.6, 0.6]] {
        assert_eq!(hold.after(&epochs(improving), 10), None, "{improving:?}");
    }
    let held = hold.after(&epochs(&[0.5, 0.6, 0.6, 0.1]), 10).unwrap();
    assert_eq!(
        (held.rung, &*held.reason),
        (
            None,
            "stopped early after epoch 4: AUC was best after epoch 2 (0.600); `fovea resume` goes on"
        )
    );
    // Loss: lower is better, and is shown as it is.
    let by_loss = Hold {
        by: BestBy::Loss,
        ..hold
    };
    let held = by_loss.after(&epochs(&[0.5, 0.6, 0.7]), 10).unwrap();
    assert!(
        held.reason
            .contains("validation loss was best after epoch 1 (0.500)")
    );
    // Without a value nothing is known.
    let mut undefined = epochs(&[0.5; 5]);
    undefined.iter_mut().for_each(|e| e.validation.auc = None);
    assert_eq!(hold.after(&undefined, 10), None);
}

#[test]
fn a_selection_that_is_not_possible_says_why() {
    let said = |selection: Selection| selection.check(4, 10).map_err(|e| e.to_string());
    assert_eq!(said(halving(&[2, 9], 3)), Ok(()));
    for (after, keep, part) in [
        (&[][..], 2, "selection.halving"),
        (&[0], 2, "from 1 to 9"),
        (&[10], 2, "from 1 to 9"),
        (&[3, 3], 2, "rising"),
        (&[5, 3], 2, "rising"),
        (&[1; 17], 2, "1 to 16"),
        (&[1], 1, "selection.keep_one_of: 1"),
        (&[1], 101, "selection.keep_one_of: 101"),
    ] {
        let error = said(halving(after, keep)).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(
        halving(&[1], 2).check(1, 10),
        Err(SelectionError::OneVariant)
    );
    let plain = Selection {
        by: BestBy::Auc,
        halving: None,
        patience: None,
    };
    assert_eq!(plain.check(4, 10), Err(SelectionError::Nothing));
    let patient = |patience| Selection {
        patience: Some(patience),
        ..plain.clone()
    };
    assert_eq!(patient(3).check(1, 10), Ok(()));
    assert_eq!(patient(0).check(4, 10), Err(SelectionError::Patience));
    let by_nothing = Selection {
        by: BestBy::None,
        ..patient(3)
    };
    assert_eq!(by_nothing.check(4, 10), Err(SelectionError::Metric));
}

#[test]
fn a_selection_is_told_in_words() {
    let said = |after: &[u32]| halving(after, 3).in_words();
    let ranked = "the variants are ranked by AUC and one of 3 goes on";
    assert_eq!(said(&[2]), format!("after epoch 2 {ranked}"));
    assert_eq!(said(&[2, 4]), format!("after epochs 2 and 4 {ranked}"));
    let both = Selection {
        patience: Some(1),
        ..halving(&[1, 2, 5], 3)
    };
    assert_eq!(
        both.in_words(),
        format!(
            "after epochs 1, 2 and 5 {ranked}; a run stops when its AUC has not improved for 1 epoch"
        )
    );
}

/// Four variants of two runs at the rung 1, of which the second and the fourth go on.
fn at_the_rung() -> (Selection, Vec<Contender>) {
    let aucs = [0.6, 0.9, 0.7, 0.8];
    let runs = aucs.into_iter().enumerate();
    let runs = runs.flat_map(|(variant, auc)| [waiting(variant, &[auc]), waiting(variant, &[auc])]);
    (halving(&[1, 3], 2), runs.collect())
}

/// As the coordinator carries the decisions out.
fn carry_out(selection: &Selection, runs: &mut [Contender]) {
    for Decision { at, rung, verdict } in decide(selection, runs) {
        let run = &mut runs[at];
        run.waits = None;
        match verdict {
            Verdict::GoOn { .. } => run.went_on = Some(rung),
            Verdict::Drop { reason } => run.dropped = Some(Dropped { rung, reason }),
        }
    }
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
