//! Which workers a queued run takes from runs of lower priority: a pure function.
//!
//! As few as it needs. First from what runs have beyond their `workers.min`; only if that is not enough, whole runs are stopped,
//! with a checkpoint. The lowest priority gives first, then the run that was submitted last. A run that has just got back
//! what it had given keeps it for a while, so that two runs do not take turns.

use fovea_core::priority::Priority;

use super::SessionId;

/// A run that has workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Order of submission.
    pub number: u64,
    /// The priority in force.
    pub priority: Priority,
    /// With fewer it is stopped.
    pub min: usize,
    /// Its members that nobody has been promised, in the order of its roster.
    pub members: Vec<SessionId>,
    /// It keeps its workers until then, milliseconds on the caller's clock.
    pub safe_until: u64,
}

/// What a run gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gift {
    /// Which run.
    pub from: u64,
    /// Which workers.
    pub workers: Vec<SessionId>,
}

/// What can be done for a queued run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Displacement {
    /// These give now.
    Now(Vec<Gift>),
    /// These would be enough, and the first of them to be free to give is so then, milliseconds.
    Later { until: u64, runs: Vec<u64> },
    /// All workers of lower runs would not be enough.
    Never,
}

/// Decides for a run of this priority. `suits` says whether it would take a worker, `enough` whether it could start with these
/// and the idle ones that it could have.
pub(crate) fn displace(
    now: u64,
    priority: Priority,
    holders: &[Holder],
    suits: impl Fn(SessionId) -> bool,
    enough: impl Fn(&[SessionId]) -> bool,
) -> Displacement {
    let mut lower: Vec<&Holder> = holders.iter().filter(|h| h.priority < priority).collect();
    lower.sort_by_key(|holder| (holder.priority, std::cmp::Reverse(holder.number)));
    if least(&lower, &suits, &enough).is_none() {
        return Displacement::Never;
    }
    let free: Vec<&Holder> = lower
        .iter()
        .copied()
        .filter(|h| h.safe_until <= now)
        .collect();
    if let Some(gifts) = least(&free, &suits, &enough) {
        return Displacement::Now(gifts);
    }
    let safe = || lower.iter().filter(|h| h.safe_until > now);
    Displacement::Later {
        until: safe().map(|h| h.safe_until).min().unwrap_or(now),
        runs: safe().map(|h| h.number).collect(),
    }
}

/// The least that is enough: as few whole runs as possible, from the first on, and what the others can spare.
fn least(
    holders: &[&Holder],
    suits: impl Fn(SessionId) -> bool,
    enough: impl Fn(&[SessionId]) -> bool,
) -> Option<Vec<Gift>> {
    let all = holders
        .iter()
        .flat_map(|holder| holder.members.iter().copied());
    if !enough(&all.filter(|id| suits(*id)).collect::<Vec<_>>()) {
        return None;
    }
    (0..=holders.len()).find_map(|whole| {
        let mut taken = Vec::new();
        let mut gifts: Vec<Gift> = Vec::new();
        for (at, holder) in holders.iter().enumerate() {
            let wanted: Vec<SessionId> = holder
                .members
                .iter()
                .copied()
                .filter(|id| suits(*id))
                .collect();
            if at < whole {
                taken.extend(&wanted);
                if !wanted.is_empty() {
                    gifts.push(Gift {
                        from: holder.number,
                        workers: wanted,
                    });
                }
                continue;
            }
            // The last of the roster first: the first keeps its place.
            let spare = holder.members.len().saturating_sub(holder.min.max(1));
            let mut given = Vec::new();
            for id in wanted.into_iter().rev().take(spare) {
                if enough(&taken) {
                    break;
                }
                taken.push(id);
                given.push(id);
            }
            if !given.is_empty() {
                gifts.push(Gift {
                    from: holder.number,
                    workers: given,
                });
            }
        }
        enough(&taken).then(|| needed(gifts, &enough))
    })
}

