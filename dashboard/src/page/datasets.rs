//! The datasets: grades, split and patients.

use fovea_report::number::{count, share};
use maud::{Markup, html};

use super::pieces::{bytes, empty, heads, run_link, scrolled, short, warning};
use super::{Sheet, part};
use crate::model::{DatasetList, DatasetRow, SplitRow};

const GRADES: [&str; 5] = ["none", "mild", "moderate", "severe", "proliferative"];

/// A page of the list.
pub fn datasets(list: &DatasetList) -> Sheet {
    let content = html! {
        div id="list" {
            @for (name, problem) in &list.unreadable { (warning(&format!("{name}: {problem}"))) }
            @if list.datasets.is_empty() && list.unreadable.is_empty() {
                (empty(html! { "No datasets yet; " code { "fovea prepare" } " makes one of photographs, and " code { "fovea dataset add" } " sends it here." }))
            }
            @for dataset in &list.datasets { (card(dataset)) }
            @if list.pages > 1 {
                nav aria-label="More datasets" class="pages" {
                    @if list.page > 1 { a rel="prev" href=(format!("/datasets?page={}", list.page - 1)) { "Before" } }
                    span { "page " (list.page) " of " (list.pages) }
                    @if list.page < list.pages { a rel="next" href=(format!("/datasets?page={}", list.page + 1)) { "Next" } }
                }
            }
        }
    };
    Sheet::new(
        "Datasets",
        vec![
            part(
                "head",
                html! { div id="head" class="title" { h1 { "Datasets" } } },
            ),
            part("list", content),
        ],
    )
}

fn card(of: &DatasetRow) -> Markup {
    html! {
        article class="card dataset" aria-label=(format!("dataset {}", of.name)) {
            h2 { (of.name) }
            p class="about" {
                (of.image_size) " × " (of.image_size) " pixels · " (bytes(of.bytes)) " in " (of.packs) @if of.packs == 1 { " pack" } @else { " packs" }
                @if !of.scale.is_empty() { " · grades: " (of.scale) }
            }
            @if let Some(problem) = &of.problem { (warning(problem)) }
            (splits(of))
            dl class="facts" {
                div { dt { "Preprocessing" } dd { (of.preprocessing) } }
                div { dt { "Digest" } dd { code title=(of.digest) { (short(&of.digest)) } } }
                div { dt { "Used by" } dd {
                    @if of.used_by.is_empty() { "no run under way" }
                    @for (number, run) in of.used_by.iter().enumerate() { @if number > 0 { ", " } (run_link(run)) }
                } }
            }
        }
    }
}

fn splits(of: &DatasetRow) -> Markup {
    let mut names = vec!["Split", ">Photographs", ">Patients"];
    if of.is_graded {
        names.extend(["Grades", "+>0", "+>1", "+>2", "+>3", "+>4"]);
    }
    scrolled(
        "Splits and grades",
        html! {
            table class="splits" {
                (heads(&names))
                tbody {
                    @for split in &of.splits {
                        tr {
                            th scope="row" { (split.name) }
                            td class="n" { (count(split.samples)) }
                            td class="n" { (split.patients.map_or_else(|| "–".into(), count)) }
                            @if of.is_graded {
                                td class="grades" { (grades(split)) }
                                @for number in split.grades { td class="n room" { (count(number)) } }
                            }
                        }
                    }
                }
            }
            @if of.is_graded { (key()) }
        },
    )
}

/// The shares of the grades as one bar.
fn grades(split: &SplitRow) -> Markup {
    let all: u64 = split.grades.iter().sum();
    let description: Vec<String> = GRADES
        .iter()
        .zip(split.grades)
        .map(|(name, number)| format!("{name} {}", share(number, all)))
        .collect();
    let mut left = 0.0;
    let mut rects = Vec::new();
    for (grade, number) in split.grades.iter().enumerate() {
        let width = 200.0 * *number as f64 / all.max(1) as f64;
        rects.push((grade, left, width));
        left += width;
    }
    html! {
        svg class="stack" viewBox="0 0 200 12" preserveAspectRatio="none" role="img"
            aria-label=(format!("{}: {}", split.name, description.join(", "))) {
            @for (grade, left, width) in rects {
                @if width > 0.0 { rect class=(format!("g{grade}")) x=(format!("{left:.2}")) y="0" width=(format!("{width:.2}")) height="12" { title { (description[grade]) } } }
            }
        }
    }
}

fn key() -> Markup {
    html! {
        p class="key" aria-hidden="true" {
            @for (grade, name) in GRADES.iter().enumerate() {
                span { svg class="swatch" viewBox="0 0 10 10" { rect class=(format!("g{grade}")) width="10" height="10" rx="2" {} } (grade) " " (name) }
            }
        }
    }
}
