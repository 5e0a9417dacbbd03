//! What workers and coordinator say to each other, on the wire.

use fovea_core::class_map::ClassMap;
use fovea_core::ids::WorkerId;
use fovea_core::metrics::Score;
use fovea_core::roster::{Member, Roster};
use fovea_core::run::{Outcome, Trouble};

use super::ConvertError;
use crate::pb;

impl From<&Score> for pb::Score {
    fn from(score: &Score) -> Self {
        let Score {
            sample,
            label,
            probabilities,
            loss,
            map,
        } = score;
        Self {
            sample: *sample,
            label: *label,
            probabilities: probabilities.clone(),
            loss: *loss,
            map: map.as_ref().map_or_else(Vec::new, |map| map.values.clone()),
            map_width: map.as_ref().map_or(0, |map| map.width as u32),
        }
    }
}

impl From<pb::Score> for Score {
    fn from(wire: pb::Score) -> Self {
        let pb::Score {
            sample,
            label,
            probabilities,
            loss,
            map,
            map_width,
        } = wire;
        let width = map_width as usize;
        Self {
            sample,
            label,
            probabilities,
            loss,
            // Whole rows: the coordinator refuses others.
            map: (width > 0 && !map.is_empty()).then(|| ClassMap {
                height: map.len() / width,
                width,
                values: map,
            }),
        }
    }
}

impl From<&Member> for pb::Member {
    fn from(member: &Member) -> Self {
        let Member {
            worker,
            address,
            first_virtual_rank,
            virtual_ranks,
        } = member;
        Self {
            worker_id: worker.to_string(),
            address: address.clone(),
            first_virtual_rank: *first_virtual_rank,
            virtual_ranks: *virtual_ranks,
        }
    }
}

impl TryFrom<pb::Member> for Member {
    type Error = ConvertError;

    fn try_from(wire: pb::Member) -> Result<Self, ConvertError> {
        let pb::Member {
            worker_id,
            address,
            first_virtual_rank,
            virtual_ranks,
        } = wire;
        Ok(Self {
            worker: WorkerId::new(worker_id)
                .map_err(|e| ConvertError::new("member.worker_id", e))?,
            address,
            first_virtual_rank,
            virtual_ranks,
        })
    }
}

impl pb::Assignment {
    /// The roster inside, checked: its virtual ranks are contiguous and complete.
    pub fn roster(&self) -> Result<Roster, ConvertError> {
        let members: Vec<Member> = self
            .members
            .iter()
            .cloned()
            .map(Member::try_from)
            .collect::<Result<_, _>>()?;
        let mut next = 0;
        for member in &members {
            if member.first_virtual_rank != next || member.virtual_ranks == 0 {
                return Err(ConvertError::new(
                    "assignment.members",
                    "the virtual ranks are not contiguous",
                ));
            }
            next += member.virtual_ranks;
        }
        Ok(Roster {
            generation: self.generation,
            members,
            start_step: self.start_step,
        })
    }
}

impl From<&Outcome> for pb::released::Outcome {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Completed { step } => Self::CompletedStep(*step),
            Outcome::Stopped { step } => Self::StoppedStep(*step),
            Outcome::Yielded { step } => Self::YieldedStep(*step),
            Outcome::Aborted => Self::Aborted(pb::Aborted {}),
            Outcome::Failed { reason, fatal } => Self::Failed(pb::Failure {
                reason: reason.clone(),
                fatal: *fatal,
            }),
            Outcome::Blocked { reason } => Self::Blocked(pb::Blocked {
                reason: reason.clone(),
            }),
            Outcome::Unfit { trouble, reason } => Self::Unfit(pb::Unfit {
                trouble: pb::Trouble::from(*trouble) as i32,
                reason: reason.clone(),
            }),
        }
    }
}

impl From<pb::released::Outcome> for Outcome {
    fn from(wire: pb::released::Outcome) -> Self {
        match wire {
            pb::released::Outcome::CompletedStep(step) => Self::Completed { step },
            pb::released::Outcome::StoppedStep(step) => Self::Stopped { step },
            pb::released::Outcome::YieldedStep(step) => Self::Yielded { step },
            pb::released::Outcome::Aborted(pb::Aborted {}) => Self::Aborted,
            pb::released::Outcome::Failed(pb::Failure { reason, fatal }) => {
                Self::Failed { reason, fatal }
            }
            pb::released::Outcome::Blocked(pb::Blocked { reason }) => Self::Blocked { reason },
            pb::released::Outcome::Unfit(pb::Unfit { trouble, reason }) => {
                match trouble_from_wire(trouble) {
                    Some(trouble) => Self::Unfit { trouble, reason },
                    // Of a newer version: another attempt may succeed.
                    None => Self::Failed {
                        reason,
                        fatal: false,
                    },
                }
            }
        }
    }
}

impl From<Trouble> for pb::Trouble {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Memory => Self::Memory,
            Trouble::Disk => Self::Disk,
            Trouble::Data => Self::Data,
            Trouble::Content => Self::Content,
            Trouble::Device => Self::Device,
            Trouble::System => Self::System,
        }
    }
}

/// The kind of trouble that a number on the wire means; None for none, or one that is not known.
pub fn trouble_from_wire(wire: i32) -> Option<Trouble> {
    match pb::Trouble::try_from(wire) {
        Ok(pb::Trouble::Memory) => Some(Trouble::Memory),
        Ok(pb::Trouble::Disk) => Some(Trouble::Disk),
        Ok(pb::Trouble::Data) => Some(Trouble::Data),
        Ok(pb::Trouble::Content) => Some(Trouble::Content),
        Ok(pb::Trouble::Device) => Some(Trouble::Device),
        Ok(pb::Trouble::System) => Some(Trouble::System),
        Ok(pb::Trouble::Unspecified) | Err(_) => None,
    }
}