/// Without those that are not needed beside the others.
fn needed(mut gifts: Vec<Gift>, enough: impl Fn(&[SessionId]) -> bool) -> Vec<Gift> {
    let mut at = 0;
    while at < gifts.len() {
        let others = gifts.iter().enumerate().filter(|(i, _)| *i != at);
        let rest: Vec<SessionId> = others.flat_map(|(_, gift)| gift.workers.clone()).collect();
        if enough(&rest) {
            gifts.remove(at);
        } else {
            at += 1;
        }
    }
    gifts
}

#[cfg(test)]
mod tests {
    use super::Priority::{High, Low, Normal};
    use super::*;

    fn holder(number: u64, priority: Priority, min: usize, members: &[u64]) -> Holder {
        Holder {
            number,
            priority,
            min,
            members: members.iter().copied().map(SessionId).collect(),
            safe_until: 0,
        }
    }

    fn gifts(of: &[(u64, &[u64])]) -> Displacement {
        let gift = |(from, workers): &(u64, &[u64])| Gift {
            from: *from,
            workers: workers.iter().copied().map(SessionId).collect(),
        };
        Displacement::Now(of.iter().map(gift).collect())
    }

    /// For a run of `priority` that misses so many workers and would take any but number 9.
    fn decided(priority: Priority, missing: usize, holders: &[Holder]) -> Displacement {
        let suits = |id| id != SessionId(9);
        displace(100, priority, holders, suits, |taken| {
            taken.len() >= missing
        })
    }

    #[test]
    fn table() {
        type Case<'a> = (&'a str, Priority, usize, Vec<Holder>, Displacement);
        let table: Vec<Case> = vec![
            (
                "shrinks first, from the end of the roster",
                High,
                1,
                vec![holder(1, Normal, 1, &[1, 2, 3])],
                gifts(&[(1, &[3])]),
            ),
            (
                "the lowest gives first, then the newest",
                High,
                3,
                vec![
                    holder(1, Normal, 1, &[1, 2]),
                    holder(2, Low, 1, &[3, 4]),
                    holder(3, Low, 1, &[5, 6]),
                ],
                gifts(&[(3, &[6]), (2, &[4]), (1, &[2])]),
            ),
            (
                "one whole run where shrinking is not enough, and what others can spare",
                High,
                3,
                vec![holder(1, Low, 1, &[1, 2]), holder(2, Low, 2, &[3, 4])],
                gifts(&[(2, &[3, 4]), (1, &[2])]),
            ),
            (
                "as many whole runs as it takes",
                High,
                2,
                vec![holder(1, Low, 1, &[1]), holder(2, Low, 1, &[2])],
                gifts(&[(2, &[2]), (1, &[1])]),
            ),
            (
                "nobody is stopped who is not needed",
                High,
                3,
                vec![holder(1, Low, 1, &[1]), holder(2, Normal, 3, &[2, 3, 4])],
                gifts(&[(2, &[2, 3, 4])]),
            ),
            (
                "nothing of its own priority",
                Normal,
                1,
                vec![holder(1, Normal, 1, &[1, 2]), holder(2, High, 1, &[3, 4])],
                Displacement::Never,
            ),
            (
                "workers that would not do stay where they are",
                High,
                1,
                vec![holder(1, Low, 1, &[1, 9])],
                gifts(&[(1, &[1])]),
            ),
            (
                "nobody is disturbed for what is not enough",
                High,
                4,
                vec![holder(1, Low, 1, &[1, 2])],
                Displacement::Never,
            ),
            (
                "a run that has just got its workers back keeps them",
                High,
                1,
                vec![
                    Holder {
                        safe_until: 150,
                        ..holder(1, Low, 1, &[1, 2])
                    },
                    holder(2, Normal, 1, &[3, 4]),
                ],
                gifts(&[(2, &[4])]),
            ),
            (
                "and is waited for if nobody else has enough",
                High,
                1,
                vec![Holder {
                    safe_until: 150,
                    ..holder(1, Low, 1, &[1, 2])
                }],
                Displacement::Later {
                    until: 150,
                    runs: vec![1],
                },
            ),
            ("nobody has workers", High, 1, vec![], Displacement::Never),
        ];
        for (what, priority, missing, holders, expected) in table {
            assert_eq!(decided(priority, missing, &holders), expected, "{what}");
        }
    }
}
