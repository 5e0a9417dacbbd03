//! Evaluations of a run's checkpoints, and the scores that they left.

use fovea_core::class_map::ClassMap;
use fovea_core::spec::{FoldSpec, Part};
use fovea_proto::{part_from_wire, pb};
use serde::Serialize;

use crate::error::Error;

/// An evaluation of a checkpoint that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EvaluationInfo {
    /// Id of the run that scored; it may have been removed.
    pub run: String,
    /// Step of the checkpoint.
    pub step: u64,
    /// Generation that took the checkpoint.
    pub generation: u64,
    /// Name of the dataset.
    pub dataset: String,
    /// Digest of the dataset.
    pub dataset_digest: String,
    /// Part of the dataset.
    pub part: Part,
    /// When it was asked for, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Name of the person who asked; empty without TLS.
    pub by: String,
    /// How many of the scored samples are of the dataset's test part. None: the coordinator's version did not record it then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_samples: Option<u64>,
}

impl EvaluationInfo {
    /// Whether a test part was read. `has_test` says whether the dataset has one, where that is known: of all photographs
    /// of a dataset older versions did not record it, and then it counts unless it cannot be.
    pub fn reads_test_part(&self, has_test: Option<bool>) -> bool {
        match (self.test_samples, self.part) {
            (Some(samples), _) => samples > 0,
            (None, Part::Test) => true,
            (None, Part::All) => has_test.unwrap_or(true),
            (None, Part::Train | Part::Validation) => false,
        }
    }
}

impl TryFrom<pb::EvaluationRecord> for EvaluationInfo {
    type Error = Error;

    fn try_from(wire: pb::EvaluationRecord) -> Result<Self, Error> {
        let pb::EvaluationRecord {
            run_id,
            step,
            dataset,
            dataset_digest,
            part,
            at_ms,
            by,
            generation,
            test_samples,
        } = wire;
        Ok(Self {
            run: run_id,
            step,
            generation,
            dataset,
            dataset_digest,
            part: part_of(part)?,
            at_ms,
            by,
            test_samples,
        })
    }
}

/// The probabilities that a model gave to every class of every sample of a part.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Digest of the dataset.
    pub dataset_digest: String,
    /// The part that was scored.
    pub part: Part,
    /// The fold that counts as validation split there.
    pub fold: Option<FoldSpec>,
    /// Number of classes.
    pub classes: usize,
    /// Sample by sample in the order of the dataset's index, class by class.
    pub probabilities: Vec<f32>,
    /// Number of samples that were announced.
    announced: u64,
    /// Rows and columns of each class activation map; 0 if none are sent.
    map_size: (usize, usize),
    /// Sample by sample, row by row.
    map_values: Vec<f32>,
}

impl Scores {
    /// Scores that no coordinator sent, without maps.
    pub(crate) fn without_maps(
        dataset_digest: String,
        part: Part,
        classes: usize,
        probabilities: Vec<f32>,
    ) -> Self {
        Self {
            dataset_digest,
            part,
            fold: None,
            classes,
            announced: (probabilities.len() / classes.max(1)) as u64,
            probabilities,
            map_size: (0, 0),
            map_values: Vec::new(),
        }
    }

    /// Begins with what the scores are of. Returns the number of probabilities that are to follow, too.
    pub(crate) fn begin(info: pb::ScoresInfo) -> Result<(Self, u64), Error> {
        let pb::ScoresInfo {
            dataset_digest,
            part,
            samples,
            classes,
            epoch: _,
            fold,
            map_height,
            map_width,
        } = info;
        let scores = Self {
            dataset_digest,
            part: part_of(part)?,
            fold: fold.map(Into::into),
            classes: classes as usize,
            probabilities: Vec::new(),
            announced: samples,
            map_size: (map_height as usize, map_width as usize),
            map_values: Vec::new(),
        };
        Ok((scores, samples.saturating_mul(u64::from(classes))))
    }

    /// Takes the next values of maps.
    pub(crate) fn take_maps(&mut self, values: Vec<f32>) -> Result<(), Error> {
        self.map_values.extend(values);
        match self.map_values.len() as u64 > self.map_values_announced() {
            true => Err(self.wrong_maps()),
            false => Ok(()),
        }
    }

    /// Whether all maps have come.
    pub(crate) fn check_maps(&self) -> Result<(), Error> {
        match self.map_values.len() as u64 == self.map_values_announced() {
            true => Ok(()),
            false => Err(self.wrong_maps()),
        }
    }

    fn map_values_announced(&self) -> u64 {
        let (height, width) = self.map_size;
        let places = (height as u64).saturating_mul(width as u64);
        self.announced.saturating_mul(places)
    }

    fn wrong_maps(&self) -> Error {
        let (height, width) = self.map_size;
        Error::Protocol(format!(
            "{} values of maps came for {} samples of {height} x {width}",
            self.map_values.len(),
            self.announced
        ))
    }

    /// The class activation map of a sample, if maps were sent.
    pub fn map(&self, sample: usize) -> Option<ClassMap> {
        let (height, width) = self.map_size;
        let places = height * width;
        let values = self
            .map_values
            .get(sample * places..(sample + 1) * places)?;
        (places > 0).then(|| ClassMap {
            height,
            width,
            values: values.to_vec(),
        })
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.probabilities.len() / self.classes.max(1)
    }
}

fn part_of(wire: i32) -> Result<Part, Error> {
    part_from_wire(wire)
        .ok_or_else(|| Error::Protocol(format!("part of a dataset is {wire}, expected 1 to 4")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_scores_samples_of_a_test_part_reads_it() {
        let of = |part, test_samples| EvaluationInfo {
            run: "dr.all-2".into(),
            step: 4,
            generation: 1,
            dataset: "eyes".into(),
            dataset_digest: "d".into(),
            part,
            at_ms: 0,
            by: String::new(),
            test_samples,
        };
        assert!(of(Part::All, Some(16)).reads_test_part(None));
        assert!(!of(Part::All, Some(0)).reads_test_part(None));
        assert!(!of(Part::Validation, Some(0)).reads_test_part(Some(true)));
        // Recorded by an older version.
        assert!(of(Part::Test, None).reads_test_part(None));
        assert!(!of(Part::Train, None).reads_test_part(Some(true)));
        let all =
            [None, Some(true), Some(false)].map(|has| of(Part::All, None).reads_test_part(has));
        assert_eq!(all, [true, true, false]);
    }
}
