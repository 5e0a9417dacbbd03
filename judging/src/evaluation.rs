//! Evaluations of a run's checkpoints, as they were asked for.

use fovea_core::spec::Part;
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
    /// Whether each photograph counts as the mean over its four rotations.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rotations: bool,
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
            rotations,
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
            rotations,
        })
    }
}

pub(crate) fn part_of(wire: i32) -> Result<Part, Error> {
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
            rotations: false,
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
