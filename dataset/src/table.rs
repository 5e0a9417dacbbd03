//! Tables as people have them: text in several encodings, with several separators.
//!
//! A table is read whole or refused by name, with the line and what to do. Rows are never lost: each
//! line of the file is the header, empty, or exactly one row.

mod recognise;

use crate::lines::Lines;

pub use recognise::EncodingRemark;

/// The header and the rows of a table.
#[derive(Debug)]
pub(crate) struct Table {
    /// Names of the columns, as the file has them.
    pub header: Vec<String>,
    /// The rows that hold anything, in the order of the file.
    pub rows: Vec<Row>,
    /// Set if the text was in none of Unicode's encodings.
    pub encoding: Option<EncodingRemark>,
}

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    /// Line in the file, from 1.
    pub line: u64,
    cells: csv::StringRecord,
}

impl Row {
    /// A cell's text without surrounding spaces; empty beyond the row's end.
    pub fn cell(&self, column: usize) -> &str {
        self.cells.get(column).unwrap_or_default().trim()
    }

    /// Number of cells up to the last that holds anything.
    pub fn width(&self) -> usize {
        let mut widths = 0..self.cells.len();
        widths
            .rfind(|&column| !self.cell(column).is_empty())
            .map_or(0, |last| last + 1)
    }
}

/// Which columns a table has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Header {
    /// The first line names them.
    FirstLine,
    /// The first line is a row already; cells are separated by spaces.
    None {
        /// Names of the columns.
        names: &'static [&'static str],
    },
}

/// Why a file cannot be read as a table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It is a file of another kind.
    #[error("is {kind}, not a text table: {todo}")]
    Kind {
        /// What it is.
        kind: &'static str,
        /// What to do.
        todo: &'static str,
    },
    /// It holds bytes that no text has.
    #[error("line {line} holds a byte that no text has: save the table as CSV in UTF-8")]
    Binary {
        /// The line, from 1.
        line: u64,
    },
    /// It is text in an encoding that is not known.
    #[error(
        "is neither UTF-8, UTF-16 nor Windows-1252 text (line {line}): save it as CSV in UTF-8"
    )]
    Encoding {
        /// The first line that fits none of them, from 1.
        line: u64,
    },
    /// A quotation mark is not closed on its line.
    #[error(
        "line {line}: the quotation mark before {begin:?} is not closed on this line; remove it or \
         close it (fields with line breaks are not read)"
    )]
    Quote {
        /// The line, from 1.
        line: u64,
        /// What follows the mark.
        begin: String,
    },
    /// Nothing but white space.
    #[error("is empty")]
    Empty,
    /// A field that no table of images has.
    #[error(
        "line {line}: a field of {chars} characters begins with {begin:?}, and at most {MAX_FIELD} \
         are read: is a separator or a quotation mark missing?"
    )]
    LongField {
        /// The line, from 1.
        line: u64,
        /// Its length.
        chars: usize,
        /// Its beginning.
        begin: String,
    },
    /// Lines and rows do not match.
    #[error("has {lines} lines that are not empty, but {rows} rows: rows would be lost")]
    Rows {
        /// Lines that are not empty, with the header.
        lines: u64,
        /// Rows, with the header.
        rows: u64,
    },
    /// The library's error.
    #[error("is not a CSV table: {0}")]
    Csv(#[from] csv::Error),
}

/// Longest field that is read, in characters.
const MAX_FIELD: usize = 1000;
/// Characters that an error shows of a field.
const SHOWN: usize = 40;

/// Reads a table.
pub(crate) fn parse(bytes: &[u8], header: Header) -> Result<Table, TableError> {
    let text = recognise::text(bytes)?;
    if text.text.trim().is_empty() {
        return Err(TableError::Empty);
    }
    let (body, skipped) = without_separator_line(&text.text);
    // A last line without its end, or with the end mark of DOS, is a line like the others.
    let body = &format!("{}\n", body.trim_end_matches('\u{1a}'));
    let delimiter = match (header, skipped) {
        (Header::None { .. }, _) => b' ',
        (_, Some(named)) => named,
        (_, None) => delimiter(body),
    };
    // Cells are trimmed later: a quotation mark that is never closed shows by its line break.
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(body.as_bytes());
    let before = u64::from(skipped.is_some());
    let mut lines = Lines::new(body.as_bytes());
    let mut rows = Vec::new();
    let mut count = 0;
    for record in reader.records() {
        let record = record?;
        let line = lines.of(&record) + before;
        check(&record, line)?;
        let row = Row {
            line,
            cells: record,
        };
        let filled = row.width() > 0;
        // A line of separators alone is a row of empty cells: counted, and of no use.
        count += u64::from(filled || row.cells.len() > 1);
        if filled {
            rows.push(row);
        }
    }
    let filled = filled_lines(body, delimiter);
    if filled != count {
        return Err(TableError::Rows {
            lines: filled,
            rows: count,
        });
    }
    let header = match header {
        Header::None { names } => names.iter().map(ToString::to_string).collect(),
        Header::FirstLine if rows.is_empty() => Vec::new(),
        Header::FirstLine => {
            let first = rows.remove(0);
            (0..first.cells.len())
                .map(|column| first.cell(column).to_owned())
                .collect()
        }
    };
    Ok(Table {
        header,
        rows,
        encoding: text.remark,
    })
}

/// Lines that are more than spaces and quotation marks: those of which the reader makes rows.
fn filled_lines(text: &str, delimiter: u8) -> u64 {
    let empty = |c: char| c != char::from(delimiter) && (c.is_whitespace() || c == '"');
    let lines = text.split(['\n', '\r']);
    lines.filter(|line| !line.chars().all(empty)).count() as u64
}

fn check(record: &csv::StringRecord, line: u64) -> Result<(), TableError> {
    let shown = |text: &str| text.chars().take(SHOWN).collect::<String>();
    for field in record {
        if let Some(first) = field.split(['\n', '\r']).next()
            && first.len() < field.len()
        {
            return Err(TableError::Quote {
                line,
                begin: shown(first),
            });
        }
        let chars = field.chars().count();
        if chars > MAX_FIELD {
            return Err(TableError::LongField {
                line,
                chars,
                begin: shown(field),
            });
        }
    }
    Ok(())
}

/// A first line `sep=;`, by which Excel tells the separator: the separator, and what follows.
fn without_separator_line(text: &str) -> (&str, Option<u8>) {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let line = first.trim_end_matches('\r').trim_matches(['"', ' ']);
    let named = line
        .get(..4)
        .filter(|start| start.eq_ignore_ascii_case("sep="))
        .map(|_| &line.as_bytes()[4..]);
    match named {
        Some([separator]) if separator.is_ascii() => (rest, Some(*separator)),
        // `sep=` with a tab that an editor has removed.
        Some([]) => (rest, Some(b'\t')),
        _ => (text, None),
    }
}

/// Separators, the usual first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// The separator that cuts the first line into the most cells; a comma if none does.
fn delimiter(text: &str) -> u8 {
    let first = text
        .split(['\n', '\r'])
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    let cells = |delimiter: u8| {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .delimiter(delimiter)
            .from_reader(first.as_bytes());
        let mut record = csv::StringRecord::new();
        match reader.read_record(&mut record) {
            Ok(true) => record.len(),
            _ => 0,
        }
    };
    // The last maximum of the reversed order is the first of the list.
    let best = DELIMITERS.into_iter().rev().max_by_key(|&d| cells(d));
    best.filter(|&d| cells(d) > 1).unwrap_or(b',')
}

#[cfg(test)]
mod tests;
