//! Following a run: with a bar, as lines, or as JSON.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::format::{split_event, without_event};
use super::narrate::{Narrator, scored_line, summary};
use super::output::Output;
use super::record::Record;
use crate::client::Client;
use crate::error::Error;
use crate::local::Signals;
use crate::view::{Phase, RunInfo};
use crate::watch::{Cause, Patience, Update, Watcher};

/// How often it is said how far an evaluation is, which takes no steps that would tell.
const SCORED_EVERY: Duration = Duration::from_secs(5);
/// The same where it goes into a log.
const SCORED_EVERY_IN_LOGS: Duration = Duration::from_secs(30);

/// Follows a run until it ends or is paused, and fails if the run did.
pub async fn follow(
    client: &Client,
    run_id: &str,
    patience_s: u64,
    output: &Output,
) -> Result<(), Error> {
    let run = follow_to_end(client, run_id, patience_s, output).await?;
    output.record(&Record::result(&run));
    verdict(&run)?;
    output.lines(summary(&run));
    Ok(())
}

/// Shows a run until it ends or is paused, and returns it, however it ended.
pub async fn follow_to_end(
    client: &Client,
    run_id: &str,
    patience_s: u64,
    output: &Output,
) -> Result<RunInfo, Error> {
    let mut signals = Signals::listen()?;
    follow_listening(client, run_id, patience_s, &mut signals, output).await
}

/// The same for who listens for signals already: the next one ends it.
pub async fn follow_listening(
    client: &Client,
    run_id: &str,
    patience_s: u64,
    signals: &mut Signals,
    output: &Output,
) -> Result<RunInfo, Error> {
    let patience = Patience {
        give_up: Duration::from_secs(patience_s),
        ..Patience::default()
    };
    let interrupted = || {
        Error::Interrupted(format!(
            "run {run_id} continues; `fovea watch {run_id}` follows it again, `fovea cancel {run_id}` stops it"
        ))
    };
    let mut watcher = tokio::select! {
        watcher = Watcher::new(client, run_id, patience) => watcher?,
        () = signals.next() => return Err(interrupted()),
    };
    let mut screen = Screen::new(run_id, *output);
    let every = match output.interactive() {
        true => SCORED_EVERY,
        false => SCORED_EVERY_IN_LOGS,
    };
    let mut look = tokio::time::interval(every);
    loop {
        tokio::select! {
            run = screen.follow(&mut watcher) => return run,
            _ = look.tick(), if screen.narrator.is_evaluation() => {
                // What is wrong with the connection the watcher says.
                if let Ok(run) = client.run(run_id).await {
                    screen.say_scored(&run);
                }
            }
            () = signals.next() => {
                screen.close();
                return Err(interrupted());
            }
        }
    }
}

/// The error of a run that failed or was cancelled.
pub fn verdict(run: &RunInfo) -> Result<(), Error> {
    match run.phase {
        Phase::Failed => Err(Error::RunFailed {
            run: run.id.clone(),
            reason: without_event(&run.reason).to_owned(),
        }),
        Phase::Cancelled => Err(Error::RunCancelled {
            run: run.id.clone(),
        }),
        Phase::Completed
        | Phase::Paused
        | Phase::Queued
        | Phase::Forming
        | Phase::Running
        | Phase::Finishing => Ok(()),
    }
}

/// Shows the updates of one run.
pub struct Screen {
    run_id: String,
    output: Output,
    narrator: Narrator,
    bar: Option<ProgressBar>,
    /// Scored images of an evaluation that were said last.
    scored: u64,
}

impl Screen {
    pub fn new(run_id: &str, output: Output) -> Self {
        let bar = output.interactive().then(|| {
            let style = ProgressStyle::with_template("{spinner} {wide_bar} {pos}/{len}  {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("━╸─");
            ProgressBar::new(0).with_style(style)
        });
        Self {
            run_id: run_id.to_owned(),
            output,
            narrator: Narrator::new(bar.is_none()),
            bar,
            scored: 0,
        }
    }

    /// Shows updates until the run has ended; returns it. May be dropped and called again.
    pub async fn follow(&mut self, watcher: &mut Watcher) -> Result<RunInfo, Error> {
        while let Some(update) = watcher.next().await? {
            self.show(&update);
        }
        self.close();
        self.narrator
            .run()
            .cloned()
            .ok_or_else(|| Error::Protocol("the stream of a watch lacks the run".into()))
    }

    /// Prints pending lines and removes the bar.
    pub fn close(&mut self) {
        let lines = self.narrator.flush();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.output.lines(lines);
    }

    /// Prints a remark beside the run, without tearing the bar.
    pub fn remark(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.remark(text)),
            None => self.output.remark(text),
        }
    }

    /// Says how many images an evaluation has scored, if that are more than before.
    fn say_scored(&mut self, run: &RunInfo) {
        if run.scored > self.scored {
            self.scored = run.scored;
            self.remark(&scored_line(run));
        }
    }

    fn show(&mut self, update: &Update) {
        let run = self.run_id.as_str();
        self.output.record(&match update {
            Update::Run(info) => Record::Run(info),
            Update::Step(report) => Record::Step { run, report },
            Update::Epoch(result) => Record::Epoch { run, result },
            Update::Checkpoint(info) => Record::Checkpoint {
                run,
                info,
                path: None,
                place: None,
            },
            Update::Note(text) => Record::Note {
                run,
                event: split_event(text).0,
                text,
            },
            Update::Reconnecting {
                cause,
                reason,
                attempt,
                wait,
            } => Record::Reconnecting {
                run,
                cause: match cause {
                    Cause::Away => "away",
                    Cause::Limit => "limit",
                },
                reason,
                attempt: *attempt,
                wait_ms: wait.as_millis() as u64,
            },
        });
        let lines = self.narrator.on(update, Instant::now());
        let Some(bar) = &self.bar else {
            self.output.lines(lines);
            return;
        };
        if !lines.is_empty() {
            bar.suspend(|| self.output.lines(lines));
        }
        let (position, total, text) = self.narrator.bar();
        bar.set_length(total);
        bar.set_position(position);
        bar.set_message(text);
        // Only from the first update on: a bar without a length looks full.
        if matches!(update, Update::Run(_)) {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
