//! Many lines over the same axis, of which the first can be told apart.

use maud::{Markup, html};

use super::frame::{Axis, Scale, WIDTH, axes, path, px, svg};
use super::lines::{no_values, padded, whole};
use crate::number::significant;

/// Lines that have a colour and a dash pattern of their own; the others are grey.
pub const MOST_TOLD_APART: usize = 12;

const HEIGHT: f64 = 300.0;

/// Many lines. A key beside the chart names them: see [`many_swatch`].
#[derive(Debug, Clone, PartialEq)]
pub struct ManyLines<'a> {
    pub title: &'a str,
    pub x_label: &'a str,
    pub y_label: &'a str,
    /// End of the x axis, if it does not follow the data.
    pub x_to: Option<f64>,
    /// The one that leads first.
    pub lines: Vec<ManyLine<'a>>,
    /// Places on the x axis that are marked.
    pub marks: Vec<f64>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct ManyLine<'a> {
    pub name: &'a str,
    /// x and y, in the order of x.
    pub values: Vec<(f64, f64)>,
}

impl ManyLines<'_> {
    /// The chart; where there is no value, a word instead of empty axes.
    pub fn draw(&self) -> Markup {
        let all = || self.lines.iter().flat_map(|line| &line.values);
        if all().next().is_none() {
            return no_values();
        }
        let x = (56.0, WIDTH - 12.0);
        let mut x = whole(self.x_label, all().map(|(x, _)| *x), self.x_to, x);
        let y = Scale {
            data: padded(all().map(|(_, y)| *y)),
            drawn: (HEIGHT - 46.0, 12.0),
        };
        let y = Axis::new(self.y_label, y, 5);
        y.make_room(&mut x.scale);
        let (bottom, top) = y.scale.drawn;
        let content = html! {
            (axes(&x, &y))
            @for mark in &self.marks {
                @let at = px(x.scale.within(*mark));
                line class="c-mark" x1=(at) x2=(at) y1=(px(bottom)) y2=(px(top)) {}
            }
            // The one that leads lies above all others.
            @for (at, line) in self.lines.iter().enumerate().rev() { (draw(at, line, &x.scale, &y.scale)) }
        };
        svg((WIDTH, HEIGHT), self.title, &self.description(), content)
    }

    /// In words, for those who do not see it: the lines that lead.
    fn description(&self) -> String {
        let known: Vec<&ManyLine> = self.lines.iter().filter(|l| !l.values.is_empty()).collect();
        let say = |line: &&&ManyLine| {
            let (x, y) = line.values.last()?;
            let y = significant(*y);
            Some(format!("{}: {y} at {} {x:.0}.", line.name, self.x_label))
        };
        let first: Vec<String> = known.iter().take(3).filter_map(|line| say(&line)).collect();
        format!("{} lines. {}", known.len(), first.join(" "))
    }
}

fn draw(at: usize, line: &ManyLine, x: &Scale, y: &Scale) -> Markup {
    let class = class(at);
    let points = line
        .values
        .iter()
        .map(|(a, b)| Some((x.at(*a), y.within(*b))));
    html! {
        g class=(class) {
            @if line.values.len() > 1 { path class="c-line" d=(path(points)) { title { (line.name) } } }
            // Where it ends, and all of a line of one value.
            @if let Some((a, b)) = line.values.last() {
                circle class="c-end" cx=(px(x.at(*a))) cy=(px(y.within(*b))) r=(if at < MOST_TOLD_APART { "2.8" } else { "1.6" }) {
                    title { (line.name) ": " (significant(*b)) }
                }
            }
        }
    }
}

/// By which a line is told from others: one of six colours, whole or dashed.
fn class(at: usize) -> String {
    match at {
        at if at < MOST_TOLD_APART => {
            format!("c-{}{}", at % 6 + 1, if at < 6 { "" } else { " c-dashed" })
        }
        _ => "c-rest".into(),
    }
}

/// A piece of the line at this place, for a key.
pub fn many_swatch(at: usize) -> Markup {
    html! {
        svg class=(format!("line {}", class(at))) viewBox="0 0 34 8" aria-hidden="true" { path class="c-line" d="M2 4L32 4" {} }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn twelve_lines_differ_and_the_others_are_grey() {
        let told: BTreeSet<String> = (0..MOST_TOLD_APART).map(class).collect();
        assert_eq!(told.len(), MOST_TOLD_APART);
        assert_eq!((class(12), class(99)), ("c-rest".into(), "c-rest".into()));
        let line = |name, values: &[(f64, f64)]| ManyLine {
            name,
            values: values.to_vec(),
        };
        let chart = ManyLines {
            title: "AUC",
            x_label: "epoch",
            y_label: "AUC",
            x_to: Some(4.0),
            lines: vec![
                line("v2", &[(1.0, 0.6), (2.0, 0.8)]),
                line("<v1>", &[(1.0, 0.7)]),
                line("v3", &[]),
            ],
            marks: vec![1.0],
        };
        let text = chart.draw().into_string();
        assert!(
            text.contains("2 lines. v2: 0.800 at epoch 2. &lt;v1&gt;: 0.700 at epoch 1."),
            "{text}"
        );
        assert_eq!(
            (
                text.matches("<path").count(),
                text.matches("<circle").count()
            ),
            (1, 2)
        );
        // The first is drawn last.
        assert!(text.find("c-2").unwrap() < text.rfind("c-1").unwrap());
    }
}
