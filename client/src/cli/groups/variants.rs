//! The variants of a sweep beside each other.

use fovea_core::ranking::{Ranked, RankedRun, rank_counted};
use fovea_core::spec::BestBy;

use super::selected::Selected;
use crate::cli::table::Table;
use crate::view::{GroupInfo, Phase, RunInfo};

/// The variants, the best first.
pub(super) fn table(
    group: &GroupInfo,
    runs: &[RunInfo],
    selected: Option<&Selected>,
) -> Vec<String> {
    let selection = group.selection.as_ref();
    let by = selection.map_or(BestBy::Auc, |selection| selection.by);
    let ranked = group.runs.iter().map(|member| {
        let variant = member.variant as usize;
        match runs.iter().find(|run| run.id == member.run) {
            Some(run) => RankedRun {
                variant,
                is_out: matches!(run.phase, Phase::Failed | Phase::Cancelled),
                epochs: &run.epochs[..run.epochs_done()],
            },
            None => RankedRun::removed(variant),
        }
    });
    let ranked: Vec<RankedRun> = ranked.collect();
    let metric = format!(">{}", by.title());
    let headings = [
        ">variant",
        "settings",
        ">epochs",
        &metric,
        ">deviation",
        ">runs",
        "phases",
        "selection",
    ];
    let shown = headings.len() - usize::from(selected.is_none());
    let mut table = Table::new(&headings[..shown]);
    for (ranked, counted) in rank_counted(group.variants.len(), &ranked, by) {
        let Ranked {
            variant,
            epochs,
            spread,
        } = ranked;
        let value =
            |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.3}"));
        let row = [
            (variant + 1).to_string(),
            group.variants[variant].clone(),
            epochs.to_string(),
            value(spread.map(|s| s.mean)),
            value(spread.and_then(|s| s.sd)),
            counted.to_string(),
            super::phases(&group.of_variant(variant)),
            selected.map_or_else(String::new, |selected| selected.standing(variant)),
        ];
        table.row(row.into_iter().take(shown));
    }
    table.lines()
}
