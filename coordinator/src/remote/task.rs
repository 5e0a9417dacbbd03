//! The mirror's task: one job at a time at the store, while commands are taken.
//!
//! ```text
//!   connect ──> connected ──upload, remove, sweep──> connected
//!      ^            │ the store as a whole fails
//!      └── pause <──┘ (longer and longer)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fovea_core::count::count;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::error::RemoteError;
use super::item::Item;
use super::location::Location;
use super::objects::{Objects, OpenUpload};
use super::plan::{Next, Pauses, Plan};
use super::state::State;
use super::upload::{Note, Step, Uploader};
use super::{Command, View, identity};
use crate::clock::Clock;

/// How often unfinished uploads that nobody knows are looked for, milliseconds.
const SWEEP_MS: u64 = 3_600_000;

/// What a connection shows.
#[derive(Debug)]
pub(super) struct Connected {
    pub claimed: bool,
    pub objects: BTreeMap<String, u64>,
}

/// Whether the prefix is ours, and what is in it.
pub(super) async fn connect(
    objects: &dyn Objects,
    location: &Location,
    id: &str,
    accept: bool,
) -> Result<Connected, RemoteError> {
    let (claimed, objects) = identity::claim(objects, location, id, accept).await?;
    Ok(Connected { claimed, objects })
}

/// What a job came to.
#[derive(Debug)]
enum Outcome {
    Connected(Result<Connected, RemoteError>),
    Uploaded(Item, Result<Step, RemoteError>),
    Removed(Item, Vec<String>, Result<(), RemoteError>),
    /// Aborted uploads.
    Swept(Result<Vec<OpenUpload>, RemoteError>),
}

/// What the task begins with.
pub(super) struct Start {
    pub location: Location,
    pub id: String,
    pub uploader: Uploader,
    pub state: State,
    pub plan: Plan,
    /// What a first connection showed; None: the store is away.
    pub connected: Option<Connected>,
    pub view: watch::Sender<Arc<View>>,
    pub clock: Clock,
    pub pauses: Pauses,
}

type Notes = mpsc::Receiver<(Note, oneshot::Sender<Result<(), RemoteError>>)>;

pub(super) struct Task {
    start: Start,
    jobs: JoinSet<Outcome>,
    /// What is being uploaded or removed.
    busy: Option<Item>,
    /// Objects in the bucket; None while the store is away.
    objects: Option<BTreeMap<String, u64>>,
    /// Failures of the store as a whole, in a row.
    failures: u32,
    due: u64,
    sweep_due: u64,
    problem: Option<String>,
}

impl Task {
    pub(super) fn new(mut start: Start) -> Self {
        let connected = start.connected.take();
        let problem = start.view.borrow().problem.clone();
        let mut task = Self {
            failures: u32::from(connected.is_none()),
            due: match connected {
                Some(_) => 0,
                None => start.clock.now() + start.pauses.after(1),
            },
            start,
            jobs: JoinSet::new(),
            busy: None,
            objects: None,
            sweep_due: 0,
            problem,
        };
        if let Some(connected) = connected {
            task.connected(connected);
        }
        task
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut notes: Notes,
        closing: CancellationToken,
    ) {
        loop {
            let wake = self.act();
            self.show();
            tokio::select! {
                () = closing.cancelled() => return,
                command = commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                Some((note, reply)) = notes.recv() => drop(reply.send(self.note(note).await)),
                Some(ended) = self.jobs.join_next() => self.ended(ended).await,
                () = self.start.clock.sleep_until(wake) => {}
            }
        }
    }

