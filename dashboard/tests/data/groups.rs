//! Made-up groups.

use fovea_core::group::{Group, GroupPlan, Member, Variant, group_id};
use fovea_core::ids::RunId;
use fovea_core::run::{Phase as Core, Run};
use fovea_core::selection::{GroupPause, Halving, Hold, Selection};
use fovea_core::spec::BestBy;
use fovea_dashboard::model::{GroupList, GroupPage, GroupRow};

use super::{NOW, noise, row, run, training};

/// A group of this plan, and its runs; what each run is, `of` says of its number and its variant.
pub fn made(plan: &GroupPlan, of: impl Fn(u64, u32) -> Run) -> (Group, Vec<Run>) {
    let mut base = run(1, 0).spec;
    base.name = "lr".into();
    let number = 30;
    let planned = plan.runs(&base).unwrap();
    let runs: Vec<(u32, Run)> = (number + 1..)
        .zip(planned)
        .map(|(number, planned)| {
            let mut run = of(number, planned.variant);
            run.id = RunId::new(format!("{}-{number}", planned.spec.name)).unwrap();
            run.spec = planned.spec;
            run.group = Some(group_id("lr", 30).unwrap());
            (planned.variant, run)
        })
        .collect();
    let member = |(variant, run): &(u32, Run)| Member {
        run: run.id.clone(),
        variant: *variant,
        fold: run.spec.fold,
        seed: run.spec.seed,
    };
    let group = Group {
        id: group_id("lr", number).unwrap(),
        number,
        name: "lr".into(),
        submitted_at_ms: NOW - 5_400_000,
        submitted_by: Some("ann".into()),
        variants: plan.variants.iter().map(|v| v.label.clone()).collect(),
        selection: plan.selection.clone(),
        runs: runs.iter().map(member).collect(),
    };
    (group, runs.into_iter().map(|(_, run)| run).collect())
}

/// A sweep of learning rates and batches, three folds each, between its rungs.
pub fn sweep(rates: u32, folds: u32) -> (Group, Vec<Run>) {
    let base = run(1, 0).spec;
    let variants = (0..rates * 2).map(|at| {
        let mut spec = base.clone();
        spec.train.batch = if at % 2 == 0 { 8 } else { 16 };
        spec.train.learning_rate = 0.000_5 * f64::from(at / 2 + 1);
        let label = format!(
            "train.batch={} train.learning_rate={}",
            spec.train.batch, spec.train.learning_rate
        );
        Variant { label, spec }
    });
    let plan = GroupPlan {
        variants: variants.collect(),
        selection: Some(Selection {
            by: BestBy::Auc,
            halving: Some(Halving {
                after: vec![3, 6],
                keep_one_of: 3,
            }),
            patience: None,
        }),
        folds,
        seeds: Vec::new(),
    };
    made(&plan, |number, variant| {
        let goes_on = variant % 3 == 1;
        let mut run = match goes_on {
            true => training(number, 5),
            false => run(number, 3),
        };
        if !goes_on {
            run.phase = Core::Paused;
            run.group_pause = Some(GroupPause {
                rung: None,
                reason: format!(
                    "dropped after epoch 3: place {} of 6 by AUC (0.8{number}), of which 2 went on; `fovea resume` trains it on",
                    variant + 1
                ),
            });
        } else {
            // It was let go on until the second rung.
            run.hold = Some(Hold {
                until: Some(6),
                patience: None,
                by: BestBy::Auc,
            });
            if number % 3 == 1 {
                run.phase = Core::Queued { reason: None };
            }
        }
        for epoch in &mut run.epochs {
            let better = if goes_on { 0.02 } else { 0.0 };
            let shift = 0.06 * noise(u64::from(variant) + 11) - better;
            epoch.validation.auc = epoch.validation.auc.map(|auc| auc - shift);
        }
        run
    })
}

/// A sweep of four keys, with values as they are drawn.
pub fn four_keys() -> (Group, Vec<Run>) {
    let (mut group, runs) = sweep(3, 3);
    for (at, label) in (1..).zip(&mut group.variants) {
        *label = format!(
            "train.virtual_ranks={} train.learning_rate=0.00{at}316227766017 model.positive_from={} train.weight_decay=0.0000{at}77827941",
            4 * at,
            at % 4 + 1
        );
    }
    (group, runs)
}

/// Five folds, of which three have completed and one was removed.
pub fn folds() -> (Group, Vec<Run>) {
    let plan = GroupPlan {
        folds: 5,
        ..GroupPlan::default()
    };
    made(&plan, |number, _| match number {
        31..=33 => {
            let mut run = run(number, 12);
            run.phase = Core::Completed;
            run.times.ended_ms = Some(NOW - 60_000);
            run
        }
        34 => training(number, 7),
        _ => run(number, 0),
    })
}

pub fn page((group, runs): &(Group, Vec<Run>)) -> GroupPage {
    let shown: Vec<_> = runs.iter().map(|run| Some((run, row(run, None)))).collect();
    GroupPage::of(group, &shown, false, Ok(()))
}

pub fn list() -> GroupList {
    let row = |(group, runs): &(Group, Vec<Run>)| {
        let runs: Vec<Option<&Run>> = runs.iter().map(Some).collect();
        GroupRow::of(group, &runs, false)
    };
    GroupList {
        groups: vec![row(&sweep(3, 3)), row(&folds())],
        older: Some(12),
        is_later: false,
    }
}
