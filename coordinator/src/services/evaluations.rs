//! Evaluations: scoring a checkpoint of a run on a part of a dataset, as a run of its own; and the scores that are kept.

mod copying;

use std::sync::Arc;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::class_map;
use fovea_core::ids::RunId;
use fovea_core::run::{EvaluationRecord, Phase, Run};
use fovea_core::spec::{EvaluateSpec, Part, RunSpec};
use fovea_proto::{part_from_wire, pb};

use super::{Context, accepting, check};
use crate::access::Subject;
use crate::clock::unix_ms;
use crate::error::ApiError;
use crate::run::{RunInput, Shown};
use crate::store::{HeldDataset, Unjournalled};
use crate::unjournalled::settle;
use copying::copy_checkpoint;

/// Probabilities in one part of an answer.
const PIECE: usize = 65_536;
/// Letters of a run's id that the name of its evaluation keeps: the name has at most 48.
const NAME: usize = 36;

/// What somebody asks to evaluate.
pub(super) struct Wanted {
    pub run: RunId,
    step: u64,
    /// None: the one that the run trains on.
    dataset: Option<String>,
    part: Part,
    /// Photographs without grades are to be scored.
    prediction: bool,
    rotations: bool,
    maps: bool,
    by: Option<String>,
}

impl Wanted {
    pub(super) fn parse(
        request: pb::EvaluateRequest,
        by: Option<String>,
    ) -> Result<Self, ApiError> {
        let pb::EvaluateRequest {
            run_id,
            step,
            dataset,
            part,
            prediction,
            rotations,
            maps,
        } = request;
        if maps && !prediction {
            return Err(ApiError::invalid("maps", "is for predictions"));
        }
        Ok(Self {
            run: check::run_id("run_id", &run_id)?,
            step,
            dataset: (!dataset.is_empty()).then_some(dataset),
            part: part_from_wire(part).ok_or_else(|| ApiError::invalid("part", "is not set"))?,
            prediction,
            rotations,
            maps,
            by,
        })
    }
}

