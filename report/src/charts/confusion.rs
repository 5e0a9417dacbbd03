//! What each class is taken for.

use maud::{Markup, html};

use crate::number::{DASH, count};

/// The confusion matrix with counts and shares of each row. A table, so that it can be read by cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConfusionTable<'a> {
    /// Names of the classes.
    pub classes: &'a [String],
    /// Numbers of samples: `counts[label][prediction]`.
    pub counts: &'a [Vec<u64>],
    /// The first class that counts as positive.
    pub positive_class: usize,
}

impl ConfusionTable<'_> {
    pub fn draw(&self) -> Markup {
        let name = |class: usize| hyphenated(self.classes.get(class).map_or(DASH, String::as_str));
        let edge = |row: usize, column: usize| {
            let mut class = String::new();
            if row == column {
                class += " c-right";
            }
            if row == self.positive_class && row > 0 {
                class += " c-edge-top";
            }
            if column == self.positive_class && column > 0 {
                class += " c-edge-left";
            }
            class
        };
        html! {
            table class="c-matrix" {
                thead {
                    tr {
                        td rowspan="2" {}
                        th scope="colgroup" colspan=(self.counts.len()) { "predicted" }
                    }
                    tr { @for class in 0..self.counts.len() { th scope="col" { (name(class)) } } }
                }
                tbody {
                    @for (label, row) in self.counts.iter().enumerate() {
                        @let total: u64 = row.iter().sum();
                        tr {
                            th scope="row" { (name(label)) span class="c-small" { " n\u{a0}=\u{a0}" (count(total)) } }
                            @for (predicted, number) in row.iter().enumerate() {
                                @let share = if total > 0 { *number as f64 / total as f64 } else { 0.0 };
                                td class=(format!("c-cell{}", edge(label, predicted)))
                                    style=(format!("--share:{:.0}%", 100.0 * share)) {
                                    b { (count(*number)) }
                                    span class="c-small" { (if total > 0 { whole(share) } else { DASH.into() }) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A long word may be divided in a narrow column.
fn hyphenated(name: &str) -> String {
    name.replace("proliferative", "prolif\u{ad}erative")
        .replace("moderate", "mod\u{ad}erate")
}

/// In whole per cent, and "<1 %" for what is not nothing.
fn whole(share: f64) -> String {
    match share {
        s if s > 0.0 && s < 0.005 => "<1\u{202f}%".into(),
        s if s > 0.995 && s < 1.0 => ">99\u{202f}%".into(),
        s => format!("{:.0}\u{202f}%", 100.0 * s),
    }
}
