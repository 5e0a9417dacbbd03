//! What charts share: scales, ticks, axes, and the SVG around them.

use maud::{Markup, html};

use crate::number::{decimals, scientific};

/// The longest text of a tick, in letters; longer numbers are written with an exponent.
const LONGEST: usize = 6;

/// Width of a chart in its own units. Texts are made for a chart that is about as many pixels wide.
pub(super) const WIDTH: f64 = 420.0;

/// A part of the data on a part of the drawing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// Ends of the data.
    pub data: (f64, f64),
    /// Where these are drawn.
    pub drawn: (f64, f64),
}

impl Scale {
    pub fn at(&self, value: f64) -> f64 {
        let (from, to) = self.data;
        let (start, end) = self.drawn;
        if to == from {
            return (start + end) / 2.0;
        }
        start + (value - from) / (to - from) * (end - start)
    }

    /// As `at`, but never beyond the ends.
    pub fn within(&self, value: f64) -> f64 {
        let (from, to) = self.data;
        self.at(value.clamp(from.min(to), to.max(from)))
    }
}

/// A length in the drawing, in tenths of a unit.
pub(super) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    match text.strip_suffix(".0") {
        Some("-0") => "0".into(),
        Some(whole) => whole.into(),
        None => text,
    }
}

/// About `wanted` round numbers from `low` to `high`, with the decimals that tell them apart.
pub(super) fn ticks(low: f64, high: f64, wanted: usize) -> (Vec<f64>, usize) {
    let span = high - low;
    if span.is_nan() || span <= 0.0 || !span.is_finite() {
        return (vec![low], 2);
    }
    let rough = span / wanted.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough * 0.7)
        .unwrap_or(10.0 * power);
    let places = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    let all = (first..=last).map(|number| number as f64 * step).collect();
    (all, places)
}

/// An axis with its ticks and their texts.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub label: String,
    pub scale: Scale,
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    pub fn new(label: &str, scale: Scale, wanted: usize) -> Self {
        let (low, high) = scale.data;
        let (all, places) = ticks(low, high, wanted);
        Self {
            label: label.into(),
            scale,
            ticks: all.iter().copied().zip(texts(&all, places)).collect(),
        }
    }

    /// Moves the start of the drawing of the axis `x` below, so that the texts of this one to its left are not cut.
    pub fn make_room(&self, x: &mut Scale) {
        let longest = self.ticks.iter().map(|(_, text)| text.chars().count());
        let letters = longest.max().unwrap_or(0) as f64;
        let label = if self.label.is_empty() { 4.0 } else { 20.0 };
        x.drawn.0 = x.drawn.0.max(label + 7.2 * letters + 7.0);
    }

    /// 0 to 1 in fifths.
    pub fn share(label: &str, drawn: (f64, f64)) -> Self {
        let scale = Scale {
            data: (0.0, 1.0),
            drawn,
        };
        Self::new(label, scale, 5)
    }
}

/// The texts of ticks: with as many decimals, or, where that would be long, with an exponent and the digits that tell them apart.
fn texts(ticks: &[f64], places: usize) -> Vec<String> {
    let plain: Vec<String> = ticks.iter().map(|at| decimals(*at, places)).collect();
    if plain.iter().all(|text| text.chars().count() <= LONGEST) {
        return plain;
    }
    let digits = |places| -> Vec<String> {
        let text = |at: &f64| match *at == 0.0 {
            true => "0".to_owned(),
            false => scientific(*at, places),
        };
        ticks.iter().map(text).collect()
    };
    let told_apart =
        |texts: &Vec<String>| texts.iter().zip(texts.iter().skip(1)).all(|(a, b)| a != b);
    let shortest = (0..6).map(digits).find(told_apart);
    shortest.unwrap_or(plain)
}

/// Grid, ticks and labels of a chart whose axes are below and to the left.
pub(super) fn axes(x: &Axis, y: &Axis) -> Markup {
    let (left, right) = x.scale.drawn;
    let (bottom, top) = y.scale.drawn;
    html! {
        g class="c-grid" {
            @for (at, _) in &y.ticks {
                @let at = px(y.scale.at(*at));
                line x1=(px(left)) x2=(px(right)) y1=(at) y2=(at) {}
            }
            @for (at, _) in &x.ticks {
                @let at = px(x.scale.at(*at));
                line x1=(at) x2=(at) y1=(px(bottom)) y2=(px(top)) {}
            }
        }
        g class="c-tick" text-anchor="end" {
            @for (at, text) in &y.ticks {
                text x=(px(left - 7.0)) y=(px(y.scale.at(*at) + 4.5)) { (text) }
            }
        }
        (x_texts(x, bottom))
        @if !y.label.is_empty() { (text_up(&y.label, 13.0, (bottom + top) / 2.0)) }
    }
}