/// Makes an evaluation, or finds the one that was made before. Returns it, and whether it was there.
pub(super) async fn evaluate(
    context: Context,
    wanted: Wanted,
    subject: Subject,
) -> Result<(Shown, bool), ApiError> {
    let Wanted {
        run: of,
        step,
        dataset,
        part,
        prediction,
        rotations,
        maps,
        by,
    } = wanted;
    let run = context.runs.shown(&of).await?.run;
    if let Some(evaluate) = &run.spec.evaluate {
        return Err(ApiError::Precondition(format!(
            "{of} is an evaluation; evaluate the run {} that it is of",
            evaluate.run
        )));
    }
    let checkpoint = checkpoint_of(&run, step)?;
    let dataset = dataset_of(&context, &run, dataset.as_deref(), part)?;
    check_grades(&dataset, prediction)?;
    if maps {
        check_maps(&run, &dataset, part)?;
    }
    let what = EvaluateSpec {
        run: of.clone(),
        step,
        part,
        rotations,
        maps,
    };
    if prediction {
        let spec = spec_of(&run, what, "predict", &dataset);
        let scoring = accepting::new_run(&context, spec, &dataset, by).await?;
        subject.set(format_args!("{of} step {step} by {}", scoring.id));
        // Nothing is learnt about the model, so nothing is recorded in the run.
        let shown = start(&context, &run, &checkpoint, scoring, None).await?;
        return Ok((shown, false));
    }
    let digest = &dataset.manifest.digest;
    let same = |e: &&EvaluationRecord| {
        (e.step, e.generation, e.part, e.rotations)
            == (step, checkpoint.generation, part, rotations)
            && e.dataset_digest == *digest
    };
    for record in run.evaluations.iter().rev().filter(same) {
        match context.runs.shown(&record.run).await {
            Ok(shown) if !matches!(shown.run.phase, Phase::Failed { .. } | Phase::Cancelled) => {
                return Ok((shown, true));
            }
            Ok(_) | Err(ApiError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let spec = spec_of(&run, what, part.name(), &dataset);
    let evaluation = accepting::new_run(&context, spec, &dataset, by.clone()).await?;
    subject.set(format_args!("{of} step {step} by {}", evaluation.id));
    let record = EvaluationRecord {
        run: evaluation.id.clone(),
        step,
        generation: checkpoint.generation,
        dataset: dataset.manifest.name.clone(),
        dataset_digest: digest.clone(),
        part,
        at_ms: unix_ms(),
        by,
        test_samples: Some(match part {
            Part::Test | Part::All => dataset.samples(Part::Test).into(),
            Part::Train | Part::Validation => 0,
        }),
        rotations,
    };
    let shown = start(&context, &run, &checkpoint, evaluation, Some(record)).await?;
    Ok((shown, false))
}

fn checkpoint_of(run: &Run, step: u64) -> Result<CheckpointInfo, ApiError> {
    let found = run.checkpoints.iter().find(|c| c.step == step);
    found.cloned().ok_or_else(|| {
        ApiError::NotFound(format!(
            "run {} has no checkpoint at step {step}; `fovea checkpoints {}` lists them",
            run.id, run.id
        ))
    })
}

/// The dataset to score: `name`, or the run's own as it was then.
fn dataset_of(
    context: &Context,
    run: &Run,
    name: Option<&str>,
    part: Part,
) -> Result<Arc<HeldDataset>, ApiError> {
    let catalogue = context.datasets.now();
    let own = catalogue
        .find(&run.dataset_digest)
        .map_err(|error| named(error, run));
    let dataset = match name {
        None => own?,
        Some(name) => {
            let dataset = catalogue.find(name)?;
            check_alike(run, own.as_deref().ok(), &dataset)?;
            dataset
        }
    };
    if dataset.samples(part) == 0 {
        let counts = [Part::Train, Part::Validation, Part::Test]
            .map(|part| format!("{part} {}", dataset.samples(part)))
            .join(", ");
        return Err(ApiError::Precondition(format!(
            "dataset {} has no samples in the part {part} ({counts})",
            dataset.manifest.name
        )));
    }
    Ok(dataset)
}

/// People know the dataset of a run by its name.
fn named(error: ApiError, run: &Run) -> ApiError {
    let digest: String = run.dataset_digest.chars().take(12).collect();
    match error {
        ApiError::NotFound(_) => ApiError::NotFound(format!(
            "dataset {} ({digest}) of run {} was removed; `fovea dataset add DIR` with the same prepared dataset brings it back",
            run.spec.dataset, run.id
        )),
        other => other,
    }
}

/// What a model has learnt holds for photographs that were prepared as those that it learnt from. A run of a version that did
/// not record that, and whose own dataset was removed, cannot be compared.
fn check_alike(run: &Run, own: Option<&HeldDataset>, other: &HeldDataset) -> Result<(), ApiError> {
    let of_dataset = || own.map(|own| own.manifest.pipeline());
    let Some(learnt) = run.pipeline.clone().or_else(of_dataset) else {
        return Ok(());
    };
    let (found, name) = (other.manifest.pipeline(), &other.manifest.name);
    if found.digest == learnt.digest {
        return Ok(());
    }
    Err(ApiError::Precondition(format!(
        "run {} was trained on photographs prepared as {learnt}, and dataset {name} has them as {found}: prepare it again in \
         the same way (--size {}, the same --preprocess, and a version of Fovea with the same rules)",
        run.id, learnt.size
    )))
}

/// Photographs without grades are predicted, and those with grades are evaluated.
fn check_grades(dataset: &HeldDataset, prediction: bool) -> Result<(), ApiError> {
    let name = &dataset.manifest.name;
    match (dataset.manifest.is_ungraded(), prediction) {
        (true, false) => Err(ApiError::Precondition(format!(
            "dataset {name} has photographs without grades, which make no figures: `fovea predict` scores photographs"
        ))),
        (false, true) => Err(ApiError::Precondition(format!(
            "dataset {name} has grades: evaluate the run on it (`fovea evaluate`), which records that it was used"
        ))),
        (true, true) | (false, false) => Ok(()),
    }
}

/// The maps must not fill the journal.
fn check_maps(run: &Run, dataset: &HeldDataset, part: Part) -> Result<(), ApiError> {
    let (samples, size) = (dataset.samples(part), dataset.manifest.image_size);
    let network = run.spec.model.network();
    let network = network.map_err(|e| ApiError::Internal(e.to_string()))?;
    let bytes = class_map::bytes(network, samples.into(), size);
    if bytes <= class_map::MOST_BYTES {
        return Ok(());
    }
    let most = u64::from(samples) * class_map::MOST_BYTES / bytes;
    Err(ApiError::Precondition(format!(
        "the maps of {samples} photographs of {size} px have {} MiB, and at most {} MiB are kept: predict at most {most} \
         photographs at once, or leave out --maps",
        bytes.div_ceil(1 << 20),
        class_map::MOST_BYTES >> 20
    )))
}

/// The spec of an evaluation: the run's, without anything that training needs.
fn spec_of(run: &Run, evaluate: EvaluateSpec, name: &str, dataset: &HeldDataset) -> RunSpec {
    let mut spec = run.spec.clone();
    spec.priority = run.priority();
    let of: String = run.id.as_str().chars().take(NAME).collect();
    spec.name = format!("{of}.{name}");
    spec.dataset = dataset.manifest.name.clone();
    spec.model.forget_weights();
    spec.train.epochs = 1;
    // A fold is one of the run's own dataset.
    spec.fold = spec
        .fold
        .filter(|_| dataset.manifest.digest == run.dataset_digest);
    spec.evaluate = Some(evaluate);
    spec
}

/// Starts an evaluation on a copy of the checkpoint, and notes it in the run, if there is a record. When that fails, the copy
/// goes as well.
async fn start(
    context: &Context,
    run: &Run,
    checkpoint: &CheckpointInfo,
    evaluation: Run,
    record: Option<EvaluationRecord>,
) -> Result<Shown, ApiError> {
    let copied = Unjournalled::new(&evaluation.id, checkpoint);
    let starting = async {
        let copy = copy_checkpoint(context, run, checkpoint, &evaluation).await?;
        if let Some(record) = record {
            // Before anything is scored: a test part that was used stays used.
            let recording = |reply| RunInput::RecordEvaluation {
                record: record.clone(),
                reply,
            };
            context.runs.ask(&run.id, recording).await?;
        }
        accepting::start(context, evaluation.evaluating(copy)).await
    };
    let started = starting.await;
    settle(&context.runs.journal, &context.checkpoints, copied).await;
    started
}

/// The scores of the epoch that ended at `step`, in pieces for the wire.
pub(super) async fn scores(
    context: &Context,
    id: &RunId,
    step: u64,
    maps: bool,
) -> Result<Vec<pb::ScoresPart>, ApiError> {
    let run = context.runs.shown(id).await?.run;
    let found = context
        .runs
        .journal
        .scores(run.number, step)
        .await
        .map_err(|e| ApiError::Unavailable(e.to_string()))?;
    let Some(scores) = found else {
        let evaluated: Vec<String> = run.epochs.iter().map(|e| e.step.to_string()).collect();
        return Err(ApiError::NotFound(format!(
            "there are no scores of run {id} at step {step}; epochs were evaluated at steps {}, and versions before this one \
             kept no scores",
            if evaluated.is_empty() {
                "none".to_owned()
            } else {
                evaluated.join(", ")
            }
        )));
    };
    let maps = scores.maps.filter(|_| maps);
    let (map_height, map_width) = maps
        .as_ref()
        .map_or((0, 0), |maps| (maps.height, maps.width));
    let info = pb::ScoresInfo {
        dataset_digest: run.dataset_digest.clone(),
        part: pb::Part::from(run.spec.scored_part()).into(),
        samples: run.extent.validation_samples,
        classes: scores.classes,
        epoch: scores.epoch,
        fold: run.spec.fold.map(Into::into),
        map_height,
        map_width,
        rotations: run.spec.evaluate.as_ref().is_some_and(|e| e.rotations),
    };
    let first = pb::ScoresPart {
        info: Some(info),
        ..pb::ScoresPart::default()
    };
    let rest = scores
        .probabilities
        .chunks(PIECE)
        .map(|piece| pb::ScoresPart {
            probabilities: piece.to_vec(),
            ..pb::ScoresPart::default()
        });
    let values = maps.iter().flat_map(|maps| maps.values.chunks(PIECE));
    let values = values.map(|piece| pb::ScoresPart {
        maps: piece.to_vec(),
        ..pb::ScoresPart::default()
    });
    Ok(std::iter::once(first).chain(rest).chain(values).collect())
}
