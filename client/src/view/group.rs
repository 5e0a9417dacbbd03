//! Groups of runs.

use fovea_core::spec::FoldSpec;
use fovea_proto::pb;
use serde::Serialize;

use super::Phase;
use crate::error::Error;

/// A group: runs that were submitted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupInfo {
    /// Its id.
    pub id: String,
    /// Name of the spec from which its runs were made.
    pub name: String,
    /// Milliseconds since the Unix epoch.
    pub submitted_at_ms: u64,
    /// Name of the person who submitted it; empty without TLS.
    pub submitted_by: String,
    /// Its runs as they were submitted.
    pub runs: Vec<MemberInfo>,
}

/// A run of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberInfo {
    /// Its id.
    pub run: String,
    /// The fold that it holds out; None if it holds out the validation split.
    pub fold: Option<FoldSpec>,
    /// Its seed.
    pub seed: u64,
    /// Where it is. None: it was removed.
    pub phase: Option<Phase>,
}

impl GroupInfo {
    /// Number of folds; None if its runs hold out the validation split, or are all of one fold.
    pub fn folds(&self) -> Option<u32> {
        let first = self.runs.first()?.fold?;
        let several = self.runs.iter().any(|r| r.fold != Some(first));
        several.then_some(first.of)
    }

    /// Its seeds, each once, in order of submission.
    pub fn seeds(&self) -> Vec<u64> {
        let mut seeds = Vec::new();
        for run in &self.runs {
            if !seeds.contains(&run.seed) {
                seeds.push(run.seed);
            }
        }
        seeds
    }

    /// Its runs that have not been removed.
    pub fn there(&self) -> impl Iterator<Item = (&MemberInfo, Phase)> {
        self.runs.iter().filter_map(|run| Some((run, run.phase?)))
    }
}

impl TryFrom<pb::Group> for GroupInfo {
    type Error = Error;

    fn try_from(wire: pb::Group) -> Result<Self, Error> {
        let pb::Group {
            id,
            name,
            submitted_at_ms,
            submitted_by,
            runs,
        } = wire;
        Ok(Self {
            id,
            name,
            submitted_at_ms,
            submitted_by,
            runs: runs
                .into_iter()
                .map(MemberInfo::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<pb::GroupMember> for MemberInfo {
    type Error = Error;

    fn try_from(wire: pb::GroupMember) -> Result<Self, Error> {
        let pb::GroupMember {
            run_id,
            fold,
            seed,
            phase,
        } = wire;
        Ok(Self {
            phase: match phase {
                0 => None,
                phase => Some(Phase::from_wire(&run_id, phase)?),
            },
            run: run_id,
            fold: fold.map(Into::into),
            seed,
        })
    }
}
