//! Following a run until it ends or is paused, across broken connections and restarts of the coordinator.
//!
//! Invariant: every epoch's result and every checkpoint is reported once, whatever breaks. Each
//! connection begins with a snapshot of the run, all epochs included; what happened while the
//! connection was broken is taken from there, and what was reported before is left out.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::run::{EpochResult, StepReport};
use fovea_proto::pb;
use fovea_proto::pb::run_event::Event as Wire;
use tonic::{Code, Status, Streaming};

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
    /// An event of the run, such as a lost worker; it may begin with an event name.
    Note(String),
    /// There is no stream now; it is requested again after `wait`.
    Reconnecting {
        /// Whether the coordinator is away or at a limit.
        cause: Cause,
        /// What happened.
        reason: String,
        /// Number of the attempt to come, from 1.
        attempt: u32,
        /// Time until that attempt.
        wait: Duration,
    },
}

/// Why there is no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The connection broke, or the coordinator is unavailable.
    Away,
    /// The coordinator is at its limit of watches.
    Limit,
}

/// When to try again, and when to give up.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Wait before the first new attempt, doubled for each further one. To each wait a random part of
    /// itself is added.
    pub first_wait: Duration,
    /// The longest wait between two attempts while the coordinator is away, without the random part.
    pub longest_wait: Duration,
    /// First and longest wait after a refusal for the limit of watches, without the random part.
    pub limit_waits: (Duration, Duration),
    /// Give up when nothing was received for so long.
    pub give_up: Duration,
    /// Longest time for one attempt to connect.
    pub connect: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(200),
            // A coordinator that restarts is back in a second or two, and a refused connection costs
            // next to nothing, so waiting longer would only show the run late.
            longest_wait: Duration::from_millis(500),
            // A coordinator at its limit is busy: many watchers that ask every second would keep it so.
            limit_waits: (Duration::from_secs(2), Duration::from_secs(15)),
            give_up: Duration::from_secs(300),
            connect: Duration::from_secs(5),
        }
    }
}

impl Patience {
    fn backoff(&self, cause: Cause) -> ExponentialBackoff {
        let (first, longest) = match cause {
            Cause::Away => (self.first_wait, self.longest_wait),
            Cause::Limit => self.limit_waits,
        };
        // Jitter keeps the watchers of a restarted coordinator from returning all at once.
        ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(longest)
            .with_factor(2.0)
            .without_max_times()
            .with_jitter()
            .build()
    }
}

/// Follows one run. Ask it with [`Watcher::next`] until it returns None.
pub struct Watcher {
    client: Client,
    run_id: String,
    patience: Patience,
    stream: Option<Streaming<pb::RunEvent>>,
    reported: Reported,
    queue: VecDeque<Update>,
    ended: bool,
    /// Attempts since the last message, the waits between them, and their cause.
    attempt: u32,
    backoff: Option<(Cause, ExponentialBackoff)>,
    last_message: Instant,
    /// The attempt under way, kept here so that a dropped `next` does not restart it.
    connecting: Option<Connecting>,
}

/// Waits, connects and requests the stream.
type Connecting = Pin<Box<dyn Future<Output = Result<Streaming<pb::RunEvent>, Failure>> + Send>>;

/// Why an attempt brought no stream.
enum Failure {
    /// A later attempt may succeed.
    Temporary(Cause, String),
    /// No attempt will succeed.
    Permanent(Error),
}

impl Watcher {
    /// Begins to follow a run. Fails if there is no such run or the coordinator cannot be reached; a
    /// refusal for the limit of watches is retried by [`Watcher::next`].
    pub async fn new(client: &Client, run_id: &str, patience: Patience) -> Result<Self, Error> {
        let mut watcher = Self {
            client: client.clone(),
            run_id: run_id.to_owned(),
            patience,
            stream: None,
            reported: Reported::default(),
            queue: VecDeque::new(),
            ended: false,
            attempt: 0,
            backoff: None,
            last_message: Instant::now(),
            connecting: None,
        };
        match client.watch(run_id).await {
            Ok(stream) => watcher.stream = Some(stream),
            Err(status) => match client.error(&status) {
                Error::LimitReached(reason) => watcher.broken(Cause::Limit, reason)?,
                error => return Err(error),
            },
        }
        Ok(watcher)
    }

