//! The shard plan: which virtual rank trains on which samples, and when.
//!
//! The training split comes in *plan order*: patients interleaved so that any contiguous range is
//! about stratified by grade, samples of a patient side by side, packs cut from that order. A shard
//! is a contiguous range of it (rotated by the seed), cut at patients' boundaries, so a worker
//! needs only the packs that its shards touch, and every virtual rank sees every grade.
//!
//! Nothing here mentions a worker: a plan is a function of the dataset, the number of virtual
//! ranks, the batch and the seed.

use std::ops::Range;

use rand_chacha::rand_core::RngCore;

use crate::oversample::{self, Use};
use crate::random;
use crate::spec::{Imbalance, RunSpec};

/// One use of a training sample: which, and how it is turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Ordinal of the sample in the training split.
    pub sample: u32,
    /// Counter-clockwise quarter turns, 0 to 3.
    pub quarter_turns: u8,
    /// How often the sample was used in this epoch before: 0 unless smaller classes are oversampled.
    pub copy: u32,
}

/// The training split in plan order, as far as a plan depends on it.
#[derive(Debug, Clone, Copy)]
pub struct TrainingSplit<'a> {
    /// The patient of every sample; equal neighbours are one patient.
    pub patients: &'a [u32],
    /// The grade of every sample.
    pub grades: &'a [u8],
}

/// A run's position: which epoch, and which step inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// 0-based epoch.
    pub epoch: u32,
    /// 0-based step within the epoch.
    pub step_in_epoch: u64,
}

/// The fixed part of a run's data order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlan {
    seed: u64,
    batch: u32,
    rotate: bool,
    /// Shard of each virtual rank: ordinals of the training split.
    train: Vec<Vec<u32>>,
    /// Validation ordinals of each virtual rank: contiguous ranges.
    validation: Vec<Range<u32>>,
    steps_per_epoch: u64,
    /// Class of each training sample, if smaller classes are oversampled.
    classes: Option<Vec<u8>>,
}

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Fewer patients than virtual ranks: some rank would never have work.
    #[error(
        "train.virtual_ranks is {virtual_ranks}, but the training split has only {patients} \
         patients: use at most that many"
    )]
    TooFewPatients { virtual_ranks: u32, patients: usize },
}

impl ShardPlan {
    /// Cuts the training split into shards.
    ///
    /// `patients` is the patient of every training sample in plan order; equal neighbours are one
    /// patient. `validation` is the number of validation samples. `batch` is samples a step for
    /// each virtual rank.
    pub fn new(
        patients: &[u32],
        validation: u32,
        virtual_ranks: u32,
        batch: u32,
        seed: u64,
        rotate: bool,
    ) -> Result<Self, PlanError> {
        let starts: Vec<usize> = (0..patients.len())
            .filter(|&i| i == 0 || patients[i] != patients[i - 1])
            .collect();
        if starts.len() < virtual_ranks as usize || virtual_ranks == 0 {
            return Err(PlanError::TooFewPatients {
                virtual_ranks,
                patients: starts.len(),
            });
        }
        // The seed decides where the circle of patients is cut open.
        let first = random::below(&mut random::stream("shard", &[seed]), starts.len() as u64);
        let offset = starts[first as usize];
        let total = patients.len();
        let rotated: Vec<u32> = (0..total).map(|i| ((i + offset) % total) as u32).collect();
        let mut bounds: Vec<usize> = starts
            .iter()
            .map(|&s| (s + total - offset) % total)
            .collect();
        bounds.sort_unstable();
        bounds.push(total);

        let v = virtual_ranks as usize;
        let mut train = Vec::with_capacity(v);
        let mut from = 0; // index into `bounds`
        for rank in 0..v {
            let ideal = total * (rank + 1) / v;
            // The boundary nearest to the ideal cut, leaving at least a patient for each later rank.
            let last = bounds.len() - 1 - (v - 1 - rank);
            let to = (from + 1..=last)
                .min_by_key(|&b| bounds[b].abs_diff(ideal))
                .expect("there are at least as many patients as ranks");
            let to = if rank + 1 == v { bounds.len() - 1 } else { to };
            train.push(rotated[bounds[from]..bounds[to]].to_vec());
            from = to;
        }
        let longest = train.iter().map(Vec::len).max().unwrap_or(0) as u64;
        Ok(Self {
            seed,
            batch,
            rotate,
            train,
            validation: in_ranges(validation, virtual_ranks),
            steps_per_epoch: longest.div_ceil(u64::from(batch)),
            classes: None,
        })
    }

