//! The spec of a run: the validated form of `run.toml`.

mod evaluate;
mod fold;
mod labels;
mod problems;
mod strategy;

use serde::{Deserialize, Serialize};

use crate::googlenet::Pooling;
use crate::ids::DatasetName;
use crate::priority::Priority;
use crate::schedule::{Policy, Schedule};
use crate::weights::{WeightsRef, is_sha256};

pub use evaluate::{EvaluateSpec, Part};
pub use fold::{FoldSpec, MAX_FOLDS};
pub use labels::{Head, Labels, Scheme, p_at_least};
use problems::Problems;
pub use problems::{Problem, SpecError};
pub use strategy::Strategy;

/// Most letters of a run's name.
pub const LONGEST_NAME: usize = 48;

/// A run, as a person writes it. Every key but `name` and `dataset` has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// Name of the run; the coordinator adds a number to make the run's id.
    pub name: String,
    /// Name of a dataset that the coordinator holds.
    pub dataset: DatasetName,
    /// Seed of everything random in the run.
    #[serde(default)]
    pub seed: u64,
    /// Which of two runs gets workers first: low, normal or high. It changes nothing of the result.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,
    /// The network and its initial weights.
    #[serde(default)]
    pub model: ModelSpec,
    /// How it is trained.
    #[serde(default)]
    pub train: TrainSpec,
    /// How many workers it uses.
    #[serde(default)]
    pub workers: WorkersSpec,
    /// When checkpoints are taken.
    #[serde(default)]
    pub checkpoint: CheckpointSpec,
    /// What is evaluated; None for a run that trains. The coordinator fills it in, nobody writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate: Option<EvaluateSpec>,
    /// The fold of a cross-validation that is held out instead of the validation split; None: the splits as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fold: Option<FoldSpec>,
}

/// The network and its initial weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSpec {
    /// What is used of the weights, and what is trained: fine_tune, linear_probe or from_scratch. Left out: fine_tune with
    /// weights, from_scratch without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// The layer whose averaged output the classifier of a linear probe reads, such as `inception_4d/output`; empty:
    /// `pool5/7x7_s1`, the last one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tap: String,
    /// How the map before the classifier is averaged.
    #[serde(skip_serializing_if = "Pooling::is_default")]
    pub pooling: Pooling,
    /// How often the losses of the auxiliary heads loss1 and loss2 count; 0: the network has no such heads. BVLC trained
    /// with 0.3.
    #[serde(skip_serializing_if = "is_zero")]
    pub auxiliary: f64,
    /// Weights that the coordinator stores, by name or as `sha256:DIGEST`; empty: train from scratch. In run.toml also
    /// the path of a .caffemodel or .safetensors file, which the client adds to the coordinator's weights.
    pub weights: String,
    /// SHA-256 of these weights in hexadecimal. The coordinator fills it in, and workers fetch them by it; if it is
    /// given, it must be right.
    pub weights_sha256: String,
    /// Initial weights of layers that the file does not hold.
    pub init: Init,
    /// Number of classes: 2 (whether grade >= positive_from), 4 (grades 3 and 4 are one) or 5 (the grades themselves).
    pub classes: u32,
    /// What the classifier puts out. As the default it is left out, so that a spec without it is written as ever.
    #[serde(skip_serializing_if = "Head::is_default")]
    pub head: Head,
    /// The first grade that counts as positive, 1 to 4. 2 is referable DR.
    pub positive_from: u32,
    /// Names of the layers that are not trained.
    pub frozen: Vec<String>,
    /// Share of the classifier's inputs that dropout sets to zero in training.
    pub dropout: f64,
}

/// Distribution of initial weights (Caffe's weight fillers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Weights uniform in +-sqrt(3/fan_in), biases 0.2: as BVLC trained GoogLeNet.
    Xavier,
    /// Weights normal with variance 2/fan_in, biases 0 (He et al. 2015).
    Msra,
}

