//! The page of a group of runs.

use fovea_evaluation::Estimate;
use maud::{Markup, html};

use super::results::Beside;
use super::{document, foot, head, notes, results};
use crate::charts::IntervalRow;
use crate::group::{GroupReport, GroupRun};
use crate::model::JudgedPart;
use crate::number::{DASH, count, counted, date, sentence};
use crate::prose::prose;

/// Writes the report of a group as one HTML file.
pub fn group_html(report: &GroupReport) -> String {
    let body = html! {
        main {
            (header(report))
            nav aria-label="Contents" {
                a href="#spread" { "Mean and spread" }
                a href="#runs" { "Runs" }
                @for (number, part) in report.together.iter().enumerate() {
                    a href=(format!("#part-{number}")) { (part.title) }
                }
                a href="#spec" { "Spec" }
                a href="#method" { "Method" }
            }
            (spread(report))
            (runs(report))
            @for (number, part) in report.together.iter().enumerate() {
                (results::section(number, part, &report.labels))
            }
            section id="spec" {
                h2 { "Spec of the first run" }
                div class="grid" { div class="wide" { pre tabindex="0" { code { (report.spec) } } } }
            }
            (notes::section(&report.labels))
        }
        (foot(report.written_at_ms, &report.written_by))
    };
    document(&report.name, &body)
}

fn header(report: &GroupReport) -> Markup {
    html! {
        header {
            p class="brand" { span class="logo" aria-hidden="true" {} "Fovea group report" }
            h1 { (report.name) }
            p class="about" {
                "Detection of " b { (report.labels.positive) } " in fundus photographs. Group "
                b { (report.id) } ": " (counted(report.runs.len() as u64, "run")) " judged, " (report.differing) ". "
                "Data set " b { (report.dataset) } ", " (report.judged) ". Submitted " (date(report.submitted_at_ms))
                @if let Some(by) = &report.submitted_by { " by " (by) }
                "."
            }
            p class="disclaimer" { b { (head::DISCLAIMER) } " " (head::DISCLAIMER_MORE) }
            @if !report.left_out.is_empty() {
                section class="warnings" aria-label="Warnings" {
                    h2 { "Read with care" }
                    ul { li {
                        "Not completed, or removed, and so not in any figure here: " (report.left_out.join(", ")) "."
                    } }
                }
            }
        }
    }
}

fn spread(report: &GroupReport) -> Markup {
    html! {
        section id="spread" {
            h2 { "Mean and spread over the runs" }
            div class="grid" {
                figure class="wide" {
                    table class="dense" {
                        thead { tr {
                            th scope="col" { "Figure" }
                            @for head in ["Mean", "Deviation", "Lowest", "Highest", "Runs"] { th scope="col" { (head) } }
                        } }
                        tbody {
                            @for row in &report.spread {
                                @let show = |value: f64| row.unit.show(value);
                                tr {
                                    th scope="row" { (row.name) }
                                    td { b { (show(row.mean)) } }
                                    td { (row.deviation.map_or_else(|| DASH.into(), show)) }
                                    td { (show(row.lowest)) }
                                    td { (show(row.highest)) }
                                    td { (row.runs) }
                                }
                            }
                        }
                    }
                    figcaption {
                        "Deviation: standard deviation over the runs, with their number less one in the denominator. Sensitivity \
                         and specificity are those of the threshold 0.5, which was not chosen."
                        @for note in &report.notes { " " (prose(&sentence(note))) }
                    }
                }
            }
        }
    }
}

fn runs(report: &GroupReport) -> Markup {
    let rows = |of_run: &dyn Fn(&GroupRun) -> Option<Estimate>,
                of_part: &dyn Fn(&JudgedPart) -> Option<Estimate>|
     -> Vec<IntervalRow> {
        let runs = report.runs.iter().map(|run| IntervalRow {
            name: run.title.clone(),
            note: format!("n = {}", count(run.evaluated.samples)),
            estimate: of_run(run),
            reference: false,
        });
        let together = report.together.iter().map(|part| IntervalRow {
            name: part.title.clone(),
            note: format!("n = {}", count(part.evaluated.samples)),
            estimate: of_part(part),
            reference: true,
        });
        runs.chain(together).collect()
    };
    let point = |part: &JudgedPart| part.evaluated.points.first().cloned();
    let beside = Beside {
        auc: rows(&|r| r.evaluated.auc, &|p| p.evaluated.auc),
        kappa: rows(&|r| r.evaluated.kappa, &|p| p.evaluated.kappa),
        sensitivity: rows(&|r| r.sensitivity, &|p| point(p)?.sensitivity),
        specificity: rows(&|r| r.specificity, &|p| point(p)?.specificity),
    };
    html! {
        section id="runs" {
            h2 { "Runs beside each other" }
            p class="lead" {
                "The interval of each run is over the patients that it was judged on, for its model as it is: it does not hold what \
                 another training would change."
                @if !report.together.is_empty() { " Last: all held-out photographs together." }
            }
            (beside.draw(report.runs.first().map(|run| run.evaluated.draws)))
            table class="dense left" {
                thead { tr { th scope="col" { "Run" } th scope="col" { "" } th scope="col" { "Step" } th scope="col" { "Photographs" }
                    th scope="col" { "Patients" } } }
                tbody {
                    @for run in &report.runs {
                        tr { th scope="row" { code class="break" { (run.id) } } td { (run.title) } td { (count(run.step)) }
                            td { (count(run.evaluated.samples)) } td { (count(run.evaluated.patients)) } }
                    }
                }
            }
        }
    }
}
