//! Operating points.

use fovea_evaluation::{Choice, Estimate, PointResult, Wanted};
use maud::{Markup, html};

use super::head::{chosen, main_point};
use super::{figure, notes};
use crate::charts::{PeopleChart, Screened, ShareChart, ShareRow};
use crate::model::{JudgedPart, Labels, PointsFrom};
use crate::number::{DASH, Unit, count, share, threshold};

pub(super) fn name(choice: Choice) -> &'static str {
    match choice {
        Choice::Half => "fixed 0.5",
        Choice::HighSensitivity => "high sensitivity",
        Choice::HighSpecificity => "high specificity",
        Choice::Youden => "Youden",
    }
}

/// The name within a sentence.
pub(super) fn named(choice: Choice) -> &'static str {
    match choice {
        Choice::Half => "point 0.5",
        Choice::HighSensitivity => "high-sensitivity point",
        Choice::HighSpecificity => "high-specificity point",
        Choice::Youden => "Youden point",
    }
}

/// How a point was chosen. Reports choose with the usual wishes.
fn rule(choice: Choice) -> String {
    let Wanted {
        sensitivity,
        specificity,
    } = Wanted::default();
    match choice {
        Choice::Half => "threshold 0.5, not chosen".into(),
        Choice::HighSensitivity => {
            format!("highest threshold that reached a sensitivity of {sensitivity}")
        }
        Choice::HighSpecificity => {
            format!("lowest threshold that reached a specificity of {specificity}")
        }
        Choice::Youden => "largest sensitivity + specificity".into(),
    }
}

/// Whether the part was scored by one model, which somebody could screen with. All folds of a group together were not.
fn of_one_model(part: &JudgedPart) -> bool {
    part.points_from != PointsFrom::Fixed
}

type Number = fn(&Screened) -> u64;

/// The table of all points.
pub(super) fn table(part: &JudgedPart, labels: &Labels) -> Markup {
    let points = &part.evaluated.points;
    let estimates = |of: fn(&PointResult) -> &Option<Estimate>| -> Vec<&Option<Estimate>> {
        points.iter().map(of).collect()
    };
    let figures: [(&str, Vec<&Option<Estimate>>); 4] = [
        ("Sensitivity", estimates(|at| &at.sensitivity)),
        ("Specificity", estimates(|at| &at.specificity)),
        ("PPV", estimates(|at| &at.ppv)),
        ("NPV", estimates(|at| &at.npv)),
    ];
    let screened: Vec<Option<Screened>> = points.iter().map(Screened::of).collect();
    let people: [(&str, Number); 4] = [
        ("found", |s| s.found),
        ("missed", |s| s.missed),
        ("false alarms", |s| s.false_alarms),
        ("rightly not referred", |s| s.cleared),
    ];
    let content = html! {
        table class="points" {
            thead {
                tr {
                    th scope="col" { "Point" }
                    @for at in points { th scope="col" title=(rule(at.point.choice)) { (name(at.point.choice)) } }
                }
            }
            tbody {
                tr {
                    th scope="row" { "Threshold" }
                    @for at in points { td { b { (threshold(at.point.threshold)) } } }
                }
                @for (name, estimates) in &figures {
                    tr {
                        th scope="row" { (name) }
                        @for estimate in estimates { td { (cell(estimate.as_ref())) } }
                    }
                }
            }
            @if of_one_model(part) {
                tbody {
                    tr class="group" { th scope="rowgroup" colspan=(points.len() + 1) { "Of 1,000 people screened" } }
                    @for (name, of) in people {
                        tr {
                            th scope="row" { (name) }
                            @for screened in &screened { td { (screened.as_ref().map_or(DASH.into(), |s| count(of(s)))) } }
                        }
                    }
                }
            }
        }
    };
    let shown = points
        .iter()
        .flat_map(|at| [&at.sensitivity, &at.specificity, &at.ppv, &at.npv]);
    let note = html! {
        "On " (part.basis()) ". " (chosen(&part.points_from)) " " (notes::intervals(part.evaluated.draws, shown)) " "
        @if of_one_model(part) { "PPV, NPV and the numbers for 1,000 people hold where " } @else { "PPV and NPV hold where " }
         (labels.positive) " is as frequent as here ("
        (share(part.evaluated.positives, part.evaluated.samples)) " of the photographs), one photograph a person."
    };
    html! {
        figure class="wide" {
            h3 { "Operating points" }
            (content)
            dl class="rules" {
                @for at in points {
                    div { dt { (name(at.point.choice)) } dd { (rule(at.point.choice)) } }
                }
            }
            figcaption { (note) }
        }
    }
}

