//! The loop with a device that only pretends to compute, on one worker.

mod evaluation;
mod queued;

use std::sync::Arc;

use fovea_core::googlenet::FlatLayout;

use super::*;
use crate::device::{Buffer, Ready};
use crate::loader::OnDevice;
use crate::testing::{Asked, Manner, Pretending, planned, spec, tiny};

/// One worker alone.
#[derive(Default)]
struct Alone {
    /// Stands for a peer that is lost when so many buckets have been reduced.
    lost_after: Option<usize>,
    reduced: usize,
}

impl Collective for Alone {
    fn reduce(
        &mut self,
        parts: &[Buffer],
        sum: &mut Buffer,
        _: Ready,
    ) -> Result<(), CollectiveError> {
        if self.lost_after == Some(self.reduced) {
            return Err(CollectiveError::Aborted);
        }
        self.reduced += 1;
        let mut total = parts[0].read(0..sum.len());
        for part in &parts[1..] {
            for (s, p) in total.iter_mut().zip(part.read(0..sum.len())) {
                *s += p;
            }
        }
        sum.write(0, &total);
        Ok(())
    }

    fn gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        Ok(vec![mine.to_vec()])
    }

    fn gather_patiently(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.gather(mine)
    }

    fn broadcast(&mut self, _: usize, _: &[usize], _: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }
}

/// A generation to be run, and how it begins.
struct Setting {
    manner: Manner,
    control: Control,
    start_step: u64,
    stored_step: u64,
    next_epoch: u32,
    more: &'static str,
    reduction: Reduction,
    alone: Alone,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            manner: Manner {
                gradient: Some(3.0),
                ..Manner::default()
            },
            control: Control::default(),
            start_step: 0,
            stored_step: 0,
            next_epoch: 0,
            more: "",
            reduction: Reduction::Ordered,
            alone: Alone::default(),
        }
    }
}

struct Ran {
    outcome: Result<Outcome, TrainingError>,
    events: Vec<TrainingEvent>,
    asked: Asked,
    plan: ShardPlan,
    state_len: usize,
    /// Committed steps in the end.
    step: u64,
}

impl Setting {
    fn run(mut self) -> Ran {
        let mut spec = spec(self.more);
        spec.train.reduction = self.reduction;
        let plan = tiny().plan(&spec);
        let per_epoch = plan.steps_per_epoch();
        let total_steps = per_epoch * 2;
        let everything = &self.roster().members[0];
        let layout = FlatLayout::new(2, &spec.model.frozen).unwrap();
        let mut state = State {
            device: Box::new(Pretending::new(&layout, &self.manner)),
            step: self.start_step,
            parts: Parts::default(),
        };
        let loader = Loader::start(
            tiny().data(),
            plan.clone(),
            spec.clone(),
            everything,
            self.start_step..total_steps,
            starts_with_evaluation(self.start_step, per_epoch, self.next_epoch),
            OnDevice::default(),
        )
        .unwrap()
        .abortable_by(&self.control);
        let mut events = Vec::new();
        let training = Training {
            spec: &spec,
            plan: &plan,
            rank: 0,
            ranks: 1,
            hosted: 0..4,
            next_epoch: self.next_epoch,
            stored_step: self.stored_step,
            total_steps,
            state: &mut state,
            collective: &mut self.alone,
            loader,
            control: &self.control,
            progress: &Progress::default(),
            profile: None,
        };
        let outcome = training.run(&mut |event| events.push(event));
        let step = state.step;
        drop(state);
        Ran {
            step,
            outcome,
            events,
            asked: Arc::into_inner(self.manner.asked)
                .unwrap()
                .into_inner()
                .unwrap(),
            plan,
            state_len: layout.state_len(),
        }
    }

    fn roster(&self) -> fovea_core::roster::Roster {
        let worker = fovea_core::ids::WorkerId::new("w").unwrap();
        fovea_core::roster::Roster::deal(1, &[(worker, "h:1".into())], 4, self.start_step)
    }
}

