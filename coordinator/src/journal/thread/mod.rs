//! The thread that owns the connection: group commit, retries, pages of reads, and tidying.
//!
//! ```text
//!            ┌───────────────────────── one turn ─────────────────────────┐
//!  writes ──>│ take all that wait ─> due? commit all, fsync, acknowledge  │
//!  reads  ──>│                       serve one page of one read           │
//!            │                       else merge the log, or sweep a piece │
//!            └─────────────────── else sleep until something is due ──────┘
//!
//!  commit ──ok──────────────> answer all                                  journal.unblocked, if it was blocked
//!         ──the write's own─> answer that one with its error; the others again
//!         ──environment────-> answer those that refuse to wait; the others again after 100 ms ... 2 s
//!         ──damage─────────-> answer all with it, now and for ever; the same if a read, a merge or a sweep meets it
//! ```

mod commit;
mod tidy;

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::filesystem::Place;
use super::groups;
use super::rows::{self, Change, LossRow, Page, StepRow};
use super::scores::{self, ScoresRow};
use super::snapshot::{Pin, Snapshot};
use super::{Counters, JournalError, OnFull, Urgency, schema};

/// How long a write that is not urgent waits for others to share its commit.
const SOON: Duration = Duration::from_millis(10);
/// Writes that the thread holds, at most, and about their bytes. Beyond, they wait in the channel, and beyond
/// that the writers wait.
const HELD_WRITES: usize = 4096;
const HELD_BYTES: u64 = 32 << 20;
/// How long a page of a read may take. A commit waits for one page at most.
const PAGE: Duration = Duration::from_millis(3);
/// The log is merged into the database when it has about so many pages of 4 KiB.
const MERGE_PAGES: u64 = 1000;

/// A change, and who waits for it.
#[derive(Debug)]
pub(super) struct Write {
    pub change: Change,
    pub bytes: u64,
    pub urgency: Urgency,
    pub on_full: OnFull,
    pub arrived: Instant,
    pub done: oneshot::Sender<Result<u64, JournalError>>,
}

/// What comes to the thread in order.
#[derive(Debug)]
pub(super) enum Message {
    Write(Write),
    /// Write what waits, merge the log, end.
    Close(Answer<()>),
}

type Answer<T> = oneshot::Sender<Result<T, JournalError>>;

/// One page of a read.
pub(super) enum Read {
    Run {
        number: u64,
        answer: Answer<Option<String>>,
    },
    /// The ledger's head.
    Head {
        number: u64,
        answer: Answer<Option<u64>>,
    },
    RunsBefore {
        before: u64,
        limit: usize,
        answer: Answer<Page<(u64, String)>>,
    },
    Steps {
        number: u64,
        from: u64,
        limit: usize,
        answer: Answer<Page<StepRow>>,
    },
    /// Number, JSON and ledger's head of runs, together.
    Overview {
        before: u64,
        limit: usize,
        answer: Answer<Page<(u64, String, u64)>>,
    },
    /// Steps without their samples.
    Losses {
        number: u64,
        from: u64,
        limit: usize,
        answer: Answer<Page<LossRow>>,
    },
    Scores {
        number: u64,
        step: u64,
        answer: Answer<Option<ScoresRow>>,
    },
    Group {
        number: u64,
        answer: Answer<Option<String>>,
    },
    GroupsBefore {
        before: u64,
        limit: usize,
        answer: Answer<Vec<(u64, String)>>,
    },
    Snapshot(Answer<Snapshot>),
    /// Lets a test at the connection, to injure it.
    #[cfg(test)]
    Test(Box<dyn FnOnce(&Connection) + Send>),
}

/// Why writes wait.
#[derive(Debug)]
struct Blocked {
    since: Instant,
    retry_at: Instant,
    pause: Duration,
}

