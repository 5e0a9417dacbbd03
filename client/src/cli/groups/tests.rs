use fovea_core::selection::Halving;
use fovea_core::spec::{BestBy, FoldSpec};

use super::*;
use crate::cli::narrate::tests::{epoch, run};

fn member(number: u32, fold: Option<u32>, seed: u64, phase: Option<Phase>) -> MemberInfo {
    MemberInfo {
        run: format!("dr-{number}"),
        variant: 0,
        fold: fold.map(|index| FoldSpec { index, of: 2 }),
        seed,
        phase,
    }
}

fn group(runs: Vec<MemberInfo>) -> GroupInfo {
    GroupInfo {
        variants: Vec::new(),
        selection: None,
        deciding: false,
        id: "dr-g1".into(),
        name: "dr".into(),
        submitted_at_ms: 0,
        submitted_by: String::new(),
        runs,
    }
}

#[test]
fn a_group_says_what_differs_and_where_its_runs_are() {
    let folds = group(vec![
        member(2, Some(1), 0, Some(Phase::Queued)),
        member(3, Some(2), 0, Some(Phase::Running)),
    ]);
    assert_eq!(differing(&folds), "2 folds");
    assert_eq!(phases(&folds), "1 running, 1 queued");
    let seeds = group(vec![
        member(2, None, 0, Some(Phase::Completed)),
        member(3, None, 1, None),
        member(4, None, 2, Some(Phase::Completed)),
    ]);
    assert_eq!(differing(&seeds), "3 seeds");
    assert_eq!(phases(&seeds), "2 completed, 1 removed");
    let both = group(vec![
        member(2, Some(1), 0, None),
        member(3, Some(2), 0, None),
        member(4, Some(1), 1, None),
        member(5, Some(2), 1, None),
    ]);
    assert_eq!(differing(&both), "2 seeds of each of 2 folds");
    // Several seeds of one fold are no cross-validation.
    let one_fold = group(vec![
        member(2, Some(1), 0, None),
        member(3, Some(1), 1, None),
    ]);
    assert_eq!(differing(&one_fold), "2 seeds");
}

#[test]
fn the_spread_is_explained_by_what_differs() {
    let seeds = group(vec![member(2, None, 0, None), member(3, None, 1, None)]);
    let of = |group: &GroupInfo, runs| group_judge::caveats(group, runs).join("\n");
    assert!(of(&seeds, 2).contains("over seeds: what chance"));
    assert!(of(&seeds, 2).contains("of 2 values a deviation is known roughly"));
    assert_eq!(of(&seeds, 1), "", "one run has no spread");
    let folds = group(vec![
        member(2, Some(1), 0, None),
        member(3, Some(2), 0, None),
    ]);
    let text = of(&folds, 12);
    assert!(text.contains("no standard error of the mean"), "{text}");
    assert!(!text.contains("roughly"), "{text}");
}

#[test]
fn what_becomes_of_a_cancelled_group_is_told_as_it_is() {
    let of = |second| {
        cancelled(&group(vec![
            member(2, Some(1), 0, Some(Phase::Cancelled)),
            member(3, Some(2), 0, second),
        ]))
    };
    assert_eq!(
        of(Some(Phase::Cancelled)),
        "all runs of group dr-g1 have ended: 2 cancelled"
    );
    assert!(of(None).starts_with("all runs of group dr-g1 have ended"));
    assert!(of(Some(Phase::Running)).contains("will stop at their next step"));
}

/// A run of a sweep: its number, phase and reason, and AUC by epoch.
fn swept(number: u32, phase: Phase, reason: &str, aucs: &[f64]) -> RunInfo {
    let mut run = run(phase);
    (run.id, run.reason) = (format!("dr-{number}"), reason.into());
    run.epochs = (0..)
        .zip(aucs)
        .map(|(at, auc)| {
            let mut result = epoch(at);
            result.validation.auc = Some(*auc);
            result
        })
        .collect();
    run
}

/// A sweep of variants with one run each, of which one of two goes on after epoch 1; and what it shows.
fn shown(runs: &[RunInfo]) -> Vec<String> {
    let members = (0..).zip(runs).map(|(variant, run)| MemberInfo {
        run: run.id.clone(),
        variant,
        fold: None,
        seed: 0,
        phase: Some(run.phase),
    });
    let mut sweep = group(members.collect());
    sweep.variants = (1..=runs.len())
        .map(|n| format!("train.batch={n}"))
        .collect();
    sweep.selection = Some(Selection {
        by: BestBy::Auc,
        halving: Some(Halving {
            after: vec![1],
            keep_one_of: 2,
        }),
        patience: None,
    });
    details(&sweep, runs, 1)
}

