//! Runs beside each other: curves over each other, and a table.

use fovea_core::run::EpochResult;
use fovea_report::charts::{LineChart, Series};
use fovea_report::number::{count, decimals, significant};
use maud::{Markup, html};

use super::curves::by_epoch;
use super::pieces::{empty, phase, prose, rate, run_link, scrolled, section, some, span};
use super::{Part, Sheet, part};
use crate::model::{Compared, best_by};

/// The most runs that are compared: as many as a chart has lines.
pub const MOST_COMPARED: usize = 4;

/// The page. `left_out` says why some of the runs that were asked for are not there.
pub fn compare(runs: &[Compared], left_out: &[String]) -> Sheet {
    let head = html! {
        div id="head" class="title" {
            p class="crumbs" { a href="/runs" { "Runs" } }
            h1 { "Comparison" }
            @for reason in left_out { p class="notice" { (prose(reason)) } }
            @if runs.is_empty() { (empty(html! { "Choose up to " (MOST_COMPARED) " runs in " a href="/runs" { "the list of runs" } "." })) }
        }
    };
    let mut parts = vec![part("head", head)];
    if !runs.is_empty() {
        parts.extend([charts(runs), table(runs)]);
    }
    Sheet::new("Comparison", parts)
}

fn charts(runs: &[Compared]) -> Part {
    type Figure = fn(&EpochResult) -> Option<f64>;
    let chart = |title, y_label, y_to, of: Figure| {
        let series = runs.iter().map(|run| Series {
            name: &run.row.id,
            values: by_epoch(&run.epochs, of),
            faint: false,
        });
        draw(title, y_label, y_to, series.collect())
    };
    let steps = runs.iter().map(|run| Series {
        name: &run.row.id,
        values: run
            .losses
            .iter()
            .map(|(step, loss)| (step / run.row.steps_per_epoch.max(1) as f64, Some(*loss)))
            .collect(),
        faint: true,
    });
    let content = html! {
        (key(runs))
        div class="charts four" {
            figure { h3 { "AUC" } (chart("AUC by epoch", "validation AUC", Some(1.0), |e| e.validation.auc)) }
            figure { h3 { "Kappa" } (chart("Kappa by epoch", "validation kappa", Some(1.0), |e| e.validation.quadratic_kappa)) }
            figure { h3 { "Validation loss" } (chart("Validation loss by epoch", "loss, nats", None, |e| Some(e.validation.loss))) }
            figure { h3 { "Training loss" } (draw("Training loss", "loss, nats", None, steps.collect()))
                figcaption { "Mean of each step, thinned to points that keep the shape." } }
        }
    };
    part("charts", section("charts", "Curves", content))
}

/// Names would not fit into a chart; the key is above them.
fn draw(title: &str, y_label: &str, y_to: Option<f64>, mut series: Vec<Series>) -> Markup {
    for one in &mut series {
        one.name = "";
    }
    let chart = LineChart {
        title,
        x_label: "epoch",
        y_label,
        y_from: None,
        y_to,
        x_to: None,
        series,
        mark: None,
    };
    html! { div class="no-key" { (chart.draw()) } }
}

fn key(runs: &[Compared]) -> Markup {
    html! {
        ul class="key runs" {
            @for (number, run) in runs.iter().enumerate() {
                li {
                    svg class="line" viewBox="0 0 34 8" aria-hidden="true" {
                        path class=(format!("c-line c-{0} c-dash-{0}", number + 1)) d="M2 4L32 4" {}
                    }
                    (run_link(&run.row.id)) " " (phase(run.row.phase))
                }
            }
        }
    }
}

fn table(runs: &[Compared]) -> Part {
    type Cell = fn(&Compared) -> String;
    let results: [(&str, Cell); 9] = [
        ("Best epoch", |r| {
            r.best.as_ref().map_or_else(
                || "–".into(),
                |e| format!("{} of {}", e.epoch + 1, r.row.epochs),
            )
        }),
        ("Best by", |r| best_by(&r.spec).1.into()),
        ("AUC", |r| {
            some(r.best.as_ref().and_then(|e| e.validation.auc), 4)
        }),
        ("Kappa", |r| {
            some(
                r.best.as_ref().and_then(|e| e.validation.quadratic_kappa),
                4,
            )
        }),
        ("Sensitivity at 0.5", |r| {
            some(r.best.as_ref().and_then(|e| e.validation.sensitivity), 3)
        }),
        ("Specificity at 0.5", |r| {
            some(r.best.as_ref().and_then(|e| e.validation.specificity), 3)
        }),
        ("Validation loss", |r| {
            some(r.best.as_ref().map(|e| e.validation.loss), 4)
        }),
        ("Images a second, last steps", |r| {
            r.row.speed().map_or_else(|| "–".into(), rate)
        }),
        ("Took", |r| match (r.row.began_at_ms, r.row.ended_at_ms) {
            (Some(began), Some(ended)) => span(ended.saturating_sub(began)),
            _ => "–".into(),
        }),
    ];
    let settings: [(&str, Cell); 14] = [
        ("Dataset", |r| r.row.dataset.clone()),
        ("Fold", |r| {
            r.spec
                .fold
                .as_ref()
                .map_or_else(|| "–".into(), |f| format!("{} of {}", f.index, f.of))
        }),
        ("Strategy", |r| r.spec.model.strategy().name().into()),
        ("Weights", |r| {
            super::pieces::dash(Some(&r.spec.model.weights)).into()
        }),
        ("Classes", |r| r.spec.model.classes.to_string()),
        ("Head", |r| {
            format!("{:?}", r.spec.model.head).to_lowercase()
        }),
        ("Learning rate", |r| significant(r.spec.train.learning_rate)),
        ("Images a step", |r| {
            count(u64::from(r.spec.train.batch) * u64::from(r.spec.train.virtual_ranks))
        }),
        ("Epochs", |r| r.spec.train.epochs.to_string()),
        ("Dropout", |r| decimals(r.spec.model.dropout, 2)),
        ("Weight decay", |r| significant(r.spec.train.weight_decay)),
        ("Imbalance", |r| {
            format!("{:?}", r.spec.train.imbalance).to_lowercase()
        }),
        ("Precision", |r| {
            format!("{:?}", r.spec.train.precision).to_lowercase()
        }),
        ("Seed", |r| r.spec.seed.to_string()),
    ];
    let rows = |rows: &[(&str, Cell)], mark: bool| {
        html! {
            @for (name, of) in rows {
                @let cells: Vec<String> = runs.iter().map(of).collect();
                @let differs = mark && cells.iter().any(|cell| *cell != cells[0]);
                tr class=[differs.then_some("differs")] {
                    th scope="row" { (name) @if differs { span class="sub" { "differs" } } }
                    @for cell in cells { td class="n" { (cell) } }
                }
            }
        }
    };
    let content = scrolled(
        "The runs beside each other",
        html! {
            table class="beside" {
                thead { tr { td {} @for run in runs { th scope="col" class="n" { (run_link(&run.row.id)) } } } }
                tbody { tr class="group" { th scope="rowgroup" colspan=(runs.len() + 1) { "Results of the best epoch, on the validation split" } } (rows(&results, false)) }
                tbody { tr class="group" { th scope="rowgroup" colspan=(runs.len() + 1) { "Settings" } } (rows(&settings, true)) }
            }
        },
    );
    part("table", section("table", "Results and settings", content))
}
