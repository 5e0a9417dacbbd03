//! The connected workers.

use fovea_report::number::count;
use maud::{Markup, html};

use super::pieces::{
    bytes, dash, empty, heads, milliseconds, per_cent, prose, run_link, scrolled, span, state,
};
use super::{Sheet, part};
use crate::model::{WorkerList, WorkerRow};

/// A page of the list.
pub fn workers(list: &WorkerList) -> Sheet {
    let content = html! {
        div id="list" {
            @if list.workers.is_empty() {
                (empty(html! { "No worker is connected; " code { "fovea-worker --coordinator URL" } " starts one." }))
            } @else {
                (table(&list.workers, true))
                @if list.pages > 1 {
                    nav aria-label="More workers" class="pages" {
                        @if list.page > 1 { a rel="prev" href=(format!("/workers?page={}", list.page - 1)) { "Before" } }
                        span { "page " (list.page) " of " (list.pages) }
                        @if list.page < list.pages { a rel="next" href=(format!("/workers?page={}", list.page + 1)) { "Next" } }
                    }
                }
            }
        }
    };
    let head = html! {
        div id="head" class="title" {
            h1 { "Workers" }
            @if list.all > 0 { p { (count(list.all as u64)) " connected" } }
        }
    };
    Sheet::new("Workers", vec![part("head", head), part("list", content)])
}

/// Workers as a table.
pub(super) fn table(workers: &[WorkerRow], with_run: bool) -> Markup {
    let mut names = vec!["Worker", "State"];
    names.extend(with_run.then_some("Run"));
    names.extend([
        "+>Ranks", "+Device", "+>Memory", ">Step", ">Waits", ">Heard",
    ]);
    scrolled(
        "Workers",
        html! {
            table class="workers" {
                (heads(&names))
                tbody {
                    @for worker in workers {
                        tr {
                            th scope="row" { span class="id" { (worker.id) } span class="sub room" { (worker.host) " · " (worker.address) } }
                            td { (state(worker.state)) @if !worker.reason.is_empty() { span class="sub why" { (prose(&worker.reason)) } } }
                            @if with_run { td { @if let Some(run) = &worker.run { (run_link(run)) } @else { "–" } } }
                            td class="n room" { (ranks(worker)) }
                            td class="room" { (dash(Some(&worker.device))) }
                            td class="n room" { (memory(worker)) }
                            td class="n" { (worker.step_ms.map_or_else(|| "–".into(), milliseconds)) }
                            td class="n" { (worker.waiting.map_or_else(|| "–".into(), per_cent)) }
                            td class="n" { (heard(worker.last_seen_ms)) span class="sub room" { "here for " (span(worker.connected_ms / 10_000 * 10_000)) } }
                        }
                    }
                }
            }
        },
    )
}

fn ranks(worker: &WorkerRow) -> String {
    match worker.hosts {
        None | Some((_, 0)) => "–".into(),
        Some((first, 1)) => first.to_string(),
        Some((first, number)) => format!("{first}–{}", first + number - 1),
    }
}

fn memory(worker: &WorkerRow) -> Markup {
    html! {
        @match (worker.used, worker.memory) {
            (Some((used, Some(all))), _) => { (bytes(used)) span class="sub" { "of " (bytes(all)) } },
            (Some((used, None)), Some(free)) => { (bytes(used)) span class="sub" { (bytes(free)) " to be had" } },
            (Some((used, None)), None) => (bytes(used)),
            (None, Some(free)) => { "–" span class="sub" { (bytes(free)) " to be had" } },
            (None, None) => "–",
        }
    }
}

/// A heartbeat that is not late is not worth a number.
fn heard(ms: u64) -> String {
    match ms {
        0..=1999 => "now".into(),
        ms => format!("{} ago", span(ms)),
    }
}
