//! The data set.

use maud::{Markup, html};

use crate::model::{DatasetFacts, LeakCheck, Patients, Report, Split, grade};
use crate::number::{DASH, count, counted, date, share};

pub(super) fn section(report: &Report) -> Markup {
    let dataset = &report.dataset;
    html! {
        section id="data" {
            h2 { "Data" }
            p class="lead" { "Data set " b { (dataset.name) } ", digest " code class="break" { (dataset.digest) } "." }
            div class="grid" {
                @if let Some(facts) = &dataset.facts {
                    (splits(facts, report.labels.positive_from, &report.labels.positive))
                }
                div {
                    @if let Some(facts) = &dataset.facts {
                        (leaks(&facts.leak_check))
                        h3 { "Preprocessing" }
                        ol class="steps" { @for step in &facts.preprocessing { li { (step) } } }
                    } @else {
                        p { "The data set is not there any more, so that its splits, leak check and preprocessing are left out." }
                    }
                    (uses(report))
                }
            }
        }
    }
}

fn splits(facts: &DatasetFacts, positive_from: u8, positive: &str) -> Markup {
    let DatasetFacts { splits, scale, .. } = facts;
    let total = |split: &Split| split.by_grade.iter().sum::<u64>();
    let positives = |split: &Split| {
        split
            .by_grade
            .iter()
            .skip(positive_from.into())
            .sum::<u64>()
    };
    let row = |of: &dyn Fn(&Split) -> String| html! { @for split in splits { td { (of(split)) } } };
    html! {
        figure {
            h3 { "Split" }
            table class="dense" {
                thead { tr { th scope="col" { "Photographs" } @for split in splits { th scope="col" { (split.name) } } } }
                tbody {
                    @for number in 0..5u8 {
                        tr {
                            th scope="row" { (grade(number)) }
                            @for split in splits {
                                @let of_grade = split.by_grade[usize::from(number)];
                                td { b { (count(of_grade)) } span class="small" { (share(of_grade, total(split))) } }
                            }
                        }
                    }
                }
                tbody {
                    tr { th scope="row" { "all" } (row(&|split| count(total(split)))) }
                    tr { th scope="row" { "with " (positive) } (row(&|split| share(positives(split), total(split)))) }
                    tr { th scope="row" { "patients" } (row(&|split| split.patients.map_or(DASH.into(), count))) }
                }
            }
            figcaption { "Photographs of each grade that people gave (" (scale) "), with their \
                          share of the part. Counts of the whole data set, so without intervals." }
        }
    }
}

fn leaks(check: &LeakCheck) -> Markup {
    let patients = match check.patients {
        Patients::OnSeveralSides(0) => (
            true,
            "No patient is on more than one side of the split.".into(),
        ),
        Patients::OnSeveralSides(number) => (
            false,
            format!(
                "On more than one side of the split: {}.",
                counted(number, "patient")
            ),
        ),
        Patients::Unknown => (
            false,
            "It is not known whose photographs they are, so patients were not checked.".into(),
        ),
    };
    let duplicates = match check.duplicates {
        Some(d) if d.exact == 0 && d.near.unwrap_or(0) == 0 => (
            true,
            format!(
                "No photograph is on more than one side, {}.{}",
                match d.near {
                    Some(_) => "neither the same file nor one saved again",
                    None => {
                        "by equal pixels (at this size copies that were saved again do not show)"
                    }
                },
                match d.found {
                    0 => String::new(),
                    found => format!(" On one side, {} there several times.", verb(found)),
                }
            ),
        ),
        Some(d) => (
            false,
            format!(
                "On more than one side: {} with equal pixels, {} saved again.",
                counted(d.exact, "photograph"),
                d.near.map_or(DASH.into(), count)
            ),
        ),
        None => (
            false,
            "Copies on several sides: not recorded in this data set.".to_owned(),
        ),
    };
    html! {
        h3 { "Leak check" }
        ul class="checks" {
            @for (good, text) in [patients, duplicates] {
                li class=(if good { "good" } else { "bad" }) { (text) }
            }
        }
    }
}

fn verb(number: u64) -> String {
    let verb = if number == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(number, "photograph"))
}

fn uses(report: &Report) -> Markup {
    let uses = &report.test_uses;
    html! {
        h3 { "Uses of the test part" }
        @if uses.is_empty() {
            p { "None so far." }
        } @else {
            table class="dense left" {
                thead { tr { th scope="col" { "When" } th scope="col" { "By" } th scope="col" { "Scored" } } }
                tbody {
                    @for one in uses {
                        tr {
                            td { (date(one.at_ms)) }
                            td { (one.by.as_deref().unwrap_or(DASH)) }
                            td class="break" { (one.scored) }
                        }
                    }
                }
            }
            p class="note" { "Every use is listed: the more often a model is judged on it, the less the test part is one." }
        }
    }
}
