//! Lines over time.

use maud::{Markup, html};

use super::frame::{Axis, Scale, axes, path, px, svg};
use crate::number::significant;

/// Up to four lines over the same axis.
#[derive(Debug, Clone, PartialEq)]
pub struct LineChart<'a> {
    pub title: &'a str,
    pub x_label: &'a str,
    pub y_label: &'a str,
    /// Ends of the y axis that do not follow the data.
    pub y_from: Option<f64>,
    pub y_to: Option<f64>,
    /// End of the x axis, if it does not follow the data: where a run will end.
    pub x_to: Option<f64>,
    pub series: Vec<Series<'a>>,
    /// A place on the x axis to be marked.
    pub mark: Option<Mark<'a>>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series<'a> {
    pub name: &'a str,
    /// x and y; without y the line is broken.
    pub values: Vec<(f64, Option<f64>)>,
    /// Thin and without dots, for many noisy values that lie behind others.
    pub faint: bool,
}

/// A vertical line with a word.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mark<'a> {
    pub x: f64,
    pub label: &'a str,
}

/// Narrower than other charts, so that three of them fit beside each other.
const WIDTH: f64 = 350.0;
const HEIGHT: f64 = 274.0;

impl LineChart<'_> {
    /// The chart; where there is no value, a word instead of empty axes.
    pub fn draw(&self) -> Markup {
        let values = |series: &Series| series.values.iter().filter(|(_, y)| y.is_some()).count();
        if self.series.iter().all(|series| values(series) == 0) {
            return no_values();
        }
        let (x, y) = self.axes();
        let content = html! {
            (axes(&x, &y))
            @if let Some(mark) = &self.mark { (draw_mark(mark, &x.scale, y.scale.drawn)) }
            @for (number, series) in self.series.iter().enumerate() {
                @let points = series.values.iter().map(|(at, value)| value.map(|v| (x.scale.at(*at), y.scale.within(v))));
                path class=(series.class(number)) d=(path(points)) {}
                // A line of one value is a point.
                @if series.values.len() <= 15 && !series.faint || values(series) == 1 {
                    @for (at, value) in &series.values {
                        @if let Some(value) = value {
                            circle class=(format!("c-dot c-fill-{}", number + 1)) cx=(px(x.scale.at(*at)))
                                cy=(px(y.scale.within(*value))) r="2.6" {
                                title { (series.name) ", " (self.x_label) " " (significant(*at)) ": " (significant(*value)) }
                            }
                        }
                    }
                }
            }
            (self.legend(x.scale.drawn.0))
        };
        svg((WIDTH, HEIGHT), self.title, &self.description(), content)
    }

    fn axes(&self) -> (Axis, Axis) {
        let all = || self.series.iter().flat_map(|series| &series.values);
        let (low, high) = padded(all().filter_map(|(_, y)| *y));
        let low = self.y_from.unwrap_or(low);
        let high = self.y_to.unwrap_or(high);
        let y = Scale {
            data: (low, if high > low { high } else { low + 1.0 }),
            drawn: (HEIGHT - 46.0, 48.0),
        };
        let y = Axis::new(self.y_label, y, 5);
        let x = (56.0, WIDTH - 12.0);
        let mut x = whole(self.x_label, all().map(|(x, _)| *x), self.x_to, x);
        y.make_room(&mut x.scale);
        (x, y)
    }

    fn legend(&self, left: f64) -> Markup {
        let mut at = left;
        let places: Vec<f64> = self
            .series
            .iter()
            .map(|series| {
                let here = at;
                at += 44.0 + 7.2 * series.name.chars().count() as f64;
                here
            })
            .collect();
        html! {
            @for (number, (series, at)) in self.series.iter().zip(places).enumerate() {
                path class=(series.class(number)) d=(format!("M{} 14L{} 14", px(at), px(at + 24.0))) {}
                text class="c-legend" x=(px(at + 30.0)) y="18.5" { (series.name) }
            }
        }
    }

    fn description(&self) -> String {
        let of = |series: &Series| {
            let mut defined = series.values.iter().filter_map(|(x, y)| Some((*x, (*y)?)));
            match (defined.next(), defined.next_back()) {
                (Some(first), last) => {
                    let last = last.unwrap_or(first);
                    let say = significant;
                    format!(
                        "{}: {} at {} {}, {} at {} {}.",
                        series.name,
                        say(first.1),
                        self.x_label,
                        say(first.0),
                        say(last.1),
                        self.x_label,
                        say(last.0)
                    )
                }
                (None, _) => format!("{}: no values.", series.name),
            }
        };
        let all: Vec<String> = self.series.iter().map(of).collect();
        all.join(" ")
    }
}

impl Series<'_> {
    /// By which line it is told from others: colour and dashes, or that it is thin.
    fn class(&self, number: usize) -> String {
        let number = number + 1;
        match self.faint {
            true => format!("c-line c-{number} c-faint"),
            false => format!("c-line c-{number} c-dash-{number}"),
        }
    }
}

/// What stands where a chart has nothing to draw.
pub(super) fn no_values() -> Markup {
    html! { p class="c-none" { "No values." } }
}

/// The x axis of these values and up to `to`, with whole numbers: half an epoch is none.
pub(super) fn whole(
    label: &str,
    values: impl Iterator<Item = f64>,
    to: Option<f64>,
    drawn: (f64, f64),
) -> Axis {
    let (from, last) = ends(values).unwrap_or((0.0, 1.0));
    let data = (from, to.map_or(last, |end| end.max(last)));
    let mut x = Axis::new(label, Scale { data, drawn }, 6);
    x.ticks.retain(|(at, _)| at.fract() == 0.0);
    for (at, text) in &mut x.ticks {
        *text = format!("{at:.0}");
    }
    x
}

/// The ends of these values with some room around them.
pub(super) fn padded(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = ends(values).unwrap_or((0.0, 1.0));
    let pad = if high > low {
        0.05 * (high - low)
    } else {
        high.abs().max(0.1) * 0.1
    };
    (low - pad, high + pad)
}

fn draw_mark(mark: &Mark, x: &Scale, (bottom, top): (f64, f64)) -> Markup {
    let at = x.within(mark.x);
    // The word stays within the chart.
    let anchor = match at {
        at if at > x.drawn.1 - 24.0 => "end",
        at if at < x.drawn.0 + 24.0 => "start",
        _ => "middle",
    };
    html! {
        line class="c-mark" x1=(px(at)) x2=(px(at)) y1=(px(bottom)) y2=(px(top)) {}
        text class="c-note" text-anchor=(anchor) x=(px(at)) y=(px(top - 5.0)) { (mark.label) }
    }
}

fn ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let finite = values.filter(|v| v.is_finite());
    finite.fold(None, |ends, v| match ends {
        None => Some((v, v)),
        Some((low, high)) => Some((low.min(v), high.max(v))),
    })
}
