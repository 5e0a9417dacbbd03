//! `Runs`: what people start, watch and stop.

use fovea_core::ids::RunId;
use fovea_core::ledger::{Audit, audit};
use fovea_core::run::Phase;
use fovea_core::spec::RunSpec;
use fovea_proto::pb;
use fovea_proto::pb::run_event::Event as Wire;
use fovea_proto::pb::runs_server::Runs;
use tokio::sync::{broadcast, mpsc};
use tonic::{Request, Response, Status};

use super::transfer::Answers;
use super::{Context, check};
use crate::error::ApiError;
use crate::owner::{Handle, Ledger, Message, RunEvent, RunView, Watched};

/// Most runs in a page, and how many there are unless the client says.
const PAGE: (u32, u32) = (1000, 100);

/// Events that a watcher's stream holds before the owner's channel takes over.
const WATCH_AHEAD: usize = 16;

/// The service.
#[derive(Debug)]
pub(crate) struct RunsService(pub Context);

#[tonic::async_trait]
impl Runs for RunsService {
    async fn submit(
        &self,
        request: Request<pb::SubmitRequest>,
    ) -> Result<Response<pb::SubmitResponse>, Status> {
        let pb::SubmitRequest { spec } = request.into_inner();
        let spec = spec.ok_or_else(|| ApiError::invalid("spec", "is missing"))?;
        let spec = RunSpec::try_from(spec).map_err(ApiError::from)?;
        spec.validate().map_err(ApiError::from)?;
        let spec = Box::new(spec);
        let view = self
            .0
            .owner
            .ask(|reply| Message::Submit { spec, reply })
            .await?;
        Ok(Response::new(pb::SubmitResponse {
            run: Some(wire(&view)),
        }))
    }

    async fn get(&self, request: Request<pb::GetRunRequest>) -> Result<Response<pb::Run>, Status> {
        let run = check::run_id("run_id", &request.into_inner().run_id)?;
        let view = self
            .0
            .owner
            .ask(|reply| Message::GetRun { run, reply })
            .await?;
        Ok(Response::new(wire(&view)))
    }

    async fn list(
        &self,
        request: Request<pb::ListRunsRequest>,
    ) -> Result<Response<pb::ListRunsResponse>, Status> {
        let pb::ListRunsRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let (most, default) = PAGE;
        let limit = match page_size {
            0 => default,
            size if size <= most => size,
            size => {
                let problem = format!("{size} is more than {most}");
                return Err(ApiError::invalid("page_size", problem).into());
            }
        } as usize;
        let before = match &*page_token {
            "" => u64::MAX,
            token => token.parse().map_err(|_| {
                ApiError::invalid("page_token", "was not given by this coordinator")
            })?,
        };
        // One more than asked for tells whether there is a next page.
        let mut runs = self
            .0
            .owner
            .ask(|reply| Message::ListRuns {
                before,
                limit: limit + 1,
                reply,
            })
            .await?;
        let more = runs.len() > limit;
        runs.truncate(limit);
        let next_page_token = match runs.last() {
            Some(last) if more => last.run.number.to_string(),
            _ => String::new(),
        };
        Ok(Response::new(pb::ListRunsResponse {
            runs: runs.iter().map(wire).collect(),
            next_page_token,
        }))
    }