impl Ran {
    /// The events in a word each, runs of steps abridged.
    fn summary(&self) -> Vec<String> {
        let mut summary: Vec<String> = Vec::new();
        for event in &self.events {
            let word = match event {
                TrainingEvent::Step { report, .. } => {
                    let word = format!("steps to {}", report.step);
                    if summary.last().is_some_and(|last| last.starts_with("steps")) {
                        summary.pop();
                    }
                    word
                }
                TrainingEvent::Scores { epoch, .. } => format!("scores {epoch}"),
                TrainingEvent::Digest { step, .. } => format!("digest {step}"),
                TrainingEvent::Snapshot(snapshot) => format!("snapshot {}", snapshot.step),
            };
            summary.push(word);
        }
        summary
    }
}

#[test]
fn a_whole_run_uses_every_sample_once_an_epoch_and_tells_everything() {
    let ran = Setting::default().run();
    let per_epoch = ran.plan.steps_per_epoch();
    let total = per_epoch * 2;
    assert_eq!(
        ran.outcome.as_ref().unwrap(),
        &Outcome::Completed { step: total }
    );
    let trained: Vec<u32> = ran.asked.gradients.concat();
    for epoch in trained.chunks(ran.plan.train_samples() as usize) {
        let mut seen = epoch.to_vec();
        seen.sort_unstable();
        let all: Vec<u32> = (0..ran.plan.train_samples() as u32).collect();
        assert_eq!(seen, all);
    }
    // The mean over the samples, not the sum, and a falling rate.
    let updates = &ran.asked.updates;
    assert!(updates.iter().all(|(g, _)| (g - 3.0).abs() < 1e-6));
    assert!(updates.windows(2).all(|w| w[1].1 < w[0].1));
    let expected = [
        format!("steps to {per_epoch}"),
        "scores 0".into(),
        format!("steps to {total}"),
        // The last checkpoint's.
        format!("digest {total}"),
        "scores 1".into(),
        format!("snapshot {total}"),
    ];
    assert_eq!(ran.summary(), expected);
    let mut steps = Vec::new();
    for event in &ran.events {
        match event {
            TrainingEvent::Step { report, samples } => {
                assert!((report.loss - 0.5).abs() < 1e-6);
                assert_eq!(report.images as usize, samples.len());
                assert_eq!(*samples, planned(&ran.plan, report.step));
                steps.push(report.step);
            }
            TrainingEvent::Scores { scores, .. } => {
                let samples = scores.iter().map(|s| s.sample);
                assert!(samples.eq(0..scores.len() as u32));
                assert!(!scores.is_empty());
            }
            TrainingEvent::Digest { .. } | TrainingEvent::Snapshot(_) => {}
        }
    }
    assert_eq!(steps, (1..=total).collect::<Vec<_>>());
}

#[test]
fn a_fast_reduction_computes_all_virtual_ranks_of_a_worker_at_once() {
    let ordered = Setting::default().run();
    let fast = Setting {
        reduction: Reduction::Fast,
        ..Setting::default()
    };
    let fast = fast.run();
    assert_eq!(fast.summary(), ordered.summary());
    let (parts, at_once) = (&ordered.asked.gradients, &fast.asked.gradients);
    assert_eq!(at_once.concat(), parts.concat());
    assert_eq!(at_once.len() as u64, fast.plan.steps_per_epoch() * 2);
    for event in &fast.events {
        if let TrainingEvent::Step { report, samples } = event {
            assert_eq!(*samples, planned(&fast.plan, report.step));
            assert_eq!(*samples, at_once[report.step as usize - 1]);
        }
    }
    assert!(
        fast.asked
            .updates
            .iter()
            .all(|(g, _)| (g - 3.0).abs() < 1e-6)
    );
}

