//! `RunSpec` on the wire. Absent optional fields become the domain's defaults; the values
//! themselves are judged by `RunSpec::validate`, not here.

use fovea_core::googlenet::Pooling;
use fovea_core::ids::{DatasetName, RunId};
use fovea_core::priority::Priority;
use fovea_core::schedule::Policy;
use fovea_core::spec::{
    BestBy, CheckpointSpec, EvaluateSpec, FoldSpec, Head, Imbalance, Init, ModelSpec, Part,
    Precision, Reduction, RunSpec, Strategy, TrainSpec, WorkersSpec,
};

use super::ConvertError;
use crate::pb;

impl TryFrom<pb::RunSpec> for RunSpec {
    type Error = ConvertError;

    fn try_from(wire: pb::RunSpec) -> Result<Self, ConvertError> {
        let pb::RunSpec {
            name,
            dataset,
            seed,
            model,
            train,
            workers,
            checkpoint,
            evaluate,
            fold,
            priority,
        } = wire;
        Ok(RunSpec {
            priority: known_priority(known(priority, "spec.priority")?).unwrap_or_default(),
            name,
            dataset: DatasetName::new(dataset).map_err(|e| ConvertError::new("spec.dataset", e))?,
            seed: seed.unwrap_or_default(),
            model: model.unwrap_or_default().try_into()?,
            train: train.unwrap_or_default().try_into()?,
            workers: workers.unwrap_or_default().into(),
            checkpoint: checkpoint.unwrap_or_default().try_into()?,
            evaluate: evaluate.map(TryInto::try_into).transpose()?,
            fold: fold.map(Into::into),
        })
    }
}

impl From<&RunSpec> for pb::RunSpec {
    fn from(spec: &RunSpec) -> Self {
        let RunSpec {
            name,
            dataset,
            seed,
            model,
            train,
            workers,
            checkpoint,
            evaluate,
            fold,
            priority,
        } = spec;
        Self {
            priority: (!priority.is_default()).then(|| pb::Priority::from(*priority).into()),
            name: name.clone(),
            dataset: dataset.to_string(),
            seed: Some(*seed),
            model: Some(model.into()),
            train: Some(train.into()),
            workers: Some(workers.into()),
            checkpoint: Some(checkpoint.into()),
            evaluate: evaluate.as_ref().map(Into::into),
            fold: fold.map(Into::into),
        }
    }
}

impl From<Priority> for pb::Priority {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Low => Self::Low,
            Priority::Normal => Self::Normal,
            Priority::High => Self::High,
        }
    }
}

/// A priority; None if it is not set or unknown.
pub fn priority_from_wire(wire: i32) -> Option<Priority> {
    known_priority(pb::Priority::try_from(wire).ok()?)
}

fn known_priority(priority: pb::Priority) -> Option<Priority> {
    match priority {
        pb::Priority::Unspecified => None,
        pb::Priority::Low => Some(Priority::Low),
        pb::Priority::Normal => Some(Priority::Normal),
        pb::Priority::High => Some(Priority::High),
    }
}

impl TryFrom<pb::EvaluateSpec> for EvaluateSpec {
    type Error = ConvertError;

    fn try_from(wire: pb::EvaluateSpec) -> Result<Self, ConvertError> {
        let pb::EvaluateSpec {
            run_id,
            step,
            part,
            rotations,
            maps,
        } = wire;
        Ok(Self {
            run: RunId::new(run_id).map_err(|e| ConvertError::new("spec.evaluate.run_id", e))?,
            step,
            part: part_from_wire(part)
                .ok_or_else(|| ConvertError::missing("spec.evaluate.part"))?,
            rotations,
            maps,
        })
    }
}

impl From<&EvaluateSpec> for pb::EvaluateSpec {
    fn from(spec: &EvaluateSpec) -> Self {
        let EvaluateSpec {
            run,
            step,
            part,
            rotations,
            maps,
        } = spec;
        Self {
            run_id: run.to_string(),
            step: *step,
            part: pb::Part::from(*part).into(),
            rotations: *rotations,
            maps: *maps,
        }
    }
}

