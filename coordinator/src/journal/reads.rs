//! Reads: of runs, their ledgers and their scores, and of the journal as a whole.

use fovea_core::ledger;
use fovea_core::run::{EpochScores, Run};
use tokio::sync::oneshot;

use super::convert::{entry, parse};
use super::recover::LiveRun;
use super::rows::Page;
use super::snapshot::Snapshot;
use super::thread::Read;
use super::{Journal, JournalError};

/// Steps that are read at a time for their losses.
const LOSSES: usize = 2_000;

impl Journal {
    /// A run as it was written last, ended or not.
    ///
    /// # Errors
    /// It cannot be read, or the journal is closed.
    pub(crate) async fn run(&self, number: u64) -> Result<Option<Run>, JournalError> {
        let json = self.read(|answer| Read::Run { number, answer }).await?;
        json.map(|json| parse(number, &json)).transpose()
    }

    /// An ended run as its actor needs it, if it is asked for something again.
    ///
    /// # Errors
    /// It cannot be read, or the journal is closed.
    pub(crate) async fn live_run(&self, number: u64) -> Result<Option<LiveRun>, JournalError> {
        let Some(run) = self.run(number).await? else {
            return Ok(None);
        };
        let head = self.read(|answer| Read::Head { number, answer }).await?;
        let epoch = u64::from(run.next_epoch()).saturating_mul(run.extent.steps_per_epoch);
        let (mut losses, mut from) = (Vec::new(), epoch + 1);
        loop {
            let (entries, _) = self
                .steps(number, run.extent.train_samples, from, LOSSES)
                .await?;
            let Some(last) = entries.last() else { break };
            from = last.step + 1;
            let loss = |e: &ledger::Entry| (e.step, e.loss, e.samples.len() as u32);
            losses.extend(entries.iter().map(loss));
        }
        Ok(Some(LiveRun {
            run,
            ledger_head: head.unwrap_or(0),
            losses,
        }))
    }

    /// Runs with numbers below `before`, newest first, of all phases, at most `limit`; fewer only when there are
    /// no more.
    ///
    /// # Errors
    /// One cannot be read, or the journal is closed.
    pub(crate) async fn runs_before(
        &self,
        before: u64,
        limit: usize,
    ) -> Result<Vec<Run>, JournalError> {
        let mut runs: Vec<Run> = Vec::new();
        loop {
            let before = runs.last().map_or(before, |run| run.number);
            let limit = limit - runs.len();
            let Page { rows, more } = self
                .read(|answer| Read::RunsBefore {
                    before,
                    limit,
                    answer,
                })
                .await?;
            for (number, json) in rows {
                runs.push(parse(number, &json)?);
            }
            if !more {
                return Ok(runs);
            }
        }
    }

    /// A page of a run's ledger: steps from `from` on, in order, at most `limit`, fewer only when there are no
    /// more; and the bytes that their samples take in the journal. Memory is that of the page.
    ///
    /// # Errors
    /// It cannot be read, or the journal is closed.
    pub(crate) async fn steps(
        &self,
        number: u64,
        train_samples: u64,
        from: u64,
        limit: usize,
    ) -> Result<(Vec<ledger::Entry>, u64), JournalError> {
        let (mut entries, mut bytes) = (Vec::<ledger::Entry>::new(), 0);
        loop {
            let from = entries.last().map_or(from, |entry| entry.step + 1);
            let limit = limit - entries.len();
            let Page { rows, more } = self
                .read(|answer| Read::Steps {
                    number,
                    from,
                    limit,
                    answer,
                })
                .await?;
            for row in rows {
                bytes += row.samples.len() as u64;
                entries.push(entry(number, &row, train_samples)?);
            }
            if !more {
                return Ok((entries, bytes));
            }
        }
    }

    /// Mean training losses of a run's steps from `from` on, in order, at most `limit`, fewer only when there are no more: step
    /// and nats.
    ///
    /// # Errors
    /// They cannot be read, or the journal is closed.
    pub(crate) async fn losses(
        &self,
        number: u64,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, f64)>, JournalError> {
        let mut losses: Vec<(u64, f64)> = Vec::new();
        loop {
            let from = losses.last().map_or(from, |(step, _)| step + 1);
            let limit = limit - losses.len();
            let Page { rows, more } = self
                .read(|answer| Read::Losses {
                    number,
                    from,
                    limit,
                    answer,
                })
                .await?;
            losses.extend(rows);
            if !more {
                return Ok(losses);
            }
        }
    }

    /// Scores of a run's epoch that ended at `step`, if there are any.
    ///
    /// # Errors
    /// They cannot be read, or the journal is closed.
    pub(crate) async fn scores(
        &self,
        number: u64,
        step: u64,
    ) -> Result<Option<EpochScores>, JournalError> {
        let row = self
            .read(|answer| Read::Scores {
                number,
                step,
                answer,
            })
            .await?;
        Ok(row.map(Into::into))
    }

    /// The journal as it is now, for a copy of it: with every write that was answered before. The log is not merged as long as
    /// the snapshot lives.
    ///
    /// # Errors
    /// There is another snapshot; the log cannot be merged; the journal is closed.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, JournalError> {
        self.read(Read::Snapshot).await
    }

    pub(super) async fn read<T>(
        &self,
        read: impl FnOnce(oneshot::Sender<Result<T, JournalError>>) -> Read,
    ) -> Result<T, JournalError> {
        let (to, answer) = oneshot::channel();
        self.reads
            .send(read(to))
            .await
            .map_err(|_| JournalError::Closed)?;
        answer.await.unwrap_or(Err(JournalError::Closed))
    }
}