/// Ticks and label below a chart.
pub(super) fn x_texts(x: &Axis, bottom: f64) -> Markup {
    let (left, right) = x.scale.drawn;
    html! {
        g class="c-tick" text-anchor="middle" {
            @for (at, text) in &x.ticks {
                text x=(px(x.scale.at(*at))) y=(px(bottom + 18.0)) { (text) }
            }
        }
        text class="c-label" text-anchor="middle" x=(px((left + right) / 2.0)) y=(px(bottom + 38.0)) { (x.label) }
    }
}

/// A text that is read from below.
pub(super) fn text_up(text: &str, x: f64, y: f64) -> Markup {
    let (x, y) = (px(x), px(y));
    html! {
        text class="c-label" text-anchor="middle" transform=(format!("translate({x} {y}) rotate(-90)")) { (text) }
    }
}

/// The SVG with title and description.
pub(super) fn svg(
    (width, height): (f64, f64),
    title: &str,
    description: &str,
    content: Markup,
) -> Markup {
    html! {
        svg class="c" role="img" viewBox=(format!("0 0 {} {}", px(width), px(height))) aria-label=(title) {
            title { (title) }
            desc { (description) }
            (content)
        }
    }
}

/// A line through points; None breaks it.
pub(super) fn path(points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let mut out = String::new();
    let mut down = false;
    let mut last = None;
    for point in points {
        let Some((x, y)) = point else {
            down = false;
            continue;
        };
        let text = format!("{} {}", px(x), px(y));
        // Points that are drawn at the same place say nothing new.
        if down && last.as_ref() == Some(&text) {
            continue;
        }
        out.push(if down { 'L' } else { 'M' });
        out.push_str(&text);
        down = true;
        last = Some(text);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(
            ticks(0.0, 1.0, 5),
            (vec![0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0], 1)
        );
        assert_eq!(
            ticks(0.0, 30.0, 6).0,
            [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]
        );
        let (all, places) = ticks(0.31, 0.72, 4);
        assert!(all.iter().all(|at| (0.31..=0.72).contains(at)), "{all:?}");
        assert_eq!((all.len(), places), (4, 1));
        assert_eq!(ticks(1.0, 1.0, 5).0, [1.0]);
        assert_eq!(ticks(f64::NAN, 1.0, 5).0.len(), 1);
    }

    #[test]
    fn ticks_of_any_size_are_short_and_differ() {
        let texts = |low, high| -> Vec<String> {
            let drawn = (0.0, 1.0);
            let data = (low, high);
            let axis = Axis::new("loss", Scale { data, drawn }, 5);
            axis.ticks.into_iter().map(|(_, text)| text).collect()
        };
        assert_eq!(
            texts(0.0, 7e12),
            ["0", "1e12", "2e12", "3e12", "4e12", "5e12", "6e12", "7e12"]
        );
        assert_eq!(texts(1.0e12, 1.2e12)[1], "1.05e12");
        assert_eq!(texts(0.0, 4e-6)[1], "1e-6");
        assert_eq!(texts(0.2, 0.9)[0], "0.2");
        let data = (0.0, 7e12);
        let axis = Axis::new(
            "loss",
            Scale {
                data,
                drawn: (0.0, 1.0),
            },
            5,
        );
        let mut x = Scale {
            data: (0.0, 1.0),
            drawn: (30.0, 350.0),
        };
        axis.make_room(&mut x);
        assert!(x.drawn.0 > 50.0, "{x:?}");
    }

    #[test]
    fn a_path_breaks_where_there_is_nothing() {
        let points = [
            Some((0.0, 1.0)),
            Some((0.01, 1.0)),
            None,
            Some((2.25, 3.0)),
            Some((4.0, -0.01)),
        ];
        assert_eq!(path(points.into_iter()), "M0 1M2.2 3L4 0");
    }
}