impl From<pb::FoldSpec> for FoldSpec {
    fn from(wire: pb::FoldSpec) -> Self {
        let pb::FoldSpec { index, of } = wire;
        Self { index, of }
    }
}

impl From<FoldSpec> for pb::FoldSpec {
    fn from(spec: FoldSpec) -> Self {
        let FoldSpec { index, of } = spec;
        Self { index, of }
    }
}

impl From<Part> for pb::Part {
    fn from(part: Part) -> Self {
        match part {
            Part::Train => Self::Train,
            Part::Validation => Self::Validation,
            Part::Test => Self::Test,
            Part::All => Self::All,
        }
    }
}

/// A part of a dataset; None if it is not set or unknown.
pub fn part_from_wire(wire: i32) -> Option<Part> {
    match pb::Part::try_from(wire).ok()? {
        pb::Part::Unspecified => None,
        pb::Part::Train => Some(Part::Train),
        pb::Part::Validation => Some(Part::Validation),
        pb::Part::Test => Some(Part::Test),
        pb::Part::All => Some(Part::All),
    }
}

impl TryFrom<pb::ModelSpec> for ModelSpec {
    type Error = ConvertError;

    fn try_from(wire: pb::ModelSpec) -> Result<Self, ConvertError> {
        let pb::ModelSpec {
            weights,
            weights_sha256,
            init,
            classes,
            positive_from,
            frozen,
            dropout,
            head,
            strategy,
            tap,
            pooling,
            auxiliary,
        } = wire;
        let default = Self::default();
        Ok(Self {
            strategy: match known(strategy, "spec.model.strategy")? {
                pb::Strategy::Unspecified => None,
                pb::Strategy::FineTune => Some(Strategy::FineTune),
                pb::Strategy::LinearProbe => Some(Strategy::LinearProbe),
                pb::Strategy::FromScratch => Some(Strategy::FromScratch),
            },
            tap: tap.unwrap_or(default.tap),
            pooling: match known(pooling, "spec.model.pooling")? {
                pb::Pooling::Unspecified => default.pooling,
                pb::Pooling::Global => Pooling::Global,
                pb::Pooling::Dense => Pooling::Dense,
            },
            auxiliary: auxiliary.unwrap_or(default.auxiliary),
            weights: weights.unwrap_or(default.weights),
            weights_sha256: weights_sha256
                .unwrap_or(default.weights_sha256)
                .to_ascii_lowercase(),
            init: match known(init, "spec.model.init")? {
                pb::Init::Unspecified => default.init,
                pb::Init::Xavier => Init::Xavier,
                pb::Init::Msra => Init::Msra,
            },
            classes: classes.unwrap_or(default.classes),
            positive_from: positive_from.unwrap_or(default.positive_from),
            frozen: frozen.map_or(default.frozen, |list| list.names),
            dropout: dropout.unwrap_or(default.dropout),
            head: match known(head, "spec.model.head")? {
                pb::Head::Unspecified => default.head,
                pb::Head::Softmax => Head::Softmax,
                pb::Head::Ordinal => Head::Ordinal,
            },
        })
    }
}

impl From<&ModelSpec> for pb::ModelSpec {
    fn from(spec: &ModelSpec) -> Self {
        let ModelSpec {
            weights,
            weights_sha256,
            init,
            classes,
            positive_from,
            frozen,
            dropout,
            head,
            strategy,
            tap,
            pooling,
            auxiliary,
        } = spec;
        Self {
            weights: Some(weights.clone()),
            weights_sha256: Some(weights_sha256.clone()),
            init: Some(match init {
                Init::Xavier => pb::Init::Xavier,
                Init::Msra => pb::Init::Msra,
            } as i32),
            classes: Some(*classes),
            positive_from: Some(*positive_from),
            frozen: Some(pb::LayerList {
                names: frozen.clone(),
            }),
            dropout: Some(*dropout),
            // The default is left out: such a spec has the bytes that it always had.
            head: match head {
                Head::Softmax => None,
                Head::Ordinal => Some(pb::Head::Ordinal.into()),
            },
            strategy: strategy.map(|strategy| {
                match strategy {
                    Strategy::FineTune => pb::Strategy::FineTune,
                    Strategy::LinearProbe => pb::Strategy::LinearProbe,
                    Strategy::FromScratch => pb::Strategy::FromScratch,
                }
                .into()
            }),
            tap: (!tap.is_empty()).then(|| tap.clone()),
            pooling: match pooling {
                Pooling::Global => None,
                Pooling::Dense => Some(pb::Pooling::Dense.into()),
            },
            auxiliary: (*auxiliary != 0.0).then_some(*auxiliary),
        }
    }
}

