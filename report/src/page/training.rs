//! How the run went.

use fovea_core::run::EpochResult;
use maud::{Markup, html};

use super::figure;
use crate::charts::{LineChart, Mark, Series};
use crate::model::Report;
use crate::number::{DASH, counted, figure as of_any_size};

pub(super) fn section(report: &Report) -> Markup {
    let epochs = &report.epochs;
    let mark = report.judged.epoch.map(|epoch| Mark {
        x: f64::from(epoch) + 1.0,
        label: "judged",
    });
    html! {
        section id="training" {
            h2 { "Training" }
            @if epochs.is_empty() {
                p class="lead" { "No epoch was evaluated." }
            } @else {
                (curves(report, mark))
            }
        }
    }
}

fn curves(report: &Report, mark: Option<Mark>) -> Markup {
    let epochs = &report.epochs;
    let series = |name, of: fn(&EpochResult) -> Option<f64>| Series {
        name,
        values: epochs
            .iter()
            .map(|e| (f64::from(e.epoch) + 1.0, of(e)))
            .collect(),
        faint: false,
    };
    let chart = |title, y_label, y_to, series| LineChart {
        title,
        x_label: "epoch",
        y_label,
        y_from: None,
        y_to,
        x_to: None,
        series,
        mark,
    };
    let loss = chart(
        "Loss by epoch",
        "cross-entropy, nats",
        None,
        vec![
            series("training", |e| e.train_loss),
            series("validation", |e| Some(e.validation.loss)),
        ],
    );
    let quality = chart(
        "AUC and kappa by epoch",
        "AUC, kappa",
        Some(1.0),
        vec![
            series("AUC", |e| e.validation.auc),
            series("kappa", |e| e.validation.quadratic_kappa),
        ],
    );
    let rate = LineChart {
        y_from: Some(0.0),
        ..chart(
            "Learning rate",
            "",
            None,
            vec![Series {
                name: "learning rate",
                values: report
                    .learning_rates
                    .iter()
                    .map(|at| (at.epochs, Some(at.rate)))
                    .collect(),
                faint: false,
            }],
        )
    };
    let samples = epochs.last().map_or(0, |e| e.validation.samples);
    let validation = counted(samples, "photograph");
    html! {
        div class="grid three" {
            (figure("Loss", loss.draw(), html! {
                "Training: mean over the epoch's photographs, with augmentation and dropout, so it can lie above. Validation: "
                (validation) " after the epoch. Without intervals."
            }))
            (figure("AUC and kappa", quality.draw(), html! {
                "Validation, " (validation) " after each epoch. Without intervals. A dotted line marks the judged checkpoint."
            }))
            @if !report.learning_rates.is_empty() {
                (figure("Learning rate", rate.draw(), html! { "As the spec's schedule gives it." }))
            }
        }
        details {
            summary { "The same as a table (" (counted(epochs.len() as u64, "epoch")) ")" }
            table class="dense" {
                thead {
                    tr {
                        @for name in ["Epoch", "Training loss", "Validation loss", "AUC", "Kappa"] { th scope="col" { (name) } }
                    }
                }
                tbody {
                    @for e in epochs {
                        tr {
                            th scope="row" { (e.epoch + 1) }
                            td { (some(e.train_loss, 4)) }
                            td { (some(Some(e.validation.loss), 4)) }
                            td { (some(e.validation.auc, 4)) }
                            td { (some(e.validation.quadratic_kappa, 4)) }
                        }
                    }
                }
            }
        }
    }
}

fn some(value: Option<f64>, places: usize) -> String {
    value.map_or_else(|| DASH.into(), |value| of_any_size(value, places))
}
