//! `fovea admin verify`: every pack, checkpoint and weights file of the coordinator, compared with its digest, and what
//! describes them; and `fovea admin backup`.

use std::path::Path;
use std::time::{Duration, Instant};

use super::format::bytes;
use super::output::Output;
use super::record::Record;
use crate::client::{Client, SkipVerify};
use crate::error::{Error, VerifiedCounts};
use crate::view::{FileState, StoreProblem, StoreProgress, StoreReport, StoreSummary};
use fovea_core::count::count;

/// Time between two progress lines where there is no bar.
const PROGRESS_EVERY: Duration = Duration::from_secs(30);

/// Verifies the whole store and fails if a file is not as it was stored.
pub async fn verify(client: &Client, skip: SkipVerify, output: &Output) -> Result<(), Error> {
    if skip.checkpoints && skip.datasets && skip.weights {
        return Err(Error::Usage(
            "--skip-checkpoints, --skip-datasets and --skip-weights together leave nothing to verify"
                .into(),
        ));
    }
    let mut stream = client.verify_store(skip).await?;
    let mut progress = Progress::new(output);
    let mut counts = VerifiedCounts {
        what: "the coordinator's store".into(),
        of: 0,
        corrupt: 0,
        missing: 0,
        unreadable: 0,
        unlisted: 0,
    };
    let mut summary = None;
    while let Some(report) = stream.next().await? {
        match report {
            StoreReport::Progress(now) => progress.show(&now, Instant::now()),
            StoreReport::Problem(problem) => {
                output.record(&Record::VerifyProblem(&problem));
                progress.beside(|| output.lines(problem_lines(&problem)));
                match problem.state {
                    FileState::Ok => {}
                    FileState::Corrupt => counts.corrupt += 1,
                    FileState::Missing => counts.missing += 1,
                    FileState::Unreadable => counts.unreadable += 1,
                    FileState::Unlisted => counts.unlisted += 1,
                }
            }
            StoreReport::Summary(all) => summary = Some(all),
        }
    }
    progress.close();
    // A verification that broke off must not look like a clean one.
    let summary = summary.ok_or_else(|| {
        Error::Protocol("the stream of a verification ended without its summary".into())
    })?;
    output.record(&Record::VerifySummary(&summary));
    output.line(summary_line(&summary));
    if summary.problems == 0 {
        return Ok(());
    }
    Err(Error::Verification(counts))
}

/// Fetches a backup of the journal and prints what is in it.
pub async fn backup(
    client: &Client,
    target: &Path,
    overwrite: bool,
    output: &Output,
) -> Result<(), Error> {
    let bar = output.byte_bar(0, "fetching");
    let fetched = client
        .fetch_backup(target, overwrite, |received, total| {
            bar.set_length(total);
            bar.set_position(received);
        })
        .await;
    bar.finish_and_clear();
    let file = fetched?;
    output.record(&Record::Backup {
        path: target,
        file: &file,
    });
    output.line(format!(
        "{}: {}, {} under way, {}; {}, sha256 {} (verified)",
        target.display(),
        count(file.runs, "run", "runs"),
        file.live_runs,
        count(file.datasets, "dataset", "datasets"),
        bytes(file.bytes),
        file.sha256,
    ));
    output.remark("checkpoints, datasets and weights are not in it: back up their folders, too");
    Ok(())
}

fn problem_lines(problem: &StoreProblem) -> Vec<String> {
    let mut lines = vec![format!(
        "{} {}: {}",
        problem.state.as_str().to_uppercase(),
        problem.what,
        problem.problem
    )];
    if !problem.action.is_empty() {
        lines.push(format!("  to do: {}", problem.action));
    }
    lines
}

fn summary_line(summary: &StoreSummary) -> String {
    format!(
        "verified {}, {} and {}, {} read{}: {}",
        count(summary.checkpoints, "checkpoint", "checkpoints"),
        count(summary.packs, "pack", "packs"),
        count(summary.weights, "weights file", "weights files"),
        bytes(summary.read_bytes),
        match summary.objects {
            0 => String::new(),
            n => format!(
                ", {} looked up in the object store",
                count(n, "item", "items")
            ),
        },
        match summary.problems {
            0 => "no problems".into(),
            n => count(n, "problem", "problems"),
        }
    )
}

/// Progress: a bar in a terminal, else a line now and then.
struct Progress<'a> {
    output: &'a Output,
    bar: indicatif::ProgressBar,
    next_line: Instant,
}

impl<'a> Progress<'a> {
    fn new(output: &'a Output) -> Self {
        Self {
            output,
            bar: output.byte_bar(0, "verifying"),
            next_line: Instant::now() + PROGRESS_EVERY,
        }
    }

    fn show(&mut self, progress: &StoreProgress, now: Instant) {
        self.bar.set_length(progress.total_bytes);
        self.bar.set_position(progress.read_bytes);
        self.bar.set_message(progress.what.clone());
        if self.output.interactive() || now < self.next_line {
            return;
        }
        self.next_line = now + PROGRESS_EVERY;
        self.output.record(&Record::VerifyProgress(progress));
        self.output.remark(format!(
            "verifying: {} of {} read, now {}",
            bytes(progress.read_bytes),
            bytes(progress.total_bytes),
            progress.what
        ));
    }

    /// Prints without tearing the bar.
    fn beside(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    fn close(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_progress_is_a_line_every_30_seconds() {
        let output = Output::new(false);
        let mut progress = Progress::new(&output);
        let start = Instant::now();
        progress.next_line = start + PROGRESS_EVERY;
        let now = StoreProgress {
            read_bytes: 1,
            total_bytes: 2,
            what: "dataset d, pack 0".into(),
        };
        for (s, next) in [(1, 30), (29, 30), (30, 60), (59, 60), (75, 105)] {
            progress.show(&now, start + Duration::from_secs(s));
            assert_eq!(
                progress.next_line,
                start + Duration::from_secs(next),
                "{s} s"
            );
        }
    }
}
