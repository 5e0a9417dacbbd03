//! What a result means for 1,000 people.

use fovea_evaluation::PointResult;
use maud::{Markup, html};

use super::frame::{WIDTH, px, svg};

/// What becomes of 1,000 people who are screened with one photograph each, if as many of them are positive as of the
/// photographs of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screened {
    /// Positive and called so.
    pub found: u64,
    /// Positive and not called so.
    pub missed: u64,
    /// Negative and called positive.
    pub false_alarms: u64,
    /// Negative and not called positive.
    pub cleared: u64,
}

/// A dot for each of 1,000 people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeopleChart<'a> {
    pub screened: Screened,
    /// What is screened for, such as "referable DR".
    pub positive: &'a str,
}

const COLUMNS: u64 = 40;
const PITCH: f64 = 10.2;

impl Screened {
    /// Rounds so that the four numbers are 1,000 together. None without any sample.
    pub fn of(at: &PointResult) -> Option<Self> {
        let positives = at.true_positives + at.false_negatives;
        let negatives = at.false_positives + at.true_negatives;
        let all = positives + negatives;
        if all == 0 {
            return None;
        }
        let of_1000 = |number: u64| (1000.0 * number as f64 / all as f64).round() as u64;
        let ill = of_1000(positives);
        let found = of_1000(at.true_positives).min(ill);
        let false_alarms = of_1000(at.false_positives).min(1000 - ill);
        Some(Self {
            found,
            missed: ill - found,
            false_alarms,
            cleared: 1000 - ill - false_alarms,
        })
    }
}

impl PeopleChart<'_> {
    pub fn draw(&self) -> Markup {
        let Screened {
            found,
            missed,
            false_alarms,
            cleared,
        } = self.screened;
        let groups = [
            (found, "c-found"),
            (missed, "c-missed"),
            (false_alarms, "c-alarm"),
            (cleared, "c-cleared"),
        ];
        let rows = (found + missed + false_alarms + cleared).div_ceil(COLUMNS);
        let mut start = 0;
        let groups = groups.map(|(number, class)| {
            let from = start;
            start += number;
            (from..start, class)
        });
        let content = html! {
            @for (people, class) in groups { path class=(format!("c-people {class}")) d=(dots(people)) {} }
        };
        let description = format!(
            "Of 1,000 people {} have {}: {found} are found and {missed} are missed. Of the {} others {false_alarms} are false \
             alarms and {cleared} are rightly not referred.",
            found + missed,
            self.positive,
            false_alarms + cleared
        );
        let height = PITCH * rows as f64 + 2.0;
        svg((WIDTH, height), "1,000 people", &description, content)
    }
}

/// Lines of no length with round ends.
fn dots(people: std::ops::Range<u64>) -> String {
    let left = (WIDTH - PITCH * (COLUMNS - 1) as f64) / 2.0;
    let mut out = String::new();
    for person in people {
        let x = left + PITCH * (person % COLUMNS) as f64;
        let y = PITCH * (person / COLUMNS) as f64 + 6.0;
        out += &format!("M{} {}h0", px(x), px(y));
    }
    out
}

#[cfg(test)]
mod tests {
    use fovea_evaluation::{Choice, Point};

    use super::*;

    fn screened(counts: [u64; 4]) -> Option<Screened> {
        let [
            true_positives,
            false_negatives,
            false_positives,
            true_negatives,
        ] = counts;
        Screened::of(&PointResult {
            point: Point {
                choice: Choice::Half,
                threshold: 0.5,
            },
            true_positives,
            false_negatives,
            false_positives,
            true_negatives,
            sensitivity: None,
            specificity: None,
            ppv: None,
            npv: None,
            grades: vec![],
        })
    }

    #[test]
    fn thousand_people_are_a_thousand() {
        assert_eq!(screened([0; 4]), None);
        for counts in [
            [1, 1, 1, 4],
            [0, 0, 0, 9],
            [7, 0, 0, 0],
            [333, 333, 333, 2],
            [1, 5, 3, 6],
        ] {
            let s = screened(counts).unwrap();
            assert_eq!(
                s.found + s.missed + s.false_alarms + s.cleared,
                1000,
                "{s:?}"
            );
        }
        let s = screened([190, 10, 300, 500]).unwrap();
        assert_eq!(
            (s.found, s.missed, s.false_alarms, s.cleared),
            (190, 10, 300, 500)
        );
    }
}
