//! The figures of an epoch's scores: ROC, operating points, intervals.

use std::sync::Arc;

use fovea_core::run::{EpochScores, Run};
use fovea_core::spec::RunSpec;
use fovea_dataset::{Eye as IndexedEye, Index, Manifest, Sample as Indexed};
use fovea_evaluation::{Draws, Evaluated, Eye, Sample, Samples, Wanted, choose, evaluate};

use crate::blocking::blocking;
use crate::journal::Journal;
use crate::store::{DatasetStore, lower_priority};

/// Draws of the intervals: a tenth of what a report takes, so that one thread is done in a second or two.
const DRAWS: u32 = 200;

/// Run, lineage and step.
pub(super) type ScoresKey = (u64, u64, u64);

/// The figures, or why there are none.
pub(super) type Outcome = Result<Arc<Evaluated>, String>;

/// Computes the figures of the epoch of `run` that ended at `step`, on one thread of low priority.
pub(super) async fn compute(
    journal: Journal,
    store: DatasetStore,
    run: Arc<Run>,
    step: u64,
) -> Outcome {
    let scores = journal
        .scores(run.number, step)
        .await
        .map_err(|error| format!("The scores cannot be read: {error}."))?;
    let Some(scores) = scores else {
        return Err(
            "No scores are kept of this epoch: it was evaluated by a version that kept none."
                .into(),
        );
    };
    let computed = blocking(move || {
        let files = store.read_files(&run.dataset_digest);
        let (manifest, index) = files.map_err(|error| {
            format!(
                "The scores are there, but the labels of dataset {} are not: {error}.",
                run.spec.dataset
            )
        })?;
        let labelled = samples(&manifest, &index, &run.spec, &scores)?;
        // A pool of one thread: the coordinator leaves the other processors to those who train.
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .start_handler(|_| lower_priority())
            .build()
            .map_err(|error| format!("The figures cannot be computed: {error}."))?;
        pool.install(|| {
            let samples = Samples::new(&labelled, run.spec.scheme())
                .map_err(|error| format!("The scores cannot be evaluated: {error}."))?;
            let points = choose(&samples, Wanted::default());
            let draws = Draws {
                number: DRAWS,
                seed: 0,
            };
            Ok(Arc::new(evaluate(&samples, &points, draws)))
        })
    })
    .await;
    computed.map_err(|error| error.to_string())?
}

/// The scored photographs with their labels.
fn samples(
    manifest: &[u8],
    index: &[u8],
    spec: &RunSpec,
    scores: &EpochScores,
) -> Result<Vec<Sample>, String> {
    let unusable = |error: &dyn std::fmt::Display| {
        format!(
            "The labels of dataset {} cannot be used: {error}.",
            spec.dataset
        )
    };
    let manifest = Manifest::parse(manifest).map_err(|e| unusable(&e))?;
    let index = Index::parse(index, &manifest).map_err(|e| unusable(&e))?;
    let index = index.folded(spec.fold).map_err(|e| unusable(&e))?;
    let part = index.part(spec.scored_part());
    let classes = (scores.classes as usize).max(1);
    if part.len() * classes != scores.probabilities.len() {
        return Err(unusable(&format_args!(
            "it has {} photographs there, and {} were scored",
            part.len(),
            scores.probabilities.len() / classes
        )));
    }
    let sample = |(indexed, probabilities): (&Indexed, &[f32])| Sample {
        patient: index
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
    let scored = scores.probabilities.chunks_exact(classes);
    Ok(part.iter().zip(scored).map(sample).collect())
}
