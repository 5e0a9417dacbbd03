//! Evaluating a run: from its scores and the dataset's index to figures.

use fovea_core::retention;
use fovea_core::run::EpochResult;
use fovea_core::spec::{BestBy, FoldSpec, Part, RunSpec};
use fovea_dataset::{Eye as IndexedEye, Index, Manifest, Sample as Indexed};
use fovea_evaluation::{Eye, Sample, Samples};
use fovea_proto::pb;

use crate::client::Client;
use crate::error::Error;
use crate::view::{RunInfo, Scores};

/// Most probabilities that are accepted: 10 million samples of 5 classes, 200 MB.
const MOST: u64 = 50_000_000;

/// A dataset's description: what its photographs are, without their pixels.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its samples.
    pub index: Index,
}

impl Described {
    /// The dataset as a run that holds out `fold` sees it.
    ///
    /// # Errors
    /// It has too few patients for that, so there is no such run.
    pub fn folded(self, fold: Option<FoldSpec>) -> Result<Self, Error> {
        let Self { manifest, index } = self;
        let index = index
            .folded(fold)
            .map_err(|e| Error::Protocol(format!("dataset {}: {e}", manifest.name)))?;
        Ok(Self { manifest, index })
    }
}

/// How photographs are shown to a model that predicts, and what is asked for besides the scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Views {
    /// The mean over four rotations.
    pub rotations: bool,
    /// Class activation maps.
    pub maps: bool,
}

/// Which checkpoint of a run is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The best by the metric that the run keeps checkpoints by, AUC unless it says another. The newest, if no epoch was
    /// evaluated.
    Best,
    /// The newest.
    Newest,
    /// That of this step.
    At(u64),
}

/// A checkpoint, and why that one.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Its step.
    pub step: u64,
    /// Why, for people: `the best AUC of 10 epochs`.
    pub why: String,
}

impl Client {
    /// Scores the checkpoint of `step` on a part of `dataset` (None: the run's own), or finds where that was done before.
    /// Returns the run that scores, and whether it was there.
    pub async fn evaluate(
        &self,
        run_id: &str,
        step: u64,
        dataset: Option<&str>,
        part: Part,
    ) -> Result<(RunInfo, bool), Error> {
        let request = pb::EvaluateRequest {
            run_id: run_id.into(),
            step,
            dataset: dataset.unwrap_or_default().into(),
            part: pb::Part::from(part).into(),
            ..pb::EvaluateRequest::default()
        };
        self.begin_scoring(request).await
    }

    /// Scores the photographs of a dataset without grades with the checkpoint of `step`. Returns the run that scores.
    pub async fn predict(
        &self,
        run_id: &str,
        step: u64,
        dataset: &str,
        views: Views,
    ) -> Result<RunInfo, Error> {
        let Views { rotations, maps } = views;
        let request = pb::EvaluateRequest {
            run_id: run_id.into(),
            step,
            dataset: dataset.into(),
            part: pb::Part::Validation.into(),
            prediction: true,
            rotations,
            maps,
        };
        Ok(self.begin_scoring(request).await?.0)
    }

    async fn begin_scoring(&self, request: pb::EvaluateRequest) -> Result<(RunInfo, bool), Error> {
        // The checkpoint may have to come from the object store first.
        let reply = self.unbounded(self.runs_client().evaluate(request)).await?;
        let run = reply
            .run
            .ok_or_else(|| Error::Protocol("the reply to an evaluation lacks the run".into()))?;
        Ok((run.try_into()?, reply.existed))
    }

    /// The scores of the epoch of a run that ended at `step`. None: that epoch was not evaluated, or its scores were not kept.
    pub async fn scores(&self, run_id: &str, step: u64) -> Result<Option<Scores>, Error> {
        self.scores_with(run_id, step, false).await
    }

    /// The same with class activation maps, if `maps` and there are any.
    pub async fn scores_with(
        &self,
        run_id: &str,
        step: u64,
        maps: bool,
    ) -> Result<Option<Scores>, Error> {
        let request = pb::ScoresRequest {
            run_id: run_id.into(),
            step,
            maps,
        };
        let mut stream = match self.runs_client().scores(request).await {
            Ok(reply) => reply.into_inner(),
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
            Err(status) => return Err(self.error(&status)),
        };
        let mut received: Option<(Scores, u64)> = None;
        while let Some(part) = stream.message().await.map_err(|s| self.error(&s))? {
            let pb::ScoresPart {
                info,
                probabilities,
                maps,
            } = part;
            if let Some(info) = info {
                received = Some(Scores::begin(info)?);
            }
            let Some((scores, expected)) = &mut received else {
                return Err(Error::Protocol(
                    "scores come before what they are of".into(),
                ));
            };
            scores.take_maps(maps)?;
            scores.probabilities.extend(probabilities);
            if *expected > MOST || scores.probabilities.len() as u64 > *expected {
                return Err(Error::Protocol(format!(
                    "more scores come than the {expected} that were announced"
                )));
            }
        }
        match received {
            Some((scores, expected)) if scores.probabilities.len() as u64 == expected => {
                scores.check_maps()?;
                Ok(Some(scores))
            }
            Some((scores, expected)) => Err(Error::Protocol(format!(
                "{} of {expected} scores came",
                scores.probabilities.len()
            ))),
            None => Err(Error::Protocol("no scores came".into())),
        }
    }

