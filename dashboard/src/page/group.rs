//! A group's page: its plan, its variants in the order of their figures, and its runs.

use fovea_core::spec::BestBy;
use fovea_core::spread::Spread;
use fovea_report::charts::{MOST_TOLD_APART, ManyLine, ManyLines, many_swatch};
use fovea_report::number::significant;
use maud::{Markup, html};

use super::group_tables::{runs, variants};
use super::groups::state;
use super::pieces::{ago, bar, empty, per_cent, prose, section, some, tile};
use super::{Part, Sheet, part};
use crate::model::{GroupPage, MemberRow, VariantRow, mean_curve};

/// Points of all lines of the chart together.
const POINTS: usize = 4000;
/// Values of a key that are named.
const VALUES: usize = 8;

/// The page at `now_ms`.
pub fn group(of: &GroupPage, now_ms: u64) -> Sheet {
    let mut parts = vec![head(of, now_ms), figures(of)];
    if of.is_sweep() {
        parts.push(plan(of));
    }
    parts.push(chart(of));
    if of.is_sweep() {
        parts.push(variants(of));
    }
    // Where each variant has one run, the table of variants has said all of it.
    if !of.is_sweep() || of.members.len() > of.variants.len() {
        parts.push(runs(of));
    }
    Sheet::new(of.row.id.clone(), parts)
}

fn head(of: &GroupPage, now_ms: u64) -> Part {
    let row = &of.row;
    let html = html! {
        div id="head" class="title" {
            p class="crumbs" { a href="/groups" { "Groups" } }
            div class="line" {
                h1 { (row.id) } (state(row.state))
                div class="actions" {
                    @if of.may_cancel {
                        a class="button danger" href=(format!("/groups/{}/cancel", row.id)) aria-label=(format!("Cancel {}", row.id)) { "Cancel" }
                    }
                    @if let Some(why) = &of.may_not { @if !of.has_ended { span class="about" { (prose(why)) } } }
                }
            }
            @if let Some(held) = &of.held_up { p class="notice" { (prose(held)) } }
            p class="about" {
                (row.kind_in_words()) " · on " (row.datasets.join(", "))
                " · submitted " (ago(row.submitted_at_ms, now_ms)) @if let Some(owner) = &row.owner { " by " (owner) }
            }
        }
    };
    part("head", html)
}

fn figures(of: &GroupPage) -> Part {
    let row = &of.row;
    let best = &row.best;
    let shares: Vec<f64> = of.members.iter().filter_map(done).collect();
    let done = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    let html = html! {
        dl id="figures" class="tiles" {
            div class="tile wide" {
                dt { "Runs" }
                dd {
                    span class="value" { (row.runs()) }
                    (bar(done, "share that is done"))
                    span class="about" { (per_cent(done)) " done: " (row.phases_in_words()) }
                }
            }
            (tile(&metric(row.by, if of.is_sweep() { " of the best variant" } else { "" }),
                html! { (some(best.spread.map(|s| s.mean), 3)) }, over(of)))
            (tile("Epochs", html! { (best.epochs) " of " (of.epochs) }, html! {
                @if of.is_sweep() { "done by each run of that variant" } @else { "done by each of these" }
            }))
            @if let Some(left) = &of.left {
                (tile("Variants left", html! { (left) }, html! {
                    @if left.others.is_empty() { "none was dropped" } @else { (left.others) }
                }))
            }
        }
    };
    part("figures", html)
}

/// How far a run is, 0 to 1; one that was dropped has nothing left to do. None: it was removed.
fn done(member: &MemberRow) -> Option<f64> {
    let row = member.row.as_ref()?;
    Some(if member.is_dropped { 1.0 } else { row.done() })
}

/// `AUC of the best variant`.
fn metric(by: BestBy, of: &str) -> String {
    let mut name = format!("{}{of}", by.title());
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    name
}

fn over(of: &GroupPage) -> Markup {
    html! {
        @match of.row.best.spread {
            None if of.has_ended => "no epoch was evaluated",
            None => "no epoch was evaluated yet",
            Some(Spread { runs, sd: Some(sd), .. }) => { "mean of " (runs) " runs" (missing(of)) ", deviation " (some(Some(sd), 3)) },
            Some(_) => { "validation, of one run" (missing(of)) },
        }
    }
}

/// That the variant that leads has more runs than its figure is of.
fn missing(of: &GroupPage) -> String {
    match of.variants.first().map(|leads| leads.counted) {
        Some(counted) if of.is_sweep() && counted.runs < counted.of => {
            format!(" of {}", counted.of)
        }
        _ => String::new(),
    }
}

fn plan(of: &GroupPage) -> Part {
    let values = |at: usize| -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        let rows = of.in_order();
        for value in rows.iter().filter_map(|row| row.settings.get(at)) {
            if !all.contains(&&**value) {
                all.push(value);
            }
        }
        all
    };
    let keys: Vec<(&String, Vec<&str>)> = of.keys.iter().zip((0..).map(values)).collect();
    let every: usize = keys.iter().map(|(_, values)| values.len()).product();
    // Otherwise they were drawn, or somebody named each.
    let is_grid = every == of.variants.len();
    let content = html! {
        dl class="facts" {
            @for (key, values) in &keys {
                div {
                    dt { code { (key) } }
                    dd { (named(values, is_grid)) }
                }
            }
            div {
                dt { "Variants" }
                dd {
                    (of.variants.len())
                    @if !keys.is_empty() && is_grid { ", every combination of these" }
                    @if of.members.len() > of.variants.len() { ", each with " (of.members.len() / of.variants.len().max(1)) " runs" }
                }
            }
            div {
                dt { "Selection" }
                dd {
                    @match &of.selection {
                        Some(selection) => {
                            (selection.in_words()) ". What does not go on is paused, keeps its checkpoints, and can be resumed."
                        }
                        None => "none: every run is trained to its end.",
                    }
                }
            }
        }
    };
    part("plan", section("plan", "Plan", content))
}