    /// The same shards, of which each uses every class equally often in an epoch. `classes` is the class of every training
    /// sample.
    fn oversampled(mut self, classes: Vec<u8>) -> Self {
        self.classes = Some(classes);
        let longest = (0..self.virtual_ranks()).map(|rank| self.epoch_len(rank));
        let longest = longest.max().unwrap_or(0) as u64;
        self.steps_per_epoch = longest.div_ceil(u64::from(self.batch));
        self
    }

    /// The plan of a run: what it trains on, and what it scores.
    ///
    /// `scored` is the number of samples in the part of the dataset that the run scores.
    pub fn of_run(
        spec: &RunSpec,
        split: TrainingSplit<'_>,
        scored: u32,
    ) -> Result<Self, PlanError> {
        let (train, ranks) = (&spec.train, spec.train.virtual_ranks);
        match &spec.evaluate {
            Some(evaluate) => Ok(Self::of_evaluation(
                evaluate.step,
                scored,
                ranks,
                train.batch,
            )),
            None => {
                let (patients, batch) = (split.patients, train.batch);
                let plan = Self::new(patients, scored, ranks, batch, spec.seed, train.rotate)?;
                Ok(match train.imbalance {
                    Imbalance::None | Imbalance::ClassWeights => plan,
                    Imbalance::Oversample => {
                        let class = |&grade: &u8| spec.class_of(grade) as u8;
                        plan.oversampled(split.grades.iter().map(class).collect())
                    }
                })
            }
        }
    }

    /// The plan of an evaluation: nothing is trained. It begins after `step` steps, which count as one epoch, so that what
    /// is left to do is the scoring at its end.
    fn of_evaluation(step: u64, scored: u32, virtual_ranks: u32, batch: u32) -> Self {
        Self {
            seed: 0,
            batch,
            rotate: false,
            train: vec![Vec::new(); virtual_ranks as usize],
            validation: in_ranges(scored, virtual_ranks),
            steps_per_epoch: step,
            classes: None,
        }
    }

    /// How many virtual ranks there are.
    pub fn virtual_ranks(&self) -> u32 {
        self.train.len() as u32
    }

    /// The training ordinals that virtual rank `rank` owns, in plan order.
    pub fn shard(&self, rank: u32) -> &[u32] {
        &self.train[rank as usize]
    }

    /// The validation ordinals that virtual rank `rank` scores.
    pub fn validation_shard(&self, rank: u32) -> Range<u32> {
        self.validation[rank as usize].clone()
    }

    /// Training samples in all shards together.
    pub fn train_samples(&self) -> u64 {
        self.train.iter().map(|s| s.len() as u64).sum()
    }

    /// Steps in one epoch: enough for the longest shard.
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// Where the `step`-th step (0-based, over the whole run) lies.
    pub fn position(&self, step: u64) -> Position {
        let per_epoch = self.steps_per_epoch();
        Position {
            epoch: (step / per_epoch) as u32,
            step_in_epoch: step % per_epoch,
        }
    }

    /// Samples of all virtual ranks together in step `step_in_epoch`.
    pub fn global_batch(&self, step_in_epoch: u64) -> u32 {
        (0..self.virtual_ranks())
            .map(|rank| self.range(self.epoch_len(rank), step_in_epoch).len() as u32)
            .sum()
    }

    /// Number of samples that virtual rank `rank` uses in an epoch, repetitions included.
    pub fn epoch_len(&self, rank: u32) -> usize {
        let shard = self.shard(rank);
        match &self.classes {
            None => shard.len(),
            Some(classes) => oversample::len(shard, |sample| classes[sample as usize]),
        }
    }

    /// Which part of `len` uses, in an epoch's order, step `step_in_epoch` uses.
    pub(crate) fn range(&self, len: usize, step_in_epoch: u64) -> Range<usize> {
        let batch = u64::from(self.batch);
        let cut = |s: u64| (s * batch).min(len as u64) as usize;
        cut(step_in_epoch)..cut(step_in_epoch + 1)
    }

    /// The order in which virtual rank `rank` goes through its shard in `epoch`.
    pub fn epoch_order(&self, rank: u32, epoch: u32) -> EpochOrder<'_> {
        let key = [self.seed, u64::from(epoch), u64::from(rank)];
        let shard = self.shard(rank);
        let mut order: Vec<Use> = match &self.classes {
            None => shard.iter().map(|&sample| (sample, 0)).collect(),
            Some(classes) => oversample::uses(shard, |sample| classes[sample as usize], &key),
        };
        random::shuffle(&mut random::stream("order", &key), &mut order);
        EpochOrder {
            plan: self,
            epoch,
            order,
        }
    }
}

