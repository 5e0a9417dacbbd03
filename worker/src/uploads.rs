//! Uploads of checkpoint slices: at most one is in progress and at most one waits. Training does not wait for them.

use std::fmt::Display;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::BackoffBuilder;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::link::{Refused, backoff, delays, refusal};
use crate::training::{Control, Snapshot};

/// Shortest and longest delay before a slice that the coordinator refused is sent again.
const REFUSED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Whether and when a slice is sent again after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The coordinator is away: soon.
    Soon,
    /// It has no room, or its store is not available now: a full disk can be cleared, and days of training must not be
    /// lost to it. After 1 s, and up to 10 s later on.
    Later,
    /// It would be refused again.
    Never,
}

/// An error of an upload.
pub trait UploadFailure: Display {
    /// Whether and when to send the slice again.
    fn retry(&self) -> Retry;
}

/// The coordinator did not take a slice.
#[derive(Debug, thiserror::Error)]
#[error("{}", fovea_proto::describe(.0))]
pub struct NotTaken(#[from] tonic::Status);

impl UploadFailure for NotTaken {
    fn retry(&self) -> Retry {
        match refusal(&self.0) {
            Refused::Away => Retry::Soon,
            Refused::Exhausted | Refused::Unreadable => Retry::Later,
            Refused::Corrupt | Refused::Precondition | Refused::Other => Retry::Never,
        }
    }
}

/// The last slice was not stored.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator refused this worker's slice of checkpoint {step}: {reason}")]
pub struct UploadError {
    step: u64,
    reason: String,
}

/// Sends the snapshots of a generation until `snapshots` is closed and all are through. A newer one replaces one that
/// waits, so the last one is never dropped. Returns what became of the last.
///
/// A snapshot is held back until the results of all epochs that ended before it are acknowledged (`next_epoch` is the
/// first without): a coordinator that loses a result rewinds to a checkpoint from which the result can be computed
/// again. While the coordinator is away, or has no room, a slice is sent again and again, and soon if the worker shuts
/// down (`control`); the caller drops this future when the generation is over.
pub async fn upload_all<E, F>(
    mut snapshots: mpsc::Receiver<Snapshot>,
    next_epoch: watch::Receiver<u32>,
    steps_per_epoch: u64,
    control: &Control,
    send: impl Fn(Snapshot) -> F,
) -> Result<(), UploadError>
where
    E: UploadFailure,
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
            control,
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
                && !signals.sending.load(Ordering::Relaxed)
            {
                replaced(step, newer.step);
                break Ok(());
            }
        };
        if let Err(error) = &last {
            warn!(step, "checkpoint.upload_failed: {error}");
        }
    }
}

fn replaced(step: u64, newer: u64) {
    warn!(
        step,
        "checkpoint.upload_failed: the slice of checkpoint {step} could not be sent in time; sending that of checkpoint \
         {newer} instead"
    );
}

/// Shared by a delivery and the loop around it, which are one task.
#[derive(Default)]
struct Signals {
    /// The slice is being sent at the moment.
    sending: AtomicBool,
    /// A newer one waits, so this one need not be sent again.
    newer: AtomicBool,
}

