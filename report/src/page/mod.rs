//! The page.

mod data;
mod errors;
mod group;
mod head;
mod notes;
mod points;
mod results;
mod run;
mod training;
mod warnings;

pub use group::group_html;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::charts;
use crate::model::Report;

/// The page forbids itself to load anything, and scripts.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";
/// The same as a server says it: no page may be around it, which a page cannot forbid itself.
pub const POLICY_FRAMED: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; \
                                 frame-ancestors 'none'";

/// Writes the report as one HTML file.
pub fn html(report: &Report) -> String {
    page(report, None)
}

/// Writes the report as a page of a server, with a link back to the page at the path `back`, and one to the file.
pub fn html_from(report: &Report, back: &str) -> String {
    page(report, Some(back))
}

fn page(report: &Report, back: Option<&str>) -> String {
    let body = html! {
        main {
            @if let Some(back) = back {
                nav class="back" aria-label="Dashboard" {
                    a href=(back) { "← Back to the run" }
                    a href="?file" { "Save as a file" }
                }
            }
            (head::head(report))
            (warnings::section(report))
            (contents(report))
            @if report.results.len() > 1 { (results::comparison(&report.results)) }
            @for (number, part) in report.results.iter().enumerate() {
                (results::section(number, part, &report.labels))
            }
            (errors::section(report))
            (training::section(report))
            (data::section(report))
            (run::section(report))
            (notes::section(&report.labels))
        }
        (foot(report.written_at_ms, &report.written_by))
    };
    document(&report.run.id, &body)
}

/// A file that is a page of its own.
fn document(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Fovea report" }
                style { (PreEscaped(charts::STYLE)) (PreEscaped(include_str!("style.css"))) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

fn contents(report: &Report) -> Markup {
    html! {
        nav aria-label="Contents" {
            @if report.results.len() > 1 { a href="#comparison" { "Comparison" } }
            @for (number, part) in report.results.iter().enumerate() {
                a href=(format!("#part-{number}")) { (part.title) }
            }
            @if report.worst_errors.is_some() { a href="#errors" { "Worst errors" } }
            a href="#training" { "Training" }
            a href="#data" { "Data" }
            a href="#run" { "Run" }
            a href="#method" { "Method" }
        }
    }
}

fn foot(written_at_ms: u64, written_by: &str) -> Markup {
    html! {
        footer {
            p { b { (head::DISCLAIMER) } " " (head::DISCLAIMER_MORE) }
            p { "Written " (crate::number::date(written_at_ms)) " by Fovea " (written_by) "." }
        }
    }
}

/// A chart or table with its title, and below it on what it was computed.
fn figure(title: &str, content: Markup, note: Markup) -> Markup {
    html! {
        figure {
            h3 { (title) }
            (content)
            figcaption { (note) }
        }
    }
}
