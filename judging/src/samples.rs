//! From scores and a dataset's index to labelled samples.

use fovea_core::spec::RunSpec;
use fovea_dataset::{Eye as IndexedEye, Sample as Indexed};
use fovea_evaluation::{Eye, Sample, Samples};

use crate::dataset::Described;
use crate::error::Error;
use crate::scores::Scores;

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
