//! Uploads of checkpoint slices: one travels, at most one waits, and training waits for neither.

use std::fmt::Display;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::link::Backoff;
use crate::training::Snapshot;

/// Whether it is worth to send a slice again after an error.
pub trait Passing {
    /// The coordinator is away, or has no room at the moment: a full disk can be mended, and a week of
    /// training must not be lost to it.
    fn may_pass(&self) -> bool;
}

impl Passing for tonic::Status {
    fn may_pass(&self) -> bool {
        crate::link::is_away(self) || self.code() == tonic::Code::ResourceExhausted
    }
}

/// Sends the snapshots of a generation until `snapshots` is closed and all are through. A newer one
/// replaces one that waits, so the last one is never dropped. Returns what became of the last.
///
/// A snapshot is held back until the results of all epochs that ended before it are acknowledged
/// (`next_epoch` is the first without): a coordinator that loses a result goes back to a checkpoint
/// from which it can be had again. While the coordinator is away a slice is sent again and again; the
/// caller drops all of this when the generation is over.
pub async fn upload_all<E, F>(
    mut snapshots: mpsc::Receiver<Snapshot>,
    next_epoch: watch::Receiver<u32>,
    steps_per_epoch: u64,
    send: impl Fn(Snapshot) -> F,
) -> Result<(), String>
where
    E: Passing + Display,
    F: Future<Output = Result<(), E>>,
{
    let mut last = Ok(());
    let mut waiting: Option<Snapshot> = None;
    let mut open = true;
    loop {
        let next = match waiting.take() {
            None if open => snapshots.recv().await,
            next => next,
        };
        let Some(snapshot) = next else {
            return last;
        };
        let step = snapshot.step;
        let signals = Signals::default();
        let delivery = deliver(
            &snapshot,
            next_epoch.clone(),
            steps_per_epoch,
            &send,
            &signals,
        );
        let mut delivery = pin!(delivery);
        last = loop {
            tokio::select! {
                biased;
                delivered = &mut delivery => break delivered,
                newer = snapshots.recv(), if open => match newer {
                    None => open = false,
                    Some(newer) => {
                        if let Some(dropped) = &waiting {
                            replaced(dropped.step, newer.step);
                        }
                        waiting = Some(newer);
                        signals.newer.store(true, Ordering::Relaxed);
                    }
                }
            }
            if let Some(newer) = &waiting
                && !signals.travels.load(Ordering::Relaxed)
            {
                replaced(step, newer.step);
                break Ok(());
            }
        };
        if let Err(reason) = &last {
            warn!(step, "{reason}");
        }
    }
}

fn replaced(step: u64, newer: u64) {
    warn!(
        step,
        newer, "a slice that could not be sent is replaced by a newer one"
    );
}

/// Between a delivery and the loop around it, which are one task.
#[derive(Default)]
struct Signals {
    /// The slice is under way at the moment.
    travels: AtomicBool,
    /// A newer one waits, so this one need not be sent again.
    newer: AtomicBool,
}