    /// The next update; None after the run's end was reported. Can be dropped and called again at any
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
                    self.backoff = None;
                    self.last_message = Instant::now();
                    self.take(message)?;
                }
                Ok(None) => self.broken(Cause::Away, "the stream ended before the run".into())?,
                Err(status) => {
                    let error = Error::from_status(&status, self.client.address());
                    if !is_temporary(&status) {
                        return Err(error);
                    }
                    self.broken(cause_of(&error), reason_of(error))?;
                }
            }
        }
    }

    fn take(&mut self, message: pb::RunEvent) -> Result<(), Error> {
        let Some(event) = message.event else {
            // An event of a newer coordinator that this client does not know.
            return Ok(());
        };
        match event {
            Wire::Run(run) => {
                let run = RunInfo::try_from(run)?;
                self.ended = run.phase.is_terminal();
                self.queue.extend(self.reported.run(run));
            }
            Wire::Step(step) => self.queue.push_back(Update::Step(step.into())),
            Wire::Epoch(epoch) => self.queue.extend(self.reported.epoch(epoch.try_into()?)),
            Wire::Checkpoint(c) => self.queue.extend(self.reported.checkpoint(c.try_into()?)),
            Wire::Note(text) => self.queue.push_back(Update::Note(text)),
        }
        Ok(())
    }

    /// Schedules the next attempt, or gives up.
    fn broken(&mut self, cause: Cause, reason: String) -> Result<(), Error> {
        self.stream = None;
        if self.last_message.elapsed() >= self.patience.give_up {
            let reason = format!(
                "{reason}; gave up after {} s. The run may well continue: `fovea watch {}` follows it again",
                self.patience.give_up.as_secs(),
                self.run_id
            );
            return Err(match cause {
                Cause::Away => Error::Lost {
                    address: self.client.address().to_owned(),
                    reason,
                },
                Cause::Limit => Error::LimitReached(reason),
            });
        }
        let backoff = match &mut self.backoff {
            Some((same, backoff)) if *same == cause => backoff,
            other => &mut other.insert((cause, self.patience.backoff(cause))).1,
        };
        let longest = self.patience.limit_waits.1.max(self.patience.longest_wait);
        let wait = backoff.next().unwrap_or(longest);
        self.attempt += 1;
        self.connecting = Some(Box::pin(attempt(
            self.client.clone(),
            self.run_id.clone(),
            wait,
            self.patience.connect,
        )));
        self.queue.push_back(Update::Reconnecting {
            cause,
            reason,
            attempt: self.attempt,
            wait,
        });
        Ok(())
    }

    async fn reconnect(&mut self) -> Result<(), Error> {
        let Some(connecting) = &mut self.connecting else {
            return self.broken(Cause::Away, "there is no stream".into());
        };
        let outcome = connecting.await;
        self.connecting = None;
        match outcome {
            Ok(stream) => {
                self.stream = Some(stream);
                Ok(())
            }
            Err(Failure::Temporary(cause, reason)) => self.broken(cause, reason),
            Err(Failure::Permanent(error)) => Err(error),
        }
    }
}

async fn attempt(
    client: Client,
    run_id: String,
    wait: Duration,
    connect: Duration,
) -> Result<Streaming<pb::RunEvent>, Failure> {
    tokio::time::sleep(wait).await;
    let client = match client.reconnected(connect).await {
        Ok(client) => client,
        Err(error) if error.exit_code() == 3 => {
            return Err(Failure::Temporary(cause_of(&error), reason_of(error)));
        }
        Err(error) => return Err(Failure::Permanent(error)),
    };
    client.watch(&run_id).await.map_err(|status| {
        let error = client.error(&status);
        if is_temporary(&status) {
            Failure::Temporary(cause_of(&error), reason_of(error))
        } else {
            Failure::Permanent(error)
        }
    })
}

/// Whether another attempt may succeed.
fn is_temporary(status: &Status) -> bool {
    use Code::*;
    error::is_transient(status)
        || matches!(
            status.code(),
            Cancelled | Unknown | Internal | DeadlineExceeded | Aborted | ResourceExhausted
        )
}

fn cause_of(error: &Error) -> Cause {
    match error {
        Error::LimitReached(_) => Cause::Limit,
        _ => Cause::Away,
    }
}

/// The reason alone, without the address and what to do.
fn reason_of(error: Error) -> String {
    match error {
        Error::Lost { reason, .. } => reason,
        Error::Unavailable { message, .. } | Error::LimitReached(message) => message,
        other => other.to_string(),
    }
}

/// What was reported before.
#[derive(Default)]
struct Reported {
    any: bool,
    /// By epoch. A resume from an older checkpoint repeats epochs; those are reported again if their
    /// results differ.
    epochs: BTreeMap<u32, EpochResult>,
    /// Digest by step: a checkpoint that was taken again has another one.
    checkpoints: BTreeMap<u64, String>,
}

impl Reported {
    /// The updates of a snapshot: the run, and those epochs and checkpoints that were not reported yet.
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
            // The run comes first: its sizes are needed to show the epochs.
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