    /// Begins the next job, if one is due. Gives when to look again.
    fn act(&mut self) -> Option<u64> {
        if !self.jobs.is_empty() {
            return None;
        }
        let now = self.start.clock.now();
        if now < self.due {
            return Some(self.due);
        }
        let objects = Arc::clone(&self.start.uploader.objects);
        let Some(present) = &self.objects else {
            let (location, id) = (self.start.location.clone(), self.start.id.clone());
            let job =
                async move { Outcome::Connected(connect(&*objects, &location, &id, false).await) };
            self.jobs.spawn(job);
            return None;
        };
        if now >= self.sweep_due {
            self.sweep_due = now + SWEEP_MS;
            let plan = &self.start.plan;
            let known: BTreeSet<OpenUpload> = self
                .start
                .state
                .uploads()
                .iter()
                .filter(|(key, _)| plan.lacks(key))
                .map(|(key, upload)| OpenUpload {
                    key: key.clone(),
                    id: upload.id.clone(),
                })
                .collect();
            self.jobs
                .spawn(async move { Outcome::Swept(sweep(&*objects, &known).await) });
            return None;
        }
        match self.start.plan.next(now) {
            Next::Upload(item) => {
                let owned = present.iter().filter(|(key, _)| item.owns(key));
                let owned = owned.map(|(key, size)| (key.clone(), *size)).collect();
                let under = self.start.state.uploads().clone();
                let info = self.start.plan.info(&item);
                let uploader = self.start.uploader.clone();
                self.busy = Some(item.clone());
                self.jobs.spawn(async move {
                    let result = uploader.item(&item, info, &under, &owned).await;
                    Outcome::Uploaded(item, result)
                });
                None
            }
            Next::Remove(item) => {
                let keys = keys_of(&item, present);
                let under = self.start.state.uploads().iter();
                let under = under.filter(|(key, _)| item.owns(key));
                let under: Vec<OpenUpload> = under
                    .map(|(key, upload)| OpenUpload {
                        key: key.clone(),
                        id: upload.id.clone(),
                    })
                    .collect();
                self.busy = Some(item.clone());
                self.jobs.spawn(async move {
                    let result = remove(&*objects, &keys, &under).await;
                    Outcome::Removed(item, keys, result)
                });
                None
            }
            Next::Wait(at) => {
                // Everything that could be done was done.
                if self.start.plan.may_upload(now) {
                    self.works();
                }
                Some(at.map_or(self.sweep_due, |at| at.min(self.sweep_due)))
            }
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Want { item, info, fresh } => {
                self.start.plan.want(item, info.map(|info| *info), fresh);
            }
            Command::Remove { items, reply } => {
                for item in &items {
                    if self.busy.as_ref().is_some_and(|busy| covers(item, busy)) {
                        self.jobs.abort_all();
                        while self.jobs.join_next().await.is_some() {}
                        self.busy = None;
                    }
                    self.start.plan.remove(item.clone());
                }
                let written = self.start.state.add_removals(items).await;
                drop(reply.send(written.map_err(|e| e.to_string())));
            }
        }
    }

    async fn note(&mut self, note: Note) -> Result<(), RemoteError> {
        let state = &mut self.start.state;
        let written = match note {
            Note::Under(key, upload) => state.put_upload(&key, upload).await,
            Note::Over(key) => state.remove_upload(&key).await,
        };
        written.map_err(|error| {
            RemoteError::Local(format!("the state of uploads cannot be written: {error}"))
        })
    }

