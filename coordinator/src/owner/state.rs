//! The owner's task: one message at a time, then a synchronous turn.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fovea_core::ids::{DatasetName, RunId};
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
use crate::journal::{Journal, JournalError};

/// Messages that may wait for the owner; senders wait when there are more.
const INBOX: usize = 256;

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
        let before = written.phase_name();
        let mut run = written.clone().recovered();
        run.checkpoints.retain(|info| {
            let path = checkpoints::path_for(&folder, info.step, info.generation);
            let found = std::fs::metadata(&path).map(|m| m.len());
            let good = matches!(&found, Ok(bytes) if *bytes == info.bytes);
            if !good {
                warn!(
                    run_id = %written.id,
                    step = info.step,
                    path = %path.display(),
                    expected_bytes = info.bytes,
                    ?found,
                    "dropping a checkpoint whose file is missing or of another size"
                );
            }
            good
        });
        if let Some(step) = run.resume_from
            && run.checkpoints.iter().all(|c| c.step != step)
        {
            warn!(run_id = %run.id, step, "the checkpoint to resume from is gone; taking the newest");
            run.resume_from = None;
        }
        if run != written {
            self.journal.put_run(&run)?;
            info!(run_id = %run.id, was = before, now = run.phase_name(), "taken up after a restart");
        }
        self.runs.insert(run.number, Entry::new(run));
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
            let wake = self.schedule()?;
            if self.failing.is_empty() {
                break wake;
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
                drop(reply.send(self.hello(hello, outbox, over)));
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
                sha256,
                reply,
            } => drop(reply.send(self.slice_stored(key, rank, sha256))),
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
        Ok(())
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
                        .any(|(key, gathering)| key.run == **number && gathering.finishing)
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
