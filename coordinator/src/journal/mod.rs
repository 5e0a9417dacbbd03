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
//!   ([`OnFull`]). Only a damaged file is fatal, whether a write, a read or the thread's tidying meets the damage: nothing
//!   is written any more, and [`Journal::damaged`] says so.
//! - The connection opens no file after [`Journal::open`], so running out of descriptors cannot stop it.
//! - Reads are made in pages of a few milliseconds between commits. A read of several pages (`steps`,
//!   `runs_before`) sees what is written between them.
//!
//! Modules: `wal` says whether a write-ahead log is whole, `log` whether it belongs to its database; `thread` owns the connection,
//! `snapshot` copies the database while it is used. Of the handle's calls, this file has opening, closing and the writes of runs,
//! `names` those of datasets, stores and access, `reads` the reads, `groups` and `scores` those of groups and evaluated epochs, each
//! with its statements; `rows` has the other statements, `convert` makes rows of runs and steps. `schema` has the tables and
//! migrations, `recover` reads what a start needs, `filesystem` asks about the disk, `error` says what to do.

mod change;
mod convert;
mod error;
mod filesystem;
mod groups;
mod log;
mod names;
mod reads;
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
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::info;

pub(crate) use change::RunChange;
use convert::{run_row, step_row};
pub use error::JournalError;
use filesystem::Place;
#[allow(unused_imports)]
pub(crate) use recover::{LiveRun, Recovered};
use rows::Change;
pub(crate) use rows::LossRow;
pub(crate) use snapshot::{Content, CopyError, Snapshot, inspect};
use thread::{Message, Read, Thread, Write};

/// Writes and reads that may wait for the thread; senders wait when there are more.
const WRITES: usize = 1024;
const READS: usize = 64;

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
                Thread::new((db, log_begins), files, shared, set_refusal, counted)
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

    /// Why writes wait or are refused; None while they do not.
    pub(crate) fn blocked(&self) -> watch::Receiver<Option<JournalError>> {
        self.refusal.clone()
    }

    /// Waits until the file turns out to be damaged. From then on nothing is written, so the coordinator must stop.
    pub(crate) async fn damaged(&self) -> JournalError {
        let mut refusal = self.refusal.clone();
        let is_fatal = |error: &JournalError| error.is_fatal();
        // An error: the journal was closed, and what is wrong with it is the answer to that.
        if let Ok(found) = refusal.wait_for(|r| r.as_ref().is_some_and(is_fatal)).await
            && let Some(error) = found.clone()
        {
            return error;
        }
        std::future::pending().await
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
}