/// `count` ordinals in contiguous ranges of about equal length.
fn in_ranges(count: u32, ranges: u32) -> Vec<Range<u32>> {
    let cut = |r: u64| (u64::from(count) * r / u64::from(ranges)) as u32;
    (0..u64::from(ranges)).map(|r| cut(r)..cut(r + 1)).collect()
}

/// One virtual rank's epoch, shuffled.
#[derive(Debug, Clone)]
pub struct EpochOrder<'a> {
    plan: &'a ShardPlan,
    epoch: u32,
    order: Vec<Use>,
}

impl EpochOrder<'_> {
    /// The shard's samples in the order of the epoch.
    pub(crate) fn into_samples(self) -> Vec<u32> {
        self.order.into_iter().map(|(sample, _)| sample).collect()
    }

    /// What the virtual rank uses in step `step_in_epoch`: at most `batch` draws, fewer (even none)
    /// at the end of an epoch.
    pub fn batch(&self, step_in_epoch: u64) -> Vec<Draw> {
        self.order[self.plan.range(self.order.len(), step_in_epoch)]
            .iter()
            .map(|&(sample, copy)| Draw {
                sample,
                quarter_turns: self.plan.quarter_turns(self.epoch, sample, copy),
                copy,
            })
            .collect()
    }
}

