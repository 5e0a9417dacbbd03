//! Following a run until it ends or is paused, across broken connections and restarts of the coordinator.
//!
//! Invariant: every epoch's result and every checkpoint is told once, whatever breaks. Each
//! connection begins with the run as it is, all epochs included, so what happened while nobody
//! listened is made up from there; what was told before is left out.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::run::{EpochResult, StepReport};
use fovea_proto::pb;
use fovea_proto::pb::run_event::Event as Wire;
use tonic::Streaming;

use crate::client::Client;
use crate::error::{self, Error};
use crate::view::RunInfo;

/// Something that happened to the watched run.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// The run as it is now: first of all, after each change of phase, and after a reconnect.
    Run(Box<RunInfo>),
    /// A step was committed.
    Step(StepReport),
    /// An epoch was evaluated.
    Epoch(EpochResult),
    /// A checkpoint was stored.
    Checkpoint(CheckpointInfo),
    /// Something worth saying, such as a lost worker.
    Note(String),
    /// The connection broke; it is tried again after `wait`.
    Reconnecting {
        reason: String,
        attempt: u32,
        wait: Duration,
    },
}

/// How hard to try.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Wait before the first new attempt; doubled for each further one.
    pub first_wait: Duration,
    /// The longest wait between two attempts.
    pub longest_wait: Duration,
    /// Give up when nothing was heard for so long.
    pub give_up: Duration,
    /// How long one attempt to connect may take.
    pub connect: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(200),
            // A coordinator that restarts is back within a second or two, and a refused connection costs
            // next to nothing, so waiting longer would only show the run late.
            longest_wait: Duration::from_secs(1),
            give_up: Duration::from_secs(300),
            connect: Duration::from_secs(5),
        }
    }
}

/// Follows one run. Ask it with [`Watcher::next`] until it returns None.
pub struct Watcher {
    address: String,
    run_id: String,
    patience: Patience,
    stream: Option<Streaming<pb::RunEvent>>,
    told: Told,
    queue: VecDeque<Update>,
    ended: bool,
    attempt: u32,
    heard: Instant,
    /// The attempt under way, kept here so that a dropped `next` does not begin it anew.
    connecting: Option<Connecting>,
}

/// Waits, connects and asks for the stream.
type Connecting = Pin<Box<dyn Future<Output = Result<Streaming<pb::RunEvent>, Failure>> + Send>>;

/// Why an attempt did not bring a stream.
enum Failure {
    /// The next may.
    Passing(String),
    /// None will.
    Final(Error),
}

impl Watcher {
    /// Begins to follow a run. Fails if there is no such run or nobody answers.
    pub async fn new(client: &Client, run_id: &str, patience: Patience) -> Result<Self, Error> {
        let stream = client
            .watch(run_id)
            .await
            .map_err(|status| client.error(&status))?;
        Ok(Self {
            address: client.address().to_owned(),
            run_id: run_id.to_owned(),
            patience,
            stream: Some(stream),
            told: Told::default(),
            queue: VecDeque::new(),
            ended: false,
            attempt: 0,
            heard: Instant::now(),
            connecting: None,
        })
    }

    /// What happens next; None after the run's end was told. Can be dropped and asked again at any
    /// time without losing an update.
    pub async fn next(&mut self) -> Result<Option<Update>, Error> {
        loop {
            if let Some(update) = self.queue.pop_front() {
                return Ok(Some(update));
            }
            if self.ended {
                return Ok(None);
            }
            let Some(stream) = &mut self.stream else {
                self.reconnect().await?;
                continue;
            };
            match stream.message().await {
                Ok(Some(message)) => {
                    self.attempt = 0;
                    self.heard = Instant::now();
                    self.take(message)?;
                }
                Ok(None) => self.broken("the stream ended before the run".into())?,
                Err(status) => {
                    let error = Error::from_status(&status, &self.address);
                    if !may_pass(&status) {
                        return Err(error);
                    }
                    self.broken(reason_of(error))?;
                }
            }
        }
    }

    fn take(&mut self, message: pb::RunEvent) -> Result<(), Error> {
        let Some(event) = message.event else {
            // An event of a newer coordinator, which this client does not know.
            return Ok(());
        };
        match event {
            Wire::Run(run) => {
                let run = RunInfo::try_from(run)?;
                self.ended = run.phase.is_terminal();
                self.queue.extend(self.told.run(run));
            }
            Wire::Step(step) => self.queue.push_back(Update::Step(step.into())),
            Wire::Epoch(epoch) => self.queue.extend(self.told.epoch(epoch.try_into()?)),
            Wire::Checkpoint(c) => self.queue.extend(self.told.checkpoint(c.try_into()?)),
            Wire::Note(text) => self.queue.push_back(Update::Note(text)),
        }
        Ok(())
    }

