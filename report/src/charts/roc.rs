//! The ROC curve.

use fovea_evaluation::Estimate;
use maud::{Markup, html};

use super::frame::{Axis, WIDTH, axes, path, px, svg};
use crate::number::Unit;

/// The curve with operating points on it.
#[derive(Debug, Clone, PartialEq)]
pub struct RocChart<'a> {
    /// False positives, true positives and threshold, from nothing called positive to everything.
    pub curve: &'a [(u64, u64, f64)],
    pub points: Vec<RocPoint<'a>>,
    pub auc: Option<Estimate>,
}

/// An operating point, or a reference. A point without sensitivity or specificity is not drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RocPoint<'a> {
    pub name: &'a str,
    pub sensitivity: Option<Estimate>,
    pub specificity: Option<Estimate>,
    pub shape: Shape,
}

/// How a point is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
    Cross,
}

const HEIGHT: f64 = 404.0;

impl RocChart<'_> {
    /// The chart. Where all samples are of one kind there is no curve, and the chart says so.
    pub fn draw(&self) -> Markup {
        let x = Axis::share("1 − specificity (false alarms)", (58.0, WIDTH - 14.0));
        let y = Axis::share("sensitivity", (HEIGHT - 46.0, 10.0));
        let curve = self.shares();
        let (left, right) = x.scale.drawn;
        let (bottom, top) = y.scale.drawn;
        let content = html! {
            (axes(&x, &y))
            line class="c-chance" x1=(px(left)) y1=(px(bottom)) x2=(px(right)) y2=(px(top)) {}
            @if let Some(curve) = &curve {
                @let points: Vec<(f64, f64)> = curve.iter().map(|(fpr, tpr)| (x.scale.at(*fpr), y.scale.at(*tpr))).collect();
                path class="c-area" d=(format!("{}L{} {}Z", path(points.iter().copied().map(Some)), px(right), px(bottom))) {}
                path class="c-line c-1" d=(path(points.into_iter().map(Some))) {}
            } @else {
                text class="c-note" text-anchor="middle" x=(px((left + right) / 2.0)) y=(px((top + bottom) / 2.0 - 40.0)) {
                    "no curve: all labels are of one kind"
                }
            }
            @for point in &self.points {
                @if let (Some(sensitivity), Some(specificity)) = (&point.sensitivity, &point.specificity) {
                    @let (at_x, at_y) = (x.scale.at(1.0 - specificity.value), y.scale.at(sensitivity.value));
                    g class=(point.shape.class()) {
                        title { (point.name) ": sensitivity " (Unit::Percent.with_range(Some(sensitivity)))
                            ", specificity " (Unit::Percent.with_range(Some(specificity))) }
                        path class="c-whisker" d=(format!("M{0} {1}L{0} {2}M{3} {4}L{5} {4}", px(at_x),
                            px(y.scale.at(sensitivity.low)), px(y.scale.at(sensitivity.high)),
                            px(x.scale.at(1.0 - specificity.high)), px(at_y), px(x.scale.at(1.0 - specificity.low)))) {}
                        path class="c-point" d=(point.shape.path(at_x, at_y)) {}
                    }
                }
            }
            (self.legend(right, bottom))
        };
        svg((WIDTH, HEIGHT), "ROC curve", &self.description(), content)
    }

    /// In the corner that the curve of a useful model leaves empty.
    fn legend(&self, right: f64, bottom: f64) -> Markup {
        let drawn = |p: &&RocPoint| p.sensitivity.is_some() && p.specificity.is_some();
        let drawn: Vec<&RocPoint> = self.points.iter().filter(drawn).collect();
        let rows = drawn.len() + usize::from(self.auc.is_some());
        let longest = drawn
            .iter()
            .map(|p| p.name.chars().count())
            .max()
            .unwrap_or(0);
        let width = 40.0 + 7.2 * longest.max(22) as f64;
        let height = 19.0 * rows as f64 + 8.0;
        let left = right - width - 6.0;
        let top = bottom - height - 6.0;
        let row = |number: usize| top + 19.0 * number as f64 + 18.0;
        html! {
            @if rows > 0 {
                rect class="c-box" x=(px(left)) y=(px(top)) width=(px(width)) height=(px(height)) rx="4" {}
            }
            @if let Some(auc) = &self.auc {
                text class="c-legend c-strong" x=(px(left + 8.0)) y=(px(row(0))) {
                    "AUC " (Unit::Plain.with_range(Some(auc)))
                }
            }
            @for (number, point) in drawn.iter().enumerate() {
                @let at = row(number + usize::from(self.auc.is_some()));
                g class=(point.shape.class()) { path class="c-point" d=(point.shape.path(left + 16.0, at - 4.5)) {} }
                text class="c-legend" x=(px(left + 30.0)) y=(px(at)) { (point.name) }
            }
        }
    }

    /// The curve as (1 - specificity, sensitivity), without points on the way of a straight line.
    fn shares(&self) -> Option<Vec<(f64, f64)>> {
        let &(negatives, positives, _) = self.curve.last()?;
        if negatives == 0 || positives == 0 {
            return None;
        }
        let mut kept: Vec<(u64, u64)> = Vec::new();
        for &(x, y, _) in self.curve {
            if let [.., a, b] = kept[..] {
                let straight = (a.0 == b.0 && b.0 == x) || (a.1 == b.1 && b.1 == y);
                if straight {
                    kept.pop();
                }
            }
            kept.push((x, y));
        }
        let share = |(x, y): (u64, u64)| (x as f64 / negatives as f64, y as f64 / positives as f64);
        Some(kept.into_iter().map(share).collect())
    }

    fn description(&self) -> String {
        let mut out = format!("AUC {}.", Unit::Plain.with_range(self.auc.as_ref()));
        for point in &self.points {
            out += &format!(
                " {}: sensitivity {}, specificity {}.",
                point.name,
                Unit::Percent.with_range(point.sensitivity.as_ref()),
                Unit::Percent.with_range(point.specificity.as_ref())
            );
        }
        out
    }
}

