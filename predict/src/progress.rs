//! How far it is, on standard error: a bar on a terminal, otherwise a line now and then.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::pace::Pace;

/// Whether the terminal cannot move its cursor, by its own name: no bar can be drawn on it.
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Photographs that are done, of so many.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    lines: Option<Pace>,
    total: u64,
    done: u64,
}

impl Bar {
    /// Of `total` photographs, with which `done` is done: `scored`, say.
    pub fn new(total: u64, done: &'static str) -> Self {
        let interactive = std::io::stderr().is_terminal() && !is_dumb();
        let bar = match interactive {
            true => ProgressBar::new(total),
            false => ProgressBar::hidden(),
        };
        let template =
            format!("{done} {{wide_bar}} {{human_pos}}/{{human_len}}  {{per_sec:>10}}  {{eta:>4}}");
        let style = ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸─");
        bar.set_style(style);
        Self {
            bar,
            lines: (!interactive).then(|| Pace::new(Instant::now(), done)),
            total,
            done: 0,
        }
    }

    /// So many more are done.
    pub fn advance(&mut self, count: u64) {
        self.done += count;
        self.bar.set_position(self.done);
        let lines = self.lines.as_mut();
        if let Some(line) = lines.and_then(|l| l.line(Instant::now(), self.done, self.total)) {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
