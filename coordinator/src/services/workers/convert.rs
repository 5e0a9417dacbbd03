//! Session messages: from the wire, checked, and onto it.

use fovea_core::ids::RunId;
use fovea_core::machine::Machine;
use fovea_core::memory::Memory;
use fovea_core::metrics::Score;
use fovea_core::run::{Heartbeat, Outcome, StateId, StepReport};
use fovea_proto::pb::coordinator_message::Message as Down;
use fovea_proto::pb::worker_message::Message as Up;
use fovea_proto::{PROTOCOL, pb, trouble_from_wire};
use tonic::Status;

use crate::error::ApiError;
use crate::messages::{
    Assignment, CoordinatorMessage, Gpu, Hello, Load, NotPrepared, Prepare, RunMessage,
    WorkerMessage,
};
use crate::services::check;

/// Scores in one message, at most.
const SCORES: usize = 100_000;
/// The longest identifier of a machine or a GPU, bytes.
const UUID: usize = 64;

pub(super) fn hello(wire: pb::Hello) -> Result<Hello, ApiError> {
    let pb::Hello {
        worker_id,
        address,
        host,
        device,
        version,
        serving,
        held_run_id,
        protocol,
        boot_id,
        gpu_uuid,
        memory,
        machine,
    } = wire;
    if protocol != PROTOCOL {
        return Err(ApiError::Precondition(format!(
            "hello.protocol: worker {} speaks protocol {}, this coordinator speaks {PROTOCOL}: use the same version of Fovea for both",
            check::worker_id("hello.worker_id", &worker_id)?,
            protocol.max(1)
        )));
    }
    let held_run = match &*held_run_id {
        "" => None,
        id => Some(check::run_id("hello.held_run_id", id)?),
    };
    Ok(Hello {
        serving: serving
            .map(|s| serving_of("hello.serving", &s))
            .transpose()?,
        held_run,
        id: check::worker_id("hello.worker_id", &worker_id)?,
        address: check::address("hello.address", &address)?,
        host: check::label("hello.host", &host)?,
        device: check::label("hello.device", &device)?,
        gpu: gpu(&boot_id, &gpu_uuid)?,
        memory: memory_of(memory.unwrap_or_default()),
        machine: machine.map(machine_of).transpose()?,
        version: check::label("hello.version", &version)?,
    })
}

fn machine_of(wire: pb::Machine) -> Result<Machine, ApiError> {
    let pb::Machine {
        device,
        cpu,
        libtorch,
        kernels,
    } = wire;
    Ok(Machine {
        device: check::label("hello.machine.device", &device)?,
        cpu: check::label("hello.machine.cpu", &cpu)?,
        libtorch: check::label("hello.machine.libtorch", &libtorch)?,
        kernels: check::label("hello.machine.kernels", &kernels)?,
    })
}

fn memory_of(wire: pb::Memory) -> Memory {
    let pb::Memory {
        host_bytes,
        gpu_bytes,
        gpu_free_bytes,
    } = wire;
    Memory {
        host: host_bytes,
        gpu: gpu_bytes,
        gpu_free: gpu_free_bytes,
    }
}

/// The worker's GPU, if it names one.
fn gpu(boot_id: &str, uuid: &str) -> Result<Option<Gpu>, ApiError> {
    for (field, text) in [("hello.boot_id", boot_id), ("hello.gpu_uuid", uuid)] {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if text.len() > UUID || !text.bytes().all(good) {
            let problem = format!("must have at most {UUID} letters, digits and '-'");
            return Err(ApiError::invalid(field, problem));
        }
    }
    Ok((!uuid.is_empty()).then(|| Gpu {
        boot_id: boot_id.to_owned(),
        uuid: uuid.to_owned(),
    }))
}

fn serving_of(field: &str, wire: &pb::Serving) -> Result<(RunId, u64), ApiError> {
    let pb::Serving { run_id, generation } = wire;
    Ok((
        check::run_id(&format!("{field}.run_id"), run_id)?,
        check::generation(&format!("{field}.generation"), *generation)?,
    ))
}

/// How the worker fares, if the message says that.
pub(super) fn load(message: &pb::WorkerMessage) -> Result<Option<Load>, ApiError> {
    let Some(Up::Heartbeat(heartbeat)) = &message.message else {
        return Ok(None);
    };
    let Some(load) = heartbeat.load else {
        return Ok(None);
    };
    let pb::Load {
        step_ms,
        wait_ratio,
        gpu_used_bytes,
        resident_bytes,
    } = load;
    for (field, value, most) in [
        ("heartbeat.load.step_ms", step_ms, f64::MAX),
        ("heartbeat.load.wait_ratio", wait_ratio, 1.0),
    ] {
        if let Some(value) = value
            && !(0.0..=most).contains(&value)
        {
            let problem = match most {
                1.0 => format!("is {value}, not between 0 and 1"),
                _ => format!("is {value}, not a finite number from 0 on"),
            };
            return Err(ApiError::invalid(field, problem));
        }
    }
    Ok(Some(Load {
        step_ms,
        wait_ratio,
        gpu_used: gpu_used_bytes,
        resident: resident_bytes,
    }))
}