/// The state of the thread.
pub(super) struct Thread {
    pub db: Connection,
    pub path: PathBuf,
    place: Place,
    /// The open database, after `db`: closing it first would free SQLite's lock.
    file: Arc<File>,
    /// A snapshot that somebody copies.
    pin: Weak<Pin>,
    pub writes: mpsc::Receiver<Message>,
    pub reads: mpsc::Receiver<Read>,
    /// Why writes wait, for people and for those that would rather be refused. One value, so that nobody can see the one
    /// without the other.
    pub refusal: watch::Sender<Option<JournalError>>,
    pub counters: Arc<Counters>,
    held: VecDeque<Write>,
    held_bytes: u64,
    urgent: usize,
    blocked: Option<Blocked>,
    fatal: Option<JournalError>,
    closing: Option<Answer<()>>,
    /// All handles are gone.
    abandoned: bool,
    /// About the pages in the log since it was merged.
    log_pages: u64,
    merge_failed: bool,
    sweep_failed: bool,
    /// The log was merged: what is written next begins a new one.
    log_begins: bool,
    sweeping: bool,
    tidy_at: Instant,
}

impl Thread {
    pub(super) fn new(
        (db, log_begins): (Connection, bool),
        (path, place, file): (PathBuf, Place, File),
        (writes, reads): (mpsc::Receiver<Message>, mpsc::Receiver<Read>),
        refusal: watch::Sender<Option<JournalError>>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            db,
            path,
            place,
            file: Arc::new(file),
            pin: Weak::new(),
            writes,
            reads,
            refusal,
            counters,
            held: VecDeque::new(),
            held_bytes: 0,
            urgent: 0,
            blocked: None,
            fatal: None,
            closing: None,
            abandoned: false,
            log_pages: 0,
            merge_failed: false,
            sweep_failed: false,
            log_begins,
            // Another coordinator may have been stopped before it was done.
            sweeping: true,
            tidy_at: Instant::now(),
        }
    }

    /// Serves until it is closed or all handles are gone.
    pub(super) async fn serve(mut self) {
        while self.closing.is_none() && !self.abandoned {
            self.take_waiting();
            if self.due_at().is_some_and(|at| at <= Instant::now()) {
                self.commit();
            }
            if let Ok(read) = self.reads.try_recv() {
                self.read(read);
                continue;
            }
            if self.closing.is_some() || self.due_at().is_some_and(|at| at <= Instant::now()) {
                continue;
            }
            if self.writes.is_empty() && self.tidy() {
                continue;
            }
            self.sleep().await;
        }
        self.end();
    }

    async fn sleep(&mut self) {
        let mut wake = self.due_at();
        if self.may_tidy() && (self.sweeping || self.log_pages >= MERGE_PAGES) {
            wake = Some(wake.map_or(self.tidy_at, |at| at.min(self.tidy_at)));
        }
        let room = self.has_room();
        let timer = async {
            match wake {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            message = self.writes.recv(), if room => match message {
                Some(message) => self.take(message),
                None => self.abandoned = true,
            },
            // Both channels have the same senders; that of the writes tells when they are gone.
            Some(read) = self.reads.recv() => self.read(read),
            () = timer => {}
        }
    }

    fn has_room(&self) -> bool {
        self.held.len() < HELD_WRITES && self.held_bytes < HELD_BYTES
    }

    fn take_waiting(&mut self) {
        while self.has_room() && self.closing.is_none() {
            match self.writes.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, message: Message) {
        let write = match message {
            Message::Write(write) => write,
            Message::Close(done) => {
                self.closing = Some(done);
                return;
            }
        };
        if let Some(fatal) = &self.fatal {
            answer(write.done, Err(fatal.clone()));
        } else if let (OnFull::Refuse, Some(refusal)) = (write.on_full, &*self.refusal.borrow()) {
            answer(write.done, Err(refusal.clone()));
        } else {
            self.hold(write);
        }
    }

    fn hold(&mut self, write: Write) {
        self.held_bytes += write.bytes;
        self.urgent += usize::from(write.urgency == Urgency::Now);
        self.held.push_back(write);
    }

    /// Removes a held write. The order of the others stays.
    fn release(&mut self, index: usize) -> Option<Write> {
        let write = self.held.remove(index)?;
        self.held_bytes -= write.bytes;
        self.urgent -= usize::from(write.urgency == Urgency::Now);
        Some(write)
    }

    /// When the held writes are to be committed.
    fn due_at(&self) -> Option<Instant> {
        let oldest = self.held.front()?.arrived;
        Some(match &self.blocked {
            Some(blocked) => blocked.retry_at,
            None if self.urgent > 0 || !self.has_room() => oldest,
            None => oldest + SOON,
        })
    }

    fn read(&mut self, read: Read) {
        let db = &self.db;
        match read {
            Read::Run { number, answer: to } => {
                let found = rows::run(db, number);
                self.found(to, found);
            }
            Read::Head { number, answer: to } => {
                let found = rows::head(db, number);
                self.found(to, found);
            }
            Read::RunsBefore {
                before,
                limit,
                answer: to,
            } => {
                let found = rows::runs_before(db, before, limit, PAGE);
                self.found(to, found);
            }
            Read::Steps {
                number,
                from,
                limit,
                answer: to,
            } => {
                let found = rows::steps(db, number, from, limit, PAGE);
                self.found(to, found);
            }
            Read::Overview {
                before,
                limit,
                answer: to,
            } => {
                let found = rows::overview(db, before, limit, PAGE);
                self.found(to, found);
            }
            Read::Losses {
                number,
                from,
                limit,
                answer: to,
            } => {
                let found = rows::losses(db, number, from, limit, PAGE);
                self.found(to, found);
            }
            Read::Scores {
                number,
                step,
                answer: to,
            } => {
                let found = scores::get(db, number, step);
                self.found(to, found);
            }
            Read::Group { number, answer: to } => {
                let found = groups::get(db, number);
                self.found(to, found);
            }
            Read::GroupsBefore {
                before,
                limit,
                answer: to,
            } => {
                let found = groups::before(db, before, limit);
                self.found(to, found);
            }
            Read::Snapshot(to) => answer(to, self.snapshot()),
            #[cfg(test)]
            Read::Test(act) => act(db),
        }
    }

    /// Answers a read. What would be written after damage was read could not be trusted: nobody hears of the damage before
    /// writes are refused.
    fn found<T>(&mut self, to: Answer<T>, found: rusqlite::Result<T>) {
        let found = found.map_err(|error| self.failed("read", 0, &error));
        answer(to, found);
    }

    /// What an error of SQLite means for who has met it. Damage ends the writes, whoever meets it.
    fn failed(
        &mut self,
        action: &'static str,
        pending: u64,
        error: &rusqlite::Error,
    ) -> JournalError {
        let failed = JournalError::from_sqlite(action, &self.path, pending, error);
        if failed.is_fatal() {
            self.fail(failed.clone());
        }
        failed
    }

    /// Writes what is held, tries no more than once, and closes the file.
    fn end(mut self) {
        self.writes.close();
        while let Ok(message) = self.writes.try_recv() {
            match message {
                // After the request to close.
                Message::Write(write) => answer(write.done, Err(JournalError::Closed)),
                Message::Close(done) => answer(done, Ok(())),
            }
        }
        while !self.held.is_empty() && self.fatal.is_none() {
            self.commit();
            if self.blocked.is_some() {
                break;
            }
        }
        let reason = self.refusal.borrow().clone();
        let mut outcome = self.fatal.clone().map_or(Ok(()), Err);
        while let Some(write) = self.release(0) {
            let error = reason.clone().unwrap_or(JournalError::Closed);
            outcome = Err(error.clone());
            answer(write.done, Err(error));
        }
        if let Some(pin) = self.pin.upgrade() {
            pin.break_off();
        }
        if self.place.check().is_err() {
            // By its name, which is another's now.
            schema::keep_log(&self.db);
        }
        if self.fatal.is_none() {
            // What stays in the log is found by the next coordinator.
            if let Err(error) = schema::merge_log(&self.db) {
                warn!(
                    "journal.merge_failed: nothing is lost, the next start reads the write-ahead log: {error}"
                );
            }
        }
        // What was in the log is in the database by now, so the log is not missed.
        let outcome = outcome.and_then(|()| self.place.check_database());
        let closing = self.closing.take();
        drop(self);
        if let Some(done) = closing {
            answer(done, outcome);
        }
    }
}

/// Whoever asked may have gone away meanwhile; what was written stays written.
fn answer<T>(to: oneshot::Sender<T>, what: T) {
    let _ = to.send(what);
}

/// Ends a transaction that an error has left open because it could not be rolled back either.
fn roll_back(db: &Connection) -> rusqlite::Result<()> {
    if db.is_autocommit() {
        return Ok(());
    }
    db.execute_batch("ROLLBACK")
}
