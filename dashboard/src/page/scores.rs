//! The ROC curve of an epoch and what its operating points give.

use fovea_evaluation::{Choice, Estimate, Evaluated, Method};
use fovea_report::charts::{RocChart, RocPoint, Shape, Unit};
use fovea_report::number::{count, threshold};
use maud::{Markup, html};

use super::pieces::{empty, heads, prose, scrolled, section};
use super::{Part, part};
use crate::model::{RunPage, Scored};

pub(super) fn roc(run: &RunPage) -> Part {
    let content = html! {
        @match &run.scored {
            Scored::Known { epoch, is_best, evaluated } => (known(*epoch, *is_best, evaluated)),
            Scored::Computing => (empty(html! { "The figures are being computed; they are here in a moment." })),
            Scored::Missing(reason) => (empty(prose(reason))),
        }
    };
    part("roc", section("roc", "ROC and operating points", content))
}

fn known(epoch: u32, is_best: bool, of: &Evaluated) -> Markup {
    let points = of.points.iter().map(|at| RocPoint {
        name: name(at.point.choice),
        sensitivity: at.sensitivity,
        specificity: at.specificity,
        shape: shape(at.point.choice),
    });
    let chart = RocChart {
        curve: &of.roc,
        points: points.collect(),
        auc: of.auc,
    };
    html! {
        p class="lead" {
            "Epoch " (epoch) @if is_best { ", the best so far" } ": " (count(of.samples)) " photographs of " (count(of.patients))
            " patients of the validation split, " (count(of.positives)) " positive. 95 % intervals over patients from " (of.draws.number)
            " draws. Thresholds were chosen on these very photographs, so that other photographs will give less."
        }
        div class="charts" {
            figure { h3 { "ROC" } (chart.draw()) }
            figure class="two" {
                h3 { "Operating points" }
                (scrolled("Operating points", html! {
                    table {
                        (heads(&["Point", ">Threshold", ">Sensitivity", ">Specificity", "+>PPV", "+>NPV"]))
                        tbody {
                            @for at in &of.points {
                                tr {
                                    th scope="row" { (name(at.point.choice)) }
                                    td class="n" { (threshold(at.point.threshold)) }
                                    td class="n" { (estimate(at.sensitivity.as_ref())) }
                                    td class="n" { (estimate(at.specificity.as_ref())) }
                                    td class="n room" { (estimate(at.ppv.as_ref())) }
                                    td class="n room" { (estimate(at.npv.as_ref())) }
                                }
                            }
                        }
                    }
                }))
                dl class="facts" {
                    div { dt { "AUC" } dd { (Unit::Plain.with_range(of.auc.as_ref())) } }
                    div { dt { "Quadratic kappa" } dd { (Unit::Plain.with_range(of.kappa.as_ref())) } }
                    div { dt { "Accuracy" } dd { (Unit::Percent.with_range(of.accuracy.as_ref())) } }
                }
                @let notes = notes(of);
                @if !notes.is_empty() { figcaption { (notes) } }
            }
        }
    }
}

/// What the marks mean that are behind the figures.
fn notes(of: &Evaluated) -> String {
    let figures = [&of.auc, &of.kappa, &of.accuracy];
    let points = of
        .points
        .iter()
        .flat_map(|at| [&at.sensitivity, &at.specificity, &at.ppv, &at.npv]);
    let shown: Vec<&Estimate> = figures.into_iter().chain(points).flatten().collect();
    let marks = [
        (
            Method::Wilson,
            "† Wilson’s interval: every draw gave the same.",
        ),
        (Method::None, "‡ No interval: defined in too few draws."),
        (Method::Same, "§ No interval: all draws gave the same."),
    ];
    let used = marks
        .into_iter()
        .filter(|(method, _)| shown.iter().any(|of| of.method == *method));
    let notes: Vec<&str> = used.map(|(_, note)| note).collect();
    notes.join(" ")
}

fn estimate(of: Option<&fovea_evaluation::Estimate>) -> Markup {
    html! {
        @if let Some(of) = of { (Unit::Percent.show(of.value)) span class="sub" { (Unit::Percent.range(of)) } } @else { "–" }
    }
}

fn name(choice: Choice) -> &'static str {
    match choice {
        Choice::Half => "fixed 0.5",
        Choice::HighSensitivity => "high sensitivity",
        Choice::HighSpecificity => "high specificity",
        Choice::Youden => "Youden",
    }
}

fn shape(choice: Choice) -> Shape {
    match choice {
        Choice::Half => Shape::Circle,
        Choice::HighSensitivity => Shape::Triangle,
        Choice::HighSpecificity => Shape::Square,
        Choice::Youden => Shape::Diamond,
    }
}