    /// Manifest and index of a dataset, by name or digest, checked against each other.
    /// None: there is none, any more.
    pub async fn describe_dataset(&self, dataset: &str) -> Result<Option<Described>, Error> {
        let request = pb::GetDatasetRequest {
            dataset: dataset.into(),
        };
        let mut datasets = self.datasets_client();
        let getting = async {
            match datasets.get(request).await {
                Ok(reply) => Ok(reply.map(Some)),
                Err(status) if status.code() == tonic::Code::NotFound => {
                    Ok(tonic::Response::new(None))
                }
                Err(status) => Err(status),
            }
        };
        let Some(pb::DatasetFiles { manifest, index }) = self.answer(getting).await? else {
            return Ok(None);
        };
        let broken = |e: &dyn std::fmt::Display| Error::Dataset(format!("dataset {dataset}: {e}"));
        let manifest = Manifest::parse(&manifest).map_err(|e| broken(&e))?;
        let index = Index::parse(&index, &manifest).map_err(|e| broken(&e))?;
        Ok(Some(Described { manifest, index }))
    }
}

/// The error about a dataset that was removed, by the name under which people know it.
pub fn removed(name: &str, digest: &str) -> Error {
    let digest: String = digest.chars().take(12).collect();
    Error::Refused(format!(
        "dataset {name} ({digest}) was removed; `fovea dataset add DIR` with the same prepared dataset brings it back"
    ))
}

/// Chooses a checkpoint of `run`.
///
/// # Errors
/// It has none, or not that one.
pub fn choose(run: &RunInfo, which: Which) -> Result<Chosen, Error> {
    let Some(newest) = run.checkpoints.last() else {
        return Err(Error::Usage(format!(
            "run {0} has no checkpoint yet: `fovea run {0}` shows how far it is",
            run.id
        )));
    };
    let newest = |why: &str| Chosen {
        step: newest.step,
        why: why.into(),
    };
    match which {
        Which::Newest => Ok(newest("the newest")),
        Which::At(step) if run.checkpoints.iter().any(|c| c.step == step) => Ok(Chosen {
            step,
            why: "as asked for".into(),
        }),
        Which::At(step) => Err(Error::Usage(format!(
            "run {} has no checkpoint at step {step}; it has {}",
            run.id,
            run.checkpoints
                .iter()
                .map(|c| c.step.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        ))),
        Which::Best => {
            let (by, name) = match run.spec.checkpoint.keep_best {
                BestBy::None | BestBy::Auc => (BestBy::Auc, "the best validation AUC"),
                BestBy::Loss => (BestBy::Loss, "the lowest validation loss"),
                BestBy::Kappa => (BestBy::Kappa, "the best validation kappa"),
            };
            let best = retention::best(&run.checkpoints, &run.epochs, by);
            Ok(best.map_or_else(
                || newest("the newest; none was evaluated"),
                |step| Chosen {
                    step,
                    why: name.into(),
                },
            ))
        }
    }
}

/// The epoch of `run` that ended at `step`.
pub fn epoch_at(run: &RunInfo, step: u64) -> Option<&EpochResult> {
    run.epochs.iter().find(|e| e.step == step)
}

/// Joins scores with what is known of their photographs. The samples are in the order of the scores.
///
/// # Errors
/// They do not belong together.
pub fn samples(scores: &Scores, dataset: &Described, spec: &RunSpec) -> Result<Vec<Sample>, Error> {
    let part = dataset.index.part(scores.part);
    if dataset.manifest.digest != scores.dataset_digest || part.len() != scores.samples() {
        return Err(Error::Protocol(format!(
            "{} scores of dataset {} were sent for the {} samples of dataset {}",
            scores.samples(),
            scores.dataset_digest,
            part.len(),
            dataset.manifest.digest
        )));
    }
    let sample = |(indexed, probabilities): (&Indexed, &[f32])| Sample {
        patient: dataset
            .index
            .patient(indexed.patient)
            .unwrap_or_default()
            .to_owned(),
        eye: match indexed.eye {
            IndexedEye::Left => Some(Eye::Left),
            IndexedEye::Right => Some(Eye::Right),
            IndexedEye::Unknown => None,
        },
        grade: indexed.grade,
        label: spec.class_of(indexed.grade) as usize,
        probabilities: probabilities.to_vec(),
    };
    let scored = scores.probabilities.chunks_exact(scores.classes.max(1));
    Ok(part.iter().zip(scored).map(sample).collect())
}

/// The samples of a run with this spec, ready to be evaluated.
///
/// # Errors
/// Names the first that cannot be used.
pub fn ready(samples: &[Sample], spec: &RunSpec) -> Result<Samples, Error> {
    Samples::new(samples, spec.scheme())
        .map_err(|e| Error::Protocol(format!("the scores cannot be evaluated: {e}")))
}