    type WatchStream = Answers<pb::RunEvent>;

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let run = check::run_id("run_id", &request.into_inner().run_id)?;
        let watched = subscribe(&self.0.owner, &run).await?;
        let (sender, receiver) = mpsc::channel(WATCH_AHEAD);
        let Context { owner, closing, .. } = self.0.clone();
        self.0.tasks.spawn(async move {
            tokio::select! {
                // First, so that what happened before the end is told before the end.
                biased;
                () = tell(&sender, watched, &owner, &run) => {}
                () = sender.closed() => {}
                () = closing.cancelled() => {
                    let _ = sender.try_send(Err(ApiError::ShuttingDown.into()));
                }
            }
        });
        Ok(Response::new(Answers::new(receiver)))
    }

    async fn cancel(
        &self,
        request: Request<pb::CancelRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        let run = check::run_id("run_id", &request.into_inner().run_id)?;
        let view = self
            .0
            .owner
            .ask(|reply| Message::Cancel { run, reply })
            .await?;
        Ok(Response::new(wire(&view)))
    }

    async fn pause(&self, request: Request<pb::PauseRequest>) -> Result<Response<pb::Run>, Status> {
        let run = check::run_id("run_id", &request.into_inner().run_id)?;
        let view = self
            .0
            .owner
            .ask(|reply| Message::Pause { run, reply })
            .await?;
        Ok(Response::new(wire(&view)))
    }

    async fn audit(
        &self,
        request: Request<pb::AuditRequest>,
    ) -> Result<Response<pb::AuditReport>, Status> {
        let run = check::run_id("run_id", &request.into_inner().run_id)?;
        let ledger = self
            .0
            .owner
            .ask(|reply| Message::ReadLedger { run, reply })
            .await?;
        // A long run's ledger takes a while to go through.
        let report = tokio::task::spawn_blocking(move || audited(ledger))
            .await
            .map_err(|e| ApiError::Internal(e.to_string()))?;
        Ok(Response::new(report))
    }

    async fn delete(
        &self,
        _: Request<pb::DeleteRunRequest>,
    ) -> Result<Response<pb::DeleteRunResponse>, Status> {
        Err(Status::unimplemented("Runs.Delete"))
    }

    async fn resume(
        &self,
        request: Request<pb::ResumeRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        let pb::ResumeRequest {
            run_id,
            checkpoint_step: checkpoint,
        } = request.into_inner();
        let run = check::run_id("run_id", &run_id)?;
        let view = self
            .0
            .owner
            .ask(|reply| Message::Resume {
                run,
                checkpoint,
                reply,
            })
            .await?;
        Ok(Response::new(wire(&view)))
    }
}

fn audited(ledger: Ledger) -> pb::AuditReport {
    let Ledger {
        run,
        plan,
        entries,
        bytes,
    } = ledger;
    let committed = run.progress.map_or(0, |p| p.step);
    let Audit {
        steps,
        clean_epochs,
        samples_used,
        problems,
    } = audit(entries, &plan, committed);
    pb::AuditReport {
        run_id: run.id.to_string(),
        train_samples: run.extent.train_samples,
        steps,
        total_steps: run.extent.total_steps,
        clean_epochs,
        samples_used,
        problems,
        ledger_bytes: bytes,
    }
}

/// Tells a watcher what happens until the run ends or the watcher is gone. A watcher that is too
/// slow gets the run as it is, every epoch included, and goes on from there.
async fn tell(
    sender: &mpsc::Sender<Result<pb::RunEvent, Status>>,
    mut watched: Watched,
    owner: &Handle,
    run: &RunId,
) {
    loop {
        if !send_run(sender, &watched.now).await {
            return;
        }
        loop {
            match watched.events.recv().await {
                Ok(RunEvent::Run(view)) => {
                    if !send_run(sender, &view).await {
                        return;
                    }
                }
                Ok(event) => {
                    let event = match event {
                        RunEvent::Run(view) => Wire::Run(wire(&view)),
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
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
        match subscribe(owner, run).await {
            Ok(fresh) => watched = fresh,
            Err(error) => {
                let _ = sender.send(Err(error.into())).await;
                return;
            }
        }
    }
}

async fn subscribe(owner: &Handle, run: &RunId) -> Result<Watched, ApiError> {
    let run = run.clone();
    owner.ask(|reply| Message::Watch { run, reply }).await
}

/// Sends the run as it is. False when nothing more is to be told.
async fn send_run(sender: &mpsc::Sender<Result<pb::RunEvent, Status>>, view: &RunView) -> bool {
    let event = pb::RunEvent {
        event: Some(Wire::Run(wire(view))),
    };
    sender.send(Ok(event)).await.is_ok() && !view.run.is_terminal()
}

/// A run on the wire. What a queued run waits for is said where nothing weightier is.
fn wire(view: &RunView) -> pb::Run {
    let mut run = pb::Run::from(&view.run);
    if let (Phase::Queued { .. }, Some(waiting)) = (&view.run.phase, &view.waiting) {
        run.reason = if run.reason.is_empty() {
            waiting.clone()
        } else {
            format!("{}; {waiting}", run.reason)
        };
    }
    run
}
