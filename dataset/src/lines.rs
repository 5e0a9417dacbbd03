//! Line numbers of CSV records, for messages.

/// Counts lines up to ever later positions.
///
/// The csv crate's own count is one line short after CRLF, and leaves out empty lines that it
/// skipped.
pub(crate) struct Lines<'a> {
    text: &'a [u8],
    /// Counted up to here.
    at: usize,
    /// Line breaks before `at`.
    breaks: u64,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            breaks: 0,
        }
    }

    /// The line, from 1, of a record that was read from this text; records must come in order.
    pub(crate) fn of(&mut self, record: &csv::StringRecord) -> u64 {
        let from = record.position().map_or(0, csv::Position::byte) as usize;
        while let Some(&byte) = self.text.get(self.at) {
            // What separates the record from the one before counts as before it.
            if self.at >= from && !matches!(byte, b'\r' | b'\n') {
                break;
            }
            // An old Mac's line ends with a CR alone.
            let next = self.text.get(self.at + 1);
            self.breaks += u64::from(byte == b'\n' || byte == b'\r' && next != Some(&b'\n'));
            self.at += 1;
        }
        self.breaks + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_as_an_editor_does() {
        for text in [
            "h\na\nb\n\n\nc\n",
            "h\r\na\r\nb\r\n\r\n\r\nc",
            "h\na\r\nb\n\r\n\nc",
            "h\ra\rb\r\r\rc\r",
        ] {
            let mut reader = csv::Reader::from_reader(text.as_bytes());
            let mut lines = Lines::new(text.as_bytes());
            let found: Vec<u64> = reader
                .records()
                .map(|record| lines.of(&record.expect("record")))
                .collect();
            assert_eq!(found, [2, 3, 6], "{text:?}");
        }
        let quoted = "h\n\"a\nb\"\nc\n";
        let mut reader = csv::Reader::from_reader(quoted.as_bytes());
        let mut lines = Lines::new(quoted.as_bytes());
        let found: Vec<u64> = reader
            .records()
            .map(|record| lines.of(&record.expect("record")))
            .collect();
        assert_eq!(found, [2, 4]);
    }
}
