//! The run: what it took, on what machine, and its spec.

use fovea_core::checkpoint::Fingerprint;
use maud::{Markup, html};

use crate::model::{Cost, Report};
use crate::number::{DASH, count, counted, date, decimals};

pub(super) fn section(report: &Report) -> Markup {
    let run = &report.run;
    let judged = &report.judged;
    html! {
        section id="run" {
            h2 { "Run" }
            div class="grid" {
                div {
                    h3 { "Facts" }
                    dl class="facts" {
                        div { dt { "Id" } dd { code class="break" { (run.id) } } }
                        div { dt { "Submitted" } dd { (date(run.submitted_at_ms)) } }
                        div { dt { "By" } dd { (run.submitted_by.as_deref().unwrap_or(DASH)) } }
                        div { dt { "State" } dd { (run.state) } }
                        div { dt { "Judged checkpoint" } dd {
                            "step " (count(judged.step))
                            @if let Some(epoch) = judged.epoch { ", epoch " (epoch + 1) }
                        } }
                        div { dt { "Chosen by" } dd { (judged.chosen) } }
                    }
                    h3 { "Cost" }
                    (cost(&run.cost))
                    h3 { "Numeric fingerprint" }
                    @match &run.fingerprint {
                        Some(fingerprint) => (machine(fingerprint)),
                        None => p { "Not known: there is no checkpoint." },
                    }
                }
                div {
                    h3 { "Spec" }
                    pre tabindex="0" { code { (run.spec) } }
                }
            }
        }
    }
}

fn cost(cost: &Cost) -> Markup {
    let Cost {
        images_per_s,
        hours,
        steps,
        workers,
    } = cost;
    html! {
        dl class="facts" {
            div { dt { "Speed" } dd {
                @match images_per_s {
                    Some(speed) if *speed < 100.0 => { (decimals(*speed, 1)) " images/s over all workers, mean of its last steps" },
                    Some(speed) => { (count(speed.round() as u64)) " images/s over all workers, mean of its last steps" },
                    None => (DASH),
                }
            } }
            div { dt { "Time" } dd { (hours.map_or(DASH.into(), time)) } }
            div { dt { "Steps" } dd { (count(*steps)) } }
            div { dt { "Workers" } dd { (counted(u64::from(*workers), "worker")) " at most" } }
        }
    }
}

/// Hours, or the unit that says more.
fn time(hours: f64) -> String {
    match 3600.0 * hours {
        seconds if seconds < 99.95 => format!("{} seconds", decimals(seconds, 1)),
        seconds if seconds < 3600.0 => format!("{} minutes", decimals(60.0 * hours, 1)),
        _ => format!("{} hours", decimals(hours, 2)),
    }
}

fn machine(fingerprint: &Fingerprint) -> Markup {
    let Fingerprint {
        device,
        cpu,
        libtorch,
        threads,
        precision,
        fovea,
        kernels,
        path,
    } = fingerprint;
    let processor = match path.is_empty() {
        true => "CPU",
        false => "Libraries",
    };
    html! {
        dl class="facts" {
            div { dt { "Device" } dd { (device) } }
            div { dt { (processor) } dd { (cpu) } }
            @if !path.is_empty() {
                div { dt { "Layers" } dd { (path) @if !kernels.is_empty() { ", own kernels by " (kernels) } } }
            }
            div { dt { "libtorch" } dd { (libtorch) } }
            div { dt { "Threads" } dd { (threads) " for each worker" } }
            div { dt { "Precision" } dd { (precision) } }
            div { dt { "Fovea" } dd { (fovea) } }
        }
        p class="note" { "With the spec and the data set, this is what the bits of the result depend on." }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_unit_that_says_most() {
        let of = |seconds: f64| time(seconds / 3600.0);
        assert_eq!(of(2.4), "2.4 seconds");
        assert_eq!(of(600.0), "10.0 minutes");
        assert_eq!(of(9000.0), "2.50 hours");
    }
}
