//! The overview: what is under way, what waits and why, and what it has to work with.

use fovea_report::number::count;
use maud::{Markup, html};

use super::pieces::{
    ago, bar, bytes, counted, empty, epochs, heads, per_cent, phase, plain, prose, rate, run_link,
    scrolled, section, some, span, tile, warning,
};
use super::{Part, Sheet, part};
use crate::model::{Disk, Overview, Phase, RunRow, WorkerState};

/// Most rows of a list here; the page of runs has all.
const ROWS: usize = 25;

/// The overview at `now_ms`.
pub fn overview(of: &Overview, now_ms: u64) -> Sheet {
    let (under_way, still): (Vec<&RunRow>, Vec<&RunRow>) =
        of.live.iter().partition(|run| run.phase.is_under_way());
    // A paused run waits for no worker.
    let (paused, waiting): (Vec<&RunRow>, Vec<&RunRow>) = still
        .into_iter()
        .partition(|run| run.phase == Phase::Paused);
    let parts = vec![
        part(
            "head",
            html! { div id="head" class="title" { h1 { "Overview" } } },
        ),
        problems(of),
        tiles(of, &under_way, waiting.len(), paused.len()),
        running(&under_way),
        queue(&waiting, &paused, now_ms),
        ended(&of.ended, now_ms),
        workers(of),
    ];
    Sheet::new("Overview", parts)
}

fn problems(of: &Overview) -> Part {
    part(
        "problems",
        html! { div id="problems" { @for problem in &of.problems { (warning(problem)) } } },
    )
}

fn tiles(of: &Overview, under_way: &[&RunRow], waiting: usize, paused: usize) -> Part {
    let workers: usize = of.workers.values().sum();
    let training = of.workers.get(&WorkerState::Training).copied().unwrap_or(0);
    let images: f64 = under_way
        .iter()
        .filter(|run| run.phase == Phase::Running && run.evaluates.is_none())
        .filter_map(|run| run.speed())
        .sum();
    part(
        "figures",
        html! {
            dl id="figures" class="tiles" {
                (tile("Under way", html! { (count(under_way.len() as u64)) },
                    html! { (count(waiting as u64)) " waiting" @if paused > 0 { ", " (count(paused as u64)) " paused" } }))
                (tile("Workers", html! { (count(workers as u64)) }, html! { (count(training as u64)) " training" }))
                (tile("Throughput", html! { (rate(images)) }, html! { "images a second" }))
                @if let Some(disk) = &of.disk { (disk_tile(disk)) }
            }
        },
    )
}

fn disk_tile(disk: &Disk) -> Markup {
    let used = 1.0 - disk.free as f64 / disk.total.max(1) as f64;
    html! {
        div class="tile" {
            dt { "Free disk" }
            dd {
                span class="value" { (bytes(disk.free)) }
                (bar(used, "used part of the disk"))
                span class="about" { (per_cent(used)) " of " (bytes(disk.total)) " in use"
                    @if disk.wanted > 0 { "; below " (bytes(disk.wanted)) " no run starts" } }
            }
        }
    }
}

fn running(runs: &[&RunRow]) -> Part {
    let content = html! {
        @if runs.is_empty() {
            (empty(html! { "Nothing trains." }))
        } @else {
            (scrolled("Runs under way", html! {
                table {
                    (heads(&["Run", "Phase", "Progress", ">Left", "+>Loss", "+>AUC", "+>Images/s", ">Workers"]))
                    tbody { @for run in runs.iter().take(ROWS) { (running_row(run)) } }
                }
            }))
            (more("newest", runs.len()))
        }
    };
    part(
        "running",
        section("running", &counted("Under way", runs.len()), content),
    )
}

fn running_row(run: &RunRow) -> Markup {
    let trains = run.evaluates.is_none();
    html! {
        tr {
            th scope="row" { (run_link(&run.id)) (about(run)) }
            td { (phase(run.phase)) @if !run.reason.is_empty() { span class="sub why" { (prose(plain(&run.reason))) } } }
            td class="progress" {
                @if trains { (bar(run.done(), &format!("progress of {}", run.id))) }
                @if trains { span class="sub" { (per_cent(run.done())) ", " (epochs(run)) } }
            }
            td class="n" { (run.left_ms.map_or_else(|| "–".into(), span)) }
            td class="n room" { (some(run.newest.map(|newest| newest.loss).filter(|_| trains), 3)) }
            td class="n room" { (some(run.auc, 3)) }
            td class="n room" { (run.speed().filter(|_| trains).map_or_else(|| "–".into(), rate)) }
            td class="n" { (run.workers) span class="of" { "/" (run.most_workers) } }
        }
    }
}

