//! Agreement of a generation's members on the state to start from, without the coordinator.
//!
//! Each member sends which state it holds, all decide the same by [`adopt`], and a holder of the state broadcasts it to
//! the members that lack it.

use fovea_core::adoption::{Adoption, adopt};
use fovea_core::roster::Roster;
use fovea_core::state::StateId;
use tracing::{info, warn};

use super::error::JobError;
use super::read_once::{ReadStored, Readers};
use crate::collective::{Collective, CollectiveError};
use crate::device::Device;
use crate::progress::Progress;
use crate::training::{Control, Parts, State};

/// Flag, step, digest.
const OFFER: usize = 25;

/// The state that members start from if none holds a newer one.
pub(super) enum Stored<'a> {
    /// The newest checkpoint. One member reads it.
    Checkpoint(&'a mut ReadStored<'a>),
    /// The run's first state. Every member makes it.
    First(&'a mut dyn FnMut() -> Result<Vec<f32>, JobError>),
}

/// What is needed for the agreement.
pub(super) struct Agreement<'a> {
    pub(super) roster: &'a Roster,
    pub(super) rank: usize,
    pub(super) collective: &'a mut dyn Collective,
    pub(super) progress: &'a Progress,
    pub(super) control: &'a Control,
    /// Elements of a state.
    pub(super) state_len: usize,
    /// Makes a device without a state.
    pub(super) fresh: &'a dyn Fn() -> Box<dyn Device>,
}

impl Agreement<'_> {
    /// Brings `held`, the state in this worker's memory, to the state from which all start. After an error `held` is unchanged, unless the device failed.
    pub(super) fn reach(self, held: &mut Option<State>, stored: Stored) -> Result<(), JobError> {
        let Self {
            roster,
            rank,
            collective,
            progress,
            control,
            state_len,
            fresh,
        } = self;
        let mine = held.as_mut().map(offer).transpose()?;
        let offered = collective.gather(&encode(mine))?;
        progress.tick();
        let offers = offered
            .iter()
            .enumerate()
            .map(|(rank, bytes)| {
                decode(bytes).ok_or_else(|| CollectiveError::OutOfStep {
                    peer: roster.members[rank].worker.to_string(),
                    rank,
                    problem: "its message about its state cannot be decoded".into(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let names = |ranks: &[usize]| {
            let name = |&rank: &usize| roster.members[rank].worker.as_str();
            ranks.iter().map(name).collect::<Vec<_>>().join(" ")
        };
        match adopt(&offers, roster.start_step) {
            Adoption::Member {
                source,
                receivers,
                differing,
            } => {
                let step = offers[source].map_or(0, |held| held.step);
                if !differing.is_empty() {
                    warn!(
                        step,
                        workers = names(&differing),
                        "state.replaced: the states of {} at step {step} differ from that of the majority; replacing them",
                        names(&differing)
                    );
                }
                if receivers.is_empty() {
                    info!(
                        step,
                        "state.agreed: all members hold the state of step {step}"
                    );
                    return Ok(());
                }
                info!(
                    step,
                    from = names(&[source]),
                    to = names(&receivers),
                    "state.broadcast: sending the state of step {step} from {} to {}",
                    names(&[source]),
                    names(&receivers)
                );
                let mut state = Vec::new();
                if receivers.contains(&rank) {
                    state = vec![0.0; state_len];
                } else if let Some(held) = held
                    && rank == source
                {
                    state = held.device.read(0..state_len)?;
                }
                collective.broadcast(source, &receivers, &mut state)?;
                progress.tick();
                if receivers.contains(&rank) {
                    load(held, fresh, step, &state)?;
                }
            }
            adoption @ (Adoption::Stored | Adoption::Disputed { .. }) => {
                let step = roster.start_step;
                if let Adoption::Disputed { holders } = adoption {
                    warn!(
                        step,
                        workers = names(&holders),
                        "state.disputed: the states of {} differ and none has a majority; starting from the checkpoint of \
                         step {step}",
                        names(&holders)
                    );
                }
                let state = match stored {
                    Stored::First(make) => make()?,
                    Stored::Checkpoint(read) => Readers {
                        roster,
                        rank,
                        collective,
                        progress,
                        control,
                        state_len,
                    }
                    .read_once(read)?,
                };
                load(held, fresh, step, &state)?;
            }
        }
        Ok(())
    }
}

/// Makes `values` the state of step `step`.
fn load(
    held: &mut Option<State>,
    fresh: &dyn Fn() -> Box<dyn Device>,
    step: u64,
    values: &[f32],
) -> Result<(), JobError> {
    let state = held.get_or_insert_with(|| State {
        device: fresh(),
        step,
        parts: Parts::default(),
    });
    state.device.load(values)?;
    state.step = step;
    state.parts.forget();
    Ok(())
}

fn offer(state: &mut State) -> Result<StateId, JobError> {
    Ok(StateId {
        step: state.step,
        digest: state.device.digest()?,
    })
}

fn encode(offer: Option<StateId>) -> [u8; OFFER] {
    let mut bytes = [0; OFFER];
    if let Some(StateId { step, digest }) = offer {
        bytes[0] = 1;
        bytes[1..9].copy_from_slice(&step.to_le_bytes());
        bytes[9..].copy_from_slice(&digest.to_le_bytes());
    }
    bytes
}

/// What a member holds; the outer None if `bytes` are something else.
fn decode(bytes: &[u8]) -> Option<Option<StateId>> {
    let bytes: &[u8; OFFER] = bytes.try_into().ok()?;
    let held = StateId {
        step: u64::from_le_bytes(bytes[1..9].try_into().ok()?),
        digest: u128::from_le_bytes(bytes[9..].try_into().ok()?),
    };
    match bytes[0] {
        0 => Some(None),
        1 => Some(Some(held)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_survive_and_rubbish_is_refused() {
        let held = StateId {
            step: u64::MAX - 1,
            digest: u128::MAX / 3,
        };
        for offer in [None, Some(held)] {
            assert_eq!(decode(&encode(offer)), Some(offer));
        }
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[2; OFFER]), None);
        assert_eq!(decode(&[1; OFFER + 1]), None);
    }
}