impl TryFrom<pb::TrainSpec> for TrainSpec {
    type Error = ConvertError;

    fn try_from(wire: pb::TrainSpec) -> Result<Self, ConvertError> {
        let pb::TrainSpec {
            epochs,
            virtual_ranks,
            batch,
            learning_rate,
            policy,
            power,
            warmup_steps,
            momentum,
            weight_decay,
            head_lr_mult,
            rotate,
            precision,
            threads,
            digest_every,
            reduction,
            imbalance,
        } = wire;
        let default = Self::default();
        Ok(Self {
            epochs: epochs.unwrap_or(default.epochs),
            virtual_ranks: virtual_ranks.unwrap_or(default.virtual_ranks),
            batch: batch.unwrap_or(default.batch),
            learning_rate: learning_rate.unwrap_or(default.learning_rate),
            policy: match known(policy, "spec.train.policy")? {
                pb::LearningRatePolicy::Unspecified => default.policy,
                pb::LearningRatePolicy::Fixed => Policy::Fixed,
                pb::LearningRatePolicy::Poly => Policy::Poly,
            },
            power: power.unwrap_or(default.power),
            warmup_steps: warmup_steps.unwrap_or(default.warmup_steps),
            momentum: momentum.unwrap_or(default.momentum),
            weight_decay: weight_decay.unwrap_or(default.weight_decay),
            head_lr_mult: head_lr_mult.unwrap_or(default.head_lr_mult),
            rotate: rotate.unwrap_or(default.rotate),
            precision: match known(precision, "spec.train.precision")? {
                pb::Precision::Unspecified => default.precision,
                pb::Precision::Float32 => Precision::Float32,
                pb::Precision::Bf16 => Precision::Bf16,
                pb::Precision::Tf32 => Precision::Tf32,
            },
            threads: threads.unwrap_or(default.threads),
            digest_every: digest_every.unwrap_or(default.digest_every),
            reduction: match known(reduction, "spec.train.reduction")? {
                pb::Reduction::Unspecified => default.reduction,
                pb::Reduction::Ordered => Reduction::Ordered,
                pb::Reduction::Fast => Reduction::Fast,
            },
            imbalance: match known(imbalance, "spec.train.imbalance")? {
                pb::Imbalance::Unspecified => default.imbalance,
                pb::Imbalance::None => Imbalance::None,
                pb::Imbalance::ClassWeights => Imbalance::ClassWeights,
                pb::Imbalance::Oversample => Imbalance::Oversample,
            },
        })
    }
}

impl From<&TrainSpec> for pb::TrainSpec {
    fn from(spec: &TrainSpec) -> Self {
        let TrainSpec {
            epochs,
            virtual_ranks,
            batch,
            learning_rate,
            policy,
            power,
            warmup_steps,
            momentum,
            weight_decay,
            head_lr_mult,
            rotate,
            precision,
            threads,
            digest_every,
            reduction,
            imbalance,
        } = spec;
        Self {
            epochs: Some(*epochs),
            virtual_ranks: Some(*virtual_ranks),
            batch: Some(*batch),
            learning_rate: Some(*learning_rate),
            policy: Some(match policy {
                Policy::Fixed => pb::LearningRatePolicy::Fixed,
                Policy::Poly => pb::LearningRatePolicy::Poly,
            } as i32),
            power: Some(*power),
            warmup_steps: Some(*warmup_steps),
            momentum: Some(*momentum),
            weight_decay: Some(*weight_decay),
            head_lr_mult: Some(*head_lr_mult),
            rotate: Some(*rotate),
            precision: Some(match precision {
                Precision::Float32 => pb::Precision::Float32,
                Precision::Bf16 => pb::Precision::Bf16,
                Precision::Tf32 => pb::Precision::Tf32,
            } as i32),
            threads: Some(*threads),
            digest_every: Some(*digest_every),
            reduction: Some(match reduction {
                Reduction::Ordered => pb::Reduction::Ordered,
                Reduction::Fast => pb::Reduction::Fast,
            } as i32),
            imbalance: Some(match imbalance {
                Imbalance::None => pb::Imbalance::None,
                Imbalance::ClassWeights => pb::Imbalance::ClassWeights,
                Imbalance::Oversample => pb::Imbalance::Oversample,
            } as i32),
        }
    }
}

