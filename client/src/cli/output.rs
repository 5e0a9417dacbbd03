//! The two forms of output: lines for people, JSON objects for scripts.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use super::record::Record;
use crate::error::Error;

/// Where a command's output goes.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    /// Standard output and standard error are a terminal: bars may be drawn.
    interactive: bool,
    /// The command continues when standard output is closed.
    outlives_reader: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self {
            json,
            interactive: !json
                && !fovea_predict::is_dumb()
                && std::io::stderr().is_terminal()
                && std::io::stdout().is_terminal(),
            outlives_reader: false,
        }
    }

    /// The same output for a command that owns processes. It must not end when its terminal or pipe
    /// is closed, because that would kill them in the middle of a step; the HUP of a closed terminal
    /// stops it properly.
    pub fn outliving_reader(self) -> Self {
        Self {
            outlives_reader: true,
            ..self
        }
    }

    /// Whether standard output is for scripts.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether bars may be drawn.
    pub fn interactive(&self) -> bool {
        self.interactive
    }

    /// A line of the result, for people.
    pub fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            self.print(text.as_ref());
        }
    }

    /// Lines of the result, for people.
    pub fn lines(&self, lines: impl IntoIterator<Item = String>) {
        for line in lines {
            self.line(line);
        }
    }

    /// A line of the result, for scripts.
    pub fn record(&self, record: &Record<'_>) {
        if self.json {
            match serde_json::to_string(record) {
                Ok(text) => self.print(&text),
                Err(e) => self.complain(&format!("a result cannot be written as JSON: {e}")),
            }
        }
    }

    /// A remark beside the result: to standard error, for people only.
    pub fn remark(&self, text: impl AsRef<str>) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
        }
    }

    /// A line about a failure: to standard error, for people and scripts.
    pub fn complain(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "fovea: {text}");
    }

    /// The error with which the command ends.
    pub fn error(&self, error: &Error) {
        let text = error.to_string();
        let _ = match error {
            // Each line begins with its own place.
            Error::RunFile(_) => writeln!(std::io::stderr(), "{text}"),
            _ => writeln!(std::io::stderr(), "fovea: {text}"),
        };
        // Last, and whatever comes of it: it may be standard output that has failed.
        let record = Record::Error {
            exit_code: error.exit_code(),
            message: text,
        };
        if self.json
            && let Ok(line) = serde_json::to_string(&record)
        {
            let _ = write_line(&line);
        }
    }

    /// Asks a question on the terminal; true for yes.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no terminal to ask on, or with `--json`.
    pub fn confirm(&self, question: &str) -> Result<bool, Error> {
        let stdin = std::io::stdin();
        if self.json || !stdin.is_terminal() || !std::io::stderr().is_terminal() {
            return Err(Error::Usage(format!(
                "{question} There is no terminal to answer on; give --yes to confirm"
            )));
        }
        let _ = write!(std::io::stderr(), "{question} [y/N] ");
        let mut answer = String::new();
        stdin
            .read_line(&mut answer)
            .map_err(|e| Error::io("standard input", e))?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    /// Writes a line. When nobody reads any more (`fovea runs | head -1`), the program ends as one
    /// that wrote to a closed pipe does, unless it owns processes.
    fn print(&self, text: &str) {
        match write_line(text) {
            Err(error) if !self.outlives_reader => {
                if error.kind() == std::io::ErrorKind::BrokenPipe {
                    std::process::exit(141);
                }
                self.complain(&format!("standard output: {error}"));
                std::process::exit(1);
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// A result that must not be lost: the record for scripts, or the line for people.
    ///
    /// # Errors
    /// It could not be written.
    pub fn result(&self, record: &Record<'_>, line: &str) -> std::io::Result<()> {
        match self.json {
            true => write_line(&serde_json::to_string(record)?),
            false => write_line(line),
        }
    }

    /// A bar that counts items up to `total`; hidden without a terminal.
    pub fn count_bar(&self, total: u64, what: &str) -> ProgressBar {
        self.bar(
            total,
            &format!(
                "{what} {{wide_bar}} {{human_pos}}/{{human_len}}  {{per_sec:>10}}  {{eta:>4}}"
            ),
        )
    }

    /// A bar that counts bytes up to `total`; hidden without a terminal.
    pub fn byte_bar(&self, total: u64, what: &str) -> ProgressBar {
        self.bar(
            total,
            &format!(
                "{what} {{wide_bar}} {{decimal_bytes}}/{{decimal_total_bytes}}  {{decimal_bytes_per_sec}}  {{msg}}"
            ),
        )
    }

    fn bar(&self, total: u64, template: &str) -> ProgressBar {
        if !self.interactive {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸─");
        ProgressBar::new(total).with_style(style)
    }
}
fn write_line(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}
