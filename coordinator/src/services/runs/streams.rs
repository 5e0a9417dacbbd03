//! What is streamed of a run: its events, its losses.

use fovea_core::ids::RunId;
use fovea_proto::pb;
use fovea_proto::pb::run_event::Event as Wire;
use tokio::sync::{broadcast, mpsc};
use tonic::Status;

use super::wire;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::error::ApiError;
use crate::run::{RunEvent, Shown, Watched};

/// Losses in one message.
const LOSSES_PAGE: usize = 10_000;

/// Sends the losses in a run's ledger, a page at a time, up to its first gap.
pub(super) async fn send_losses(
    sender: &mpsc::Sender<Result<pb::LossesPart, Status>>,
    runs: &Directory,
    number: u64,
) {
    let mut first_step = 1;
    loop {
        let rows = match runs.journal.losses(number, first_step, LOSSES_PAGE).await {
            Ok(rows) => rows,
            Err(error) => {
                let error = ApiError::Unavailable(error.to_string());
                let _ = sender.send(Err(error.into())).await;
                return;
            }
        };
        let follow = (first_step..).zip(&rows);
        let follow = follow.take_while(|(step, row)| *step == row.step);
        let losses: Vec<f64> = follow.map(|(_, row)| row.loss).collect();
        let whole = losses.len() == LOSSES_PAGE;
        let next = first_step + losses.len() as u64;
        if !losses.is_empty() {
            let part = pb::LossesPart { first_step, losses };
            if sender.send(Ok(part)).await.is_err() {
                return;
            }
        }
        if !whole {
            return;
        }
        first_step = next;
    }
}

/// Sends a watcher what happens until the run ends or the watcher is gone. A watcher that is too
/// slow gets the run as it is, every epoch included, and goes on from there.
pub(super) async fn follow(
    sender: &mpsc::Sender<Result<pb::RunEvent, Status>>,
    mut watched: Watched,
    runs: &Directory,
    run: &RunId,
    clock: Clock,
) {
    let mut blocked = runs.journal.blocked();
    loop {
        if !send_run(sender, &watched.now, clock.now()).await {
            return;
        }
        loop {
            let event = tokio::select! {
                event = watched.events.recv() => event,
                // What it waits for has changed: for the journal, or no longer.
                Ok(()) = blocked.changed() => break,
            };
            match event {
                Ok(RunEvent::Run(shown)) => {
                    if !send_run(sender, &shown, clock.now()).await {
                        return;
                    }
                }
                Ok(event) => {
                    let event = match event {
                        RunEvent::Run(shown) => Wire::Run(wire(&shown, clock.now())),
                        RunEvent::Step(report) => Wire::Step((&report).into()),
                        RunEvent::Epoch(result) => Wire::Epoch((&*result).into()),
                        RunEvent::Checkpoint(info) => Wire::Checkpoint((&*info).into()),
                        RunEvent::Note(text) => Wire::Note(text),
                    };
                    let event = pb::RunEvent { event: Some(event) };
                    if sender.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => break,
                // The actor has closed: the run has ended.
                Err(broadcast::error::RecvError::Closed) => break,
            }
        }
        match subscribe(runs, run).await {
            Ok(fresh) => watched = fresh,
            Err(error) => {
                let _ = sender.send(Err(error.into())).await;
                return;
            }
        }
    }
}

/// The run as it is, and what follows.
pub(super) async fn subscribe(runs: &Directory, run: &RunId) -> Result<Watched, ApiError> {
    if let Some(live) = runs.cluster.find(run).await?
        && let Some(watched) = live.watch()
    {
        return Ok(Watched {
            now: runs.with_journal(watched.now),
            ..watched
        });
    }
    // It has ended: nothing follows.
    Ok(Watched {
        now: runs.shown(run).await?,
        events: broadcast::Sender::new(1).subscribe(),
    })
}

/// Sends the run as it is. False when nothing more is to be sent.
async fn send_run(
    sender: &mpsc::Sender<Result<pb::RunEvent, Status>>,
    shown: &Shown,
    now: u64,
) -> bool {
    let event = pb::RunEvent {
        event: Some(Wire::Run(wire(shown, now))),
    };
    sender.send(Ok(event)).await.is_ok() && !shown.run.is_terminal()
}
