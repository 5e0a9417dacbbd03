//! Conversions of the agent's messages to the wire's types.

use fovea_core::machine::Machine;
use fovea_core::memory::Memory;
use fovea_core::metrics::Score;
use fovea_core::run::Outcome;
use fovea_proto::pb;
use fovea_proto::pb::worker_message::Message;

use crate::fetch::Refusal;
use crate::job::Ended;
use crate::reports::Report;

/// Scores in one message, at most.
const SCORES: usize = 20_000;
/// Values of maps in one message, at most: 1 MiB.
const MAP_VALUES: usize = 1 << 18;

/// How an assignment ended.
pub(super) fn ended(run_id: &str, generation: u64, ended: &Ended) -> Message {
    let run = run_id.to_owned();
    match ended {
        Ended::Released(outcome) => released(run_id, generation, outcome),
        Ended::Interrupted { reason } => Message::Interrupted(pb::Interrupted {
            run_id: run,
            generation,
            reason: reason.clone(),
        }),
        Ended::Unreachable { missing } => Message::Unreachable(pb::Unreachable {
            run_id: run,
            generation,
            worker_ids: missing.iter().map(|peer| peer.worker.clone()).collect(),
        }),
    }
}

/// This worker has released an assignment.
pub(super) fn released(run_id: &str, generation: u64, outcome: &Outcome) -> Message {
    Message::Released(pb::Released {
        run_id: run_id.to_owned(),
        generation,
        outcome: Some(outcome.into()),
    })
}

/// The answer to a request to prepare for a run.
pub(super) fn prepared(run_id: String, prepared: Result<(), Refusal>) -> Message {
    let refusal = prepared.err();
    let trouble = refusal.as_ref().and_then(Refusal::trouble);
    Message::Prepared(pb::Prepared {
        run_id,
        problem: refusal.map_or_else(String::new, |refusal| refusal.to_string()),
        trouble: trouble.map_or(pb::Trouble::Unspecified, Into::into) as i32,
    })
}

/// What the bits of this worker's results depend on.
pub(super) fn machine(machine: &Machine) -> pb::Machine {
    let Machine {
        device,
        cpu,
        libtorch,
        kernels,
    } = machine.clone();
    pb::Machine {
        device,
        cpu,
        libtorch,
        kernels,
    }
}

/// What memory this worker can use.
pub(super) fn memory(memory: Memory) -> pb::Memory {
    let Memory {
        host,
        gpu,
        gpu_free,
    } = memory;
    pb::Memory {
        host_bytes: host,
        gpu_bytes: gpu,
        gpu_free_bytes: gpu_free,
    }
}

/// A report, in as many messages as it takes.
pub(super) fn report(run_id: &str, generation: u64, report: Report) -> Vec<Message> {
    match report {
        Report::Step(report, samples) => vec![Message::Step(pb::StepCommitted {
            run_id: run_id.to_owned(),
            generation,
            report: Some((&report).into()),
            samples,
        })],
        Report::Scores(epoch, scores) => scores
            .chunks(at_once(&scores))
            .map(|scores| {
                Message::Scores(pb::Scores {
                    run_id: run_id.to_owned(),
                    generation,
                    epoch,
                    scores: scores.iter().map(Into::into).collect(),
                })
            })
            .collect(),
    }
}

/// Scores in a message: fewer with maps.
fn at_once(scores: &[Score]) -> usize {
    let places = scores.iter().filter_map(|score| score.map.as_ref());
    let most = places.map(|map| map.values.len()).max().unwrap_or(0);
    match most {
        0 => SCORES,
        places => (MAP_VALUES / places).clamp(1, SCORES),
    }
}
