//! Tables in plain text: columns as wide as they need be.

/// A table under construction. Columns whose heading begins with `>` are aligned to the right.
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self {
            right: headings.iter().map(|h| h.starts_with('>')).collect(),
            rows: vec![
                headings
                    .iter()
                    .map(|h| h.trim_start_matches('>').to_owned())
                    .collect(),
            ],
        }
    }

    /// Adds a row of as many cells as there are headings.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> = cells.into_iter().collect();
        assert_eq!(row.len(), self.right.len(), "a row for other headings");
        self.rows.push(row);
    }

    /// The lines, headings first.
    pub fn lines(&self) -> Vec<String> {
        let widths: Vec<usize> = (0..self.right.len())
            .map(|c| {
                self.rows
                    .iter()
                    .map(|r| r[c].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        self.rows
            .iter()
            .map(|row| {
                let mut line = String::new();
                for (c, cell) in row.iter().enumerate() {
                    let fill = " ".repeat(widths[c] - cell.chars().count());
                    if c > 0 {
                        line += "  ";
                    }
                    if self.right[c] {
                        line += &fill;
                        line += cell;
                    } else {
                        line += cell;
                        line += &fill;
                    }
                }
                line.trim_end().to_owned()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["run", ">step", "phase"]);
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
}
