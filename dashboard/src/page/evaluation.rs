//! What the page of an evaluation shows instead of curves: the figures of the scored part.

use fovea_core::metrics::Evaluation;
use fovea_report::number::{Unit, count};
use maud::{Markup, html};

use super::pieces::{empty, run_link, section, some, tile};
use super::workers::table;
use super::{Part, part};
use crate::model::RunPage;

/// Figures of the checkpoint of the run, its step, and the part of the dataset that is scored.
pub(super) fn results(of: &RunPage, (run, step, scored): &(String, u64, &'static str)) -> Part {
    let content = html! {
        @match of.epochs.last().map(|epoch| &epoch.validation) {
            // Photographs without grades count as negative.
            Some(found) if found.positives == 0 => (empty(html! { "None of its photographs is known to be positive: there are no figures." })),
            Some(found) => {
                (figures(found))
                p class="about more" {
                    "Without intervals. With them, and with operating points, they are in the report of " (run_link(run)) " when its best \
                     checkpoint was scored."
                }
            }
            None if of.row.phase.has_ended() => (empty(html! { "It has no results." })),
            None => (empty(html! { "Its results are here when all photographs are scored." })),
        }
        dl class="facts" {
            div { dt { "Run" } dd { (run_link(run)) } }
            div { dt { "Checkpoint" } dd { "step " (count(*step)) } }
            div { dt { "Scored" } dd { (scored) " part of " (of.row.dataset) ", " (count(of.validation_samples)) " photographs" } }
        }
    };
    part("results", section("results", "Results", content))
}

fn figures(of: &Evaluation) -> Markup {
    let share =
        |value: Option<f64>| value.map_or_else(|| "–".into(), |value| Unit::Percent.show(value));
    html! {
        dl class="tiles within" {
            (tile("AUC", html! { (some(of.auc, 3)) }, html! { (count(of.samples)) " photographs, " (count(of.positives)) " positive" }))
            (tile("Kappa", html! { (some(of.quadratic_kappa, 3)) }, html! { "quadratic weights" }))
            (tile("Accuracy", html! { (Unit::Percent.show(of.accuracy)) }, html! { "of the named classes" }))
            (tile("Sensitivity", html! { (share(of.sensitivity)) }, html! { "at 0.5" }))
            (tile("Specificity", html! { (share(of.specificity)) }, html! { "at 0.5" }))
            (tile("Loss", html! { (some(Some(of.loss), 3)) }, html! { "nats" }))
        }
    }
}

/// The workers that score; nothing when none does.
pub(super) fn workers(of: &RunPage) -> Part {
    let html = html! {
        @if of.workers.is_empty() { div id="throughput" {} } @else { (section("throughput", "Workers", table(&of.workers, false))) }
    };
    part("throughput", html)
}
