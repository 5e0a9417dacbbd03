//! `Workers`: the sessions of worker processes, and the slices that they upload.

use std::pin::Pin;
use std::sync::Arc;

use fovea_core::metrics::Score;
use fovea_core::run::{Outcome, StepReport};
use fovea_proto::pb::coordinator_message::Message as Down;
use fovea_proto::pb::slice_upload::Part;
use fovea_proto::pb::worker_message::Message as Up;
use fovea_proto::pb::workers_server::Workers;
use fovea_proto::{CHUNK_BYTES, pb};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::datasets::on_disk_thread;
use super::{Context, check, transfer};
use crate::error::ApiError;
use crate::owner::{
    AboutRun, Assignment, Hello, Message, Said, SessionId, SliceClaim, SliceTicket, ToWorker,
};

/// Messages that wait for a worker. It gets a handful for each generation; one that lets so many
/// wait is stuck, and lost.
const OUTBOX: usize = 64;

/// Scores in one message, at most.
const SCORES: usize = 100_000;

/// The service.
#[derive(Debug)]
pub(crate) struct WorkersService(pub Context);

type SessionStream = Pin<Box<dyn Stream<Item = Result<pb::CoordinatorMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Workers for WorkersService {
    type SessionStream = SessionStream;

    async fn session(
        &self,
        request: Request<Streaming<pb::WorkerMessage>>,
    ) -> Result<Response<SessionStream>, Status> {
        let mut stream = request.into_inner();
        let patience = self.0.config.timeout();
        let first = timeout(patience, stream.message())
            .await
            .map_err(|_| ApiError::Silent(format!("hello: did not come within {patience:?}")))?
            .map_err(|status| transfer::broken(&status))?;
        let Some(Up::Hello(wire)) = first.and_then(|message| message.message) else {
            return Err(ApiError::invalid("hello", "must come first").into());
        };
        let hello = hello(wire)?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let over = CancellationToken::new();
        let session = self
            .0
            .owner
            .ask(|reply| Message::Hello {
                hello,
                outbox: outbox.clone(),
                over: over.clone(),
                reply,
            })
            .await?;
        let context = self.0.clone();
        self.0
            .tasks
            .spawn(listen(context, session, stream, outbox, over));
        let welcome = pb::Welcome {
            heartbeat_ms: self.0.config.heartbeat_ms,
            timeout_ms: self.0.config.timeout_ms,
        };
        let answers = tokio_stream::once(Ok(down(Down::Welcome(welcome))))
            .chain(ReceiverStream::new(messages).map(wire_message));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn upload_slice(
        &self,
        request: Request<Streaming<pb::SliceUpload>>,
    ) -> Result<Response<pb::SliceAck>, Status> {
        self.take_slice(request.into_inner()).await?;
        Ok(Response::new(pb::SliceAck {}))
    }
}

/// Listens to a worker until its session ends, and says so.
async fn listen(
    context: Context,
    session: SessionId,
    mut stream: Streaming<pb::WorkerMessage>,
    outbox: mpsc::Sender<ToWorker>,
    over: CancellationToken,
) {
    let patience = context.config.timeout();
    let end = loop {
        let message = tokio::select! {
            () = context.closing.cancelled() => break ApiError::ShuttingDown,
            // The owner ended it and has said why.
            () = over.cancelled() => return,
            () = outbox.closed() => break ApiError::BrokenOff("it went away".into()),
            message = timeout(patience, stream.message()) => message,
        };
        let message = match message {
            Err(_) => {
                break ApiError::Silent(format!(
                    "nothing was heard for {} ms",
                    patience.as_millis()
                ));
            }
            Ok(Err(status)) => break transfer::broken(&status),
            Ok(Ok(None)) => break ApiError::BrokenOff("it closed its session".into()),
            Ok(Ok(Some(message))) => message,
        };
        let said = match said(message) {
            Ok(Some(said)) => said,
            Ok(None) => continue,
            Err(error) => break error,
        };
        if !context.owner.tell(Message::Said { session, said }).await {
            break ApiError::ShuttingDown;
        }
    };
    let reason = end.to_string();
    // Best effort: a worker that still listens learns why.
    let _ = outbox.try_send(ToWorker::End(end));
    let ended = Message::SessionEnded { session, reason };
    context.owner.tell(ended).await;
}

fn hello(wire: pb::Hello) -> Result<Hello, ApiError> {
    let pb::Hello {
        worker_id,
        address,
        host,
        device,
        version,
    } = wire;
    Ok(Hello {
        id: check::worker_id("hello.worker_id", &worker_id)?,
        address: check::address("hello.address", &address)?,
        host: check::label("hello.host", &host)?,
        device: check::label("hello.device", &device)?,
        version: check::label("hello.version", &version)?,
    })
}

/// What a worker's message says; None for a mere sign of life.
fn said(message: pb::WorkerMessage) -> Result<Option<Said>, ApiError> {
    let message = message
        .message
        .ok_or_else(|| ApiError::invalid("message", "is missing or of a newer version"))?;
    let (field, run_id, generation, what) = match message {
        Up::Hello(_) => return Err(ApiError::invalid("hello", "comes only once")),
        Up::Heartbeat(pb::Heartbeat { sequence: _ }) => return Ok(None),
        Up::Leaving(pb::Leaving {}) => return Ok(Some(Said::Leaving)),
        Up::Ready(pb::Ready {
            run_id,
            generation,
            state_digest,
            fingerprint,
        }) => {
            let what = AboutRun::Ready {
                state_digest: check::sha256("ready.state_digest", &state_digest)?,
                fingerprint: check::fingerprint("ready.fingerprint", fingerprint)?,
            };
            ("ready", run_id, generation, what)
        }
        Up::Step(pb::StepCommitted {
            run_id,
            generation,
            report,
        }) => {
            let report = report.ok_or_else(|| ApiError::invalid("step.report", "is missing"))?;
            let report = StepReport::from(report);
            step_is_finite(&report)?;
            ("step", run_id, generation, AboutRun::Step(report))
        }
        Up::Scores(pb::Scores {
            run_id,
            generation,
            epoch,
            scores,
        }) => {
            let what = AboutRun::Scores {
                epoch,
                scores: checked_scores(scores)?,
            };
            ("scores", run_id, generation, what)
        }
        Up::Released(pb::Released {
            run_id,
            generation,
            outcome,
        }) => {
            let outcome =
                outcome.ok_or_else(|| ApiError::invalid("released.outcome", "is missing"))?;
            let outcome = match Outcome::from(outcome) {
                Outcome::Failed { reason, fatal } => Outcome::Failed {
                    reason: check::reason(&reason),
                    fatal,
                },
                other => other,
            };
            ("released", run_id, generation, AboutRun::Released(outcome))
        }
    };
    let run = check::run_id(&format!("{field}.run_id"), &run_id)?;
    let generation = check::generation(&format!("{field}.generation"), generation)?;
    Ok(Some(Said::About {
        run,
        generation,
        what,
    }))
}

fn step_is_finite(report: &StepReport) -> Result<(), ApiError> {
    for (field, value) in [
        ("step.report.loss", report.loss),
        ("step.report.images_per_s", report.images_per_s),
        ("step.report.learning_rate", report.learning_rate),
        ("step.report.phases.load_ms", report.phases.load_ms),
        ("step.report.phases.forward_ms", report.phases.forward_ms),
        ("step.report.phases.backward_ms", report.phases.backward_ms),
        ("step.report.phases.reduce_ms", report.phases.reduce_ms),
        (
            "step.report.phases.optimizer_ms",
            report.phases.optimizer_ms,
        ),
    ] {
        check::finite(field, value)?;
    }
    Ok(())
}

fn checked_scores(scores: Vec<pb::Score>) -> Result<Vec<Score>, ApiError> {
    if scores.len() > SCORES {
        return Err(ApiError::invalid(
            "scores.scores",
            format!(
                "has {} entries; send at most {SCORES} a message",
                scores.len()
            ),
        ));
    }
    for (i, score) in scores.iter().enumerate() {
        check::finite(&format!("scores.scores[{i}].loss"), score.loss.into())?;
        // Rounding may carry a softmax a hair over one.
        if score
            .probabilities
            .iter()
            .any(|p| !(0.0..=1.001).contains(p))
        {
            return Err(ApiError::invalid(
                format!("scores.scores[{i}].probabilities"),
                "are not all between 0 and 1",
            ));
        }
    }
    Ok(scores.into_iter().map(Into::into).collect())
}

fn down(message: Down) -> pb::CoordinatorMessage {
    pb::CoordinatorMessage {
        message: Some(message),
    }
}

fn wire_message(message: ToWorker) -> Result<pb::CoordinatorMessage, Status> {
    Ok(down(match message {
        ToWorker::End(error) => return Err(error.into()),
        ToWorker::Stop { run, generation } => Down::Stop(pb::Stop {
            run_id: run.to_string(),
            generation,
        }),
        ToWorker::Abort {
            run,
            generation,
            reason,
        } => Down::Abort(pb::Abort {
            run_id: run.to_string(),
            generation,
            reason,
        }),
        ToWorker::Assignment(assignment) => {
            let Assignment {
                run,
                spec,
                dataset_digest,
                roster,
                checkpoint,
                mesh_key,
            } = *assignment;
            Down::Assignment(pb::Assignment {
                run_id: run.to_string(),
                generation: roster.generation,
                spec: Some((&spec).into()),
                dataset_digest,
                members: roster.members.iter().map(Into::into).collect(),
                start_step: roster.start_step,
                checkpoint: checkpoint.as_ref().map(Into::into),
                mesh_key: mesh_key.to_vec().into(),
            })
        }
    }))
}

impl WorkersService {
    async fn take_slice(&self, mut stream: Streaming<pb::SliceUpload>) -> Result<(), ApiError> {
        let first = transfer::next(&mut stream, &self.0).await?;
        let Some(Part::Header(header)) = first.and_then(|message| message.part) else {
            return Err(ApiError::invalid("header", "must come first"));
        };
        let slice = claim(header)?;
        let sha256 = slice.sha256.clone();
        let begin = |reply| Message::BeginSlice { slice, reply };
        let (key, rank, file, byte, bytes, claim) = match self.0.owner.ask(begin).await? {
            SliceTicket::Here => return Ok(()),
            SliceTicket::Write {
                key,
                rank,
                file,
                byte,
                bytes,
                claim,
            } => (key, rank, file, byte, bytes, claim),
        };
        let disk = |e: std::io::Error| ApiError::disk("cannot store the slice", &e);
        let mut hash = Sha256::new();
        let mut written = 0u64;
        while let Some(message) = transfer::next(&mut stream, &self.0).await? {
            let data = match message.part {
                Some(Part::Data(data)) => data,
                Some(Part::Header(_)) => {
                    return Err(ApiError::invalid("header", "comes only once"));
                }
                None => return Err(ApiError::invalid("part", "is missing")),
            };
            if data.len() > CHUNK_BYTES {
                return Err(ApiError::invalid(
                    "data",
                    format!("has {} bytes; at most {CHUNK_BYTES} are taken", data.len()),
                ));
            }
            if written + data.len() as u64 > bytes {
                return Err(ApiError::invalid(
                    "data",
                    format!("goes beyond the {bytes} bytes of the slice"),
                ));
            }
            let at = byte + written;
            written += data.len() as u64;
            let file = Arc::clone(&file);
            hash = on_disk_thread(move || {
                file.write_at(&data, at).map_err(disk)?;
                hash.update(&data);
                Ok(hash)
            })
            .await?;
        }
        if written != bytes {
            return Err(ApiError::invalid(
                "data",
                format!("the stream ended early: {written} of {bytes} bytes came"),
            ));
        }
        let found = hex::encode(hash.finalize());
        if found != sha256 {
            return Err(ApiError::invalid(
                "header.sha256",
                format!("says {sha256}, but the bytes that came have {found}"),
            ));
        }
        on_disk_thread(move || file.sync().map_err(disk)).await?;
        let stored = |reply| Message::SliceStored {
            key,
            rank,
            sha256,
            reply,
        };
        let answer = self.0.owner.ask(stored).await;
        // Held until the owner knows, so that nobody else began in between.
        drop(claim);
        answer
    }
}

fn claim(header: pb::SliceHeader) -> Result<SliceClaim, ApiError> {
    let pb::SliceHeader {
        run_id,
        generation,
        worker_id,
        step,
        offset,
        elements,
        sha256,
    } = header;
    Ok(SliceClaim {
        run: check::run_id("header.run_id", &run_id)?,
        generation: check::generation("header.generation", generation)?,
        worker: check::worker_id("header.worker_id", &worker_id)?,
        step,
        offset,
        elements,
        sha256: check::sha256("header.sha256", &sha256)?,
    })
}
