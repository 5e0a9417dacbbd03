//! A run's audit.

use fovea_report::number::count;
use maud::{Markup, html};

use super::pieces::{moment, prose, run_link};
use super::{Sheet, part};
use crate::model::Audited;

/// The page of an audit.
pub fn audit(run: &str, of: &Audited) -> Sheet {
    let content = html! {
        section id="audit" class="card" aria-labelledby="audit-h" {
            h1 id="audit-h" { "Audit of " (run_link(run)) }
            (result(of))
        }
    };
    Sheet::new(format!("Audit of {run}"), vec![part("audit", content)])
}

/// What an audit found.
pub(super) fn result(of: &Audited) -> Markup {
    html! {
        @if of.problems.is_empty() {
            p class="good" { "Clean: every committed step used the samples of its plan, none left out, none twice." }
        } @else {
            div class="warning" {
                b { (of.problems.len()) @if of.problems.len() == 1 { " problem" } @else { " problems" } }
                ul { @for problem in &of.problems { li { (prose(problem)) } } }
            }
        }
        dl class="facts" {
            div { dt { "Steps in the ledger" } dd { (count(of.steps)) " of " (count(of.total_steps)) } }
            div { dt { "Complete epochs without a fault" } dd { (of.clean_epochs) } }
            div { dt { "Samples used" } dd { (count(of.samples_used)) ", of a split of " (count(of.train_samples)) } }
            div { dt { "Audited" } dd { (moment(of.at_ms)) } }
        }
    }
}
