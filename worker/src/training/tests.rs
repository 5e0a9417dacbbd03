//! The loop with a device that only pretends to compute.

use std::ops::Range;

use fovea_core::googlenet::FlatLayout;
use fovea_core::metrics::Score;
use fovea_core::roster::Member;
use fovea_dataset::synthetic::{self, SyntheticOptions};
use fovea_dataset::{Dataset, PrepareOptions, prepare};

use super::*;
use crate::data::{LocalData, packs_of};
use crate::device::MicroBatch;

/// Sums and counts nothing but what the loop gives it.
struct Pretending {
    layout: FlatLayout,
    loss: f32,
    gradient: f32,
    trained: Vec<u32>,
    updates: Vec<(f32, f64)>,
}

impl Device for Pretending {
    fn layout(&self) -> &FlatLayout {
        &self.layout
    }

    fn load(&mut self, _: &[f32]) -> Result<(), DeviceError> {
        Ok(())
    }

    fn read(&mut self, range: Range<usize>) -> Result<Vec<f32>, DeviceError> {
        Ok(vec![0.0; range.len()])
    }

    fn gradient(&mut self, batch: &Batch, gradient: &mut [f32]) -> Result<MicroBatch, DeviceError> {
        assert_eq!(
            batch.pixels.len(),
            batch.samples.len() * batch.size * batch.size * 3
        );
        assert_eq!(batch.dropout.len(), batch.samples.len() * 1024);
        self.trained.extend(&batch.samples);
        gradient.fill(self.gradient * batch.samples.len() as f32);
        Ok(MicroBatch {
            loss_sum: self.loss * batch.samples.len() as f32,
            ..MicroBatch::default()
        })
    }

    fn update(&mut self, gradient: &mut [f32], rate: f64) -> Result<(), DeviceError> {
        self.updates.push((gradient[0], rate));
        Ok(())
    }

    fn score(&mut self, batch: &Batch) -> Result<Vec<Score>, DeviceError> {
        Ok(batch
            .samples
            .iter()
            .zip(&batch.labels)
            .map(|(&sample, &label)| Score {
                sample,
                label,
                probabilities: vec![0.5, 0.5],
                loss: 0.7,
            })
            .collect())
    }
}

/// One worker alone.
struct Alone;

impl Collective for Alone {
    fn reduce(&mut self, parts: &[Vec<f32>], sum: &mut [f32]) -> Result<(), CollectiveError> {
        sum.fill(0.0);
        for part in parts {
            for (s, p) in sum.iter_mut().zip(part) {
                *s += *p;
            }
        }
        Ok(())
    }
}

struct Ran {
    outcome: Result<Outcome, TrainingError>,
    events: Vec<TrainingEvent>,
    device: Pretending,
    plan: ShardPlan,
}

/// Two epochs of a small synthetic dataset on two virtual ranks, after `spoil` has had its way.
fn run(spoil: impl FnOnce(&mut Pretending, &Control)) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let photographs = dir.path().join("photographs");
    let options = SyntheticOptions {
        patients: 12,
        size: 128,
        ..SyntheticOptions::default()
    };
    synthetic::generate(&photographs, &options, &|_| {}).unwrap();
    let prepared = dir.path().join("prepared");
    let options = PrepareOptions {
        image_size: 32,
        ..PrepareOptions::new(
            photographs.join("trainLabels.csv"),
            photographs.join("images"),
            prepared.clone(),
            fovea_core::ids::DatasetName::new("tiny").unwrap(),
        )
    };
    prepare(&options, &()).unwrap();
    let dataset = Dataset::open(&prepared).unwrap();

    let spec: RunSpec = toml::from_str(
        "name = 't'\ndataset = 'd'\n[train]\nepochs = 2\nbatch = 4\n[checkpoint]\nevery_epochs = 0",
    )
    .unwrap();
    let index = dataset.index().clone();
    let patients: Vec<u32> = index.train().iter().map(|s| s.patient).collect();
    let validation = index.validation().len() as u32;
    let plan = ShardPlan::new(&patients, validation, 2, 4, 0, true).unwrap();
    let member = Member {
        worker: fovea_core::ids::WorkerId::new("w").unwrap(),
        address: "h:1".into(),
        first_virtual_rank: 0,
        virtual_ranks: 2,
    };
    let packs = packs_of(&plan, &index, &member);
    let data = LocalData::open(&prepared, dataset.manifest(), index, &packs).unwrap();
    let total_steps = plan.steps_per_epoch() * 2;
    let loader = Loader::start(data, plan.clone(), spec.clone(), &member, 0, total_steps).unwrap();
    let mut device = Pretending {
        layout: FlatLayout::new(2, &spec.model.frozen).unwrap(),
        loss: 0.5,
        gradient: 3.0,
        trained: Vec::new(),
        updates: Vec::new(),
    };
    let control = Control::default();
    spoil(&mut device, &control);
    let mut events = Vec::new();
    let outcome = Training {
        spec: &spec,
        plan: &plan,
        rank: 0,
        ranks: 1,
        hosted: 2,
        start_step: 0,
        total_steps,
        device: &mut device,
        collective: &mut Alone,
        loader,
        control: &control,
    }
    .run(&mut |event| events.push(event));
    Ran {
        outcome,
        events,
        device,
        plan,
    }
}

