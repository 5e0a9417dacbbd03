//! Adoption: the state from which a new generation starts, a pure function of the states that its members hold.
//!
//! Each member sends all others the id of the state of the run that it holds in memory. All apply [`adopt`] to the same
//! offers, so all make the same decision without the coordinator.

use std::collections::BTreeMap;

use crate::state::StateId;

/// The source of the members' common state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// The memory of a member. All numbers are ranks. `source` is the first member that holds the state; `receivers` hold
    /// none or another and get it from there; `differing` are those receivers that hold another state of the same
    /// step, and were outvoted.
    Member {
        source: usize,
        receivers: Vec<usize>,
        differing: Vec<usize>,
    },
    /// The newest checkpoint, or the initial weights if there is none: no member holds a newer state.
    Stored,
    /// The newest checkpoint, although members hold newer states: the members with the ranks `holders` hold different
    /// states of the same step, and no state has a majority.
    Disputed { holders: Vec<usize> },
}

/// Decides which state the members adopt. `offers` has each member's state by rank, None for a member without one;
/// `stored` is the step of the newest checkpoint, 0 without one. A state in memory is preferred to a checkpoint of the
/// same step, because nothing has to be fetched; an older one is not used.
pub fn adopt(offers: &[Option<StateId>], stored: u64) -> Adoption {
    let Some(step) = offers.iter().flatten().map(|held| held.step).max() else {
        return Adoption::Stored;
    };
    if step < stored {
        return Adoption::Stored;
    }
    let mut by_digest: BTreeMap<u128, Vec<usize>> = BTreeMap::new();
    for (rank, held) in offers.iter().enumerate() {
        if let Some(held) = held.filter(|held| held.step == step) {
            by_digest.entry(held.digest).or_default().push(rank);
        }
    }
    let holders: usize = by_digest.values().map(Vec::len).sum();
    let Some(winners) = by_digest.values().find(|ranks| ranks.len() * 2 > holders) else {
        let mut holders: Vec<usize> = by_digest.into_values().flatten().collect();
        holders.sort_unstable();
        return Adoption::Disputed { holders };
    };
    let others = |rank: &usize| !winners.contains(rank);
    Adoption::Member {
        source: winners[0],
        receivers: (0..offers.len()).filter(others).collect(),
        differing: (0..offers.len())
            .filter(others)
            .filter(|&rank| offers[rank].is_some_and(|held| held.step == step))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let held = |step, digest| Some(StateId { step, digest });
        let member = |source, receivers: &[usize], differing: &[usize]| Adoption::Member {
            source,
            receivers: receivers.to_vec(),
            differing: differing.to_vec(),
        };
        type Case = (&'static str, Vec<Option<StateId>>, u64, Adoption);
        let table: Vec<Case> = vec![
            (
                "nobody holds anything",
                vec![None, None],
                7,
                Adoption::Stored,
            ),
            ("a first start", vec![None], 0, Adoption::Stored),
            (
                "a state older than the checkpoint",
                vec![held(3, 1), None],
                4,
                Adoption::Stored,
            ),
            (
                "as new as the checkpoint",
                vec![None, held(4, 1)],
                4,
                member(1, &[0], &[]),
            ),
            (
                "all hold it",
                vec![held(9, 1), held(9, 1)],
                4,
                member(0, &[], &[]),
            ),
            (
                "one is a step behind",
                vec![held(8, 5), held(9, 1)],
                4,
                member(1, &[0], &[]),
            ),
            (
                "a newcomer",
                vec![held(9, 1), None, held(9, 1)],
                0,
                member(0, &[1], &[]),
            ),
            (
                "one differs and is outvoted",
                vec![held(9, 2), held(9, 1), held(9, 1), held(8, 1)],
                0,
                member(1, &[0, 3], &[0]),
            ),
            (
                "two differ",
                vec![held(9, 2), None, held(9, 1)],
                4,
                Adoption::Disputed {
                    holders: vec![0, 2],
                },
            ),
            (
                "a tie of two and two",
                vec![held(9, 2), held(9, 1), held(9, 1), held(9, 2)],
                4,
                Adoption::Disputed {
                    holders: vec![0, 1, 2, 3],
                },
            ),
        ];
        for (what, offers, stored, expected) in table {
            assert_eq!(adopt(&offers, stored), expected, "{what}");
        }
    }
}
