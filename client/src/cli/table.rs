//! Plain tables: aligned columns without lines, readable in a terminal, a file and a pipe.

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, presets};
use console::{measure_text_width, truncate_str};

/// Columns that the last one has at least, if its texts are so long: the terminal breaks what is longer.
const LAST: usize = 16;
/// Blanks between two columns.
const GAP: usize = 2;

/// A table under construction. A column whose heading begins with `>` is aligned to the right.
///
/// In a terminal the last column is wrapped, so that long texts belong there. Elsewhere nothing is
/// wrapped: one row is one line.
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    width: Option<u16>,
}

impl Table {
    /// A table with these headings, as wide as the terminal at most.
    pub fn new(headings: &[&str]) -> Self {
        Self::with_width(headings, terminal_width())
    }

    /// A table of at most `width` columns of text; None does not wrap.
    pub fn with_width(headings: &[&str], width: Option<u16>) -> Self {
        Self {
            headings: headings.iter().map(|h| (*h).to_owned()).collect(),
            rows: Vec::new(),
            width,
        }
    }

    /// Adds a row of as many cells as there are headings.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().take(self.headings.len());
        self.rows.push(cells.collect());
    }

    /// The lines, headings first.
    pub fn lines(&self) -> Vec<String> {
        let all: Vec<usize> = (0..self.headings.len()).collect();
        self.drawn(&all, self.width)
    }

    /// The lines, headings first, a row a line: of the columns in `least`, the least important first, so many are left out that
    /// the others fit, and what still does not fit is cut.
    pub fn fitted(&self, least: &[&str]) -> Vec<String> {
        let mut shown: Vec<usize> = (0..self.headings.len()).collect();
        let Some(width) = self.width.map(usize::from) else {
            return self.drawn(&shown, None);
        };
        for name in least {
            if self.least_width(&shown) <= width {
                break;
            }
            shown.retain(|at| self.headings[*at].trim_start_matches('>') != *name);
        }
        let lines = self.drawn(&shown, None).into_iter();
        lines.map(|line| cut(&line, width)).collect()
    }

    /// Columns of text that these columns need; of the last, which may be cut, as many as its beginning.
    fn least_width(&self, shown: &[usize]) -> usize {
        let Some((last, others)) = shown.split_last() else {
            return 0;
        };
        let others: usize = others.iter().map(|at| self.broad(*at) + GAP).sum();
        others + self.least_of_last(*last)
    }

    fn least_of_last(&self, at: usize) -> usize {
        let heading = measure_text_width(self.headings[at].trim_start_matches('>'));
        self.broad(at).min(LAST).max(heading)
    }

    fn broad(&self, at: usize) -> usize {
        let heading = measure_text_width(self.headings[at].trim_start_matches('>'));
        let cells = self.rows.iter().filter_map(|row| row.get(at));
        cells
            .map(|cell| measure_text_width(cell))
            .fold(heading, usize::max)
    }

    fn drawn(&self, shown: &[usize], width: Option<u16>) -> Vec<String> {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        match width {
            // A word is never written letter by letter: a terminal that is too narrow breaks the lines.
            Some(width) => {
                let least = u16::try_from(self.least_width(shown)).unwrap_or(u16::MAX);
                table.set_content_arrangement(ContentArrangement::Dynamic);
                table.set_width(width.max(least));
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        let cell = |text: &str, at: usize| {
            let right = self.headings[at].starts_with('>');
            Cell::new(text).set_alignment(match right {
                true => CellAlignment::Right,
                false => CellAlignment::Left,
            })
        };
        let heading = |at: &usize| cell(self.headings[*at].trim_start_matches('>'), *at);
        table.set_header(shown.iter().map(heading));
        for row in &self.rows {
            let of = |at: &usize| cell(row.get(*at).map_or("", |text| text), *at);
            table.add_row(shown.iter().map(of));
        }
        let last = shown.len().saturating_sub(1);
        for (c, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if c == last { 0 } else { GAP as u16 }));
            if c != last {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.trim_fmt().lines().map(str::to_owned).collect()
    }
}

/// The beginning of a line that is too long.
pub fn cut(line: &str, width: usize) -> String {
    truncate_str(line, width, "...").into_owned()
}

/// Columns of the terminal; None if standard output is none.
pub fn terminal_width() -> Option<u16> {
    let terminal = console::Term::stdout();
    terminal.is_term().then(|| terminal.size().1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::with_width(&["run", ">step", "phase"], None);
        table.row(["dr-1".into(), "5".into(), "running".into()]);
        table.row(["größer-12".into(), "12000".into(), "failed".into()]);
        assert_eq!(
            table.lines(),
            [
                "run         step  phase",
                "dr-1           5  running",
                "größer-12  12000  failed",
            ]
        );
    }

    #[test]
    fn only_the_last_column_is_wrapped_and_only_in_a_terminal() {
        let row = || {
            [
                "dr-1".to_owned(),
                "waits until the store can be read".to_owned(),
            ]
        };
        let mut narrow = Table::with_width(&["run", "reason"], Some(24));
        narrow.row(row());
        let lines = narrow.lines();
        assert!(lines.len() > 2, "{lines:?}");
        assert!(lines.iter().all(|l| l.chars().count() <= 24), "{lines:?}");
        assert!(lines[1].starts_with("dr-1  waits"), "{lines:?}");
        let mut piped = Table::with_width(&["run", "reason"], None);
        piped.row(row());
        assert_eq!(
            piped.lines(),
            ["run   reason", "dr-1  waits until the store can be read"]
        );
    }
    #[test]
    fn a_narrow_terminal_gets_words_and_not_letters() {
        let mut table = Table::with_width(&["run", ">step", "workers"], Some(20));
        table.row(["a-long-name-1".into(), "12000/12000".into(), "3".into()]);
        assert_eq!(
            table.lines(),
            [
                "run                   step  workers",
                "a-long-name-1  12000/12000  3",
            ]
        );
        // One line a row: the least important columns go, and what is left is cut.
        assert_eq!(table.fitted(&["workers", "step"]), ["run", "a-long-name-1"]);
        assert_eq!(
            table.fitted(&["step"]),
            ["run            wo...", "a-long-name-1  3"]
        );
        table.width = Some(30);
        assert_eq!(
            table.fitted(&["workers", "step"]),
            ["run                   step", "a-long-name-1  12000/12000"]
        );
    }
}