/// The values of a key: each, or of many how many and their ends. The plan that is stored names values, and no range that they
/// were drawn from.
fn named(values: &[&str], is_grid: bool) -> String {
    if values.len() <= VALUES {
        return values.join(", ");
    }
    let what = if is_grid { "values" } else { "drawn" };
    let numbers: Option<Vec<f64>> = values.iter().map(|value| value.parse().ok()).collect();
    let ends = numbers.map(|mut numbers| {
        numbers.sort_by(f64::total_cmp);
        (
            significant(numbers[0]),
            significant(numbers[numbers.len() - 1]),
        )
    });
    match ends {
        Some((least, most)) => format!("{} {what}, {least} to {most}", values.len()),
        None => format!("{} {what}", values.len()),
    }
}

/// A line of the chart: its name, what tells it apart, its newest value, and its points.
struct Line {
    name: String,
    href: Option<String>,
    about: String,
    last: Option<f64>,
    points: Vec<(f64, f64)>,
}

fn chart(of: &GroupPage) -> Part {
    let by = of.row.by;
    let of_variant = |row: &VariantRow| {
        let members = row.runs.iter().map(|at| &of.members[*at]);
        let there = members.filter(|member| !member.epochs.is_empty());
        let curves: Vec<Vec<(f64, f64)>> = there.map(|member| member.curve(by)).collect();
        Line {
            name: format!("v{}", row.variant + 1),
            href: None,
            about: row.label.clone(),
            last: row.spread.map(|spread| spread.mean),
            points: mean_curve(&curves),
        }
    };
    let of_run = |member: &MemberRow| {
        let points = member.curve(by);
        Line {
            name: member.id.clone(),
            href: member.row.as_ref().map(|_| format!("/runs/{}", member.id)),
            about: member.short(of.row.differs),
            last: points.last().map(|(_, value)| *value),
            points,
        }
    };
    let lines: Vec<Line> = match of.is_sweep() {
        true => of.variants.iter().map(of_variant).collect(),
        false => of.members.iter().map(of_run).collect(),
    };
    let name = metric(by, " by epoch");
    let content = html! {
        @if lines.iter().all(|line| line.points.is_empty()) {
            (empty(html! { @if of.has_ended { "No epoch was evaluated." } @else { "No epoch was evaluated yet." } }))
        } @else {
            div class="chart-and-key" {
                figure { (draw(of, &name, &lines)) figcaption { (caption(of, lines.len())) } }
                (key(&lines))
            }
        }
    };
    part(
        "chart",
        section("chart", &format!("Validation {}", by_epoch(by)), content),
    )
}

fn by_epoch(by: BestBy) -> String {
    format!("{} by epoch", by.title().trim_start_matches("validation "))
}

fn draw(of: &GroupPage, title: &str, lines: &[Line]) -> Markup {
    let most = (POINTS / lines.len().max(1)).clamp(20, 200);
    let drawn = lines.iter().map(|line| ManyLine {
        name: &line.name,
        values: crate::thin(&line.points, most),
    });
    let halving = of.selection.as_ref().and_then(|s| s.halving.as_ref());
    let rungs = halving.map_or(&[][..], |halving| &halving.after);
    let chart = ManyLines {
        title,
        x_label: "epoch",
        y_label: of.row.by.title(),
        x_to: Some(f64::from(of.epochs)),
        lines: drawn.collect(),
        marks: rungs.iter().map(|rung| f64::from(*rung)).collect(),
    };
    chart.draw()
}

fn caption(of: &GroupPage, lines: usize) -> Markup {
    let halving = of.selection.as_ref().and_then(|s| s.halving.as_ref());
    html! {
        @if of.is_sweep() && of.members.len() > of.variants.len() { "Mean over the runs of each variant, as far as all of them are. " }
        @if lines > MOST_TOLD_APART { "The " (MOST_TOLD_APART) " that lead have colours, the others are grey. " }
        @match halving.map(|halving| halving.after.len()) {
            None | Some(0) => {},
            Some(1) => "A dotted line marks the rung.",
            Some(_) => "Dotted lines mark the rungs.",
        }
    }
}

/// The lines that can be told apart.
fn key(lines: &[Line]) -> Markup {
    html! {
        ol class="lines-key" aria-label="Lines of the chart" {
            @for (at, line) in lines.iter().take(MOST_TOLD_APART).enumerate() {
                li {
                    (many_swatch(at))
                    span class="name" {
                        @match &line.href { Some(href) => a href=(href) { (line.name) }, None => b { (line.name) } }
                        span class="sub" { (line.about) }
                    }
                    span class="n" { (some(line.last, 3)) }
                }
            }
        }
    }
}
