//! What the reader must know before the figures.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::model::{Patients, PointsFrom, Report};
use crate::number::counted;
use crate::prose::prose;

pub(super) fn section(report: &Report) -> Markup {
    let all = warnings(report);
    html! {
        @if !all.is_empty() {
            section class="warnings" aria-label="Warnings" {
                h2 { (if all.len() == 1 { "Warning" } else { "Warnings" }) }
                ul { @for warning in &all { li { (prose(warning)) } } }
            }
        }
    }
}

/// Those that were given, then those that follow from the data.
fn warnings(report: &Report) -> Vec<String> {
    let mut out = report.warnings.clone();
    let leaks = report.dataset.facts.as_ref().map(|facts| &facts.leak_check);
    match leaks.map(|leaks| leaks.patients) {
        None | Some(Patients::OnSeveralSides(0)) => {}
        Some(Patients::OnSeveralSides(number)) => out.push(format!(
            "{} on more than one side of the split: the results are better than they would be on new patients.",
            verb(number, "patient")
        )),
        Some(Patients::Unknown) => out.push(
            "It is not known whose photographs they are. Each was taken as a patient of its own, so that both eyes of a patient \
             can be on two sides of the split, and the intervals are too narrow."
                .into(),
        ),
    }
    if let Some(duplicates) = leaks.and_then(|leaks| leaks.duplicates) {
        if duplicates.exact > 0 {
            out.push(format!(
                "{} on more than one side of the split, equal to the byte.",
                verb(duplicates.exact, "photograph")
            ));
        }
        if let Some(near @ 1..) = duplicates.near {
            out.push(format!(
                "{} on more than one side of the split in nearly the same form.",
                verb(near, "photograph")
            ));
        }
    }
    // What stands in the head is what people quote.
    let first = report.results.first();
    if let Some(part) = first.filter(|part| part.points_from == PointsFrom::Same) {
        out.push(format!(
            "{}: the operating points were chosen on the photographs on which they are reported, which makes them look better.",
            part.title
        ));
    }
    for part in &report.results {
        let positives = part.evaluated.positives;
        if positives == 0 || positives == part.evaluated.samples {
            let kind = if positives == 0 {
                "negative"
            } else {
                "positive"
            };
            out.push(format!(
                "{}: all photographs are {kind}; most figures are not defined.",
                part.title
            ));
        }
    }
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for one in &report.test_uses {
        *uses.entry(&one.dataset).or_default() += 1;
    }
    for (dataset, uses) in uses.into_iter().filter(|(_, uses)| *uses > 1) {
        let of = match dataset == report.dataset.name {
            true => String::new(),
            false => format!(" of {dataset}"),
        };
        out.push(format!(
            "The test part{of} was used {uses} times. Whoever chooses between models by it makes it a validation part."
        ));
    }
    out
}

/// "1 patient is", "2 patients are".
fn verb(number: u64, noun: &str) -> String {
    let verb = if number == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(number, noun))
}
