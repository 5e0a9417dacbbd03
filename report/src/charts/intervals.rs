//! Figures with their intervals, one below the other.

use fovea_evaluation::Estimate;
use maud::{Markup, html};

use super::frame::{Axis, Scale, WIDTH, px, svg, ticks, x_texts};
use crate::number::{Unit, decimals};

/// Points with whiskers on a common axis.
#[derive(Debug, Clone, PartialEq)]
pub struct IntervalChart<'a> {
    pub title: &'a str,
    pub x_label: &'a str,
    pub unit: Unit,
    /// The smallest part of the axis that is shown; it grows to hold every interval.
    pub from: f64,
    pub to: f64,
    pub rows: Vec<IntervalRow>,
}

/// A figure.
#[derive(Debug, Clone, PartialEq)]
pub struct IntervalRow {
    pub name: String,
    /// Smaller, behind the name, such as the number of samples.
    pub note: String,
    /// None where it is not defined.
    pub estimate: Option<Estimate>,
    /// A reference to compare with, and no result.
    pub reference: bool,
}

const ROW: f64 = 46.0;

impl IntervalChart<'_> {
    /// Where the axis begins and ends.
    fn ends(&self) -> (f64, f64) {
        let all = || self.rows.iter().filter_map(|row| row.estimate);
        let low = all().fold(self.from, |low, e| low.min(e.low).min(e.value));
        let high = all().fold(self.to, |high, e| high.max(e.high).max(e.value));
        (low, high)
    }

    /// What a reader must know of an axis that does not begin at 0; otherwise nothing.
    pub fn caution(&self) -> &'static str {
        match self.ends().0 {
            low if low > 0.0 => "The axis does not begin at 0. ",
            _ => "",
        }
    }

    pub fn draw(&self) -> Markup {
        let height = ROW * self.rows.len() as f64 + 52.0;
        let bottom = height - 46.0;
        let axis = self.axis();
        let content = html! {
            g class="c-grid" {
                @for (at, _) in &axis.ticks {
                    @let at = px(axis.scale.at(*at));
                    line x1=(at) x2=(at) y1="2" y2=(px(bottom)) {}
                }
            }
            (x_texts(&axis, bottom))
            @for (number, row) in self.rows.iter().enumerate() {
                (self.row(row, ROW * number as f64, &axis.scale))
            }
        };
        svg((WIDTH, height), self.title, &self.description(), content)
    }

    /// The name and the figure stand above the whisker.
    fn row(&self, row: &IntervalRow, top: f64, x: &Scale) -> Markup {
        let at = top + 33.0;
        let class = if row.reference {
            "c-shape c-5"
        } else {
            "c-shape c-1"
        };
        html! {
            text class=(if row.reference { "c-name c-plain" } else { "c-name" }) x="4" y=(px(top + 17.0)) {
                (row.name) " " tspan class="c-small" { (row.note) }
            }
            text class="c-value" text-anchor="end" x=(px(WIDTH - 4.0)) y=(px(top + 17.0)) {
                (self.unit.with_range(row.estimate.as_ref()))
            }
            @if let Some(e) = &row.estimate {
                g class=(class) {
                    path class="c-whisker c-thick" d=(format!("M{} {2}L{} {2}", px(x.within(e.low)), px(x.within(e.high)), px(at))) {}
                    circle class="c-point" cx=(px(x.within(e.value))) cy=(px(at)) r="5" {}
                }
            }
        }
    }

    fn axis(&self) -> Axis {
        let (low, high) = self.ends();
        let scale = Scale {
            data: (low, high),
            drawn: (18.0, WIDTH - 18.0),
        };
        let factor = match self.unit {
            Unit::Plain => 1.0,
            Unit::Percent => 100.0,
        };
        let (all, places) = ticks(low * factor, high * factor, 5);
        Axis {
            label: self.x_label.into(),
            scale,
            ticks: all
                .into_iter()
                .map(|at| (at / factor, decimals(at, places)))
                .collect(),
        }
    }

    fn description(&self) -> String {
        let of = |row: &IntervalRow| {
            let figure = self.unit.with_range(row.estimate.as_ref());
            format!("{} {}: {figure}.", row.name, row.note)
        };
        let all: Vec<String> = self.rows.iter().map(of).collect();
        all.join(" ")
    }
}