impl ShardPlan {
    /// The augmentation of the use `copy` of `sample` in `epoch`, whoever trains it.
    fn quarter_turns(&self, epoch: u32, sample: u32, copy: u32) -> u8 {
        if !self.rotate {
            return 0;
        }
        let key = random::use_key(self.seed, epoch, sample, copy);
        (random::stream("rotate", &key).next_u32() % 4) as u8
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Patients with one or two photographs each.
    fn patients() -> impl Strategy<Value = Vec<u32>> {
        prop::collection::vec(1usize..=2, 1..80).prop_map(|sizes| {
            sizes
                .iter()
                .enumerate()
                .flat_map(|(p, &n)| vec![p as u32; n])
                .collect()
        })
    }

    proptest! {
        #[test]
        fn every_epoch_uses_every_sample_once(
            patients in patients(), v in 1u32..9, batch in 1u32..20, seed: u64, epoch in 0u32..3,
        ) {
            let Ok(plan) = ShardPlan::new(&patients, 10, v, batch, seed, true) else {
                let count = patients.last().unwrap() + 1;
                prop_assert!(count < v);
                return Ok(());
            };
            let mut seen = Vec::new();
            for rank in 0..v {
                let order = plan.epoch_order(rank, epoch);
                for step in 0..plan.steps_per_epoch() {
                    let batch_now = order.batch(step);
                    prop_assert!(batch_now.len() <= batch as usize);
                    seen.extend(batch_now.iter().map(|d| d.sample));
                }
            }
            seen.sort_unstable();
            let all: Vec<u32> = (0..patients.len() as u32).collect();
            prop_assert_eq!(seen, all);
            let global: u64 = (0..plan.steps_per_epoch())
                .map(|s| u64::from(plan.global_batch(s))).sum();
            prop_assert_eq!(global, patients.len() as u64);
        }

        #[test]
        fn a_patient_lives_in_one_shard_and_shards_are_even(
            patients in patients(), v in 1u32..9, seed: u64,
        ) {
            let Ok(plan) = ShardPlan::new(&patients, 10, v, 4, seed, true) else { return Ok(()) };
            let mut home = std::collections::HashMap::new();
            for rank in 0..v {
                for &s in plan.shard(rank) {
                    let owner = *home.entry(patients[s as usize]).or_insert(rank);
                    prop_assert_eq!(owner, rank);
                }
            }
            let enough = patients.len() >= 8 * v as usize;
            if enough {
                let ideal = patients.len() as f64 / f64::from(v);
                for rank in 0..v {
                    let len = plan.shard(rank).len() as f64;
                    prop_assert!((len - ideal).abs() <= 3.0, "shard {} of {}", len, ideal);
                }
            }
        }

        #[test]
        fn validation_is_covered_once(n in 0u32..200, v in 1u32..9) {
            let patients: Vec<u32> = (0..20).collect();
            let plan = ShardPlan::new(&patients, n, v, 4, 1, true).unwrap();
            let seen: Vec<u32> = (0..v).flat_map(|r| plan.validation_shard(r)).collect();
            prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn order_and_rotation_change_by_epoch_and_not_without_rotation() {
        let patients: Vec<u32> = (0..40).collect();
        let plan = ShardPlan::new(&patients, 0, 2, 20, 3, true).unwrap();
        let first = plan.epoch_order(0, 0).batch(0);
        assert_eq!(first, plan.epoch_order(0, 0).batch(0));
        assert_ne!(first, plan.epoch_order(0, 1).batch(0));
        assert!(
            first
                .iter()
                .any(|d| d.quarter_turns != first[0].quarter_turns)
        );
        let still = ShardPlan::new(&patients, 0, 2, 20, 3, false).unwrap();
        assert!(
            still
                .epoch_order(0, 0)
                .batch(0)
                .iter()
                .all(|d| d.quarter_turns == 0)
        );
    }

    #[test]
    fn too_many_virtual_ranks_are_refused_by_name() {
        let error = ShardPlan::new(&[0, 0, 1], 0, 3, 4, 0, true).unwrap_err();
        assert!(error.to_string().contains("virtual_ranks is 3"), "{error}");
    }

    /// An evaluation of step 40 is one epoch of 40 steps, at whose end everything is scored once.
    #[test]
    fn an_evaluation_trains_on_nothing() {
        let spec = "name = 'e'\ndataset = 'd'\n[train]\nvirtual_ranks = 3\n\
                    [evaluate]\nrun = 'dr-1'\nstep = 40\npart = 'all'";
        let spec: RunSpec = toml::from_str(spec).unwrap();
        // Fewer patients than virtual ranks do not matter.
        let split = TrainingSplit {
            patients: &[0],
            grades: &[0],
        };
        let plan = ShardPlan::of_run(&spec, split, 7).unwrap();
        assert_eq!((plan.steps_per_epoch(), plan.train_samples()), (40, 0));
        assert_eq!((plan.position(39).epoch, plan.global_batch(39)), (0, 0));
        let scored: Vec<u32> = (0..3)
            .flat_map(|rank| plan.validation_shard(rank))
            .collect();
        assert_eq!(scored, [0, 1, 2, 3, 4, 5, 6]);
        assert!((0..3).all(|rank| plan.shard(rank).is_empty()));
    }

    /// 3 of 12 samples are positive: an epoch has 9 of each kind in each of the shards together, or nearly.
    #[test]
    fn oversampling_makes_epochs_longer_and_turns_copies_anew() {
        let patients: Vec<u32> = (0..48).collect();
        let grades: Vec<u8> = (0..48).map(|i| if i % 4 == 3 { 2 } else { 0 }).collect();
        let split = TrainingSplit {
            patients: &patients,
            grades: &grades,
        };
        let spec = |more: &str| -> RunSpec {
            let text = format!("name = 'o'\ndataset = 'd'\n[train]\nbatch = 4\n{more}");
            toml::from_str(&text).unwrap()
        };
        let plain = ShardPlan::of_run(&spec(""), split, 0).unwrap();
        let plan = ShardPlan::of_run(&spec("imbalance = 'oversample'"), split, 0).unwrap();
        assert_eq!((plain.steps_per_epoch(), plan.steps_per_epoch()), (6, 9));
        assert_eq!(plan.shard(0), plain.shard(0));
        let draws: Vec<Draw> = (0..9)
            .flat_map(|s| plan.epoch_order(0, 1).batch(s))
            .collect();
        assert_eq!(draws.len(), plan.epoch_len(0));
        let positive = draws.iter().filter(|d| d.sample % 4 == 3).count();
        assert_eq!(positive * 2, draws.len());
        // Of the same sample with other turns; with 12 copies, all equal by chance in one of 4^8.
        let copied = draws.iter().filter(|d| d.copy > 0);
        let differs = |d: &Draw| {
            let first = draws
                .iter()
                .find(|o| (o.sample, o.copy) == (d.sample, 0))
                .unwrap();
            first.quarter_turns != d.quarter_turns
        };
        assert!(copied.clone().count() >= 12 && copied.clone().any(differs));
        let global: u64 = (0..9).map(|s| u64::from(plan.global_batch(s))).sum();
        assert_eq!(global, 72);
        // The weights of classes change nothing of the order.
        let weighted = ShardPlan::of_run(&spec("imbalance = 'class_weights'"), split, 0).unwrap();
        assert_eq!(weighted, plain);
    }
}
