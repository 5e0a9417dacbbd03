//! Watches a run through the client, across every break, and keeps what it is told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fovea_client::Client;
use fovea_client::view::{Phase, RunInfo};
use fovea_client::watch::{Patience, Update, Watcher};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The newest that is known.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The run's phase.
    pub phase: Phase,
    /// Committed steps.
    pub step: u64,
    /// Step events so far: a step that is taken again counts again.
    pub events: u64,
    /// When the newest step was told.
    pub at: Instant,
    /// Steps in the run.
    pub total: u64,
}

/// A watcher on a task of its own.
pub struct Eyes {
    seen: watch::Receiver<Seen>,
    told: Arc<Mutex<Told>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Told {
    run: Option<RunInfo>,
    epochs: Vec<u32>,
    repeated: u64,
}

impl Eyes {
    /// Watches `run`; `events` were seen before, by another watcher.
    pub async fn open(client: &Client, run: &str, events: u64) -> Self {
        let patience = Patience {
            first_wait: Duration::from_millis(20),
            longest_wait: Duration::from_millis(200),
            ..Patience::default()
        };
        let mut watcher = Watcher::new(client, run, patience).await.expect("a stream");
        let nothing = Seen {
            phase: Phase::Queued,
            step: 0,
            events,
            at: Instant::now(),
            total: u64::MAX,
        };
        let (tell, seen) = watch::channel(nothing);
        let told = Arc::new(Mutex::new(Told::default()));
        let notes = Arc::clone(&told);
        let task = tokio::spawn(async move {
            let mut told_steps = BTreeSet::new();
            loop {
                let update = match watcher.next().await {
                    Ok(Some(update)) => update,
                    Ok(None) => return,
                    Err(error) => panic!("the watcher gave up: {error}"),
                };
                let mut notes = notes.lock().expect("nobody panics with it");
                match update {
                    Update::Run(run) => {
                        tell.send_modify(|seen| {
                            seen.phase = run.phase;
                            seen.total = run.total_steps;
                        });
                        notes.run = Some(*run);
                    }
                    Update::Step(report) => {
                        if !told_steps.insert(report.step) {
                            notes.repeated += 1;
                        }
                        tell.send_modify(|seen| {
                            seen.step = report.step;
                            seen.events += 1;
                            seen.at = Instant::now();
                        });
                    }
                    Update::Epoch(result) => notes.epochs.push(result.epoch),
                    Update::Checkpoint(_) | Update::Note(_) | Update::Reconnecting { .. } => {}
                }
            }
        });
        Self { seen, told, task }
    }

    /// What is known now.
    pub fn now(&self) -> Seen {
        *self.seen.borrow()
    }

    /// Waits until a step is committed, or the run is over.
    pub async fn moving(&mut self, deadline: Duration, seed: &u64) -> Seen {
        let before = self.now();
        self.beyond(&before, deadline, *seed).await
    }

    /// Waits for a step after those of `before`, or the end.
    pub async fn beyond(&mut self, before: &Seen, deadline: Duration, seed: u64) -> Seen {
        let enough = |seen: &Seen| seen.events > before.events || seen.phase.is_terminal();
        let waiting = async { self.seen.wait_for(enough).await.map(|seen| *seen) };
        match tokio::time::timeout(deadline, waiting).await {
            Ok(Ok(seen)) => seen,
            // The watcher is done: it has seen the end.
            Ok(Err(_)) => self.now(),
            Err(_) => panic!("seed {seed}: no step within {deadline:?}: {:?}", self.now()),
        }
    }

    /// Waits until the run has ended, and all is told.
    pub async fn end(&mut self, deadline: Duration) -> RunInfo {
        let ended = tokio::time::timeout(deadline, &mut self.task).await;
        ended
            .unwrap_or_else(|_| panic!("the run did not end within {deadline:?}"))
            .expect("the watcher saw the end");
        let told = self.told.lock().expect("nobody panics with it");
        told.run.clone().expect("the run was told")
    }

    /// Epochs in the order in which they were told.
    pub fn epochs(&self) -> Vec<u32> {
        self.told
            .lock()
            .expect("nobody panics with it")
            .epochs
            .clone()
    }

    /// Steps that were told more than once: committed again after the only worker that had was lost.
    pub fn repeated(&self) -> u64 {
        self.told.lock().expect("nobody panics with it").repeated
    }
}

impl Drop for Eyes {
    fn drop(&mut self) {
        self.task.abort();
    }
}