/// How the network is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSpec {
    /// Passes over the training split.
    pub epochs: u32,
    /// Number of virtual ranks over which the run is defined; workers host them.
    pub virtual_ranks: u32,
    /// Images of each virtual rank in a step; the global batch is `virtual_ranks` times that.
    pub batch: u32,
    /// Learning rate at the start.
    pub learning_rate: f64,
    /// How the learning rate changes over the steps.
    pub policy: Policy,
    /// Exponent of `poly`.
    pub power: f64,
    /// Number of steps over which the rate first rises linearly to its value.
    pub warmup_steps: u64,
    /// Momentum.
    pub momentum: f64,
    /// L2 penalty on weights; biases have none.
    pub weight_decay: f64,
    /// Learning-rate multiplier of the new classifier.
    pub head_lr_mult: f64,
    /// Rotate each image by 0, 90, 180 or 270 degrees at random.
    pub rotate: bool,
    /// Number format of the computation.
    pub precision: Precision,
    /// How gradients are added.
    pub reduction: Reduction,
    /// What is done about classes of unequal size.
    pub imbalance: Imbalance,
    /// Threads with which a worker computes. They belong to the run because the result's bits depend on their number.
    pub threads: u32,
    /// The digests of the workers' states are compared at checkpoints and after every so many steps; 0: at checkpoints
    /// only.
    pub digest_every: u32,
}

/// Number format of the computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE single precision throughout.
    Float32,
    /// Single precision, but GPUs round the factors of products in convolutions and matrix products to TF32, which has 10 bits of
    /// mantissa for 23 (NVIDIA A100 and later). On CPUs the same as [`Float32`](Self::Float32).
    Tf32,
    /// Activations in bfloat16, half the bits, and convolutions computed in it (on CPUs without AMX those of 3x3 in
    /// single precision, which is faster there); parameters, normalisation, classifier, loss, gradients and their
    /// reduction in single precision. Faster where the processor computes in bfloat16 (AVX-512 BF16, AMX), slow
    /// where it has no AVX-512.
    Bf16,
}

/// How the gradients of a step are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// One gradient for each virtual rank, added in the order of virtual ranks: the result's bits do not depend on the
    /// workers.
    Ordered,
    /// One gradient for all virtual ranks of a worker, computed as one batch, and a plain all-reduce. This computes larger
    /// batches and sends less if a worker hosts several virtual ranks, and makes no difference if each hosts one. Every
    /// sample is used exactly once, and all workers hold the same bits, but these bits depend on the number of workers
    /// in each step.
    Fast,
}

/// What is done about classes of unequal size in the training split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Imbalance {
    /// Nothing: each sample is used once in an epoch and counts once.
    None,
    /// The loss of a sample of class c counts N / (K n_c) times, with N samples in the training split, of which n_c are of
    /// class c, in K classes. On average it counts once.
    ClassWeights,
    /// In an epoch each virtual rank uses the samples of its smaller classes repeatedly, each about equally often, until
    /// every class is used as often as its largest. Repetitions are rotated and dropped out anew.
    Oversample,
}

/// How many workers a run uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkersSpec {
    /// The run waits until so many workers are idle.
    pub min: u32,
    /// The run is given at most so many workers; 0: as many as it has virtual ranks.
    pub max: u32,
    /// Workers with such a device alone: `cpu`, or a part of the name of a GPU's model such as `H100`; empty: any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// Whether workers of different kinds (GPU model or processor, libraries) may serve the run, at the price that its bits depend
    /// on which do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mixed: bool,
}

/// When checkpoints are taken, and which are kept. The end of a run is always checkpointed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSpec {
    /// A checkpoint after every so many epochs; 0: none.
    pub every_epochs: u32,
    /// A checkpoint after every so many steps; 0: none.
    pub every_steps: u64,
    /// So many of the newest checkpoints are kept; 0: all.
    pub keep_last: u32,
    /// The best checkpoint by this validation metric is kept, too.
    pub keep_best: BestBy,
}

/// A validation metric by which a checkpoint is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BestBy {
    /// No checkpoint is kept for its metric.
    None,
    /// Highest area under the ROC curve.
    Auc,
    /// Lowest cross-entropy.
    Loss,
    /// Highest quadratic weighted kappa.
    Kappa,
}

/// Whether a number is what a spec means that says nothing.
fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

impl Default for ModelSpec {
    fn default() -> Self {
        Self {
            strategy: None,
            tap: String::new(),
            pooling: Pooling::Global,
            auxiliary: 0.0,
            weights: String::new(),
            weights_sha256: String::new(),
            init: Init::Xavier,
            classes: 2,
            head: Head::Softmax,
            positive_from: 2,
            frozen: vec!["conv1/7x7_s2".into(), "conv2/3x3_reduce".into()],
            dropout: 0.4,
        }
    }
}