/// Sends one slice.
async fn deliver<E, F>(
    snapshot: &Snapshot,
    mut next_epoch: watch::Receiver<u32>,
    steps_per_epoch: u64,
    send: &impl Fn(Snapshot) -> F,
    signals: &Signals,
) -> Result<(), String>
where
    E: Passing + Display,
    F: Future<Output = Result<(), E>>,
{
    let step = snapshot.step;
    // Epochs that ended before it; one that ends at it can be evaluated again from it.
    let ended = step.saturating_sub(1) / steps_per_epoch.max(1);
    // If nobody acknowledges any more, the generation is over.
    let _ = next_epoch.wait_for(|next| u64::from(*next) >= ended).await;
    let mut backoff = Backoff::default();
    loop {
        signals.travels.store(true, Ordering::Relaxed);
        let sent = send(snapshot.clone()).await;
        signals.travels.store(false, Ordering::Relaxed);
        match sent {
            Ok(()) => {
                info!(step, "uploaded a slice of the checkpoint");
                return Ok(());
            }
            Err(error) if error.may_pass() && signals.newer.load(Ordering::Relaxed) => {
                warn!(step, "a slice was not taken: {error}; a newer one follows");
                return Ok(());
            }
            Err(error) if error.may_pass() => {
                warn!(
                    step,
                    "a slice of the checkpoint was not taken: {error}; trying again"
                );
                backoff.wait().await;
            }
            Err(error) => {
                return Err(format!(
                    "the slice of checkpoint {step} was not taken: {error}"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("away: {0}")]
    struct Answer(bool);

    impl Passing for Answer {
        fn may_pass(&self) -> bool {
            self.0
        }
    }

    type Call = (u64, oneshot::Sender<Result<(), Answer>>);

    /// An uploader whose calls a test answers.
    struct Bench {
        snapshots: Option<mpsc::Sender<Snapshot>>,
        next_epoch: watch::Sender<u32>,
        calls: mpsc::Receiver<Call>,
        result: tokio::task::JoinHandle<Result<(), String>>,
    }

    impl Bench {
        fn new() -> Self {
            let (snapshots, receive) = mpsc::channel(1);
            let (next_epoch, acknowledged) = watch::channel(0);
            let (call, calls) = mpsc::channel::<Call>(1);
            let send = move |snapshot: Snapshot| {
                let call = call.clone();
                async move {
                    let (answer, answered) = oneshot::channel();
                    call.send((snapshot.step, answer)).await.unwrap();
                    answered.await.unwrap()
                }
            };
            Self {
                snapshots: Some(snapshots),
                next_epoch,
                calls,
                result: tokio::spawn(upload_all(receive, acknowledged, 10, send)),
            }
        }

        /// Offers one; returns when the uploader has taken it, because one more then fits.
        async fn offer(&self, step: u64) {
            let snapshots = self.snapshots.as_ref().unwrap();
            let snapshot = Snapshot {
                step,
                offset: 0,
                bytes: bytes::Bytes::new(),
                digest: 0,
            };
            snapshots.send(snapshot).await.unwrap();
            let taken = snapshots.reserve();
            timeout(Duration::from_secs(20), taken)
                .await
                .unwrap()
                .unwrap();
        }

        async fn call(&mut self) -> Call {
            let call = self.calls.recv();
            timeout(Duration::from_secs(20), call)
                .await
                .unwrap()
                .unwrap()
        }

        async fn end(mut self) -> Result<(), String> {
            self.snapshots = None;
            timeout(Duration::from_secs(20), self.result)
                .await
                .unwrap()
                .unwrap()
        }
    }

    #[tokio::test]
    async fn a_newer_one_replaces_the_one_that_waits_and_the_last_is_sent() {
        let mut bench = Bench::new();
        bench.offer(1).await;
        let (step, answer) = bench.call().await;
        assert_eq!(step, 1);
        for step in [2, 3, 4] {
            bench.offer(step).await;
        }
        bench.snapshots = None;
        answer.send(Ok(())).unwrap();
        let (step, answer) = bench.call().await;
        assert_eq!(step, 4);
        answer.send(Ok(())).unwrap();
        bench.end().await.unwrap();
    }

    #[tokio::test]
    async fn it_is_sent_again_while_the_coordinator_is_away_and_given_up_when_refused() {
        let mut bench = Bench::new();
        bench.offer(1).await;
        for _ in 0..3 {
            bench.call().await.1.send(Err(Answer(true))).unwrap();
        }
        bench.call().await.1.send(Err(Answer(false))).unwrap();
        bench.offer(2).await;
        let (step, answer) = bench.call().await;
        assert_eq!(step, 2);
        bench.offer(3).await;
        answer.send(Err(Answer(true))).unwrap();
        let (step, answer) = bench.call().await;
        assert_eq!(step, 3, "the newer one instead");
        answer.send(Ok(())).unwrap();
        bench.offer(4).await;
        bench.call().await.1.send(Err(Answer(false))).unwrap();
        let reason = bench.end().await.unwrap_err();
        assert!(reason.contains("checkpoint 4"), "{reason}");
    }

    #[tokio::test]
    async fn results_of_earlier_epochs_come_first() {
        let mut bench = Bench::new();
        // The epoch that ends at step 10 itself may still be open.
        bench.offer(10).await;
        bench.call().await.1.send(Ok(())).unwrap();
        bench.offer(11).await;
        assert!(bench.calls.try_recv().is_err());
        // Nor does one that waits for that keep a newer one from coming.
        bench.offer(12).await;
        assert!(bench.calls.try_recv().is_err());
        bench.next_epoch.send(1).unwrap();
        let (step, answer) = bench.call().await;
        assert_eq!(step, 12);
        answer.send(Ok(())).unwrap();
        bench.end().await.unwrap();
    }
}
