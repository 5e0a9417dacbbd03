//! The lower parts of a run's page: throughput and workers, checkpoints, events, audit, spec.

use fovea_core::run::StepReport;
use fovea_report::number::count;
use maud::{Markup, html};

use super::audit::result;
use super::pieces::{
    ago, bytes, counted, empty, heads, milliseconds, moment, prose, rate, run_link, scrolled,
    section, short, some,
};
use super::workers::table;
use super::{Part, part};
use crate::model::{RunPage, best_by, phases};

/// Most workers and checkpoints that are listed.
const ROWS: usize = 100;

/// Where a step's time goes, and the run's workers.
pub(super) fn throughput(of: &RunPage) -> Part {
    // The last step of an epoch may have fewer images, and says nothing of the others.
    let timed = of.full_step.filter(|step| step.phases.total_ms() > 0.0);
    let content = html! {
        @if let Some(speed) = of.row.speed() {
            p class="lead" {
                (rate(speed)) " images a second, mean of its last steps"
                @if let Some(step) = timed {
                    "; a step of " (count(step.images.into())) " images takes the reporting worker " (milliseconds(step.phases.total_ms()))
                }
                "."
            }
            @if let Some(step) = timed { (bar(&step)) }
        }
        @if of.workers.is_empty() {
            (empty(html! { "No worker serves it now." }))
        } @else {
            (table(&of.workers[..of.workers.len().min(ROWS)], false))
            @if of.workers.len() > ROWS { p class="more" { "The first " (ROWS) "; " a href="/workers" { "all workers" } } }
        }
    };
    part(
        "throughput",
        section("throughput", "Throughput and workers", content),
    )
}

/// The parts of a step as one bar with a key.
fn bar(step: &StepReport) -> Markup {
    let (parts, all) = (phases(&step.phases), step.phases.total_ms());
    let mut left = 0.0;
    let mut placed = Vec::new();
    for (number, (name, ms)) in parts.into_iter().enumerate() {
        let width = 600.0 * ms / all;
        placed.push((number, name, ms, left, width));
        left += width;
    }
    let description: Vec<String> = parts
        .iter()
        .map(|(name, ms)| format!("{name} {}", milliseconds(*ms)))
        .collect();
    html! {
        svg class="stack phases" viewBox="0 0 600 14" preserveAspectRatio="none" role="img"
            aria-label=(format!("Parts of a step: {}", description.join(", "))) {
            @for (number, name, ms, left, width) in &placed {
                rect class=(format!("p{number}")) x=(format!("{left:.1}")) y="0" width=(format!("{width:.1}")) height="14" {
                    title { (name) " " (milliseconds(*ms)) }
                }
            }
        }
        p class="key" aria-hidden="true" {
            @for (number, name, ms, _, _) in &placed {
                span { svg class="swatch" viewBox="0 0 10 10" { rect class=(format!("p{number}")) width="10" height="10" rx="2" {} }
                    (name) " " (milliseconds(*ms)) }
            }
        }
    }
}

pub(super) fn checkpoints(of: &RunPage, now_ms: u64) -> Part {
    let all = of.checkpoints.len();
    let (_, by) = best_by(&of.spec);
    let content = html! {
        @if all == 0 {
            (empty(html! { @if of.row.phase.has_ended() { "None was stored." } @else { "None is stored yet." } }))
        } @else {
            (scrolled("Checkpoints", html! {
                table {
                    (heads(&[">Step", "", ">Epoch", ">AUC", "+>Kappa", "+>Loss", "+>Size", "+SHA-256", ">Stored"]))
                    tbody {
                        @for c in of.checkpoints.iter().take(ROWS) {
                            tr class=[c.is_best.then_some("best")] {
                                th scope="row" class="n" { (count(c.step)) }
                                td {
                                    @if c.is_best { span class="badge b-best" title=(format!("best by {by}")) { "best" } }
                                    @if c.is_newest { span class="badge" { "newest" } }
                                }
                                td class="n" { (c.epoch.map_or_else(|| "–".into(), |epoch| epoch.to_string())) }
                                td class="n" { (some(c.auc, 3)) }
                                td class="n room" { (some(c.kappa, 3)) }
                                td class="n room" { (some(c.loss, 3)) }
                                td class="n room" { (bytes(c.bytes)) }
                                td class="room" { code title=(c.sha256) { (short(&c.sha256)) } }
                                td class="n" { (ago(c.stored_at_ms, now_ms)) }
                            }
                        }
                    }
                }
            }))
            @if all > ROWS { p class="more" { "The newest " (ROWS) "; " code { "fovea checkpoints " (of.row.id) } " lists all." } }
            p class="about" { code { "fovea report " (of.row.id) } " writes the report of the best one; "
                code { "fovea checkpoint get " (of.row.id) } " fetches a file." }
        }
        @if !of.evaluations.is_empty() {
            h3 { "Evaluations" }
            ul class="plain" {
                @for e in of.evaluations.iter().rev().take(20) {
                    li { (run_link(e.run.as_str())) ": step " (count(e.step)) " on the " (e.part.name()) " part of " (e.dataset)
                        @if e.rotations { " (four rotations)" }
                        @if let Some(by) = &e.by { ", asked for by " (by) } ", " (ago(e.at_ms, now_ms)) }
                }
            }
        }
    };
    part(
        "checkpoints",
        section("checkpoints", &counted("Checkpoints", all), content),
    )
}

pub(super) fn events(of: &RunPage) -> Part {
    let content = html! {
        @if of.events.is_empty() {
            (empty(html! { "Nothing since " (moment(of.events_since_ms)) ", when this coordinator started." }))
        } @else {
            ol class="events" {
                @for e in &of.events {
                    li {
                        (moment(e.at_ms)) " "
                        @if !e.event.is_empty() { code { (e.event) } " " }
                        span class="lines" { (prose(&e.text)) }
                    }
                }
            }
            p class="about" { "Decisions are known since " (moment(of.events_since_ms)) ", when this coordinator started; its log has those before." }
        }
    };
    part("events", section("events", "Events", content))
}

pub(super) fn audited(of: &RunPage) -> Part {
    let content = html! {
        @if let Some(audit) = &of.audit { (result(audit)) }
        @else { p { "Compares the samples that its committed steps used with its plan: none left out, none twice." } }
        p { a class="button" href=(format!("/runs/{}/audit", of.row.id)) { "Audit now" } }
    };
    part("audited", section("audited", "Audit", content))
}

pub(super) fn spec(of: &RunPage) -> Part {
    let trains = of.row.evaluates.is_none();
    let content = html! {
        details id="spec-text" {
            summary { "The run file, with every default filled in" }
            pre { (of.spec_text) }
        }
        dl class="facts" {
            div { dt { "Model" } dd { (of.spec.model.strategy().name()) @if !of.spec.model.weights.is_empty() { ", weights " (of.spec.model.weights) }
                ", " (of.spec.model.classes) " classes" } }
            @if trains {
                div { dt { "Batch" } dd { (count((u64::from(of.spec.train.batch)) * u64::from(of.spec.train.virtual_ranks))) " images a step: "
                    (of.spec.train.virtual_ranks) " virtual ranks of " (of.spec.train.batch) } }
                div { dt { "Seed" } dd { (of.spec.seed) } }
            }
            div { dt { "Generation" } dd { (of.generation) } }
            @if trains { div { dt { "Training samples" } dd { (count(of.train_samples)) } } }
        }
    };
    part("spec", section("spec", "Spec", content))
}
