//! The owner's task: one message at a time, then a synchronous turn.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fovea_core::ids::{DatasetName, RunId};
use fovea_core::ledger;
use fovea_core::run::{Event, Run};
use tokio::runtime::RuntimeFlavor;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::gathering::Gathering;
use super::workers::Session;
use super::{GatheringKey, Handle, Message, RunEvent, SessionId};
use crate::checkpoints;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::datasets::HeldDataset;
use crate::legacy_journal::{Journal, JournalError};

/// Messages that may wait for the owner; senders wait when there are more.
const INBOX: usize = 256;

/// How often runs under way look at the time, milliseconds.
const TICK_MS: u64 = 250;

/// Events that a watcher may lag behind before it is given a fresh snapshot.
pub(super) const WATCH_BACKLOG: usize = 256;

/// Why the coordinator cannot go on. It stops rather than act on what is not on disk.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No randomness for the workers' mesh key.
    #[error("cannot read random bytes: {0}")]
    Random(std::io::Error),
}

/// A run and those who follow it.
#[derive(Debug)]
pub(super) struct Entry {
    pub run: Run,
    pub events: broadcast::Sender<RunEvent>,
    /// Since when it could start, on the owner's clock.
    pub startable_since: Option<u64>,
    /// Why it waits; logged when it changes.
    pub waiting: Option<String>,
    /// Steps that are not in the journal's ledger yet.
    pub unwritten: BTreeMap<u64, ledger::Entry>,
    /// The ledger has no gap up to this step.
    pub ledger_head: u64,
    /// When the run was last told that time has passed.
    pub ticked: u64,
}

/// All state, with one owner.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(super) config: Arc<Config>,
    pub(super) dir: Arc<DataDir>,
    pub(super) journal: Journal,
    pub(super) runs: BTreeMap<u64, Entry>,
    pub(super) next_run: u64,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    pub(super) next_session: u64,
    /// Sessions that could not be told something: to be ended in this turn.
    pub(super) failing: Vec<(SessionId, String)>,
    pub(super) datasets: BTreeMap<DatasetName, Arc<HeldDataset>>,
    pub(super) gatherings: BTreeMap<GatheringKey, Gathering>,
    /// Work that the owner started and that answers with a message.
    pub(super) tasks: TaskTracker,
    /// Weak, so that the owner ends when nobody else can reach it.
    pub(super) inbox: mpsc::WeakSender<Message>,
    pub(super) draining: Option<Vec<oneshot::Sender<()>>>,
    /// When steps must be written into the ledger at the latest.
    pub(super) write_at: Option<u64>,
    started: Instant,
}

impl Owner {
    /// Reads the journal and takes up what it says.
    pub(crate) fn recover(
        config: Arc<Config>,
        dir: Arc<DataDir>,
        tasks: TaskTracker,
    ) -> Result<(Self, Handle, mpsc::Receiver<Message>), OwnerError> {
        let journal = Journal::open(&dir.journal())?;
        let (sender, receiver) = mpsc::channel(INBOX);
        let mut owner = Self {
            next_run: journal.next_run_number()?,
            config,
            dir,
            journal,
            runs: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_session: 1,
            failing: Vec::new(),
            datasets: BTreeMap::new(),
            gatherings: BTreeMap::new(),
            tasks,
            inbox: sender.downgrade(),
            draining: None,
            write_at: None,
            started: Instant::now(),
        };
        owner.recover_datasets()?;
        for run in owner.journal.runs()? {
            owner.recover_run(run)?;
        }
        Ok((owner, Handle { inbox: sender }, receiver))
    }