/// Below the run's id: its dataset, of an evaluation what is scored with what, who submitted it, and its priority where that is not
/// the usual one.
fn about(run: &RunRow) -> Markup {
    html! {
        span class="sub" {
            @match &run.evaluates {
                Some((of, step, part)) => { (part) " part of " (run.dataset) ", scored with " (run_link(of)) " step " (count(*step)) },
                None => (run.dataset),
            }
            @if let Some(owner) = &run.owner { " · " (owner) }
            @if !run.priority.is_default() { " · " (run.priority.as_str()) " priority" }
        }
    }
}

/// The queue in its order, and folded below it the paused runs, which a person or a group's selection resumes.
fn queue(queued: &[&RunRow], paused: &[&RunRow], now_ms: u64) -> Part {
    let content = html! {
        @if queued.is_empty() {
            (empty(html! { "Nothing waits for workers." }))
        } @else {
            (standing("Runs that wait", "Why it waits", queued, now_ms))
            (more("first", queued.len()))
        }
        @if !paused.is_empty() {
            details id="paused" {
                summary { (counted("Paused", paused.len())) ": no worker is given to them" }
                (standing("Paused runs", "Why it is paused", paused, now_ms))
                (more("newest", paused.len()))
            }
        }
    };
    part(
        "waiting",
        section("waiting", &counted("Waiting", queued.len()), content),
    )
}

fn standing(label: &str, reason: &str, runs: &[&RunRow], now_ms: u64) -> Markup {
    scrolled(
        label,
        html! {
            table {
                (heads(&["Run", "Phase", reason, "+>Progress", "+>Submitted"]))
                tbody {
                    @for run in runs.iter().take(ROWS) {
                        tr {
                            th scope="row" { (run_link(&run.id)) (about(run)) }
                            td { (phase(run.phase)) }
                            td class="why" { (prose(why(run))) }
                            td class="n room" { (per_cent(run.done())) }
                            td class="n room" { (ago(run.submitted_at_ms, now_ms)) }
                        }
                    }
                }
            }
        },
    )
}

/// Why it waits. A paused run waits for a person.
pub(super) fn why(run: &RunRow) -> &str {
    match (run.phase, plain(&run.reason)) {
        (Phase::Paused, "") => "a person paused it, and can resume it",
        (Phase::Queued, "") => "for workers",
        (_, reason) => reason,
    }
}

fn ended(runs: &[RunRow], now_ms: u64) -> Part {
    let content = html! {
        @if runs.is_empty() {
            (empty(html! { "No run has ended yet." }))
        } @else {
            (scrolled("Runs that ended last", html! {
                table {
                    (heads(&["Run", "Phase", "+Reason", ">AUC", "+>Kappa", ">Ended"]))
                    tbody {
                        @for run in runs {
                            tr {
                                th scope="row" { (run_link(&run.id)) (about(run)) }
                                td { (phase(run.phase)) }
                                td class="why room" { (prose(plain(&run.reason))) }
                                td class="n" { (some(run.auc, 3)) }
                                td class="n room" { (some(run.kappa, 3)) }
                                td class="n" { @if let Some(ended) = run.ended_at_ms { (ago(ended, now_ms)) } @else { "–" } }
                            }
                        }
                    }
                }
            }))
            p class="more" { a href="/runs" { "All runs" } }
        }
    };
    part("ended", section("ended", "Ended last", content))
}

fn workers(of: &Overview) -> Part {
    let all: usize = of.workers.values().sum();
    let content = html! {
        @if all == 0 {
            (empty(html! { "No worker is connected; " code { "fovea-worker --coordinator URL" } " starts one." }))
        } @else {
            ul class="counts" {
                @for state in WorkerState::ALL {
                    @if let Some(number) = of.workers.get(&state) {
                        li { b { (count(*number as u64)) } " " (super::pieces::state(state)) }
                    }
                }
            }
            p class="more" { a href="/workers" { "All workers" } }
        }
    };
    part(
        "workers",
        section("workers", &counted("Workers", all), content),
    )
}

fn more(which: &str, all: usize) -> Markup {
    html! { @if all > ROWS { p class="more" { "The " (which) " " (ROWS) " of " (count(all as u64)) ". " a href="/runs" { "All runs" } } } }
}
