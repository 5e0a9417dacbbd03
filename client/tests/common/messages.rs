//! Runs, results and events as a coordinator reports them.

use fovea_proto::pb;

/// A run of 3 epochs of 12 steps, without results.
pub fn run(id: &str, phase: pb::Phase) -> pb::Run {
    let spec: fovea_core::spec::RunSpec =
        toml::from_str("name = \"dr\"\ndataset = \"d\"\n[train]\nepochs = 3\n").unwrap();
    pb::Run {
        id: id.into(),
        spec: Some((&spec).into()),
        phase: phase as i32,
        generation: 1,
        workers: vec!["a".into(), "b".into()],
        steps_per_epoch: 12,
        total_steps: 36,
        train_samples: 357,
        validation_samples: 119,
        dataset_digest: "00".repeat(32),
        ..Default::default()
    }
}

/// The run with its first `epochs` epochs done and stored.
pub fn run_after(id: &str, phase: pb::Phase, epochs: u32) -> pb::Run {
    pb::Run {
        epochs: (0..epochs).map(epoch).collect(),
        checkpoints: (1..=epochs)
            .map(|e| checkpoint(u64::from(e) * 12))
            .collect(),
        ..run(id, phase)
    }
}

pub fn epoch(epoch: u32) -> pb::EpochResult {
    pb::EpochResult {
        epoch,
        step: u64::from(epoch + 1) * 12,
        train_loss: Some(0.5),
        validation: Some(pb::Evaluation {
            samples: 119,
            positives: 44,
            loss: 0.4,
            accuracy: 0.9,
            auc: Some(0.9 + f64::from(epoch) / 100.0),
            sensitivity: Some(0.8),
            specificity: Some(0.9),
            quadratic_kappa: None,
            confusion: vec![60, 15, 4, 40],
            classes: 2,
        }),
    }
}

pub fn checkpoint(step: u64) -> pb::Checkpoint {
    pb::Checkpoint {
        step,
        generation: 1,
        size_bytes: 1000,
        sha256: format!("{step:064x}"),
        lineage: 0,
        stored_at_ms: 1,
        fingerprint: Some(pb::Fingerprint {
            device: "cpu".into(),
            ..Default::default()
        }),
    }
}

/// Events of a stream.
pub mod event {
    use super::pb;
    use pb::run_event::Event;
    use tonic::Status;

    fn event(event: Event) -> Result<pb::RunEvent, Status> {
        Ok(pb::RunEvent { event: Some(event) })
    }

    pub fn run(run: pb::Run) -> Result<pb::RunEvent, Status> {
        event(Event::Run(run))
    }

    pub fn epoch(number: u32) -> Result<pb::RunEvent, Status> {
        event(Event::Epoch(super::epoch(number)))
    }

    pub fn checkpoint(step: u64) -> Result<pb::RunEvent, Status> {
        event(Event::Checkpoint(super::checkpoint(step)))
    }

    pub fn step(step: u64) -> Result<pb::RunEvent, Status> {
        event(Event::Step(pb::StepReport {
            step,
            loss: 0.4,
            images: 32,
            images_per_s: 40.0,
            learning_rate: 0.001,
            phases: None,
        }))
    }
}