#[test]
fn a_stop_is_taken_at_the_next_boundary_with_a_snapshot_and_wins_over_a_yield() {
    for yields in [false, true] {
        let setting = Setting::default();
        setting.control.stop();
        if yields {
            setting.control.yield_();
        }
        let ran = setting.run();
        assert_eq!(ran.summary(), ["steps to 1", "snapshot 1"]);
        let Some(TrainingEvent::Snapshot(snapshot)) = ran.events.last() else {
            panic!("no snapshot")
        };
        assert_eq!(snapshot.bytes.len(), ran.state_len * 4);
        let zeros = crate::device::state_digest(&vec![0.0; ran.state_len]);
        assert_eq!((snapshot.offset, snapshot.digest), (0, zeros));
        assert_eq!(ran.outcome.unwrap(), Outcome::Stopped { step: 1 });
    }
}

#[test]
fn a_yield_leaves_what_is_due_at_the_boundary_to_the_next_generation() {
    let more = "every_steps = 1";
    let per_epoch = tiny().plan(&spec(more)).steps_per_epoch();
    let setting = Setting {
        start_step: per_epoch - 1,
        stored_step: per_epoch - 1,
        more,
        ..Setting::default()
    };
    setting.control.yield_();
    let ran = setting.run();
    assert_eq!(
        ran.summary(),
        [
            format!("steps to {per_epoch}"),
            format!("digest {per_epoch}")
        ]
    );
    assert_eq!(ran.outcome.unwrap(), Outcome::Yielded { step: per_epoch });

    let next = Setting {
        start_step: per_epoch,
        stored_step: per_epoch - 1,
        ..Setting::default()
    };
    next.control.yield_();
    let ran = Setting { more, ..next }.run();
    let expected = ["scores 0".into(), format!("snapshot {per_epoch}")];
    assert_eq!(ran.summary()[..2], expected);
}

#[test]
fn a_start_at_the_end_completes_with_what_is_missing() {
    let total = tiny().plan(&spec("")).steps_per_epoch() * 2;
    let scores = "scores 1".to_owned();
    let snapshot = format!("snapshot {total}");
    for (stored_step, next_epoch, expected) in [
        (0, 0, vec![scores.clone(), snapshot.clone()]),
        (0, 2, vec![snapshot]),
        (total, 1, vec![scores]),
        (total, 2, vec![]),
    ] {
        let ran = Setting {
            start_step: total,
            stored_step,
            next_epoch,
            ..Setting::default()
        }
        .run();
        assert_eq!(ran.summary(), expected, "{stored_step} {next_epoch}");
        assert_eq!(ran.outcome.unwrap(), Outcome::Completed { step: total });
        assert!(ran.asked.gradients.is_empty());
    }
}

#[test]
fn an_epoch_is_evaluated_first_if_its_result_is_missing() {
    for (step, next_epoch, first) in [
        (0, 0, false),
        (9, 0, false),
        (10, 0, true),
        (10, 1, false),
        (20, 1, true),
        (20, 0, true),
        (20, 2, false),
    ] {
        assert_eq!(
            starts_with_evaluation(step, 10, next_epoch),
            first,
            "{step} {next_epoch}"
        );
    }
}

#[test]
fn an_abort_lets_go_without_a_step() {
    let setting = Setting::default();
    setting.control.abort();
    let ran = setting.run();
    let error = ran.outcome.unwrap_err();
    assert!(matches!(
        error,
        TrainingError::Collective(CollectiveError::Aborted)
    ));
    assert!(ran.events.is_empty());
}

#[test]
fn numbers_that_are_not_finite_end_the_run_before_they_are_applied() {
    for (loss, gradient) in [(f32::NAN, 3.0), (0.5, f32::INFINITY)] {
        let manner = Manner {
            loss,
            gradient: Some(gradient),
            ..Manner::default()
        };
        let ran = Setting {
            manner,
            ..Setting::default()
        }
        .run();
        let error = ran.outcome.unwrap_err();
        assert!(error.to_string().contains("step 1"), "{error}");
        assert!(matches!(error, TrainingError::NotFinite { .. }));
        assert!(ran.asked.updates.is_empty());
    }
}