fn has(lines: &[String], parts: &[&str]) {
    let found = lines
        .iter()
        .any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(found, "no line with {parts:?}:\n{}", lines.join("\n"));
}

#[test]
fn cancelling_a_sweep_keeps_what_its_selection_has_decided() {
    let dropped = "dropped after epoch 1: place 3 of 4 by AUC (0.600), of which 2 went on; `fovea resume` trains it on";
    let done = [0.7, 0.7, 0.7];
    let mut runs = [
        swept(1, Phase::Completed, "", &done),
        swept(2, Phase::Completed, "", &[0.8, 0.8, 0.8]),
        swept(3, Phase::Paused, dropped, &[0.6]),
        swept(
            4,
            Phase::Paused,
            &dropped.replace("place 3", "place 4"),
            &[0.5],
        ),
    ];
    let before = shown(&runs);
    has(&before, &["left        2 of 4 variants: 2 dropped"]);
    has(
        &before,
        &[
            "train.batch=3",
            "1 paused",
            "dropped after epoch 1: place 3 of 4",
        ],
    );
    for run in &mut runs[2..] {
        (run.phase, run.reason) = (Phase::Cancelled, String::new());
    }
    let after = shown(&runs);
    has(&after, &["left        2 of 4 variants: 2 dropped"]);
    has(
        &after,
        &[
            "train.batch=3",
            "1 cancelled",
            "dropped after epoch 1: place 3 of 4",
        ],
    );
    has(
        &after,
        &[
            "dr-4",
            "cancelled",
            "1/3",
            "dropped after epoch 1: place 4 of 4 by AUC (0.500)",
        ],
    );
    let place = |of: &str| after.iter().position(|line| line.contains(of)).unwrap();
    assert!(place("train.batch=2") < place("train.batch=1"));
    assert!(place("train.batch=1") < place("train.batch=3"));
    // A variant that was cancelled before the rung goes no further.
    runs[1] = swept(2, Phase::Cancelled, "", &[]);
    has(
        &shown(&runs[..2]),
        &["left        1 of 2 variants: 1 cancelled"],
    );
}

#[test]
fn a_run_that_holds_up_the_selection_is_named() {
    let waits = "waits after epoch 1 for the other runs of its group";
    let runs = [
        swept(1, Phase::Paused, waits, &[0.7]),
        swept(2, Phase::Paused, "", &[]),
        swept(3, Phase::Paused, waits, &[0.6]),
    ];
    let lines = shown(&runs);
    has(&lines, &["left        3 of 3 variants"]);
    has(
        &lines,
        &[
            "dr-2 was paused by a person and holds up the selection after epoch 1: resume or cancel it",
        ],
    );
    has(&lines, &["dr-2", "0/3", "paused by a person"]);
    has(&lines, &["dr-1", waits]);
}

#[test]
fn what_happened_first_is_told_first() {
    let told = |before: Option<&RunInfo>, now: &RunInfo| -> Vec<String> {
        changes(before, now)
            .into_iter()
            .map(|told| told.line(now))
            .collect()
    };
    let queued = swept(1, Phase::Queued, "", &[]);
    let running = swept(1, Phase::Running, "", &[0.5]);
    let done = swept(1, Phase::Completed, "", &[0.5, 0.6, 0.7]);
    assert_eq!(
        told(Some(&queued), &running),
        ["dr-1: running", "dr-1: epoch 1/3, AUC 0.500"]
    );
    assert_eq!(
        told(Some(&running), &done),
        [
            "dr-1: epoch 2/3, AUC 0.600",
            "dr-1: epoch 3/3, AUC 0.700",
            "dr-1: completed"
        ]
    );
    // It is asked to stop after an epoch.
    let stopping = swept(1, Phase::Running, "asked to pause", &[0.5, 0.6]);
    assert_eq!(
        told(Some(&running), &stopping),
        [
            "dr-1: epoch 2/3, AUC 0.600",
            "dr-1: running (asked to pause)"
        ]
    );
}