impl Default for TrainSpec {
    fn default() -> Self {
        Self {
            epochs: 10,
            virtual_ranks: 2,
            batch: 16,
            learning_rate: 0.001,
            policy: Policy::Poly,
            power: 0.5,
            warmup_steps: 0,
            momentum: 0.9,
            weight_decay: 0.0002,
            head_lr_mult: 10.0,
            rotate: true,
            precision: Precision::Float32,
            reduction: Reduction::Ordered,
            imbalance: Imbalance::None,
            threads: 1,
            digest_every: 50,
        }
    }
}

impl Default for WorkersSpec {
    fn default() -> Self {
        Self {
            min: 1,
            max: 0,
            device: String::new(),
            mixed: false,
        }
    }
}

impl Default for CheckpointSpec {
    fn default() -> Self {
        Self {
            every_epochs: 1,
            every_steps: 0,
            keep_last: 3,
            keep_best: BestBy::Auc,
        }
    }
}

impl RunSpec {
    /// Checks every value.
    ///
    /// # Errors
    /// All problems at once, each with its key.
    pub fn validate(&self) -> Result<(), SpecError> {
        let mut problems = Problems::default();
        let p = &mut problems;
        p.check(
            "name",
            (1..=LONGEST_NAME).contains(&self.name.len())
                && self.name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && self
                    .name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)),
            || {
                "use 1 to 48 letters, digits, '.', '_' or '-', starting with a letter or digit"
                    .into()
            },
        );
        let m = &self.model;
        m.check_labels(p);
        p.check("model.dropout", (0.0..1.0).contains(&m.dropout), || {
            format!("{} is not in 0 <= dropout < 1", m.dropout)
        });
        if let Err(e) = WeightsRef::parse(&m.weights) {
            p.add("model.weights", e.to_string());
        }
        p.check(
            "model.weights_sha256",
            m.weights_sha256.is_empty() || is_sha256(&m.weights_sha256),
            || "give the SHA-256 as 64 hex digits, or leave it out".into(),
        );
        m.check_strategy(self.evaluate.is_some(), p);
        let t = &self.train;
        p.range("train.epochs", f64::from(t.epochs), 1.0, 10_000.0);
        p.range(
            "train.virtual_ranks",
            f64::from(t.virtual_ranks),
            1.0,
            1024.0,
        );
        p.range("train.batch", f64::from(t.batch), 1.0, 4096.0);
        p.check(
            "train.learning_rate",
            t.learning_rate > 0.0 && t.learning_rate <= 10.0,
            || {
                format!(
                    "{} is not in 0 < rate <= 10; fine-tuning wants about 0.001",
                    t.learning_rate
                )
            },
        );
        p.range("train.power", t.power, 0.0, 10.0);
        p.range("train.warmup_steps", t.warmup_steps as f64, 0.0, 1e9);
        p.check("train.momentum", (0.0..1.0).contains(&t.momentum), || {
            format!("{} is not in 0 <= momentum < 1", t.momentum)
        });
        p.range("train.weight_decay", t.weight_decay, 0.0, 1.0);
        p.range("train.head_lr_mult", t.head_lr_mult, 0.0, 1000.0);
        p.range("train.threads", f64::from(t.threads), 1.0, 1024.0);
        let w = &self.workers;
        p.check(
            "workers.min",
            w.min >= 1 && w.min <= t.virtual_ranks,
            || {
                format!(
                    "{} is not in 1..={} (train.virtual_ranks): a worker without a virtual rank \
                     has nothing to do",
                    w.min, t.virtual_ranks
                )
            },
        );
        p.check("workers.max", w.max == 0 || w.max >= w.min, || {
            format!("{} is less than workers.min = {}", w.max, w.min)
        });
        let name = w.device.chars().all(|c| c.is_ascii_graphic() || c == ' ');
        p.check("workers.device", name && w.device.len() <= 64, || {
            format!(
                "{:?} is no part of a device's name: cpu, or up to 64 letters such as H100 (`fovea workers` lists devices)",
                w.device
            )
        });
        if let Some((key, problem)) = self.fold.and_then(FoldSpec::problem) {
            p.add(key, problem);
        }
        problems.into_result()
    }

    /// The part of the dataset that is scored: after each epoch, or in an evaluation.
    pub fn scored_part(&self) -> Part {
        self.evaluate.as_ref().map_or(Part::Validation, |e| e.part)
    }

    /// The quarter turns that each scored image is shown with.
    pub fn scored_turns(&self) -> &'static [u8] {
        self.evaluate.as_ref().map_or(&[0], EvaluateSpec::turns)
    }

    /// The largest number of workers that the run may have.
    pub fn max_workers(&self) -> u32 {
        match self.workers.max {
            0 => self.train.virtual_ranks,
            max => max.min(self.train.virtual_ranks),
        }
    }

    /// The learning-rate schedule over `max_steps` steps.
    pub fn schedule(&self, max_steps: u64) -> Schedule {
        Schedule {
            base: self.train.learning_rate,
            policy: self.train.policy,
            power: self.train.power,
            warmup_steps: self.train.warmup_steps,
            max_steps,
        }
    }

    /// Whether the workers' states are compared after `steps` committed steps of `total`.
    pub fn digest_due(&self, steps: u64, steps_per_epoch: u64, total: u64) -> bool {
        let every = u64::from(self.train.digest_every);
        (every > 0 && steps.is_multiple_of(every))
            || self.checkpoint_due(steps, steps_per_epoch, total)
    }

    /// Whether a checkpoint is taken after `steps` committed steps of `total`, with
    /// `steps_per_epoch` in each epoch.
    pub fn checkpoint_due(&self, steps: u64, steps_per_epoch: u64, total: u64) -> bool {
        let c = &self.checkpoint;
        let by_epoch =
            c.every_epochs > 0 && steps.is_multiple_of(steps_per_epoch * u64::from(c.every_epochs));
        let by_step = c.every_steps > 0 && steps.is_multiple_of(c.every_steps);
        steps > 0 && (steps == total || by_epoch || by_step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> RunSpec {
        toml::from_str("name = \"dr\"\ndataset = \"eyepacs\"").unwrap()
    }

    #[test]
    fn the_defaults_are_the_recipe() {
        let spec = minimal();
        spec.validate().unwrap();
        assert_eq!(spec.model.frozen, ["conv1/7x7_s2", "conv2/3x3_reduce"]);
        assert_eq!(spec.class_of(1), 0);
        assert_eq!(spec.class_of(2), 1);
        assert_eq!(spec.max_workers(), 2);
        // A run without a fold is written as it was before there were folds.
        assert!(!serde_json::to_string(&spec).unwrap().contains("fold"));
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_named() {
        let error = toml::from_str::<RunSpec>("name='a'\ndataset='b'\n[train]\nlerning_rate=1")
            .unwrap_err();
        assert!(error.to_string().contains("lerning_rate"), "{error}");
        type Spoil = fn(&mut RunSpec);
        let cases: [(&str, Spoil); 10] = [
            ("name", |s| s.name = "a b".into()),
            ("model.frozen", |s| s.model.frozen = vec!["conv9".into()]),
            ("train.learning_rate", |s| s.train.learning_rate = f64::NAN),
            ("train.momentum", |s| s.train.momentum = 1.0),
            ("train.batch", |s| s.train.batch = 0),
            ("workers.min", |s| s.workers.min = 3),
            ("workers.max", |s| (s.workers.min, s.workers.max) = (2, 1)),
            ("fold.of", |s| s.fold = Some(FoldSpec { index: 1, of: 1 })),
            ("fold.index", |s| {
                s.fold = Some(FoldSpec { index: 0, of: 2 })
            }),
            ("fold.index", |s| {
                s.fold = Some(FoldSpec { index: 3, of: 2 })
            }),
        ];
        for (key, spoil) in cases {
            let mut spec = minimal();
            spoil(&mut spec);
            let error = spec.validate().unwrap_err();
            assert_eq!(error.0[0].key, key);
            assert_eq!(error.0.len(), 1, "{error}");
        }
    }

    #[test]
    fn checkpoints_fall_on_epochs_steps_and_the_end() {
        let mut spec = minimal();
        spec.checkpoint = CheckpointSpec {
            every_epochs: 2,
            every_steps: 7,
            ..CheckpointSpec::default()
        };
        let due: Vec<u64> = (0..=25)
            .filter(|&s| spec.checkpoint_due(s, 5, 25))
            .collect();
        assert_eq!(due, [7, 10, 14, 20, 21, 25]);
    }
}
