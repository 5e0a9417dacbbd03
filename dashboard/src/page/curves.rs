//! The curves of a run.

use fovea_core::run::EpochResult;
use fovea_report::charts::{LineChart, Mark, Series};
use fovea_report::number::count;
use maud::{Markup, html};

use super::pieces::{empty, section};
use super::{Part, part};
use crate::model::RunPage;

/// Points of the learning rate's curve.
const RATES: u64 = 120;

pub(super) fn curves(run: &RunPage) -> Part {
    let content = html! {
        @if run.losses.is_empty() && run.epochs.is_empty() {
            (empty(html! { @if run.row.phase.has_ended() { "No step was taken." } @else { "No step has been taken yet." } }))
        } @else {
            div class="charts" {
                figure { h3 { "Loss" } (loss(run)) figcaption { (about_loss(run)) } }
                figure { h3 { "AUC and kappa" }
                    @if run.epochs.is_empty() {
                        (empty(html! { @if run.row.phase.has_ended() { "No epoch was evaluated." } @else { "No epoch was evaluated yet." } }))
                    } @else {
                        (quality(run))
                        figcaption {
                            "Validation, " (count(run.validation_samples)) " photographs after each epoch, without intervals."
                            @if best(run).is_some() { " A dotted line marks the epoch of the best checkpoint." }
                        }
                    }
                }
                figure { h3 { "Learning rate" } (rate(run)) figcaption { "As the spec’s schedule gives it, over the whole run." } }
            }
            (table(&run.epochs))
        }
    };
    part("curves", section("curves", "Curves", content))
}

/// Where the axis of what has been measured ends, in epochs: with the run, but before that at most four times as far as the run
/// is, or a long run's first epochs would lie on each other.
fn horizon(run: &RunPage) -> f64 {
    let trained = run.row.step as f64 / run.row.steps_per_epoch.max(1) as f64;
    // Results of epochs that are taken again are still shown.
    let evaluated = run.epochs.last().map_or(0.0, |e| f64::from(e.epoch) + 1.0);
    let end = (4.0 * trained.max(evaluated)).ceil().max(1.0);
    end.min(f64::from(run.row.epochs))
}

fn about_loss(run: &RunPage) -> Markup {
    html! {
        "Cross-entropy in nats. Training: mean of each step"
        @if run.losses.len() >= crate::MOST_POINTS { ", " (crate::MOST_POINTS) " points that keep its shape" }
        ". Validation: after each epoch."
    }
}

fn loss(run: &RunPage) -> Markup {
    let per_epoch = run.row.steps_per_epoch.max(1) as f64;
    let steps = run
        .losses
        .iter()
        .map(|(step, loss)| (step / per_epoch, Some(*loss)));
    let validation = by_epoch(&run.epochs, |e| Some(e.validation.loss));
    // The first steps of a new classifier can be so far off that nothing else is seen.
    let top = ceiling(run);
    let chart = LineChart {
        title: "Loss",
        x_label: "epoch",
        y_label: "loss, nats",
        y_from: None,
        y_to: top,
        x_to: Some(horizon(run)),
        series: vec![
            Series {
                name: "training",
                values: steps.collect(),
                faint: true,
            },
            Series {
                name: "validation",
                values: validation,
                faint: false,
            },
        ],
        mark: None,
    };
    chart.draw()
}

/// The end of the loss axis where a few values lie far above the others: beyond it lines are cut off.
fn ceiling(run: &RunPage) -> Option<f64> {
    let epochs = run.epochs.iter().map(|e| e.validation.loss);
    let mut all: Vec<f64> = run
        .losses
        .iter()
        .map(|(_, loss)| *loss)
        .chain(epochs)
        .collect();
    all.retain(|loss| loss.is_finite());
    all.sort_by(f64::total_cmp);
    let (least, most) = (*all.first()?, *all.last()?);
    let usual = all[(all.len() - 1) * 98 / 100];
    (most - least > 2.5 * (usual - least) && usual > least)
        .then_some(least + 1.25 * (usual - least))
}

