//! The journal: what the coordinator has promised, on disk before it is acknowledged.
//!
//! ```text
//!  run actors, services ── Journal (a handle, cheap to clone)
//!        │ put_run, ...          │ run, runs_before, steps
//!        v                       v
//!   writes (bounded)        reads (bounded, one page each)
//!        └──────────┬────────────┘
//!             thread "journal": the only connection ──> journal.db, journal.db-wal
//!                   │
//!                   └──> answers, after the fsync of the commit that holds the write
//! ```
//!
//! An embedded SQLite database in write-ahead mode with `synchronous = FULL` and an exclusive lock.
//!
//! - A write is answered when it would survive a power failure.
//! - Writes are made in the order in which they were sent; all that wait share one commit.
//! - A read sees every write that was answered before it was asked.
//! - A full disk or an I/O error loses nothing: a write is refused at once, or waits until it succeeds
//!   ([`OnFull`]). Only a damaged file is fatal.
//! - The connection opens no file after [`Journal::open`], so running out of descriptors cannot stop it.
//! - Reads are made in pages of a few milliseconds between commits. A read of several pages (`steps`,
//!   `runs_before`) sees what is written between them.
//!
//! Modules: `wal` says whether a write-ahead log is whole, `log` whether it belongs to its database; `thread` owns the
//! connection, `snapshot` copies the database while it is used, `rows` has the statements, `scores` those of evaluated epochs, `groups` those of groups of runs, `convert` makes rows of runs and steps, `schema` the tables and migrations, `recover` reads what a start needs, `filesystem`
//! asks about the disk, `error` says what to do.

mod change;
mod convert;
mod error;
mod filesystem;
mod groups;
mod log;
mod recover;
mod rows;
mod schema;
mod scores;
mod snapshot;
mod thread;
mod version;
mod wal;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fovea_core::count::count;
use fovea_core::ids::DatasetName;
use fovea_core::ledger;
use fovea_core::run::{EpochScores, Run};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::info;

pub(crate) use change::RunChange;
use convert::{entry, parse, run_row, step_row};
pub use error::JournalError;
use filesystem::Place;
#[allow(unused_imports)]
pub(crate) use recover::{LiveRun, Recovered};
use rows::{Change, Page};
pub(crate) use snapshot::{Content, CopyError, Snapshot, inspect};
use thread::{Message, Read, Thread, Write};

/// Writes and reads that may wait for the thread; senders wait when there are more.
const WRITES: usize = 1024;
const READS: usize = 64;

/// Steps that are read at a time for their losses.
const LOSSES: usize = 2_000;

/// How long a write may wait for others to share its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Not at all: it is committed with what is there, as soon as the commit under way is done.
    Now,
    /// About 10 ms.
    Soon,
}

/// What becomes of a write while the disk is full or cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFull {
    /// It waits until it succeeds. [`Journal::blocked`] says why.
    Wait,
    /// It is refused at once, with an error that says what to do.
    Refuse,
}

/// How much was written so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stats {
    /// Transactions.
    pub commits: u64,
    /// Writes in them.
    pub writes: u64,
    /// Time that the transactions took, fsync included.
    pub commit_time: Duration,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    writes: AtomicU64,
    commit_micros: AtomicU64,
}

/// A handle of the journal. All clones share one thread, which ends when it is closed or the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    writes: mpsc::Sender<Message>,
    reads: mpsc::Sender<Read>,
    reason: watch::Receiver<Option<String>>,
    refusal: watch::Receiver<Option<JournalError>>,
    counters: Arc<Counters>,
}

