//! Groups of runs.

use fovea_core::selection::Selection;
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
    /// Labels of its variants; empty if there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<String>,
    /// How its runs are selected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// A run that is paused will go on or be dropped without anybody asking for it.
    pub deciding: bool,
    /// Its runs as they were submitted.
    pub runs: Vec<MemberInfo>,
}

/// A run of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberInfo {
    /// Its id.
    pub run: String,
    /// Its variant: a place in `variants`, from 0.
    pub variant: u32,
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

    /// The group as if it had only the runs of one variant.
    pub fn of_variant(&self, variant: usize) -> Self {
        let runs = self
            .runs
            .iter()
            .filter(|run| run.variant as usize == variant);
        Self {
            runs: runs.cloned().collect(),
            variants: Vec::new(),
            ..self.clone()
        }
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
            variants,
            selection,
            deciding,
        } = wire;
        let runs: Vec<MemberInfo> = runs
            .into_iter()
            .map(MemberInfo::try_from)
            .collect::<Result<_, _>>()?;
        if let Some(run) = runs
            .iter()
            .find(|run| run.variant as usize >= variants.len().max(1))
        {
            return Err(Error::Protocol(format!(
                "run {} is of variant {}, which group {id} does not have",
                run.run, run.variant
            )));
        }
        Ok(Self {
            id,
            name,
            submitted_at_ms,
            submitted_by,
            variants,
            selection: selection.map(Selection::try_from).transpose()?,
            deciding,
            runs,
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
            variant,
        } = wire;
        Ok(Self {
            phase: match phase {
                0 => None,
                phase => Some(Phase::from_wire(&run_id, phase)?),
            },
            run: run_id,
            variant,
            fold: fold.map(Into::into),
            seed,
        })
    }
}