/// Sends one slice.
async fn deliver<E, F>(
    snapshot: &Snapshot,
    mut next_epoch: watch::Receiver<u32>,
    steps_per_epoch: u64,
    control: &Control,
    send: &impl Fn(Snapshot) -> F,
    signals: &Signals,
) -> Result<(), UploadError>
where
    E: UploadFailure,
    F: Future<Output = Result<(), E>>,
{
    let step = snapshot.step;
    // Epochs that ended before it; one that ends at it can be evaluated again from it.
    let ended = step.saturating_sub(1) / steps_per_epoch.max(1);
    // If there are no more acknowledgements, the generation is over.
    let _ = next_epoch.wait_for(|next| u64::from(*next) >= ended).await;
    let mut soon = backoff().build();
    let mut later = delays(REFUSED.0, REFUSED.1).build();
    loop {
        signals.sending.store(true, Ordering::Relaxed);
        let sent = send(snapshot.clone()).await;
        signals.sending.store(false, Ordering::Relaxed);
        let error = match sent {
            Ok(()) => {
                info!(
                    step,
                    "checkpoint.slice_uploaded: this worker's slice of checkpoint {step} is stored"
                );
                return Ok(());
            }
            Err(error) => error,
        };
        let delay = match error.retry() {
            Retry::Soon => soon.next().unwrap_or(REFUSED.0),
            Retry::Later => later.next().unwrap_or(REFUSED.1).min(REFUSED.1),
            Retry::Never => {
                let reason = error.to_string();
                return Err(UploadError { step, reason });
            }
        };
        if signals.newer.load(Ordering::Relaxed) {
            warn!(
                step,
                "checkpoint.upload_failed: {error}; giving up checkpoint {step}, a newer one follows"
            );
            return Ok(());
        }
        warn!(
            step,
            "checkpoint.upload_failed: {error}; sending the slice of checkpoint {step} again in {delay:.1?}"
        );
        tokio::select! {
            () = sleep(delay) => {}
            // The disk may have been cleared by now, and a worker that shuts down has no 10 s more.
            () = control.wait_leaving() => sleep(delay.min(REFUSED.0)).await,
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
    #[error("a test wants it: {0:?}")]
    struct Answer(Retry);

    impl UploadFailure for Answer {
        fn retry(&self) -> Retry {
            self.0
        }
    }

    type Call = (u64, oneshot::Sender<Result<(), Answer>>);

    /// An uploader whose calls a test answers.
    struct Bench {
        snapshots: Option<mpsc::Sender<Snapshot>>,
        next_epoch: watch::Sender<u32>,
        control: Control,
        calls: mpsc::Receiver<Call>,
        result: tokio::task::JoinHandle<Result<(), UploadError>>,
    }

    impl Bench {
        fn new() -> Self {
            let control = Control::default();
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
                result: tokio::spawn({
                    let control = control.clone();
                    async move { upload_all(receive, acknowledged, 10, &control, send).await }
                }),
                control,
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

        async fn end(mut self) -> Result<(), UploadError> {
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
            bench.call().await.1.send(Err(Answer(Retry::Soon))).unwrap();
        }
        bench
            .call()
            .await
            .1
            .send(Err(Answer(Retry::Never)))
            .unwrap();
        bench.offer(2).await;
        let (step, answer) = bench.call().await;
        assert_eq!(step, 2);
        bench.offer(3).await;
        answer.send(Err(Answer(Retry::Soon))).unwrap();
        let (step, answer) = bench.call().await;
        assert_eq!(step, 3, "the newer one instead");
        answer.send(Ok(())).unwrap();
        bench.offer(4).await;
        bench
            .call()
            .await
            .1
            .send(Err(Answer(Retry::Never)))
            .unwrap();
        let reason = bench.end().await.unwrap_err().to_string();
        assert!(reason.contains("checkpoint 4"), "{reason}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_one_is_sent_until_there_is_room_again() {
        let mut bench = Bench::new();
        bench.offer(1).await;
        bench.snapshots = None;
        let mut delays = Vec::new();
        for _ in 0..8 {
            bench
                .call()
                .await
                .1
                .send(Err(Answer(Retry::Later)))
                .unwrap();
            // The clock is paused: it shows the delays themselves.
            let refused = tokio::time::Instant::now();
            // Not through `call`: its deadline would move the paused clock.
            let (step, answer) = bench.calls.recv().await.unwrap();
            assert_eq!(step, 1);
            delays.push(refused.elapsed());
            answer.send(Err(Answer(Retry::Later))).unwrap();
        }
        let (shortest, longest) = REFUSED;
        let within = |delay: &Duration| *delay >= shortest && *delay <= longest + shortest / 100;
        assert!(delays.iter().all(within), "{delays:?}");
        bench.call().await.1.send(Ok(())).unwrap();
        bench.end().await.unwrap();
    }

    /// Of the few seconds that a worker has left to stop, none pass without an attempt.
    #[tokio::test(start_paused = true)]
    async fn a_worker_that_shuts_down_sends_again_within_2_s() {
        let mut bench = Bench::new();
        bench.offer(1).await;
        bench.snapshots = None;
        // So many refusals that the delays have grown to 10 s.
        for _ in 0..8 {
            let (_, answer) = bench.calls.recv().await.unwrap();
            answer.send(Err(Answer(Retry::Later))).unwrap();
        }
        // It sleeps now, with the clock that only sleepers move.
        tokio::task::yield_now().await;
        bench.control.leave();
        for _ in 0..3 {
            let before = tokio::time::Instant::now();
            let (_, answer) = bench.calls.recv().await.unwrap();
            let waited = before.elapsed();
            assert!(waited <= Duration::from_secs(2), "{waited:?}");
            answer.send(Err(Answer(Retry::Later))).unwrap();
        }
        bench.calls.recv().await.unwrap().1.send(Ok(())).unwrap();
        bench.end().await.unwrap();
    }

    #[test]
    fn answers_of_the_coordinator_are_distinguished() {
        use tonic::Status;
        for (status, retry) in [
            (
                Status::unavailable("the coordinator is shutting down"),
                Retry::Soon,
            ),
            (
                Status::unavailable("the checkpoint store is not mounted"),
                Retry::Later,
            ),
            (Status::resource_exhausted("only 12 MiB free"), Retry::Later),
            (Status::deadline_exceeded("stalled"), Retry::Soon),
            (
                Status::failed_precondition("the generation is over"),
                Retry::Never,
            ),
        ] {
            let text = status.message().to_owned();
            let failure = NotTaken::from(status);
            assert_eq!(failure.retry(), retry, "{failure}");
            // In the coordinator's own words.
            assert_eq!(failure.to_string(), text);
        }
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