fn quality(run: &RunPage) -> Markup {
    let mut series = vec![Series {
        name: "AUC",
        values: by_epoch(&run.epochs, |e| e.validation.auc),
        faint: false,
    }];
    series.push(Series {
        name: "kappa",
        values: by_epoch(&run.epochs, |e| e.validation.quadratic_kappa),
        faint: false,
    });
    let chart = LineChart {
        title: "AUC and kappa",
        x_label: "epoch",
        y_label: "",
        y_from: None,
        y_to: Some(1.0),
        x_to: Some(horizon(run)),
        series,
        mark: best(run).map(|epoch| Mark {
            x: f64::from(epoch),
            label: "best",
        }),
    };
    chart.draw()
}

/// The epoch of the best checkpoint, from 1.
fn best(run: &RunPage) -> Option<u32> {
    run.checkpoints.iter().find(|c| c.is_best)?.epoch
}

fn rate(run: &RunPage) -> Markup {
    let total = run.row.total_steps;
    let per_epoch = run.row.steps_per_epoch.max(1) as f64;
    let schedule = run.spec.schedule(total);
    let every = total.div_ceil(RATES).max(1);
    let values: Vec<(f64, Option<f64>)> = (0..total)
        .step_by(every as usize)
        .map(|step| (step as f64 / per_epoch, Some(schedule.rate(step))))
        .collect();
    let now = run.row.step as f64 / per_epoch;
    let chart = LineChart {
        title: "Learning rate",
        x_label: "epoch",
        y_label: "",
        y_from: Some(0.0),
        y_to: None,
        x_to: Some(f64::from(run.row.epochs)),
        series: vec![Series {
            name: "learning rate",
            values,
            faint: false,
        }],
        mark: (!run.row.phase.has_ended() && run.row.step > 0).then_some(Mark {
            x: now,
            label: "now",
        }),
    };
    chart.draw()
}

pub(super) fn by_epoch(
    epochs: &[EpochResult],
    of: impl Fn(&EpochResult) -> Option<f64>,
) -> Vec<(f64, Option<f64>)> {
    let points: Vec<(f64, f64)> = epochs
        .iter()
        .filter_map(|e| Some((f64::from(e.epoch) + 1.0, of(e)?)))
        .collect();
    crate::thin(&points, crate::MOST_POINTS)
        .into_iter()
        .map(|(at, value)| (at, Some(value)))
        .collect()
}

/// The newest epochs as a table, for those who do not see the charts.
fn table(epochs: &[EpochResult]) -> Markup {
    const ROWS: usize = 50;
    let newest = &epochs[epochs.len().saturating_sub(ROWS)..];
    html! {
        @if !epochs.is_empty() {
            details id="epochs" {
                summary { "The same as a table"
                    @if epochs.len() > ROWS { " (the newest " (ROWS) " of " (epochs.len()) " epochs)" }
                }
                (super::pieces::scrolled("Results by epoch", html! {
                    table {
                        (super::pieces::heads(&[">Epoch", ">Training loss", ">Validation loss", ">AUC", ">Kappa", ">Sensitivity", ">Specificity"]))
                        tbody {
                            @for e in newest.iter().rev() {
                                tr {
                                    th scope="row" class="n" { (e.epoch + 1) }
                                    td class="n" { (super::pieces::some(e.train_loss, 4)) }
                                    td class="n" { (super::pieces::some(Some(e.validation.loss), 4)) }
                                    td class="n" { (super::pieces::some(e.validation.auc, 4)) }
                                    td class="n" { (super::pieces::some(e.validation.quadratic_kappa, 4)) }
                                    td class="n" { (super::pieces::some(e.validation.sensitivity, 3)) }
                                    td class="n" { (super::pieces::some(e.validation.specificity, 3)) }
                                }
                            }
                        }
                    }
                }))
            }
        }
    }
}
