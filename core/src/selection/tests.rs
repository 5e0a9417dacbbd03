//! Tables: who goes on, who is dropped, and when a run pauses.

mod decided;

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
