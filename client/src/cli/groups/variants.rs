//! The variants of a sweep beside each other.

use fovea_core::ranking::{Ranked, RankedRun, rank};
use fovea_core::spec::BestBy;

use crate::cli::table::Table;
use crate::view::{GroupInfo, Phase, RunInfo};

/// The variants, the best first.
pub(super) fn table(group: &GroupInfo, runs: &[RunInfo]) -> Vec<String> {
    let selection = group.selection.as_ref();
    let by = selection.map_or(BestBy::Auc, |selection| selection.by);
    let ranked = runs.iter().filter_map(|run| {
        let member = group.runs.iter().find(|member| member.run == run.id)?;
        Some(RankedRun {
            variant: member.variant as usize,
            is_out: matches!(run.phase, Phase::Failed | Phase::Cancelled),
            epochs: &run.epochs[..run.epochs_done()],
        })
    });
    let runs: Vec<RankedRun> = ranked.collect();
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
    for ranked in rank(group.variants.len(), &runs, by) {
        let Ranked {
            variant,
            epochs,
            spread,
        } = ranked;
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