    fn recover_run(&mut self, written: Run) -> Result<(), OwnerError> {
        let folder = self.run_folder(&written.id);
        let number = written.number;
        let head = self.journal.ledger_head(number, 0)?;
        let from = u64::from(written.next_epoch()) * written.extent.steps_per_epoch + 1;
        let (entries, _) = self.journal.steps(&written, from)?;
        let mut run = written.recovered(self.now());
        run.restore_losses(
            entries
                .iter()
                .map(|e| (e.step, e.loss, e.samples.len() as u32)),
        );
        match checkpoints::sweep(&folder, &run.checkpoints) {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => {
                info!(run_id = %run.id, files = removed.len(), "removed what no journal lists")
            }
            Err(error) => warn!(run_id = %run.id, %error, "cannot tidy the run's folder"),
        }
        let bad: Vec<_> = run
            .checkpoints
            .iter()
            .filter_map(|info| {
                let path = checkpoints::path_for(&folder, info.step, info.generation);
                // Digests are verified when a file is read; a look at its size is cheap enough to be made
                // here.
                let problem = match std::fs::metadata(&path) {
                    Ok(found) if found.len() == info.bytes => return None,
                    Ok(found) => format!(
                        "its file has {} bytes instead of {}",
                        found.len(),
                        info.bytes
                    ),
                    Err(error) => format!("its file cannot be read: {error}"),
                };
                Some((info.step, info.generation, problem))
            })
            .collect();
        if run.roster().is_some() {
            info!(run_id = %run.id, phase = run.phase_name(), "waiting for the run's workers to come back");
        }
        let mut entry = Entry::new(run);
        entry.ledger_head = head;
        entry.ticked = self.now();
        self.runs.insert(number, entry);
        for (step, generation, reason) in bad {
            let event = Event::CheckpointCorrupt {
                step,
                generation,
                reason,
            };
            self.apply(number, event)?;
        }
        Ok(())
    }

