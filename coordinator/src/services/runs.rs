//! `Runs`: what people start, watch and stop.

mod streams;

use fovea_core::ids::RunId;
use fovea_core::ledger::{Audit, Auditor};
use fovea_core::spec::RunSpec;
use fovea_proto::pb;
use fovea_proto::pb::runs_server::Runs;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::accepting::{accept, plan};
use super::cluster::left_out_of;
use super::evaluations::{self, Wanted};
use super::transfer::Answers;
use super::{Context, check, peer};
use crate::access::{Caller, Subject, caller};
use crate::blocking::blocking;
use crate::error::ApiError;
use crate::run::{DeletedRun, PersonRequest, RunInput, Shown};
use streams::{follow, send_losses, subscribe};

/// Most runs in a page, and how many there are unless the client says.
const PAGE: (u32, u32) = (1000, 100);

/// Steps of a ledger that an audit reads at a time.
const LEDGER_PAGE: usize = 2_000;

/// Events that a watcher's stream holds before the run's channel takes over.
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
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let pb::SubmitRequest { spec } = request.into_inner();
        let spec = spec.ok_or_else(|| ApiError::invalid("spec", "is missing"))?;
        let spec = RunSpec::try_from(spec).map_err(ApiError::from)?;
        spec.validate().map_err(ApiError::from)?;
        if spec.evaluate.is_some() {
            let problem = "is for the coordinator to fill in; Runs.Evaluate makes an evaluation";
            return Err(ApiError::invalid("spec.evaluate", problem).into());
        }
        // Until it has an id.
        subject.set(format_args!("a run {}", spec.name));
        // In a task: a client that goes away must not leave a run that is in the journal and has no actor.
        let accepting = accept(self.0.clone(), spec, caller.owner(), subject.clone());
        let accepted = self.0.tasks.spawn(accepting).await;
        let shown = accepted.map_err(|error| ApiError::Internal(error.to_string()))??;
        Ok(Response::new(pb::SubmitResponse {
            run: Some(self.wire(&shown)),
        }))
    }

    async fn get(&self, request: Request<pb::GetRunRequest>) -> Result<Response<pb::Run>, Status> {
        let run = check::run_id("run_id", &request.into_inner().run_id)?;
        Ok(Response::new(self.wire(&self.0.runs.shown(&run).await?)))
    }

    async fn list(
        &self,
        request: Request<pb::ListRunsRequest>,
    ) -> Result<Response<pb::ListRunsResponse>, Status> {
        let pb::ListRunsRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let check::Page { limit, before } = check::page(page_size, &page_token, PAGE)?;
        // One more than asked for tells whether there is a next page.
        let mut runs = self.0.runs.list(before, limit + 1).await?;
        let more = runs.len() > limit;
        runs.truncate(limit);
        let next_page_token = match runs.last() {
            Some(last) if more => last.run.number.to_string(),
            _ => String::new(),
        };
        Ok(Response::new(pb::ListRunsResponse {
            runs: runs.iter().map(|run| self.wire(run)).collect(),
            next_page_token,
            store_problem: self
                .0
                .remote
                .view()
                .and_then(|view| view.problem.clone())
                .unwrap_or_default(),
        }))
    }

    type WatchStream = Answers<pb::RunEvent>;

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let permit = self
            .0
            .limits
            .watch(peer(&request))
            .map_err(ApiError::from)?;
        let run = check::run_id("run_id", &request.into_inner().run_id)?;
        let watched = subscribe(&self.0.runs, &run).await?;
        let (sender, receiver) = mpsc::channel(WATCH_AHEAD);
        let Context {
            runs,
            closing,
            clock,
            ..
        } = self.0.clone();
        self.0.tasks.spawn(async move {
            let _permit = permit;
            tokio::select! {
                // First, so that what happened before the end is sent before the end.
                biased;
                () = follow(&sender, watched, &runs, &run, clock) => {}
                () = sender.closed() => {}
                () = closing.cancelled() => {
                    let _ = sender.try_send(Err(ApiError::ShuttingDown.into()));
                }
            }
        });
        Ok(Response::new(Answers::new(receiver)))
    }

    async fn evaluate(
        &self,
        request: Request<pb::EvaluateRequest>,
    ) -> Result<Response<pb::EvaluateResponse>, Status> {
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let wanted = Wanted::parse(request.into_inner(), caller.owner())?;
        subject.set(&wanted.run);
        // In a task, as a submission.
        let making = evaluations::evaluate(self.0.clone(), wanted, subject.clone());
        let made = self.0.tasks.spawn(making).await;
        let (shown, existed) = made.map_err(|error| ApiError::Internal(error.to_string()))??;
        Ok(Response::new(pb::EvaluateResponse {
            run: Some(self.wire(&shown)),
            existed,
        }))
    }

    type ScoresStream = Answers<pb::ScoresPart>;

    async fn scores(
        &self,
        request: Request<pb::ScoresRequest>,
    ) -> Result<Response<Self::ScoresStream>, Status> {
        let permit = self
            .0
            .limits
            .download(peer(&request))
            .map_err(ApiError::from)?;
        let pb::ScoresRequest { run_id, step, maps } = request.into_inner();
        let run = check::run_id("run_id", &run_id)?;
        let parts = evaluations::scores(&self.0, &run, step, maps).await?;
        let (sender, receiver) = mpsc::channel(WATCH_AHEAD);
        let closing = self.0.closing.clone();
        self.0.tasks.spawn(async move {
            let _permit = permit;
            let send = async {
                for part in parts {
                    if sender.send(Ok(part)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = send => {}
                () = closing.cancelled() => {
                    let _ = sender.try_send(Err(ApiError::ShuttingDown.into()));
                }
            }
        });
        Ok(Response::new(Answers::new(receiver)))
    }

    type LossesStream = Answers<pb::LossesPart>;

    async fn losses(
        &self,
        request: Request<pb::LossesRequest>,
    ) -> Result<Response<Self::LossesStream>, Status> {
        let permit = self
            .0
            .limits
            .download(peer(&request))
            .map_err(ApiError::from)?;
        let id = check::run_id("run_id", &request.into_inner().run_id)?;
        let run = self.flushed(&id).await?.run;
        let (sender, receiver) = mpsc::channel(WATCH_AHEAD);
        let Context { runs, closing, .. } = self.0.clone();
        self.0.tasks.spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = send_losses(&sender, &runs, run.number) => {}
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
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let run = check::run_id("run_id", &request.into_inner().run_id)?;
        self.authorize(&caller, &subject, &run).await?;
        Ok(Response::new(self.ask(&run, PersonRequest::Cancel).await?))
    }

    async fn pause(&self, request: Request<pb::PauseRequest>) -> Result<Response<pb::Run>, Status> {
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let run = check::run_id("run_id", &request.into_inner().run_id)?;
        self.authorize(&caller, &subject, &run).await?;
        Ok(Response::new(self.ask(&run, PersonRequest::Pause).await?))
    }

    async fn audit(
        &self,
        request: Request<pb::AuditRequest>,
    ) -> Result<Response<pb::AuditReport>, Status> {
        let run = check::run_id("run_id", &request.into_inner().run_id)?;
        Ok(Response::new(self.audited(&run).await?))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteRunRequest>,
    ) -> Result<Response<pb::DeleteRunResponse>, Status> {
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let pb::DeleteRunRequest {
            run_id,
            with_checkpoints,
        } = request.into_inner();
        let run = check::run_id("run_id", &run_id)?;
        self.authorize(&caller, &subject, &run).await?;
        let delete = |reply| RunInput::Delete {
            with_checkpoints,
            reply,
        };
        let DeletedRun { checkpoints, bytes } = self.0.runs.ask(&run, delete).await?;
        Ok(Response::new(pb::DeleteRunResponse {
            checkpoints,
            freed_bytes: bytes,
        }))
    }

    async fn resume(
        &self,
        request: Request<pb::ResumeRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let pb::ResumeRequest {
            run_id,
            checkpoint_step: checkpoint,
        } = request.into_inner();
        let run = check::run_id("run_id", &run_id)?;
        self.authorize(&caller, &subject, &run).await?;
        let request = PersonRequest::Resume { checkpoint };
        Ok(Response::new(self.ask(&run, request).await?))
    }

    async fn set_priority(
        &self,
        request: Request<pb::SetPriorityRequest>,
    ) -> Result<Response<pb::Run>, Status> {
        let (caller, subject) = (caller(&request), Subject::of(&request));
        let pb::SetPriorityRequest { run_id, priority } = request.into_inner();
        let run = check::run_id("run_id", &run_id)?;
        let priority = check::priority("priority", priority)?;
        self.authorize(&caller, &subject, &run).await?;
        subject.set(format_args!("{run} to {priority}"));
        let by = caller.owner();
        let request = PersonRequest::SetPriority { priority, by };
        Ok(Response::new(self.ask(&run, request).await?))
    }
}

impl RunsService {
    fn wire(&self, shown: &Shown) -> pb::Run {
        wire(shown, self.0.clock.now())
    }

    /// Names the run for the audit log, and refuses the caller if it may not change it.
    async fn authorize(
        &self,
        caller: &Caller,
        subject: &Subject,
        run: &RunId,
    ) -> Result<(), ApiError> {
        subject.set(run);
        self.0.authorize(caller, run).await
    }

    async fn ask(&self, run: &RunId, request: PersonRequest) -> Result<pb::Run, ApiError> {
        let ask = |reply| RunInput::Request {
            request: request.clone(),
            reply,
        };
        Ok(self.wire(&self.0.runs.ask(run, ask).await?))
    }

    /// The run, with every step that was reported before in its ledger.
    async fn flushed(&self, id: &RunId) -> Result<Shown, ApiError> {
        let runs = &self.0.runs;
        if let Some(live) = runs.cluster.find(id).await? {
            // None: it has just ended, and is written out.
            let _ = runs
                .unless_blocked(live.query(|reply| RunInput::Flush { reply }))
                .await?;
        }
        runs.shown(id).await
    }

    /// Compares a run's ledger with its plan, a page at a time.
    async fn audited(&self, id: &RunId) -> Result<pb::AuditReport, ApiError> {
        let runs = &self.0.runs;
        let Shown { run, progress, .. } = self.flushed(id).await?;
        if let Some(evaluate) = &run.spec.evaluate {
            return Err(ApiError::Precondition(format!(
                "{id} is an evaluation of {} and trains on nothing; `fovea runs audit {}` audits that run",
                evaluate.run, evaluate.run
            )));
        }
        let dataset = self.0.datasets.now().find(&run.dataset_digest)?;
        let (plan, _) = plan(&dataset, &run.spec)?;
        let mut auditor = Auditor::new(plan);
        let (mut from, mut ledger_bytes) = (0, 0);
        loop {
            let (entries, bytes) = runs
                .journal
                .steps(run.number, run.extent.train_samples, from, LEDGER_PAGE)
                .await
                .map_err(|e| ApiError::Unavailable(e.to_string()))?;
            ledger_bytes += bytes;
            let Some(last) = entries.last() else { break };
            from = last.step + 1;
            // Some milliseconds of computation, off the threads that serve.
            auditor = blocking(move || {
                for entry in entries {
                    auditor.push(entry);
                }
                auditor
            })
            .await?;
        }
        let Audit {
            steps,
            clean_epochs,
            samples_used,
            problems,
        } = auditor.finish(progress.map_or(0, |p| p.step));
        Ok(pb::AuditReport {
            run_id: run.id.to_string(),
            train_samples: run.extent.train_samples,
            steps,
            total_steps: run.extent.total_steps,
            clean_epochs,
            samples_used,
            problems,
            ledger_bytes,
        })
    }
}

/// A run on the wire at `now` on the actors' clock. What it waits for follows the reason of its phase.
fn wire(shown: &Shown, now: u64) -> pb::Run {
    let mut run = pb::Run::from(&*shown.run);
    let left_out = shown.run.left_out();
    run.left_out = left_out
        .iter()
        .map(|(worker, why)| left_out_of(worker, &shown.run.id, why, now))
        .collect();
    run.progress = shown.progress.as_ref().map(Into::into);
    if let Some(waiting) = &shown.waiting {
        run.reason = if run.reason.is_empty() {
            waiting.clone()
        } else {
            format!("{}; {waiting}", run.reason)
        };
    }
    run
}
