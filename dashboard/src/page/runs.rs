//! The list of runs, in pages, and the choice of those that are compared.

use maud::html;

use super::pieces::{ago, bar, dash, empty, epochs, heads, phase, run_link, scrolled, some};
use super::{Sheet, part};
use crate::model::RunList;

/// A page of the list at `now_ms`.
pub fn runs(list: &RunList, now_ms: u64) -> Sheet {
    let content = html! {
        form id="list" method="get" action="/compare" {
            @if list.runs.is_empty() {
                (empty(html! { @if list.is_later { "No older runs." } @else { "No runs yet; " code { "fovea submit run.toml" } " starts one." } }))
            } @else {
                (scrolled("Runs", html! {
                    table {
                        (heads(&["", "Run", "Phase", "+Progress", ">AUC", "+>Kappa", "+>Workers", "+Owner", "+>Submitted"]))
                        tbody {
                            @for run in &list.runs {
                                tr {
                                    td class="pick" {
                                        @if run.evaluates.is_none() {
                                            label class="hit" { input type="checkbox" name="run" value=(run.id) aria-label=(format!("compare {}", run.id)); }
                                        }
                                    }
                                    th scope="row" { (run_link(&run.id)) span class="sub" { (run.dataset) @if let Some(group) = &run.group { " · group " a href=(format!("/groups/{group}")) { (group) } } } }
                                    td { (phase(run.phase)) }
                                    td class="progress room" {
                                        @if run.evaluates.is_none() { (bar(run.done(), &format!("progress of {}", run.id))) }
                                        span class="sub" { (epochs(run)) }
                                    }
                                    td class="n" { (some(run.auc, 3)) }
                                    td class="n room" { (some(run.kappa, 3)) }
                                    td class="n room" { @if run.workers > 0 { (run.workers) } @else { "–" } }
                                    td class="room" { (dash(run.owner.as_deref())) }
                                    td class="n room" { (ago(run.submitted_at_ms, now_ms)) }
                                }
                            }
                        }
                    }
                }))
                div class="under" {
                    button { "Compare the chosen" }
                    nav aria-label="More runs" class="pages" {
                        @if list.is_later { a href="/runs" { "Newest" } }
                        @if let Some(older) = list.older { a href=(format!("/runs?before={older}")) rel="next" { "Older" } }
                    }
                }
            }
        }
    };
    Sheet::new(
        "Runs",
        vec![
            part(
                "head",
                html! { div id="head" class="title" { h1 { "Runs" } } },
            ),
            part("list", content),
        ],
    )
}