fn cell(estimate: Option<&Estimate>) -> Markup {
    html! {
        @if let Some(e) = estimate {
            b { (Unit::Percent.show(e.value)) }
            span class="small" { (Unit::Percent.range(e)) }
        } @else {
            span title="not defined" { (DASH) }
        }
    }
}

/// 1,000 people at the first point; nothing where no single model scored them.
pub(super) fn people(part: &JudgedPart, labels: &Labels) -> Markup {
    let main = main_point(part).filter(|_| of_one_model(part));
    let Some((at, screened)) = main.and_then(|at| Some((at, Screened::of(at)?))) else {
        return html! {};
    };
    let chart = PeopleChart {
        screened,
        positive: &labels.positive,
    };
    let keys = [
        ("c-found", screened.found, "found", "positive, referred"),
        (
            "c-missed",
            screened.missed,
            "missed",
            "positive, not referred",
        ),
        (
            "c-alarm",
            screened.false_alarms,
            "false alarms",
            "negative, referred",
        ),
        (
            "c-cleared",
            screened.cleared,
            "others",
            "negative, not referred",
        ),
    ];
    let content = html! {
        (chart.draw())
        ul class="keys" {
            @for (class, number, name, more) in keys {
                li { span class=(format!("key {class}")) aria-hidden="true" {} b { (number) } " " (name) span class="small" { (more) } }
            }
        }
    };
    let note = html! {
        "One dot is one person with one photograph, at the " (named(at.point.choice)) " (threshold "
        (threshold(at.point.threshold)) "), if " (share(part.evaluated.positives, part.evaluated.samples))
        " have " (labels.positive) ", as the photographs here. From the values in the table, without their intervals."
    };
    figure("What it means for 1,000 people", content, note)
}

/// Which grades are referred at the first point.
pub(super) fn grades(part: &JudgedPart, labels: &Labels) -> Markup {
    let Some(at) = main_point(part) else {
        return html! {};
    };
    let rows = at.grades.iter().map(|calls| ShareRow {
        name: crate::model::grade(calls.grade),
        part: calls.called,
        whole: calls.samples,
        share: calls.share,
        wanted: calls.grade >= labels.positive_from,
    });
    let chart = ShareChart {
        title: "Referred photographs of each grade",
        part: "referred",
        rows: rows.collect(),
    };
    let note = html! {
        "On " (part.basis()) ", at the " (named(at.point.choice)) ". "
        (notes::intervals(part.evaluated.draws, at.grades.iter().map(|calls| &calls.share))) " "
        span class="key c-found" aria-hidden="true" {} " found "
        span class="key c-missed" aria-hidden="true" {} " missed "
        span class="key c-alarm" aria-hidden="true" {} " false alarm "
        span class="key c-cleared" aria-hidden="true" {} " rightly not referred"
    };
    html! {
        @if !at.grades.is_empty() {
            (figure("Which grades are referred", chart.draw(), note))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_the_share_that_was_asked_for() {
        assert_eq!(
            rule(Choice::HighSensitivity),
            "highest threshold that reached a sensitivity of 0.95"
        );
        assert_eq!(
            rule(Choice::HighSpecificity),
            "lowest threshold that reached a specificity of 0.95"
        );
    }
}
