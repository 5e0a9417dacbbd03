use fovea_core::spec::FoldSpec;

use super::*;

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