    async fn ended(&mut self, ended: Result<Outcome, JoinError>) {
        self.busy = None;
        let now = self.start.clock.now();
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                error!("remote.panicked: {error}; it is tried again");
                self.store_failed(format!("a defect in fovea: {error}"));
                return;
            }
        };
        match outcome {
            Outcome::Connected(Ok(connected)) => {
                if let Err(error) = self.start.state.set_claimed().await {
                    warn!(
                        "remote.not_written: the state of the object store cannot be written: {error}"
                    );
                }
                self.connected(connected);
            }
            Outcome::Connected(Err(error)) => self.store_failed(error.to_string()),
            Outcome::Uploaded(item, Ok(step)) => {
                self.works();
                let (Step::Partly(written) | Step::Done(written)) = &step;
                if let Some(objects) = &mut self.objects {
                    objects.extend(written.iter().cloned());
                }
                if let Step::Done(written) = step {
                    if written.is_empty() {
                        // There is nothing of it any more.
                        self.start.plan.forget(&item);
                        return;
                    }
                    self.start.plan.uploaded(&item);
                    let bytes: u64 = written.iter().map(|(_, bytes)| bytes).sum();
                    match item {
                        Item::Ledger { .. } => debug!("{item} is in the object store"),
                        _ => info!(bytes, "remote.stored: {item} is in {}", self.start.location),
                    }
                }
            }
            Outcome::Uploaded(item, Err(error)) => self.item_failed(&item, error, now),
            Outcome::Removed(item, keys, Ok(())) => {
                self.works();
                if let Some(objects) = &mut self.objects {
                    objects.retain(|key, _| !keys.contains(key));
                }
                let under: Vec<String> = self.start.state.uploads().keys().cloned().collect();
                for key in under.iter().filter(|key| item.owns(key)) {
                    self.forget_upload(key).await;
                }
                // Wanted again meanwhile: then it is uploaded anew.
                self.start.plan.removed(&item);
                if let Err(error) = self.start.state.drop_removal(&item).await {
                    warn!(
                        "remote.not_written: the state of the object store cannot be written: {error}"
                    );
                }
                info!(
                    "remote.removed: {item} was removed from {}",
                    self.start.location
                );
            }
            Outcome::Removed(item, _, Err(error)) => self.item_failed(&item, error, now),
            Outcome::Swept(Ok(aborted)) => {
                for OpenUpload { key, id } in aborted {
                    if self
                        .start
                        .state
                        .uploads()
                        .get(&key)
                        .is_some_and(|upload| upload.id == id)
                    {
                        self.forget_upload(&key).await;
                    }
                    warn!(
                        "remote.upload_aborted: an unfinished upload of {key} was aborted: nobody goes on with it"
                    );
                }
            }
            Outcome::Swept(Err(error)) if error.of_item() => {}
            Outcome::Swept(Err(error @ RemoteError::Denied { .. })) => {
                warn!("remote.unswept: unfinished uploads cannot be listed: {error}");
            }
            Outcome::Swept(Err(error)) => {
                self.sweep_due = 0;
                self.store_failed(error.to_string());
            }
        }
    }

    async fn forget_upload(&mut self, key: &str) {
        if let Err(error) = self.start.state.remove_upload(key).await {
            warn!("remote.not_written: the state of the object store cannot be written: {error}");
        }
    }

    fn connected(&mut self, connected: Connected) {
        let Connected { claimed, objects } = connected;
        let location = &self.start.location;
        if claimed {
            info!(
                "remote.claimed: {} is this cluster's object store from now on",
                location.key()
            );
        }
        self.start.plan.found(Item::complete(&objects));
        // After a failure it is not news before something was done there: reading may be allowed, and writing not.
        if self.problem.is_none() {
            info!(
                objects = objects.len(),
                "remote.connected: {} holds {}; {} to be uploaded",
                location.key(),
                count(objects.len(), "object", "objects"),
                count(self.start.plan.waiting(), "item is", "items are")
            );
        }
        self.objects = Some(objects);
        self.sweep_due = 0;
    }

    /// The store as a whole answers.
    fn works(&mut self) {
        self.failures = 0;
        if self.problem.take().is_some() {
            info!(
                "remote.available: the object store {} can be used again",
                self.start.location
            );
        }
    }

    /// The store as a whole does not do what it should.
    fn store_failed(&mut self, problem: String) {
        self.failures += 1;
        self.due = self.start.clock.now() + self.start.pauses.after(self.failures);
        // What is in it is looked at again: others may have changed it.
        self.objects = None;
        if self.problem.as_ref() != Some(&problem) {
            warn!("remote.unavailable: {problem}");
        }
        self.problem = Some(problem);
    }

    fn item_failed(&mut self, item: &Item, error: RemoteError, now: u64) {
        match error {
            RemoteError::Full { .. } => {
                self.start.plan.full(now);
                let problem = error.to_string();
                if self.problem.as_ref() != Some(&problem) {
                    warn!("remote.unavailable: {problem}");
                }
                self.problem = Some(problem);
            }
            error if error.of_item() => {
                let problem = error.to_string();
                if self.start.plan.failed(item, problem.clone(), now) {
                    warn!("remote.delayed: {item}: {problem}");
                }
            }
            error => self.store_failed(error.to_string()),
        }
    }

    /// Shows what has changed.
    fn show(&self) {
        let plan = &self.start.plan;
        let problem = self
            .problem
            .clone()
            .or_else(|| plan.problem().map(str::to_owned));
        let view = View {
            store: self.start.location.to_string(),
            connected: self.objects.is_some(),
            problem,
            stored: plan.stored(),
            waiting: plan.waiting(),
            removals: Arc::new(plan.removals().clone()),
        };
        self.start.view.send_if_modified(|shown| {
            let changed = **shown != view;
            if changed {
                *shown = Arc::new(view);
            }
            changed
        });
    }
}

/// The removal of `gone` ends what is done about `busy`.
fn covers(gone: &Item, busy: &Item) -> bool {
    gone == busy || matches!(gone, Item::Run(run) if busy.run() == Some(run))
}

/// The keys of an item, manifests first: none ever describes an object that is not there.
fn keys_of(item: &Item, present: &BTreeMap<String, u64>) -> Vec<String> {
    let listed = present.keys().filter(|key| item.owns(key)).cloned();
    let own = [item.manifest(), item.data()].into_iter().flatten();
    let keys: BTreeSet<String> = listed.chain(own).collect();
    let mut keys = Vec::from_iter(keys);
    keys.sort_by_key(|key| Item::of_manifest(key).is_none());
    keys
}

async fn remove(
    objects: &dyn Objects,
    keys: &[String],
    under: &[OpenUpload],
) -> Result<(), RemoteError> {
    for OpenUpload { key, id } in under {
        objects.abort(key, id).await?;
    }
    for key in keys {
        objects.delete(key).await?;
    }
    Ok(())
}

/// Aborts what nobody goes on with. The prefix is this coordinator's alone.
async fn sweep(
    objects: &dyn Objects,
    known: &BTreeSet<OpenUpload>,
) -> Result<Vec<OpenUpload>, RemoteError> {
    let mut aborted = Vec::new();
    for upload in objects.uploads().await? {
        if !known.contains(&upload) {
            objects.abort(&upload.key, &upload.id).await?;
            aborted.push(upload);
        }
    }
    Ok(aborted)
}
