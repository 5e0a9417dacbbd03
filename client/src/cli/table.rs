//! Plain tables: aligned columns without lines, readable in a terminal, a file and a pipe.

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, presets};

/// A table under construction. A column whose heading begins with `>` is aligned to the right.
///
/// In a terminal the last column is wrapped, so that long texts belong there. Elsewhere nothing is
/// wrapped: one row is one line.
pub struct Table {
    table: comfy_table::Table,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings, as wide as the terminal at most.
    pub fn new(headings: &[&str]) -> Self {
        Self::with_width(headings, terminal_width())
    }

    /// A table of at most `width` columns of text; None does not wrap.
    pub fn with_width(headings: &[&str], width: Option<u16>) -> Self {
        let right: Vec<bool> = headings.iter().map(|h| h.starts_with('>')).collect();
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        match width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic);
                table.set_width(width);
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        table.set_header(cells(
            headings
                .iter()
                .map(|h| h.trim_start_matches('>').to_owned()),
            &right,
        ));
        let last = right.len().saturating_sub(1);
        for (c, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if c == last { 0 } else { 2 }));
            if c != last {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        Self { table, right }
    }

    /// Adds a row of as many cells as there are headings.
    pub fn row(&mut self, cells_of_row: impl IntoIterator<Item = String>) {
        self.table.add_row(cells(cells_of_row, &self.right));
    }

    /// The lines, headings first.
    pub fn lines(&self) -> Vec<String> {
        self.table.trim_fmt().lines().map(str::to_owned).collect()
    }
}

/// Columns of the terminal; None if standard output is none.
pub fn terminal_width() -> Option<u16> {
    let terminal = console::Term::stdout();
    terminal.is_term().then(|| terminal.size().1)
}

fn cells(texts: impl IntoIterator<Item = String>, right: &[bool]) -> Vec<Cell> {
    texts
        .into_iter()
        .zip(right)
        .map(|(text, right)| {
            Cell::new(text).set_alignment(if *right {
                CellAlignment::Right
            } else {
                CellAlignment::Left
            })
        })
        .collect()
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
}