    /// Plans the next attempt, or gives up.
    fn broken(&mut self, reason: String) -> Result<(), Error> {
        self.stream = None;
        if self.heard.elapsed() >= self.patience.give_up {
            return Err(Error::Lost {
                address: self.address.clone(),
                reason: format!(
                    "{reason}; tried for {} s. The run may well go on: `fovea watch {}` looks again",
                    self.patience.give_up.as_secs(),
                    self.run_id
                ),
            });
        }
        let doubled = self.patience.first_wait * 2u32.saturating_pow(self.attempt.min(16));
        let wait = doubled.min(self.patience.longest_wait);
        self.attempt += 1;
        self.connecting = Some(Box::pin(attempt(
            self.address.clone(),
            self.run_id.clone(),
            wait,
            self.patience.connect,
        )));
        self.queue.push_back(Update::Reconnecting {
            reason,
            attempt: self.attempt,
            wait,
        });
        Ok(())
    }

    async fn reconnect(&mut self) -> Result<(), Error> {
        let Some(connecting) = &mut self.connecting else {
            return self.broken("there is no stream".into());
        };
        let outcome = connecting.await;
        self.connecting = None;
        match outcome {
            Ok(stream) => {
                self.stream = Some(stream);
                Ok(())
            }
            Err(Failure::Passing(reason)) => self.broken(reason),
            Err(Failure::Final(error)) => Err(error),
        }
    }
}

async fn attempt(
    address: String,
    run_id: String,
    wait: Duration,
    connect: Duration,
) -> Result<Streaming<pb::RunEvent>, Failure> {
    tokio::time::sleep(wait).await;
    let client = match Client::connect(&address, connect).await {
        Ok(client) => client,
        Err(error) if error.exit_code() == 3 => return Err(Failure::Passing(reason_of(error))),
        Err(error) => return Err(Failure::Final(error)),
    };
    client.watch(&run_id).await.map_err(|status| {
        let error = client.error(&status);
        if may_pass(&status) {
            Failure::Passing(reason_of(error))
        } else {
            Failure::Final(error)
        }
    })
}

/// Whether a status is worth another attempt.
fn may_pass(status: &tonic::Status) -> bool {
    use tonic::Code::*;
    error::is_transient(status)
        || matches!(
            status.code(),
            Cancelled | Unknown | Internal | DeadlineExceeded | Aborted | ResourceExhausted
        )
}

fn reason_of(error: Error) -> String {
    match error {
        Error::Lost { reason, .. } => reason,
        other => other.to_string(),
    }
}

/// What the user has been told already.
#[derive(Default)]
struct Told {
    any: bool,
    /// By epoch. A resume from an older checkpoint takes epochs again; those are told again if they
    /// came out differently.
    epochs: BTreeMap<u32, EpochResult>,
    /// By step; the digest tells a checkpoint that was taken again.
    checkpoints: BTreeMap<u64, String>,
}

impl Told {
    /// The updates that a snapshot brings: the run, and what of its epochs and checkpoints is news.
    fn run(&mut self, run: RunInfo) -> Vec<Update> {
        let mut news: Vec<Update> = Vec::new();
        for epoch in &run.epochs {
            // A checkpoint comes right after the epoch that it closes.
            news.extend(self.epoch(epoch.clone()));
            let closing = run.checkpoints.iter().find(|c| c.step == epoch.step);
            news.extend(closing.and_then(|c| self.checkpoint(c.clone())));
        }
        for checkpoint in &run.checkpoints {
            news.extend(self.checkpoint(checkpoint.clone()));
        }
        let run = Update::Run(Box::new(run));
        if self.any {
            news.push(run);
        } else {
            // The sizes come before what is measured in them.
            news.insert(0, run);
        }
        self.any = true;
        news
    }

    fn epoch(&mut self, epoch: EpochResult) -> Option<Update> {
        if self.epochs.get(&epoch.epoch) == Some(&epoch) {
            return None;
        }
        self.epochs.insert(epoch.epoch, epoch.clone());
        Some(Update::Epoch(epoch))
    }

    fn checkpoint(&mut self, checkpoint: CheckpointInfo) -> Option<Update> {
        let digest = checkpoint.sha256.clone();
        if self.checkpoints.get(&checkpoint.step) == Some(&digest) {
            return None;
        }
        self.checkpoints.insert(checkpoint.step, digest);
        Some(Update::Checkpoint(checkpoint))
    }
}
