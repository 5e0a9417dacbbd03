//! The verdict in one glance.

use fovea_evaluation::{Choice, Estimate, FellowEye, Method, PointResult};
use maud::{Markup, html};

use super::notes;
use super::points::named;
use crate::model::{JudgedPart, Labels, PointsFrom, Report};
use crate::number::{DASH, Unit, count, counted, date, threshold};
use crate::prose::prose;

pub(super) const DISCLAIMER: &str = "Research software, not a medical device.";
pub(super) const DISCLAIMER_MORE: &str =
    "Nothing here may be used to diagnose, treat or turn away a patient.";

pub(super) fn head(report: &Report) -> Markup {
    let run = &report.run;
    html! {
        header {
            p class="brand" { span class="logo" aria-hidden="true" {} "Fovea report" }
            h1 { (run.id) }
            p class="about" {
                "Detection of " b { (report.labels.positive) } " in fundus photographs. "
                @if let Some(group) = &run.group { "Run of the group " b { (group) } ". " }
                "Data set " b { (report.dataset.name) } ", "
                (judged(report)) " "
                "Submitted " (date(run.submitted_at_ms))
                @if let Some(by) = &run.submitted_by { " by " (by) }
                "; the run is " (run.state)
                @if let Some(reason) = &run.reason { " (" (prose(reason)) ")" }
                "."
            }
            p class="disclaimer" { b { (DISCLAIMER) } " " (DISCLAIMER_MORE) }
            @if let Some(part) = report.results.first() {
                (verdict(part, &report.labels))
            } @else {
                p class="verdict-none" {
                    @if report.dataset.facts.is_some() { "No checkpoint of this run was judged" }
                    @else { "The data set is not there any more, and the labels of its photographs went with it" }
                    "; the curves below are of its validation."
                }
            }
        }
    }
}

fn judged(report: &Report) -> Markup {
    let judged = &report.judged;
    html! {
        "checkpoint of step " (count(judged.step))
        @if let Some(epoch) = judged.epoch { " (epoch " (epoch + 1) ")" }
        ", chosen by: " (judged.chosen) "."
    }
}

/// The point that is shown first: the one for screening, or whatever there is.
pub(super) fn main_point(part: &JudgedPart) -> Option<&PointResult> {
    let points = &part.evaluated.points;
    let sensitive = points
        .iter()
        .find(|at| at.point.choice == Choice::HighSensitivity);
    sensitive.or(points.first())
}

fn verdict(part: &JudgedPart, labels: &Labels) -> Markup {
    let e = &part.evaluated;
    let at = main_point(part);
    let sensitivity = at.and_then(|at| at.sensitivity);
    let specificity = at.and_then(|at| at.specificity);
    let fellow = part.fellow_eye.as_ref();
    let point = at.map_or_else(
        || "no operating point".into(),
        |at| {
            format!(
                "{}, threshold {}",
                named(at.point.choice),
                threshold(at.point.threshold)
            )
        },
    );
    let beside = |what: &str, of: fn(&FellowEye) -> Option<Estimate>| match fellow.and_then(of) {
        Some(other) => format!("{what} Fellow eye: {}", Unit::Plain.show(other.value)),
        None => what.into(),
    };
    let shown = [e.auc, sensitivity, specificity, e.kappa];
    html! {
        section class="verdict" aria-label="Verdict" {
            p class="where" { b { (part.title) } " · " (part.basis()) " · " (counted(e.positives, "photograph")) " with " (labels.positive) }
            div class="tiles" {
                (tile("AUC", &beside("0.5 is guessing.", |f| f.auc), Unit::Plain, e.auc, 0.5, fellow.and_then(|f| f.auc)))
                (tile("Sensitivity", &point, Unit::Percent, sensitivity, 0.0, None))
                (tile("Specificity", &point, Unit::Percent, specificity, 0.0, None))
                (tile("Kappa", &beside("Quadratic weights.", |f| f.kappa), Unit::Plain, e.kappa, 0.0, fellow.and_then(|f| f.kappa)))
            }
            p class="sentence" { (sentence(part, labels)) }
            p class="note" {
                (notes::intervals(e.draws, shown.iter())) " "
                @if at.is_some() { (chosen(&part.points_from)) " " }
                @if fellow.is_some() { "Hollow marks: the fellow-eye reference, what copying the grade of the other eye would score." }
            }
        }
    }
}

/// Where the thresholds are from.
pub(super) fn chosen(from: &PointsFrom) -> String {
    match from {
        PointsFrom::Other(other) => format!("Thresholds were chosen on {other}."),
        PointsFrom::Fixed => "The threshold is 0.5, which was not chosen.".into(),
        PointsFrom::Same => {
            "Thresholds were chosen on this very part, which makes them look better than they are."
                .into()
        }
    }
}

fn sentence(part: &JudgedPart, labels: &Labels) -> String {
    let Some(at) = main_point(part) else {
        return String::new();
    };
    let positives = at.true_positives + at.false_negatives;
    let negatives = at.false_positives + at.true_negatives;
    format!(
        "At the {} the model finds {} of {} with {} and misses {}. Of {} without, it calls {} positive.",
        named(at.point.choice),
        count(at.true_positives),
        counted(positives, "photograph"),
        labels.positive,
        count(at.false_negatives),
        counted(negatives, "photograph"),
        count(at.false_positives),
    )
}

/// A figure with its interval on a small scale from `from` to 1.
fn tile(
    name: &str,
    about: &str,
    unit: Unit,
    estimate: Option<Estimate>,
    from: f64,
    reference: Option<Estimate>,
) -> Markup {
    let at = |value: f64| {
        format!(
            "{:.1}%",
            100.0 * ((value - from) / (1.0 - from)).clamp(0.0, 1.0)
        )
    };
    html! {
        div class="tile" {
            p class="tile-name" { (name) }
            @if let Some(e) = &estimate {
                p class="tile-value" { (unit.show(e.value)) }
                p class="tile-range" {
                    @if !matches!(e.method, Method::None | Method::Same) { "95\u{a0}% interval " }
                    span class="nowrap" { (unit.range(e)) }
                }
                div class="gauge" aria-hidden="true" {
                    span class="gauge-range" style=(format!("left:{};right:calc(100% - {})", at(e.low), at(e.high))) {}
                    @if let Some(reference) = &reference {
                        span class="gauge-reference" style=(format!("left:{}", at(reference.value))) {}
                    }
                    span class="gauge-value" style=(format!("left:{}", at(e.value))) {}
                }
                p class="gauge-ends" aria-hidden="true" { span { (end(unit, from)) } span { (end(unit, 1.0)) } }
            } @else {
                p class="tile-value" title="not defined" { (DASH) }
                p class="tile-range" { "not defined on this part" }
            }
            p class="tile-about" { (about) }
        }
    }
}

fn end(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Plain if value == 0.5 => "0.5".into(),
        Unit::Plain => format!("{value:.0}"),
        Unit::Percent => format!("{:.0}\u{202f}%", 100.0 * value),
    }
}
