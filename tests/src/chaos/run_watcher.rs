//! Follows a run through the client, across every lost connection, and records what the stream reports.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fovea_client::Client;
use fovea_client::view::{Phase, RunInfo};
use fovea_client::watch::{Patience, Update, Watcher};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The newest known state of the run.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// The run's phase.
    pub phase: Phase,
    /// Committed steps.
    pub step: u64,
    /// Step events so far. A step that is taken again counts again.
    pub events: u64,
    /// When the newest step event arrived.
    pub at: Instant,
    /// Steps in the run.
    pub total: u64,
}

/// A watcher on a task of its own.
pub struct RunWatcher {
    snapshot: watch::Receiver<Snapshot>,
    record: Arc<Mutex<Record>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Record {
    run: Option<RunInfo>,
    epochs: Vec<u32>,
    repeated: u64,
}

impl RunWatcher {
    /// Watches `run`. `events` step events were seen before by another watcher.
    pub async fn open(client: &Client, run: &str, events: u64) -> Self {
        let patience = Patience {
            first_wait: Duration::from_millis(20),
            longest_wait: Duration::from_millis(200),
            ..Patience::default()
        };
        let mut watcher = Watcher::new(client, run, patience).await.expect("a stream");
        let nothing = Snapshot {
            phase: Phase::Queued,
            step: 0,
            events,
            at: Instant::now(),
            total: u64::MAX,
        };
        let (publish, snapshot) = watch::channel(nothing);
        let shared = Arc::new(Mutex::new(Record::default()));
        let record = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut steps = BTreeSet::new();
            loop {
                let update = match watcher.next().await {
                    Ok(Some(update)) => update,
                    Ok(None) => return,
                    Err(error) => panic!("the watcher gave up: {error}"),
                };
                let mut record = record.lock().expect("no holder of this lock panics");
                match update {
                    Update::Run(run) => {
                        publish.send_modify(|snapshot| {
                            snapshot.phase = run.phase;
                            snapshot.total = run.total_steps;
                        });
                        record.run = Some(*run);
                    }
                    Update::Step(report) => {
                        if !steps.insert(report.step) {
                            record.repeated += 1;
                        }
                        publish.send_modify(|snapshot| {
                            snapshot.step = report.step;
                            snapshot.events += 1;
                            snapshot.at = Instant::now();
                        });
                    }
                    Update::Epoch(result) => record.epochs.push(result.epoch),
                    Update::Checkpoint(_) | Update::Note(_) | Update::Reconnecting { .. } => {}
                }
            }
        });
        Self {
            snapshot,
            record: shared,
            task,
        }
    }

    /// What is known now.
    pub fn now(&self) -> Snapshot {
        *self.snapshot.borrow()
    }

    /// Waits until one more step is committed, or the run has ended.
    pub async fn next_step(&mut self, deadline: Duration, seed: u64) -> Snapshot {
        let before = self.now();
        self.step_after(&before, deadline, seed).await
    }

    /// Waits for a step event after those of `before`, or the end.
    pub async fn step_after(
        &mut self,
        before: &Snapshot,
        deadline: Duration,
        seed: u64,
    ) -> Snapshot {
        let enough = |now: &Snapshot| now.events > before.events || now.phase.is_terminal();
        let waiting = async { self.snapshot.wait_for(enough).await.map(|now| *now) };
        match tokio::time::timeout(deadline, waiting).await {
            Ok(Ok(now)) => now,
            // The watcher's task is over: it has seen the end.
            Ok(Err(_)) => {
                let now = self.now();
                let over = now.phase.is_terminal() || now.phase == Phase::Paused;
                assert!(over, "seed {seed}: the watcher gave up: {now:?}");
                now
            }
            Err(_) => panic!("seed {seed}: no step within {deadline:?}: {:?}", self.now()),
        }
    }

    /// Waits until the run has ended and its last event has arrived.
    pub async fn end(&mut self, deadline: Duration) -> RunInfo {
        let ended = tokio::time::timeout(deadline, &mut self.task).await;
        ended
            .unwrap_or_else(|_| panic!("the run did not end within {deadline:?}"))
            .expect("the watcher saw the end");
        let run = self.record().run.clone();
        run.expect("the stream begins with the run")
    }

    /// Epochs in the order in which their results arrived.
    pub fn epochs(&self) -> Vec<u32> {
        self.record().epochs.clone()
    }

    /// Steps that were reported more than once: committed again after the only workers that had them were lost.
    pub fn repeated(&self) -> u64 {
        self.record().repeated
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().expect("no holder of this lock panics")
    }
}

impl Drop for RunWatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}
