//! Tests of the run's state machine: tables of its transitions, random events, and a model of a cluster.

mod availability;
mod cluster;
mod endings;
mod epochs;
mod evaluations;
mod formations;
mod giving;
mod holding;
mod lineages;
mod patience;
mod priority;
mod random;
mod restarts;
mod tables;
mod troubles;

use std::collections::BTreeSet;

use super::*;

fn worker(i: u8) -> WorkerId {
    WorkerId::new(format!("w{i}")).unwrap()
}

fn workers(of: &[u8]) -> Vec<WorkerId> {
    of.iter().copied().map(worker).collect()
}

fn peer(i: u8) -> (WorkerId, String) {
    (worker(i), format!("h:{i}"))
}

fn fingerprint() -> Fingerprint {
    Fingerprint {
        device: "cpu".into(),
        cpu: "x".into(),
        libtorch: "2.11.0".into(),
        threads: 1,
        precision: "float32".into(),
        fovea: "test".into(),
        kernels: String::new(),
        path: String::new(),
    }
}

/// A queued run of two epochs of five steps on four virtual ranks.
fn queued() -> Run {
    let mut spec: RunSpec = toml::from_str("name='t'\ndataset='d'").unwrap();
    spec.train.virtual_ranks = 4;
    let extent = Extent {
        steps_per_epoch: 5,
        total_steps: 10,
        train_samples: 40,
        validation_samples: 2,
    };
    Run::new(
        RunId::new("t-1").unwrap(),
        1,
        spec,
        "d".repeat(64),
        extent,
        0,
    )
}

fn assigned(of: &[u8]) -> Event {
    Event::Assigned {
        workers: of.iter().copied().map(peer).collect(),
    }
}

fn joined(of: &[u8]) -> Event {
    Event::Joined {
        workers: of.iter().copied().map(peer).collect(),
    }
}

/// A digest made of a short name.
fn number(name: &str) -> u128 {
    name.bytes().fold(0, |n, b| n << 8 | u128::from(b))
}

fn ready(i: u8, generation: u64, step: u64, digest: &str) -> Event {
    Event::Ready {
        worker: worker(i),
        generation,
        state: StateId {
            step,
            digest: number(digest),
        },
        fingerprint: fingerprint(),
    }
}

fn released(i: u8, generation: u64, outcome: Outcome) -> Event {
    Event::Released {
        worker: worker(i),
        generation,
        outcome,
    }
}

fn failure(fatal: bool) -> Outcome {
    Outcome::Failed {
        reason: "no space".into(),
        fatal,
    }
}

fn lost(i: u8) -> Event {
    Event::WorkerLost {
        worker: worker(i),
        reason: "x".into(),
    }
}

fn interrupted(i: u8, generation: u64) -> Event {
    Event::Interrupted {
        worker: worker(i),
        generation,
        reason: "reset".into(),
    }
}

fn info(step: u64, generation: u64) -> CheckpointInfo {
    CheckpointInfo {
        step,
        generation,
        bytes: 1,
        sha256: "0".repeat(64),
        lineage: 0,
        stored_at_ms: 0,
        fingerprint: fingerprint(),
    }
}

fn stored(step: u64, generation: u64) -> Event {
    Event::CheckpointStored {
        info: info(step, generation),
    }
}

fn not_stored(step: u64, generation: u64) -> Event {
    Event::CheckpointFailed {
        generation,
        step,
        reason: "disk".into(),
    }
}

fn damaged(step: u64, generation: u64) -> Event {
    Event::CheckpointCorrupt {
        step,
        generation,
        reason: "sha256".into(),
    }
}

fn unreadable(step: u64, generation: u64) -> Event {
    Event::CheckpointUnreadable {
        step,
        generation,
        reason: "Permission denied".into(),
    }
}

fn readable(step: u64, generation: u64) -> Event {
    Event::CheckpointReadable { step, generation }
}

fn blocked() -> Outcome {
    Outcome::Blocked {
        reason: "pack 3 cannot be read".into(),
    }
}

fn resume(checkpoint: Option<u64>) -> Event {
    Event::Resume { checkpoint }
}

fn committed(step: u64, generation: u64) -> Event {
    Event::StepCommitted {
        generation,
        report: StepReport {
            step,
            loss: 0.5,
            images: 8,
            images_per_s: 1.0,
            learning_rate: 0.1,
            phases: StepPhases {
                forward_ms: 100.0,
                ..StepPhases::default()
            },
        },
    }
}

fn digest(i: u8, generation: u64, step: u64, digest: &str) -> Event {
    Event::Digest {
        worker: worker(i),
        generation,
        step,
        digest: number(digest),
    }
}

/// A run whose first generation has the members `of`, who are ready.
fn running(of: &[u8]) -> Run {
    let mut run = queued();
    run.apply(0, assigned(of));
    for i in of {
        run.apply(0, ready(*i, 1, 0, "a"));
    }
    assert_eq!(run.phase_name(), "running");
    run
}

fn members(run: &Run) -> Vec<WorkerId> {
    let roster = run.roster().expect("it has a roster");
    roster.members.iter().map(|m| m.worker.clone()).collect()
}

/// The roster that was sent, whether it takes effect at a step boundary, and the workers that discard their states.
fn sent(effects: &[Effect]) -> Option<(&Roster, bool, &BTreeSet<WorkerId>)> {
    effects.iter().find_map(|effect| match effect {
        Effect::SendRoster {
            roster,
            at_boundary,
            discard,
        } => Some((roster, *at_boundary, discard)),
        _ => None,
    })
}

/// The workers whose assignments are aborted, with the generation.
fn aborted(effects: &[Effect]) -> Vec<(WorkerId, u64)> {
    let mut all = Vec::new();
    for effect in effects {
        if let Effect::SendAbort {
            workers,
            generation,
            ..
        } = effect
        {
            all.extend(workers.iter().map(|w| (w.clone(), *generation)));
        }
    }
    all
}

/// The workers that are asked to stop, with the generation.
fn stopped(effects: &[Effect]) -> Option<(Vec<WorkerId>, u64)> {
    effects.iter().find_map(|effect| match effect {
        Effect::SendStop {
            workers,
            generation,
        } => Some((workers.clone(), *generation)),
        _ => None,
    })
}

fn scored(generation: u64, epoch: u32, sample: u32) -> Event {
    Event::Scored {
        generation,
        epoch,
        scores: vec![score(sample, sample % 2, 0.2 + 0.6 * (sample % 2) as f32)],
    }
}

fn score(sample: u32, label: u32, p: f32) -> crate::metrics::Score {
    crate::metrics::Score {
        sample,
        label,
        probabilities: vec![1.0 - p, p],
        loss: 0.1,
        map: None,
    }
}
