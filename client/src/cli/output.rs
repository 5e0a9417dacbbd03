//! The two forms of output: lines for people, JSON objects for scripts.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;

use fovea_baseline::{Chosen, Kernel};
use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::metrics::Evaluation;
use fovea_core::pipeline::Pipeline;
use fovea_core::run::{EpochResult, StepReport};
use fovea_core::spec::{Part, Strategy};
use fovea_dataset::GradeScale;
use fovea_evaluation::{Estimate, Evaluated, FellowEye};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::backup::BackupFile;
use crate::error::Error;
use crate::judge::Judged;
use crate::shared::Shared;
use crate::spread::Spreads;
use crate::view::{
    AuditInfo, DatasetInfo, DeniedInfo, FileState, GroupInfo, IdentityInfo, Phase, Place,
    QueuedInfo, RunInfo, StoreProblem, StoreProgress, StoreSummary, TokenInfo, WeightsInfo,
    WorkerInfo,
};

/// What `--json` prints, one a line. `fovea --help` documents the fields; they are kept stable.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Record<'a> {
    Run(&'a RunInfo),
    Worker(&'a WorkerInfo),
    Queued(&'a QueuedInfo),
    WorkerDenied {
        name: &'a str,
        denied: bool,
        sessions: u32,
    },
    Denied(&'a DeniedInfo),
    Identity(&'a IdentityInfo),
    Token {
        #[serde(flatten)]
        info: &'a TokenInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<&'a str>,
    },
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
        #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
        place: Option<Place>,
    },
    Verified {
        run: &'a str,
        #[serde(flatten)]
        info: &'a CheckpointInfo,
        ok: bool,
        state: FileState,
        problem: &'a str,
        manifest_state: FileState,
        manifest_problem: &'a str,
    },
    VerifyProgress(&'a StoreProgress),
    VerifyProblem(&'a StoreProblem),
    VerifySummary(&'a StoreSummary),
    Backup {
        path: &'a Path,
        #[serde(flatten)]
        file: &'a BackupFile,
    },
    Removed {
        kind: Kind,
        name: &'a str,
        checkpoints: u32,
        freed_bytes: u64,
    },
    NotRemoved {
        kind: Kind,
        name: &'a str,
        exit_code: u8,
        message: String,
    },
    Audit {
        #[serde(flatten)]
        audit: &'a AuditInfo,
        clean: bool,
        begun_epochs: u64,
        epochs: u32,
    },
    Evaluation {
        run: &'a str,
        step: u64,
        dataset: &'a str,
        dataset_digest: &'a str,
        part: Part,
        chosen_here: bool,
        uses: usize,
        shared: Option<&'a Shared>,
        #[serde(flatten)]
        evaluated: &'a Evaluated,
        fellow_eye: Option<&'a FellowEye>,
    },
    Baseline {
        name: &'a str,
        features: &'a str,
        classifier: &'a str,
        kernel: Option<Kernel>,
        chosen: &'a Chosen,
        dataset: &'a str,
        dataset_digest: &'a str,
        part: Part,
        #[serde(flatten)]
        evaluated: &'a Evaluated,
        fellow_eye: Option<&'a FellowEye>,
    },
    Compared(Compared<'a>),
    Group(&'a GroupInfo),
    GroupFigures {
        group: &'a str,
        runs: usize,
        of: usize,
        spread: &'a Spreads,
    },
    GroupEvaluation {
        group: &'a str,
        dataset: &'a str,
        dataset_digest: &'a str,
        part: Part,
        runs: usize,
        left_out: &'a [String],
        spread: &'a Spreads,
        pooled: Vec<PooledFigures<'a>>,
    },
    GroupReport {
        group: &'a str,
        path: &'a Path,
        bytes: u64,
    },
    Report {
        run: &'a str,
        path: &'a Path,
        bytes: u64,
    },
    Prediction {
        model: &'a str,
        step: u64,
        run: &'a str,
        photographs: usize,
        unreadable: usize,
        path: Option<&'a Path>,
        maps: Option<&'a Path>,
    },
    Export {
        model: &'a str,
        path: &'a Path,
        bytes: u64,
        classes: &'a [String],
    },
    Tensorboard {
        run: &'a str,
        path: &'a Path,
        bytes: u64,
        steps: u64,
        epochs: u64,
    },
    Advice {
        dataset: &'a str,
        photographs: u64,
        strategy: Strategy,
        settings: BTreeMap<&'a str, &'a str>,
        reasons: &'a [String],
        remarks: &'a [String],
    },
    Dataset {
        #[serde(flatten)]
        dataset: &'a DatasetInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        already_there: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        outcome: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        repaired_packs: Option<&'a [u32]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        repaired_files: Option<&'a [String]>,
    },
    Weights {
        #[serde(flatten)]
        weights: &'a WeightsInfo,
        #[serde(skip_serializing_if = "Option::is_none")]
        outcome: Option<&'static str>,
    },
    Prepared {
        dir: &'a Path,
        digest: &'a str,
        pipeline: &'a Pipeline,
        scale: GradeScale,
        train: [u64; 5],
        validation: [u64; 5],
        test: [u64; 5],
        patients: [usize; 3],
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
        /// The event's name, such as `worker.evicted`.
        event: Option<&'a str>,
        text: &'a str,
    },
    Reconnecting {
        run: &'a str,
        cause: &'static str,
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
        #[serde(skip_serializing_if = "Option::is_none")]
        report: Option<&'a Path>,
    },
    Certificate {
        path: &'a Path,
        /// None for a CA's.
        identity: Option<String>,
        ca: bool,
        valid_from_s: i64,
        valid_until_s: i64,
        issuer: &'a str,
        key_sha256: &'a str,
        hosts: &'a [String],
    },
    Error {
        exit_code: u8,
        message: String,
    },
}

/// Figures of all held-out photographs of the folds of one seed.
#[derive(Debug, Serialize)]
pub struct PooledFigures<'a> {
    seed: u64,
    #[serde(flatten)]
    evaluated: &'a Evaluated,
}

impl<'a> From<(u64, &'a Evaluated)> for PooledFigures<'a> {
    fn from((seed, evaluated): (u64, &'a Evaluated)) -> Self {
        Self { seed, evaluated }
    }
}

/// A model in the table of `fovea baseline`.
#[derive(Debug, Serialize)]
pub struct Compared<'a> {
    pub name: &'a str,
    pub kind: &'static str,
    pub of: Option<String>,
    pub auc: Option<Estimate>,
    pub kappa: Option<Estimate>,
    pub sensitivity: Option<Estimate>,
    pub specificity: Option<Estimate>,
    pub calibration_error: Option<Estimate>,
    pub difference: Option<Difference<'a>>,
}

/// The difference of a model's AUC to another's.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Difference<'a> {
    pub to: &'a str,
    pub auc: Estimate,
}

/// A kind of thing that can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Run,
    Group,
    Checkpoint,
    Dataset,
    Weights,
}

impl<'a> Record<'a> {
    /// A model that was judged.
    pub fn evaluation(judged: &'a Judged) -> Self {
        Record::Evaluation {
            run: &judged.run.id,
            step: judged.chosen.step,
            dataset: judged.dataset.manifest.name.as_str(),
            dataset_digest: &judged.dataset.manifest.digest,
            part: judged.part,
            chosen_here: judged.chosen_here(),
            uses: judged.uses().count(),
            shared: judged.shared.as_ref(),
            evaluated: &judged.evaluated,
            fellow_eye: judged.fellow_eye.as_ref(),
        }
    }

    /// The end of a run, in short.
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
            report: None,
        }
    }
}

/// Where a command's output goes.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    /// Standard output and standard error are a terminal: bars may be drawn.
    interactive: bool,
    /// The command continues when standard output is closed.
    outlives_reader: bool,
}

/// Whether the terminal says that it cannot move its cursor.
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self {
            json,
            interactive: !json
                && !is_dumb()
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