#[test]
fn a_whole_run_uses_every_sample_once_an_epoch_and_tells_everything() {
    let ran = run(|_, _| {});
    let total = ran.plan.steps_per_epoch() * 2;
    assert_eq!(ran.outcome.unwrap(), Outcome::Completed { step: total });
    let half = ran.device.trained.len() / 2;
    for epoch in [&ran.device.trained[..half], &ran.device.trained[half..]] {
        let mut seen = epoch.to_vec();
        seen.sort_unstable();
        let all: Vec<u32> = (0..ran.plan.train_samples() as u32).collect();
        assert_eq!(seen, all);
    }
    // The mean over the samples, not the sum, and a falling rate.
    assert!(
        ran.device
            .updates
            .iter()
            .all(|(g, _)| (g - 3.0).abs() < 1e-6)
    );
    assert!(ran.device.updates.windows(2).all(|w| w[1].1 < w[0].1));
    let mut steps = Vec::new();
    let mut scored = Vec::new();
    let mut snapshots = Vec::new();
    for event in &ran.events {
        match event {
            TrainingEvent::Step(report) => {
                assert!((report.loss - 0.5).abs() < 1e-6);
                steps.push(report.step);
            }
            TrainingEvent::Scores { epoch, scores } => {
                let mut samples: Vec<u32> = scores.iter().map(|s| s.sample).collect();
                samples.sort_unstable();
                assert!(samples.iter().copied().eq(0..samples.len() as u32));
                scored.push((*epoch, samples.len()));
            }
            TrainingEvent::Snapshot(snapshot) => snapshots.push(snapshot.step),
        }
    }
    assert_eq!(steps, (1..=total).collect::<Vec<_>>());
    assert_eq!(scored, [(0, scored[0].1), (1, scored[0].1)]);
    assert!(scored[0].1 > 0);
    assert_eq!(snapshots, [total]);
}

#[test]
fn a_stop_is_taken_at_the_next_boundary_with_a_snapshot() {
    let ran = run(|_, control| control.stop());
    assert_eq!(ran.outcome.unwrap(), Outcome::Stopped { step: 1 });
    let Some(TrainingEvent::Snapshot(snapshot)) = ran.events.last() else {
        panic!("no snapshot: {:?}", ran.events.len())
    };
    assert_eq!((snapshot.step, snapshot.offset), (1, 0));
    assert_eq!(snapshot.values.len(), ran.device.layout.state_len());
}

#[test]
fn an_abort_lets_go_without_a_step() {
    let ran = run(|_, control| control.abort());
    let error = ran.outcome.unwrap_err();
    let control = Control::default();
    control.abort();
    assert_eq!(error.outcome(&control), Outcome::Aborted);
    assert!(ran.events.is_empty());
}

#[test]
fn numbers_that_are_not_finite_end_the_run_before_they_are_applied() {
    for spoil in [
        (|device, _| device.loss = f32::NAN) as fn(&mut Pretending, &Control),
        |device, _| device.gradient = f32::INFINITY,
    ] {
        let ran = run(spoil);
        let error = ran.outcome.unwrap_err();
        assert!(error.to_string().contains("step 1"), "{error}");
        let outcome = error.outcome(&Control::default());
        assert!(matches!(outcome, Outcome::Failed { fatal: true, .. }));
        assert!(ran.device.updates.is_empty());
    }
}
