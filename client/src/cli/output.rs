//! The two ways to say something: lines for people, JSON objects for scripts.

use std::io::{IsTerminal, Write};
use std::path::Path;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::metrics::Evaluation;
use fovea_core::run::{EpochResult, StepReport};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::error::Error;
use crate::view::{AuditInfo, DatasetInfo, Phase, RunInfo};

/// What `--json` prints, one a line. `fovea --help` documents the fields; they are kept stable.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Record<'a> {
    Run(&'a RunInfo),
    Step {
        run: &'a str,
        #[serde(flatten)]
        report: &'a StepReport,
    },
    Epoch {
        run: &'a str,
        #[serde(flatten)]
        result: &'a EpochResult,
    },
    Checkpoint {
        run: &'a str,
        #[serde(flatten)]
        info: &'a CheckpointInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<&'a Path>,
    },
    Verified {
        run: &'a str,
        #[serde(flatten)]
        info: &'a CheckpointInfo,
        ok: bool,
        problem: &'a str,
    },
    Audit {
        #[serde(flatten)]
        audit: &'a AuditInfo,
        clean: bool,
        begun_epochs: u64,
        epochs: u32,
    },
    Dataset {
        #[serde(flatten)]
        dataset: &'a DatasetInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        already_there: Option<bool>,
    },
    Prepared {
        dir: &'a Path,
        digest: &'a str,
        train: [u64; 5],
        validation: [u64; 5],
        patients: [usize; 2],
        packs: usize,
        excluded: Vec<String>,
        warnings: Vec<String>,
    },
    Synthetic {
        dir: &'a Path,
        patients: u32,
        images: u64,
    },
    Note {
        run: &'a str,
        text: &'a str,
    },
    Reconnecting {
        run: &'a str,
        reason: &'a str,
        attempt: u32,
        wait_ms: u64,
    },
    Result {
        run: &'a str,
        phase: Phase,
        reason: &'a str,
        step: u64,
        total_steps: u64,
        epochs: usize,
        validation: Option<&'a Evaluation>,
        checkpoint: Option<&'a CheckpointInfo>,
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<&'a Path>,
        #[serde(skip_serializing_if = "Option::is_none")]
        metrics: Option<&'a Path>,
    },
    Error {
        exit_code: u8,
        message: String,
    },
}

impl<'a> Record<'a> {
    /// How a run ended, in short.
    pub fn result(run: &'a RunInfo) -> Self {
        Record::Result {
            run: &run.id,
            phase: run.phase,
            reason: &run.reason,
            step: run.step(),
            total_steps: run.total_steps,
            epochs: run.epochs.len(),
            validation: run.last_epoch().map(|e| &e.validation),
            checkpoint: run.checkpoints.last(),
            model: None,
            metrics: None,
        }
    }
}

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    /// A person sits in front: bars may be drawn.
    interactive: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self {
            json,
            interactive: !json
                && std::io::stderr().is_terminal()
                && std::io::stdout().is_terminal(),
        }
    }

    /// Whether bars may be drawn.
    pub fn interactive(&self) -> bool {
        self.interactive
    }

    /// A line of the result, for people.
    pub fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            print(text.as_ref());
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
                Ok(text) => print(&text),
                Err(e) => eprintln!("fovea: a result cannot be written as JSON: {e}"),
            }
        }
    }

    /// A remark beside the result: to standard error, for people only.
    pub fn remark(&self, text: impl AsRef<str>) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
        }
    }

    /// Why the command ends without having done what was asked.
    pub fn error(&self, error: &Error) {
        self.record(&Record::Error {
            exit_code: error.exit_code(),
            message: error.to_string(),
        });
        let text = error.to_string();
        let _ = match error {
            // Each line begins with its own place.
            Error::RunFile(_) => writeln!(std::io::stderr(), "{text}"),
            _ => writeln!(std::io::stderr(), "fovea: {text}"),
        };
    }

    /// A bar that counts to `total` images or the like; hidden where nobody sits in front.
    pub fn count_bar(&self, total: u64, what: &str) -> ProgressBar {
        self.bar(
            total,
            &format!(
                "{what} {{wide_bar}} {{human_pos}}/{{human_len}}  {{per_sec:>10}}  {{eta:>4}}"
            ),
        )
    }

    /// A bar that counts bytes; hidden where nobody sits in front.
    pub fn byte_bar(&self, total: u64, what: &str) -> ProgressBar {
        self.bar(
            total,
            &format!(
                "{what} {{wide_bar}} {{decimal_bytes}}/{{decimal_total_bytes}}  {{decimal_bytes_per_sec}}"
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

/// Writes a line. Who reads may have gone (`fovea runs | head -1`): then there is nobody left to
/// talk to, and the program ends as a program that wrote to a closed pipe does.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    if written.is_err() {
        std::process::exit(141);
    }
}
