//! Pieces that several pages share.

use fovea_report::number::{DASH, count};
use maud::{Markup, html};

pub(super) use fovea_report::prose;

pub(super) use crate::format::{ago, bytes, milliseconds, moment, rate, short, some, span};
use crate::model::{Phase, RunRow, WorkerState};

/// A phase as a word with its colour.
pub(super) fn phase(phase: Phase) -> Markup {
    html! { span class=(format!("badge b-{}", phase.name())) { (phase.name()) } }
}

/// What a worker does as a word with its colour.
pub(super) fn state(state: WorkerState) -> Markup {
    html! { span class=(format!("badge b-{}", state.name().replace(' ', "-"))) { (state.name()) } }
}

/// A link to a run.
pub(super) fn run_link(id: &str) -> Markup {
    html! { a class="id" href=(format!("/runs/{id}")) { (id) } }
}

/// How far a run is, as a bar. `label` says what of.
pub(super) fn bar(share: f64, label: &str) -> Markup {
    let per_mille = (share.clamp(0.0, 1.0) * 1000.0).round() as u64;
    html! { progress max="1000" value=(per_mille) aria-label=(label) { (per_cent(share)) } }
}

/// A whole percentage that is 100 only when all is done.
pub(super) fn per_cent(share: f64) -> String {
    let whole = (share * 100.0).floor().clamp(0.0, 100.0);
    format!("{whole}\u{202f}%")
}

/// A figure with its name above it and a remark below.
pub(super) fn tile(name: &str, value: Markup, about: Markup) -> Markup {
    html! {
        div class="tile" {
            dt { (name) }
            dd { span class="value" { (value) } span class="about" { (about) } }
        }
    }
}

/// A part of a page with its heading.
pub(super) fn section(id: &str, heading: &str, content: Markup) -> Markup {
    html! {
        section id=(id) aria-labelledby=(format!("{id}-h")) {
            h2 id=(format!("{id}-h")) { (heading) }
            (content)
        }
    }
}

/// A heading with a number behind it.
pub(super) fn counted(heading: &str, number: usize) -> String {
    format!("{heading} ({})", count(number as u64))
}

/// A table that can be scrolled where it is wider than the page, also by keys.
pub(super) fn scrolled(label: &str, table: Markup) -> Markup {
    html! { div class="scroll" role="region" aria-label=(label) tabindex="0" { (table) } }
}

/// The heads of a table's columns; empty: of none. A name that begins with `>` is of numbers; `+` shows it only where there is room.
pub(super) fn heads(names: &[&str]) -> Markup {
    html! {
        thead {
            tr {
                @for name in names {
                    @let (class, name) = column(name);
                    @if name.is_empty() { td {} } @else { th scope="col" class=[class] { (name) } }
                }
            }
        }
    }
}

fn column(name: &str) -> (Option<&'static str>, &str) {
    match (
        name.strip_prefix('>'),
        name.strip_prefix('+'),
        name.strip_prefix("+>"),
    ) {
        (_, _, Some(name)) => (Some("n room"), name),
        (Some(name), _, _) => (Some("n"), name),
        (_, Some(name), _) => (Some("room"), name),
        _ => (None, name),
    }
}

/// What is to be said where there is nothing to show.
pub(super) fn empty(text: Markup) -> Markup {
    html! { p class="empty" { (text) } }
}

/// A remark that somebody should read.
pub(super) fn warning(text: &str) -> Markup {
    html! { p class="warning" role="note" { (prose(text)) } }
}

/// The text of a message without the name of its event.
pub(super) fn plain(text: &str) -> &str {
    fovea_core::run::without_event_name(text)
}

/// Epochs of a run that are done, in words: `3 of 10 epochs`.
pub(super) fn epochs(row: &RunRow) -> String {
    match &row.evaluates {
        Some((run, step, part)) => format!("scores {run} step {step} on {part}"),
        None => format!("{} of {} epochs", row.epochs_done, row.epochs),
    }
}

/// A dash where there is nothing.
pub(super) fn dash(text: Option<&str>) -> &str {
    text.filter(|text| !text.is_empty()).unwrap_or(DASH)
}
