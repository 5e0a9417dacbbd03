//! A run's page.

use fovea_core::priority::Priority;
use fovea_core::spec::BestBy;
use fovea_report::number::count;
use maud::{Markup, html};

use super::curves::curves;
use super::evaluation::{results, workers};
use super::pieces::{
    ago, bar, epochs, per_cent, phase, plain, prose, rate, run_link, some, span, tile,
};
use super::run_parts::{audited, checkpoints, events, spec, throughput};
use super::scores::roc;
use super::{Part, Sheet, part};
use crate::model::{Actions, Phase, RunPage, RunRow, best_by};

/// The page at `now_ms`. `csrf` is what must come back with a change.
pub fn run(of: &RunPage, csrf: &str, now_ms: u64) -> Sheet {
    let head = head(of, csrf, now_ms);
    // An evaluation takes no steps and stores no checkpoints.
    let parts = match &of.row.evaluates {
        Some(evaluates) => vec![
            head,
            results(of, evaluates),
            workers(of),
            events(of),
            spec(of),
        ],
        None => vec![
            head,
            figures(of),
            curves(of),
            roc(of),
            throughput(of),
            checkpoints(of, now_ms),
            events(of),
            audited(of),
            spec(of),
        ],
    };
    Sheet::new(of.row.id.clone(), parts)
}

fn head(of: &RunPage, csrf: &str, now_ms: u64) -> Part {
    let row = &of.row;
    let reason = match (row.phase, plain(&row.reason)) {
        (Phase::Queued, "") => "waits for workers",
        (_, reason) => reason,
    };
    let html = html! {
        div id="head" class="title" {
            p class="crumbs" { a href="/runs" { "Runs" } }
            div class="line" { h1 { (row.id) } (phase(row.phase)) (actions(of, csrf)) }
            p class="about" {
                @if let Some((run, step, part)) = &row.evaluates {
                    "scores " (run_link(run)) " step " (count(*step)) " on the " (part) " part of " (row.dataset)
                } @else {
                    "trains on " (row.dataset) @if let Some(fold) = &of.spec.fold { ", fold " (fold.index) " of " (fold.of) }
                }
                " · submitted " (ago(row.submitted_at_ms, now_ms)) @if let Some(owner) = &row.owner { " by " (owner) }
                @if let Some(group) = &row.group { " · group " a href=(format!("/groups/{group}")) { (group) } }
                @if !row.priority.is_default() && !of.actions.prioritize { " · " (row.priority) " priority" }
                @if let Some(ended) = row.ended_at_ms { " · ended " (ago(ended, now_ms)) }
            }
            @if !reason.is_empty() {
                p class=(if row.phase == Phase::Failed { "warning" } else { "notice" }) role="status" {
                    @if row.phase == Phase::Queued && !row.reason.is_empty() { b { "Waits: " } } (prose(reason))
                }
            }
        }
    };
    part("head", html)
}

fn actions(of: &RunPage, csrf: &str) -> Markup {
    let Actions {
        pause,
        resume,
        cancel,
        prioritize,
    } = of.actions;
    let id = &of.row.id;
    let button = |what: &str, name: &str, class: &str| {
        html! {
            form method="post" action=(format!("/runs/{id}/{what}")) {
                input type="hidden" name="csrf" value=(csrf);
                button class=(class) aria-label=(format!("{name} {id}")) { (name) }
            }
        }
    };
    html! {
        div class="actions" {
            @if of.has_report() { a class="button" href=(format!("/runs/{id}/report")) aria-label=(format!("Report of {id}")) { "Report" } }
            @if pause { (button("pause", "Pause", "")) }
            @if resume { (button("resume", "Resume", "")) }
            @if cancel { a class="button danger" href=(format!("/runs/{id}/cancel")) aria-label=(format!("Cancel {id}")) { "Cancel" } }
            @if prioritize { (priority(&of.row, csrf)) }
            @if let Some(why) = &of.may_not { @if !of.row.phase.has_ended() { span class="about" { (prose(why)) } } }
        }
    }
}

/// A button for each priority; that in force is pressed. Not a list to choose from, which an update of the open page would close.
fn priority(row: &RunRow, csrf: &str) -> Markup {
    html! {
        form method="post" action=(format!("/runs/{}/priority", row.id)) class="choice" {
            input type="hidden" name="csrf" value=(csrf);
            span class="about" { "Priority" }
            @for priority in Priority::ALL {
                @let is_pressed = priority == row.priority;
                button name="priority" value=(priority) aria-pressed=(is_pressed) disabled[is_pressed]
                    aria-label=(format!("{priority} priority for {}", row.id)) { (priority) }
            }
        }
    }
}

fn figures(of: &RunPage) -> Part {
    let row = &of.row;
    let last = of.epochs.last();
    let html = html! {
        dl id="figures" class="tiles" {
            div class="tile wide" {
                dt { "Progress" }
                dd {
                    span class="value" { (per_cent(row.done())) }
                    (bar(row.done(), "progress"))
                    span class="about" { "step " (count(row.step)) " of " (count(row.total_steps)) ", " (epochs(row)) }
                }
            }
            (tile(if row.phase.has_ended() { "Took" } else { "Time left" }, time(of), html! {
                @if row.phase.has_ended() { "from the first step to the end" } @else { "at the present rate" }
            }))
            (tile("Loss", html! { (some(row.newest.map(|newest| newest.loss), 3)) }, html! {
                @if let Some(last) = last { "validation " (some(Some(last.validation.loss), 3)) } @else { "of the newest step" }
            }))
            (tile("AUC", html! { (some(row.auc, 3)) }, auc(of)))
            @if !row.phase.has_ended() {
                (tile("Images a second", html! {
                    @if let Some(speed) = row.speed().filter(|_| row.phase == Phase::Running) { (rate(speed)) } @else { "–" }
                }, html! { (row.workers) " of at most " (row.most_workers) @if row.most_workers == 1 { " worker" } @else { " workers" } }))
            }
        }
    };
    part("figures", html)
}

/// Which epoch the AUC is of, and that of the best checkpoint.
fn auc(of: &RunPage) -> Markup {
    let (by, name) = best_by(&of.spec);
    let best = of.checkpoints.iter().find(|c| c.is_best);
    html! {
        @match of.epochs.last() {
            Some(last) => { "newest epoch, " (last.epoch + 1) },
            None => "validation",
        }
        @if let Some(best) = best {
            @if let Some(epoch) = best.epoch {
                "; best checkpoint: " (some(best.auc, 3)) " of epoch " (epoch) @if by != BestBy::Auc { ", by " (name) }
            }
        }
    }
}

fn time(of: &RunPage) -> Markup {
    let row = &of.row;
    let taken = match (row.began_at_ms, row.ended_at_ms) {
        (Some(began), Some(ended)) => Some(ended.saturating_sub(began)),
        _ => None,
    };
    let shown = if row.phase.has_ended() {
        taken
    } else {
        row.left_ms
    };
    html! { (shown.map_or_else(|| "–".into(), span)) }
}