/// A worker's message; None for the heartbeat of an idle worker.
pub(super) fn worker_message(
    message: pb::WorkerMessage,
) -> Result<Option<WorkerMessage>, ApiError> {
    let message = message
        .message
        .ok_or_else(|| ApiError::invalid("message", "is missing or of a newer version"))?;
    let (field, run_id, generation, what) = match message {
        Up::Hello(_) => return Err(ApiError::invalid("hello", "comes only once")),
        Up::Heartbeat(pb::Heartbeat {
            sequence: _,
            serving,
            ticks,
            waiting_for,
            polls,
            scored,
            // It is the worker's and not the run's: see `load`.
            load: _,
        }) => {
            let Some(pb::Serving { run_id, generation }) = serving else {
                return Ok(None);
            };
            let what = RunMessage::Heartbeat(Heartbeat {
                ticks,
                waiting_for,
                polls,
                scored,
            });
            ("heartbeat.serving", run_id, generation, what)
        }
        Up::Prepared(pb::Prepared {
            run_id,
            problem,
            trouble,
        }) => {
            let run = check::run_id("prepared.run_id", &run_id)?;
            let problem = (!problem.is_empty()).then(|| NotPrepared {
                trouble: trouble_from_wire(trouble),
                reason: check::reason(&problem),
            });
            return Ok(Some(WorkerMessage::Prepared { run, problem }));
        }
        Up::StateDigest(pb::StateDigest {
            run_id,
            generation,
            step,
            digest,
        }) => {
            let digest = check::state_digest("state_digest.digest", &digest)?;
            let what = RunMessage::Digest { step, digest };
            ("state_digest", run_id, generation, what)
        }
        Up::Interrupted(pb::Interrupted {
            run_id,
            generation,
            reason,
        }) => {
            let reason = check::reason(&reason);
            let what = RunMessage::Interrupted { reason };
            ("interrupted", run_id, generation, what)
        }
        Up::Unreachable(pb::Unreachable {
            run_id,
            generation,
            worker_ids,
        }) => {
            let id = |id: &String| check::worker_id("unreachable.worker_ids", id);
            let peers = worker_ids.iter().map(id).collect::<Result<_, _>>()?;
            (
                "unreachable",
                run_id,
                generation,
                RunMessage::Unreachable { peers },
            )
        }
        Up::Leaving(pb::Leaving {}) => return Ok(Some(WorkerMessage::Leaving)),
        Up::Memory(memory) => return Ok(Some(WorkerMessage::Memory(memory_of(memory)))),
        Up::Ready(pb::Ready {
            run_id,
            generation,
            state_digest,
            fingerprint,
            step,
        }) => {
            let digest = check::state_digest("ready.state_digest", &state_digest)?;
            let what = RunMessage::Ready {
                state: StateId { step, digest },
                fingerprint: check::fingerprint("ready.fingerprint", fingerprint)?,
            };
            ("ready", run_id, generation, what)
        }
        Up::Step(pb::StepCommitted {
            run_id,
            generation,
            report,
            samples,
        }) => {
            let report = report.ok_or_else(|| ApiError::invalid("step.report", "is missing"))?;
            let report = StepReport::from(report);
            step_is_finite(&report)?;
            (
                "step",
                run_id,
                generation,
                RunMessage::Step { report, samples },
            )
        }
        Up::Scores(pb::Scores {
            run_id,
            generation,
            epoch,
            scores,
        }) => {
            let what = RunMessage::Scores {
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
                Outcome::Blocked { reason } => Outcome::Blocked {
                    reason: check::reason(&reason),
                },
                Outcome::Unfit { trouble, reason } => Outcome::Unfit {
                    trouble,
                    reason: check::reason(&reason),
                },
                other => other,
            };
            (
                "released",
                run_id,
                generation,
                RunMessage::Released(outcome),
            )
        }
    };
    let run = check::run_id(&format!("{field}.run_id"), &run_id)?;
    let generation = check::generation(&format!("{field}.generation"), generation)?;
    Ok(Some(WorkerMessage::About {
        run,
        generation,
        message: what,
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
        let (places, width) = (score.map.len(), score.map_width as usize);
        let whole = match width {
            0 => places == 0,
            width => places > 0 && places.is_multiple_of(width),
        };
        if !whole || !score.map.iter().all(|value| value.is_finite()) {
            return Err(ApiError::invalid(
                format!("scores.scores[{i}].map"),
                format!("{places} values in rows of {width} are no map of finite numbers"),
            ));
        }
    }
    Ok(scores.into_iter().map(Into::into).collect())
}

pub(super) fn down(message: Down) -> pb::CoordinatorMessage {
    pb::CoordinatorMessage {
        message: Some(message),
    }
}

pub(super) fn wire_message(message: CoordinatorMessage) -> Result<pb::CoordinatorMessage, Status> {
    Ok(down(match message {
        CoordinatorMessage::End(error) => return Err(error.into()),
        CoordinatorMessage::Stop { run, generation } => Down::Stop(pb::Stop {
            run_id: run.to_string(),
            generation,
        }),
        CoordinatorMessage::Abort {
            run,
            generation,
            reason,
        } => Down::Abort(pb::Abort {
            run_id: run.to_string(),
            generation,
            reason,
        }),
        CoordinatorMessage::Assignment(assignment) => {
            let Assignment {
                run,
                spec,
                dataset_digest,
                roster,
                checkpoint,
                mesh_key,
                lineage,
                at_boundary,
                discard_state,
                next_epoch,
                traceparent,
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
                lineage,
                at_boundary,
                discard_state,
                next_epoch,
                traceparent,
            })
        }
        CoordinatorMessage::Yield { run, generation } => Down::Yield(pb::Yield {
            run_id: run.to_string(),
            generation,
        }),
        CoordinatorMessage::Ack {
            run,
            step,
            next_epoch,
        } => Down::Ack(pb::Ack {
            run_id: run.to_string(),
            step,
            next_epoch,
        }),
        CoordinatorMessage::Prepare(prepare) => {
            let Prepare {
                run,
                spec,
                dataset_digest,
                roster,
            } = *prepare;
            Down::Prepare(pb::Prepare {
                run_id: run.to_string(),
                spec: Some((&spec).into()),
                dataset_digest,
                members: roster.members.iter().map(Into::into).collect(),
            })
        }
    }))
}
