//! Whether probabilities mean what they say.

use fovea_evaluation::Bin;
use maud::{Markup, html};

use super::frame::{Axis, Scale, WIDTH, axes, path, px, svg, text_up};
use crate::number::{Unit, count, counted};

/// The reliability diagram with the number of samples in each bin below it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReliabilityChart<'a> {
    pub bins: &'a [Bin],
    /// Bins with fewer samples are drawn hollow.
    pub few: u64,
}

const HEIGHT: f64 = 404.0;
const BOTTOM: f64 = 268.0;

impl ReliabilityChart<'_> {
    pub fn draw(&self) -> Markup {
        let across = (58.0, WIDTH - 14.0);
        let mut x = Axis::share("predicted probability of being positive", across);
        let y = Axis::share("share that is positive", (BOTTOM, 10.0));
        let (right, top) = (px(across.1), px(y.scale.drawn.1));
        let plot = Axis {
            label: String::new(),
            ticks: std::mem::take(&mut x.ticks),
            ..x.clone()
        };
        let drawn: Vec<(&Bin, f64, f64)> = self
            .bins
            .iter()
            .filter_map(|bin| {
                let share = bin.positive.as_ref()?.value;
                Some((bin, x.scale.at(bin.mean?), y.scale.at(share)))
            })
            .collect();
        let solid = drawn.iter().filter(|(bin, _, _)| bin.samples >= self.few);
        let content = html! {
            (axes(&plot, &y))
            line class="c-chance" x1=(px(across.0)) y1=(px(BOTTOM)) x2=(right) y2=(top) {}
            path class="c-line c-1" d=(path(solid.map(|(_, x, y)| Some((*x, *y))))) {}
            g class="c-shape c-1" {
                @for (bin, at_x, _) in &drawn {
                    @if let Some(share) = &bin.positive {
                        path class="c-whisker" d=(format!("M{0} {1}L{0} {2}", px(*at_x), px(y.scale.within(share.low)),
                            px(y.scale.within(share.high)))) {}
                    }
                }
            }
            @for (bin, at_x, at_y) in &drawn {
                circle class=(if bin.samples < self.few { "c-dot c-hollow" } else { "c-dot c-fill-1" })
                    cx=(px(*at_x)) cy=(px(*at_y)) r="5" {
                    title { (describe(bin)) }
                }
            }
            (self.counts(&x.scale))
            text class="c-label" text-anchor="middle" x=(px((across.0 + across.1) / 2.0)) y=(px(HEIGHT - 8.0)) { (x.label) }
        };
        svg(
            (WIDTH, HEIGHT),
            "Reliability diagram",
            &self.description(),
            content,
        )
    }

    /// A bar for each bin, with its number.
    fn counts(&self, x: &Scale) -> Markup {
        let most = self.bins.iter().map(|bin| bin.samples).max().unwrap_or(0);
        let (base, top) = (HEIGHT - 30.0, BOTTOM + 46.0);
        let height = Scale {
            data: (0.0, most.max(1) as f64),
            drawn: (base, top),
        };
        let width = (x.drawn.1 - x.drawn.0) / self.bins.len().max(1) as f64;
        html! {
            (text_up("samples", 13.0, (base + top) / 2.0))
            line class="c-base" x1=(px(x.drawn.0)) x2=(px(x.drawn.1)) y1=(px(base)) y2=(px(base)) {}
            @for bin in self.bins {
                @let (at, up) = (x.at(bin.from), height.at(bin.samples as f64));
                rect class="c-bar" x=(px(at + 2.0)) width=(px(width - 4.0)) y=(px(up)) height=(px(base - up)) {}
                text class="c-count" text-anchor="middle" x=(px(at + width / 2.0)) y=(px(up - 4.0)) { (short(bin.samples)) }
            }
        }
    }

    fn description(&self) -> String {
        let all: Vec<String> = self.bins.iter().map(describe).collect();
        all.join(" ")
    }
}

fn describe(bin: &Bin) -> String {
    let samples = counted(bin.samples, "sample");
    match (bin.mean, &bin.positive) {
        (Some(mean), Some(positive)) => format!(
            "{samples} with a mean prediction of {}: {} are positive.",
            Unit::Percent.show(mean),
            Unit::Percent.with_range(Some(positive))
        ),
        _ => format!("From {}: no samples.", Unit::Percent.show(bin.from)),
    }
}

/// A number in the width of a bar.
fn short(number: u64) -> String {
    match number {
        0..=9_999 => count(number),
        10_000..=999_999 => format!("{}k", (number + 500) / 1000),
        _ => format!("{}M", (number + 500_000) / 1_000_000),
    }
}