impl Shape {
    fn class(self) -> &'static str {
        match self {
            Self::Circle => "c-shape c-2",
            Self::Square => "c-shape c-3",
            Self::Triangle => "c-shape c-4",
            Self::Diamond | Self::Cross => "c-shape c-5",
        }
    }

    /// Around a place.
    fn path(self, x: f64, y: f64) -> String {
        let corners: &[(f64, f64)] = match self {
            Self::Circle => {
                return format!(
                    "M{} {}a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0Z",
                    px(x - 5.5),
                    px(y)
                );
            }
            Self::Cross => {
                let (left, right) = (px(x - 5.0), px(x + 5.0));
                let (up, down) = (px(y - 5.0), px(y + 5.0));
                return format!("M{left} {up}L{right} {down}M{left} {down}L{right} {up}");
            }
            Self::Square => &[(-5.0, -5.0), (5.0, -5.0), (5.0, 5.0), (-5.0, 5.0)],
            Self::Triangle => &[(0.0, -6.5), (6.2, 4.8), (-6.2, 4.8)],
            Self::Diamond => &[(0.0, -6.8), (6.8, 0.0), (0.0, 6.8), (-6.8, 0.0)],
        };
        let corners = corners.iter().map(|(dx, dy)| Some((x + dx, y + dy)));
        path(corners) + "Z"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_of_the_curve_are_kept() {
        let curve = [
            (0, 0, 1.0),
            (0, 1, 0.9),
            (0, 2, 0.8),
            (1, 2, 0.7),
            (2, 2, 0.6),
            (3, 4, 0.5),
        ];
        let chart = |curve| RocChart {
            curve,
            points: vec![],
            auc: None,
        };
        let shares = chart(&curve).shares().unwrap();
        assert_eq!(
            shares,
            [(0.0, 0.0), (0.0, 0.5), (2.0 / 3.0, 0.5), (1.0, 1.0)]
        );
        assert_eq!(chart(&[(0, 0, 1.0), (4, 0, 0.5)]).shares(), None);
        assert!(
            chart(&[])
                .draw()
                .into_string()
                .contains("all labels are of one kind")
        );
    }
}