    /// Takes messages until nobody can send any.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
    ) -> Result<(), OwnerError> {
        let mut wake = blocking(|| self.turn(None))?;
        loop {
            let message = tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => Some(message),
                    None => return Ok(()),
                },
                () = sleep_until(self.started, wake) => None,
            };
            wake = blocking(|| self.turn(message))?;
        }
    }

    /// Takes one message in and does all that follows from it. Returns when to look again, in
    /// milliseconds on the owner's clock.
    fn turn(&mut self, message: Option<Message>) -> Result<Option<u64>, OwnerError> {
        if let Some(message) = message {
            self.take(message)?;
        }
        let wake = loop {
            while let Some((session, reason)) = self.failing.pop() {
                self.session_ended(session, &reason)?;
            }
            let ticks = self.tick_runs()?;
            let writes = self.write_steps_when_due()?;
            let starts = self.schedule()?;
            if self.failing.is_empty() {
                break [ticks, writes, starts].into_iter().flatten().min();
            }
        };
        if self.active() == 0
            && let Some(waiting) = &mut self.draining
        {
            for reply in waiting.drain(..) {
                let _ = reply.send(());
            }
        }
        Ok(wake)
    }

    fn take(&mut self, message: Message) -> Result<(), OwnerError> {
        // Who asked may be gone; then nobody misses the answer.
        match message {
            Message::Submit { spec, reply } => drop(reply.send(self.submit(*spec))),
            Message::GetRun { run, reply } => drop(reply.send(self.get_run(&run))),
            Message::ListRuns {
                before,
                limit,
                reply,
            } => drop(reply.send(Ok(self.list_runs(before, limit)))),
            Message::Watch { run, reply } => drop(reply.send(self.watch(&run))),
            Message::Cancel { run, reply } => {
                let answer = self.request(&run, Event::Cancel)?;
                drop(reply.send(answer));
            }
            Message::Pause { run, reply } => {
                let answer = self.request(&run, Event::Pause)?;
                drop(reply.send(answer));
            }
            Message::ReadLedger { run, reply } => {
                let answer = self.read_ledger(&run)?;
                drop(reply.send(answer));
            }
            Message::CheckpointDamaged {
                run,
                step,
                generation,
                reason,
            } => {
                if let Ok(number) = self.number(&run) {
                    let event = Event::CheckpointCorrupt {
                        step,
                        generation,
                        reason,
                    };
                    self.apply(number, event)?;
                }
            }
            Message::Resume {
                run,
                checkpoint,
                reply,
            } => {
                let answer = self.request(&run, Event::Resume { checkpoint })?;
                drop(reply.send(answer));
            }
            Message::FindCheckpoint { run, step, reply } => {
                drop(reply.send(self.find_checkpoint(&run, step)));
            }
            Message::ListDatasets { reply } => drop(reply.send(Ok(self.list_datasets()))),
            Message::FindDataset { dataset, reply } => {
                drop(reply.send(self.find_dataset(&dataset)));
            }
            Message::OfferDataset {
                name,
                digest,
                reply,
            } => drop(reply.send(self.offer_dataset(&name, &digest))),
            Message::AddDataset { upload, reply } => {
                drop(reply.send(self.add_dataset(*upload)));
            }
            Message::Hello {
                hello,
                outbox,
                over,
                reply,
            } => {
                let answer = self.hello(hello, outbox, over)?;
                drop(reply.send(answer));
            }
            Message::Said { session, said } => self.said(session, said)?,
            Message::SessionEnded {
                session,
                reason,
                reply,
            } => {
                self.session_ended(session, &reason)?;
                drop(reply.send(Ok(())));
            }
            Message::BeginSlice { slice, reply } => {
                let answer = self.begin_slice(&slice)?;
                drop(reply.send(answer));
            }
            Message::SliceStored {
                key,
                rank,
                digest,
                reply,
            } => drop(reply.send(self.slice_stored(key, rank, digest))),
            Message::Gathered { key, result } => self.gathered(key, result)?,
            Message::Drain { reply } => self.drain(reply)?,
            Message::CountActive { reply } => drop(reply.send(self.active())),
        }
        Ok(())
    }

    fn drain(&mut self, reply: oneshot::Sender<()>) -> Result<(), OwnerError> {
        info!(
            active_runs = self.active(),
            "draining: runs are checkpointed and queued again, no run is started"
        );
        self.draining.get_or_insert_default().push(reply);
        let running: Vec<u64> = self.runs.keys().copied().collect();
        for number in running {
            self.apply(number, Event::Drain)?;
        }
        self.write_steps()
    }

    /// Tells runs that are under way that time has passed. Returns when to do so again.
    fn tick_runs(&mut self) -> Result<Option<u64>, OwnerError> {
        let now = self.now();
        let mut next: Option<u64> = None;
        let numbers: Vec<u64> = self.runs.keys().copied().collect();
        for number in numbers {
            let Some(entry) = self.runs.get_mut(&number) else {
                continue;
            };
            if entry.run.roster().is_none() {
                entry.ticked = now;
                continue;
            }
            let due = |entry: &Entry| {
                let pace = entry.ticked + TICK_MS;
                entry.run.wake().map_or(pace, |wake| wake.min(pace))
            };
            if due(entry) <= now {
                entry.ticked = now;
                self.apply(number, Event::Tick)?;
            }
            if let Some(entry) = self.runs.get(&number)
                && entry.run.roster().is_some()
            {
                let at = due(entry).max(now + 1);
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        Ok(next)
    }

    /// Runs that have workers, or a checkpoint that is being stored.
    fn active(&self) -> usize {
        self.runs
            .iter()
            .filter(|(number, entry)| {
                entry.run.roster().is_some()
                    || self
                        .gatherings
                        .iter()
                        .any(|(key, gathering)| key.run == **number && gathering.whole)
            })
            .count()
    }

    pub(super) fn run_folder(&self, run: &RunId) -> PathBuf {
        self.dir.checkpoints().join(run.as_str())
    }

    /// Milliseconds since this owner began: the scheduler's clock.
    pub(super) fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl Entry {
    pub(super) fn new(run: Run) -> Self {
        Self {
            run,
            events: broadcast::Sender::new(WATCH_BACKLOG),
            startable_since: None,
            waiting: None,
            unwritten: BTreeMap::new(),
            ledger_head: 0,
            ticked: 0,
        }
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

async fn sleep_until(started: Instant, wake: Option<u64>) {
    match wake {
        Some(ms) => {
            let at = started + std::time::Duration::from_millis(ms);
            tokio::time::sleep_until(at.into()).await;
        }
        None => std::future::pending().await,
    }
}

/// Runs a turn, which waits for the disk, without holding up the other tasks of this thread.
fn blocking<T>(turn: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(turn),
        _ => turn(),
    }
}
