//! The variants of a sweep beside each other.

use fovea_core::spec::BestBy;

use crate::cli::table::Table;
use crate::spread::Spread;
use crate::view::{GroupInfo, Phase, RunInfo};

/// A variant and what is known of it.
struct VariantRow {
    variant: usize,
    /// Epochs that every run of it has done.
    epochs: usize,
    /// Their metric after the last of these, over the runs.
    spread: Option<Spread>,
}

/// The variants, those that came furthest first, and of these the best by the group's metric.
pub(super) fn table(group: &GroupInfo, runs: &[RunInfo]) -> Vec<String> {
    let by = group
        .selection
        .as_ref()
        .map_or(BestBy::Auc, |selection| selection.by);
    let mut rows: Vec<VariantRow> = (0..group.variants.len())
        .map(|variant| row_of(group, runs, variant, by))
        .collect();
    let merit = |row: &VariantRow| match (row.spread, by) {
        (None, _) => f64::NEG_INFINITY,
        (Some(spread), BestBy::Loss) => -spread.mean,
        (Some(spread), _) => spread.mean,
    };
    rows.sort_by(|a, b| b.epochs.cmp(&a.epochs).then(merit(b).total_cmp(&merit(a))));
    let metric = format!(">{}", by.title());
    let mut table = Table::new(&[
        ">variant",
        "settings",
        ">epochs",
        &metric,
        ">deviation",
        ">runs",
        "phases",
    ]);
    for VariantRow {
        variant,
        epochs,
        spread,
    } in rows
    {
        let value =
            |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.3}"));
        let of_variant = group.of_variant(variant);
        table.row([
            (variant + 1).to_string(),
            group.variants[variant].clone(),
            epochs.to_string(),
            value(spread.map(|s| s.mean)),
            value(spread.and_then(|s| s.sd)),
            of_variant.there().count().to_string(),
            super::phases(&of_variant),
        ]);
    }
    table.lines()
}

fn row_of(group: &GroupInfo, runs: &[RunInfo], variant: usize, by: BestBy) -> VariantRow {
    let of_variant = group.of_variant(variant);
    let ended = |phase: Phase| matches!(phase, Phase::Failed | Phase::Cancelled);
    let of: Vec<&RunInfo> = of_variant
        .there()
        .filter_map(|(member, _)| runs.iter().find(|run| run.id == member.run))
        .collect();
    // A run that failed does not hide how far the others came.
    let counted: Vec<&&RunInfo> = match of.iter().any(|run| !ended(run.phase)) {
        true => of.iter().filter(|run| !ended(run.phase)).collect(),
        false => of.iter().collect(),
    };
    let epochs = counted
        .iter()
        .map(|run| run.epochs_done())
        .min()
        .unwrap_or(0);
    let metric = |run: &RunInfo| {
        let result = run
            .epochs
            .iter()
            .find(|result| result.epoch as usize + 1 == epochs)?;
        by.merit(&result.validation).map(|merit| by.shown(merit))
    };
    VariantRow {
        variant,
        epochs,
        spread: Spread::of(counted.iter().filter_map(|run| metric(run))),
    }
}