impl From<pb::WorkersSpec> for WorkersSpec {
    fn from(wire: pb::WorkersSpec) -> Self {
        let pb::WorkersSpec {
            min,
            max,
            device,
            mixed,
        } = wire;
        let default = Self::default();
        Self {
            min: min.unwrap_or(default.min),
            max: max.unwrap_or(default.max),
            device: device.unwrap_or(default.device),
            mixed: mixed.unwrap_or(default.mixed),
        }
    }
}

impl From<&WorkersSpec> for pb::WorkersSpec {
    fn from(spec: &WorkersSpec) -> Self {
        let WorkersSpec {
            min,
            max,
            device,
            mixed,
        } = spec;
        Self {
            min: Some(*min),
            max: Some(*max),
            // As defaults they are left out, as older versions did.
            device: (!device.is_empty()).then(|| device.clone()),
            mixed: mixed.then_some(true),
        }
    }
}

impl TryFrom<pb::CheckpointSpec> for CheckpointSpec {
    type Error = ConvertError;

    fn try_from(wire: pb::CheckpointSpec) -> Result<Self, ConvertError> {
        let pb::CheckpointSpec {
            every_epochs,
            every_steps,
            keep_last,
            keep_best,
        } = wire;
        let default = Self::default();
        Ok(Self {
            every_epochs: every_epochs.unwrap_or(default.every_epochs),
            every_steps: every_steps.unwrap_or(default.every_steps),
            keep_last: keep_last.unwrap_or(default.keep_last),
            keep_best: best_by(known(keep_best, "spec.checkpoint.keep_best")?)
                .unwrap_or(default.keep_best),
        })
    }
}

impl From<&CheckpointSpec> for pb::CheckpointSpec {
    fn from(spec: &CheckpointSpec) -> Self {
        let CheckpointSpec {
            every_epochs,
            every_steps,
            keep_last,
            keep_best,
        } = spec;
        Self {
            every_epochs: Some(*every_epochs),
            every_steps: Some(*every_steps),
            keep_last: Some(*keep_last),
            keep_best: Some(pb::BestBy::from(*keep_best).into()),
        }
    }
}

impl From<BestBy> for pb::BestBy {
    fn from(by: BestBy) -> Self {
        match by {
            BestBy::None => Self::None,
            BestBy::Auc => Self::Auc,
            BestBy::Loss => Self::Loss,
            BestBy::Kappa => Self::Kappa,
        }
    }
}

/// A validation metric; None: it is not set.
pub(super) fn best_by(wire: pb::BestBy) -> Option<BestBy> {
    match wire {
        pb::BestBy::Unspecified => None,
        pb::BestBy::None => Some(BestBy::None),
        pb::BestBy::Auc => Some(BestBy::Auc),
        pb::BestBy::Loss => Some(BestBy::Loss),
        pb::BestBy::Kappa => Some(BestBy::Kappa),
    }
}

/// The enum value of an optional wire field; an unknown number is an error, not a default.
fn known<E>(value: Option<i32>, field: &str) -> Result<E, ConvertError>
where
    E: TryFrom<i32> + Default,
{
    match value {
        None => Ok(E::default()),
        Some(number) => E::try_from(number)
            .map_err(|_| ConvertError::new(field, format!("{number} is not a known value"))),
    }
}

#[cfg(test)]
mod tests;