impl Journal {
    /// Opens the journal at `path`, creates it where it is missing, brings an older one to this version, and
    /// starts the thread. Blocks while it reads; a migration can take as long as it takes to copy the file.
    ///
    /// # Errors
    /// The file is damaged, of another version, in use, or cannot be read; its folder is on a network file
    /// system and `allow_network` is false.
    pub(crate) fn open(
        path: &Path,
        allow_network: bool,
    ) -> Result<(Self, Recovered), JournalError> {
        let begun = std::time::Instant::now();
        filesystem::refuse_network(filesystem::folder_of(path), allow_network)?;
        let (db, log_begins) = schema::open(path)?;
        let recovered = recover::recover(&db, path)?;
        let place = Place::of(path)?;
        // For snapshots. It stays open as long as the connection: closing it would free SQLite's lock.
        let file = std::fs::File::open(path).map_err(JournalError::io("open", path))?;
        let (writes, for_writes) = mpsc::channel(WRITES);
        let (reads, for_reads) = mpsc::channel(READS);
        let (set_reason, reason) = watch::channel(None);
        let (set_refusal, refusal) = watch::channel(None);
        let counters = Arc::<Counters>::default();
        let start = JournalError::io("start the thread that serves", path);
        // Timers only: no descriptor is needed.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return Err(start(error)),
        };
        let shared = (for_writes, for_reads);
        let (files, counted) = ((path.to_owned(), place, file), counters.clone());
        info!(
            path = %path.display(),
            "journal.opened: {} in {:.3} s; {}, {} ended",
            path.display(),
            begun.elapsed().as_secs_f64(),
            count(recovered.live.len(), "run goes on", "runs go on"),
            recovered.terminal_runs
        );
        let body = move || {
            // Made here, because its timers count from within the runtime.
            runtime.block_on(async {
                Thread::new(
                    (db, log_begins),
                    files,
                    shared,
                    set_reason,
                    set_refusal,
                    counted,
                )
                .serve()
                .await;
            });
        };
        if let Err(error) = std::thread::Builder::new()
            .name("journal".into())
            .spawn(body)
        {
            return Err(start(error));
        }
        let journal = Self {
            writes,
            reads,
            reason,
            refusal,
            counters,
        };
        Ok((journal, recovered))
    }

    /// One transaction: cuts the ledger and the scores, appends steps (a step that is there is replaced) and scores, and
    /// writes the run. Returns the ledger's head: the last step up to which it has no gap.
    ///
    /// Once it was polled for the first time the write may be made even if the future is dropped.
    ///
    /// # Errors
    /// The run was removed; a step's loss is not a number; with [`OnFull::Refuse`], the disk is full or cannot be
    /// written; the file is damaged; the journal is closed.
    pub(crate) async fn put_run(
        &self,
        change: RunChange<'_>,
        urgency: Urgency,
        on_full: OnFull,
    ) -> Result<u64, JournalError> {
        let RunChange {
            number,
            run,
            rewind,
            steps,
            scores,
            train_samples,
            head,
        } = change;
        let row = run.map(|run| run_row(number, run)).transpose()?;
        let steps = steps
            .iter()
            .map(|entry| step_row(number, entry, train_samples))
            .collect::<Result<_, _>>()?;
        let change = Change::Run {
            number,
            row,
            rewind,
            steps,
            scores: scores.map(|scores| Box::new(scores.into())),
            base: head,
        };
        self.write(change, urgency, on_full).await
    }

    /// Removes a run. Its ledger is out of reach when this returns; its rows are deleted in small pieces
    /// afterwards, also by the next coordinator. Its number is never used again. A run that is not there is
    /// removed already.
    ///
    /// # Errors
    /// As for [`Journal::put_run`] with [`OnFull::Refuse`].
    pub(crate) async fn remove_run(&self, number: u64) -> Result<(), JournalError> {
        self.write_now(Change::RemoveRun { number }).await
    }

    /// Writes a dataset's digest, new or instead of what it had.
    ///
    /// # Errors
    /// As for [`Journal::put_run`] with [`OnFull::Refuse`].
    pub(crate) async fn put_dataset(
        &self,
        name: &DatasetName,
        digest: &str,
    ) -> Result<(), JournalError> {
        self.write_now(Change::PutDataset {
            name: name.as_str().into(),
            digest: digest.into(),
        })
        .await
    }

    /// Removes a dataset, if it is there.
    ///
    /// # Errors
    /// As for [`Journal::put_run`] with [`OnFull::Refuse`].
    pub(crate) async fn remove_dataset(&self, name: &DatasetName) -> Result<(), JournalError> {
        self.write_now(Change::RemoveDataset {
            name: name.as_str().into(),
        })
        .await
    }

    /// Writes the identity of a store of files ("checkpoints", "datasets").
    ///
    /// # Errors
    /// As for [`Journal::put_run`] with [`OnFull::Refuse`].
    pub(crate) async fn put_store(&self, kind: &str, id: &str) -> Result<(), JournalError> {
        self.write_now(Change::PutStore {
            kind: kind.into(),
            id: id.into(),
        })
        .await
    }

    /// Writes who may do what, as JSON: a token or a denial, by `kind` and `id`.
    ///
    /// # Errors
    /// As for [`Journal::put_run`] with [`OnFull::Refuse`].
    pub(crate) async fn put_access(
        &self,
        kind: &'static str,
        id: &str,
        entry: String,
    ) -> Result<(), JournalError> {
        let id = id.to_owned();
        self.write_now(Change::PutAccess { kind, id, entry }).await
    }

    /// Removes what [`Journal::put_access`] has written, if it is there.
    ///
    /// # Errors
    /// As for [`Journal::put_run`] with [`OnFull::Refuse`].
    pub(crate) async fn remove_access(
        &self,
        kind: &'static str,
        id: &str,
    ) -> Result<(), JournalError> {
        let id = id.to_owned();
        self.write_now(Change::RemoveAccess { kind, id }).await
    }

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

    /// Why writes wait, for people; None while they do not.
    pub(crate) fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.reason.clone()
    }

    /// How much was written since the start.
    pub(crate) fn stats(&self) -> Stats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            commits: of(&self.counters.commits),
            writes: of(&self.counters.writes),
            commit_time: Duration::from_micros(of(&self.counters.commit_micros)),
        }
    }

    /// Writes what was sent before, merges the log into the database, and ends the thread. Writes that the disk
    /// still refuses are tried once more and then answered with the reason. Later calls of other handles get
    /// [`JournalError::Closed`].
    ///
    /// # Errors
    /// A write was refused; the file is damaged, or is not at its place any more, so that a start would not find it.
    pub(crate) async fn close(self) -> Result<(), JournalError> {
        let (done, closed) = oneshot::channel();
        if self.writes.send(Message::Close(done)).await.is_err() {
            // The thread has ended, which is what is wanted.
            return Ok(());
        }
        closed.await.unwrap_or(Ok(()))
    }

    async fn write_now(&self, change: Change) -> Result<(), JournalError> {
        self.write(change, Urgency::Now, OnFull::Refuse).await?;
        Ok(())
    }

    async fn write(
        &self,
        change: Change,
        urgency: Urgency,
        on_full: OnFull,
    ) -> Result<u64, JournalError> {
        // Here and not by the thread alone: while it is blocked its queue may be full.
        let refusal = self.refusal.borrow().clone();
        if let Some(refusal) = refusal
            && (on_full == OnFull::Refuse || refusal.is_fatal())
        {
            return Err(refusal);
        }
        let (done, answer) = oneshot::channel();
        let write = Write {
            bytes: change.bytes(),
            change,
            urgency,
            on_full,
            arrived: Instant::now(),
            done,
        };
        self.writes
            .send(Message::Write(write))
            .await
            .map_err(|_| JournalError::Closed)?;
        answer.await.unwrap_or(Err(JournalError::Closed))
    }

    async fn read<T>(
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
