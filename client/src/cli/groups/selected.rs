//! What the selection of a sweep has done with its variants, as far as its runs tell.

use fovea_core::selection::{Contender, Gone, PauseReason, Standing, held_up, left, standings};

use crate::view::{GroupInfo, Phase, RunInfo};

/// A sweep with a selection.
pub(super) struct Selected<'a> {
    group: &'a GroupInfo,
    contenders: Vec<Contender>,
    standings: Vec<Standing>,
}

impl<'a> Selected<'a> {
    /// Of a group and its runs that were not removed. None: all of its runs are trained to the end.
    pub(super) fn of(group: &'a GroupInfo, runs: &[RunInfo]) -> Option<Self> {
        let selection = group.selection.as_ref()?;
        let contender = |member: &crate::view::MemberInfo| {
            let variant = member.variant as usize;
            let Some(run) = runs.iter().find(|run| run.id == member.run) else {
                return Contender {
                    variant,
                    gone: Some(Gone::Removed),
                    ..Contender::default()
                };
            };
            let merit =
                |epoch: &fovea_core::run::EpochResult| selection.by.merit(&epoch.validation);
            let is_paused = run.phase == Phase::Paused;
            let waits = match PauseReason::read(&run.reason) {
                Some(PauseReason::Waits(rung)) if is_paused => Some(rung),
                _ => None,
            };
            Contender {
                variant,
                merits: run.epochs[..run.epochs_done()].iter().map(merit).collect(),
                gone: match run.phase {
                    Phase::Failed => Some(Gone::Failed),
                    Phase::Cancelled => Some(Gone::Cancelled),
                    _ => None,
                },
                waits,
                held: is_paused && run.reason.is_empty(),
                ..Contender::default()
            }
            .paused(&run.reason)
        };
        let contenders: Vec<Contender> = group.runs.iter().map(contender).collect();
        let variants = group.variants.len().max(1);
        Some(Self {
            group,
            standings: standings(Some(selection), variants, &contenders),
            contenders,
        })
    }

    /// Such as `9 of 24 variants: 15 dropped`.
    pub(super) fn left(&self) -> String {
        let left = left(&self.standings);
        match &*left.others {
            "" => format!("{left} variants"),
            others => format!("{left} variants: {others}"),
        }
    }

    /// Which runs a person holds it up with.
    pub(super) fn held_up(&self) -> Option<String> {
        let held_up = held_up(self.group.selection.as_ref()?, &self.contenders)?;
        Some(held_up.in_words(|at| &self.group.runs[at].run))
    }

    /// Why a variant was dropped.
    pub(super) fn dropped(&self, variant: usize) -> Option<&str> {
        match self.standings.get(variant)? {
            Standing::Dropped { reason } => Some(reason),
            Standing::Left | Standing::Stopped | Standing::Gone(_) => None,
        }
    }

    /// Where a variant stands, in a cell: the first part of a reason, whose rest says which command to use.
    pub(super) fn standing(&self, variant: usize) -> String {
        match &self.standings[variant] {
            Standing::Dropped { reason } => {
                let first = reason.split_once(';').map_or(&**reason, |(first, _)| first);
                first.to_owned()
            }
            Standing::Gone(gone) => {
                format!("a run was {}", gone.as_str()).replace("was failed", "failed")
            }
            other => other.as_str().to_owned(),
        }
    }
}
