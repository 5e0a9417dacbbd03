//! Parts of wholes as bars.

use fovea_evaluation::Estimate;
use maud::{Markup, html};

use super::frame::{Scale, WIDTH, px, svg};
use crate::number::{Unit, count};

/// One bar for each row, all of the same length, filled as far as the row's share, with a line from end to end of its interval.
#[derive(Debug, Clone, PartialEq)]
pub struct ShareChart<'a> {
    pub title: &'a str,
    /// What the filled part is, such as "referred".
    pub part: &'a str,
    pub rows: Vec<ShareRow>,
}

/// A bar.
#[derive(Debug, Clone, PartialEq)]
pub struct ShareRow {
    pub name: String,
    pub part: u64,
    pub whole: u64,
    /// The same as a share, with its interval.
    pub share: Option<Estimate>,
    /// Whether the filled part is what is wanted, and the rest is not.
    pub wanted: bool,
}

const ROW: f64 = 46.0;

impl ShareChart<'_> {
    pub fn draw(&self) -> Markup {
        let height = ROW * self.rows.len() as f64 + 4.0;
        let x = Scale {
            data: (0.0, 1.0),
            drawn: (4.0, WIDTH - 4.0),
        };
        let content = html! {
            @for (number, row) in self.rows.iter().enumerate() {
                @let top = ROW * number as f64;
                @let filled = if row.whole > 0 { row.part as f64 / row.whole as f64 } else { 0.0 };
                text class="c-name" x="4" y=(px(top + 17.0)) { (row.name) }
                text class="c-value" text-anchor="end" x=(px(WIDTH - 4.0)) y=(px(top + 17.0)) { (self.figures(row)) }
                rect class=(if row.wanted { "c-rest-bad" } else { "c-rest-good" }) x=(px(x.at(0.0))) y=(px(top + 25.0))
                    width=(px(x.at(1.0) - x.at(0.0))) height="13" rx="2" {}
                rect class=(if row.wanted { "c-part-good" } else { "c-part-bad" }) x=(px(x.at(0.0))) y=(px(top + 25.0))
                    width=(px(x.at(filled) - x.at(0.0))) height="13" rx="2" {}
                @if let Some(share) = &row.share {
                    path class="c-span" d=(format!("M{} {2}L{} {2}", px(x.within(share.low)), px(x.within(share.high)), px(top + 31.5))) {}
                }
            }
        };
        svg((WIDTH, height), self.title, &self.description(), content)
    }

    fn figures(&self, row: &ShareRow) -> String {
        format!(
            "{} of {}: {}",
            count(row.part),
            count(row.whole),
            Unit::Percent.with_range(row.share.as_ref())
        )
    }

    fn description(&self) -> String {
        let of = |row: &ShareRow| format!("{} {}: {}.", row.name, self.part, self.figures(row));
        let all: Vec<String> = self.rows.iter().map(of).collect();
        all.join(" ")
    }
}
