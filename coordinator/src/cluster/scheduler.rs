//! Which queued run gets which idle workers: a pure function.
//!
//! Higher priorities first, then first come, first served, with backfill: a run that cannot start does not keep a later one from
//! workers that it could not use itself. A run that could start with fewer workers than it may have holds them for a grace
//! period, so that workers that are just joining take part. A run whose members may yet come back after the coordinator's
//! restart keeps as many idle workers from those behind it: it is not overtaken when all machines restart at once. No run gets
//! two workers that share a GPU, and none that wants its workers alike gets different ones.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::SessionId;
use super::gpus::{apart, sharing};
use crate::messages::Gpu;

/// A queued run, as the scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Order of submission.
    pub number: u64,
    /// It cannot start with fewer workers.
    pub min: usize,
    /// It takes no more.
    pub max: usize,
    /// It has started before the coordinator did, and so many (`max`) of its members may yet come back: it takes no worker now.
    pub recovers: bool,
    /// Since when it could start without interruption, milliseconds on the caller's clock.
    pub startable_since: Option<u64>,
    /// Whose quota it counts against; None: nobody's.
    pub owner: Option<String>,
    /// The idle workers that would do: others have failed it just now. It takes those of one of these lists.
    pub suitable: Vec<Alike>,
}

/// Idle workers that a run can have together: of one kind of machine, if it wants them alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Alike {
    /// Among kinds that are enough to start with, the lowest is taken.
    pub rank: u8,
    /// In the order in which it takes them.
    pub workers: Vec<SessionId>,
}

/// What becomes of a queued run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It starts with these workers.
    Start { workers: Vec<SessionId> },
    /// Runs behind it leave it these, in case its members do not come back.
    Keep { workers: Vec<SessionId> },
    /// It could start, and waits for more until `until` (milliseconds).
    Grace { since: u64, until: u64, free: usize },
    /// Its owner's runs may have so many more workers, which is less than it needs.
    Quota { left: usize },
    /// There are too few idle workers.
    TooFew {
        /// Those that it could have.
        free: Vec<SessionId>,
        /// Those that it cannot have, because they share the GPU of another, each with that one.
        sharing: Vec<(SessionId, SessionId)>,
    },
}

/// Decides for every run in `queued`, which must be in the order of the queue. `gpus` names the GPU of each worker that must
/// not share it; `quotas` has how many workers more an owner's runs may have, where that is limited. `holds` says whether a
/// run keeps the few idle workers that it could have from those behind it, because others will come. The verdicts come in the
/// same order.
pub(crate) fn schedule(
    now: u64,
    grace: u64,
    queued: &[Waiting],
    gpus: &BTreeMap<SessionId, Gpu>,
    mut quotas: BTreeMap<String, usize>,
    holds: impl Fn(&Waiting, &[SessionId]) -> bool,
) -> Vec<(u64, Verdict)> {
    let mut taken: BTreeSet<SessionId> = BTreeSet::new();
    let mut verdicts = Vec::with_capacity(queued.len());
    for run in queued {
        let free = |id: &SessionId| !taken.contains(id);
        let quota = run.owner.as_ref().and_then(|owner| quotas.get_mut(owner));
        let left = quota.as_deref().copied().unwrap_or(usize::MAX);
        let max = run.max.min(left);
        let (suitable, chosen) = most_suitable(run, max, gpus, free);
        let verdict = if run.recovers {
            taken.extend(&chosen);
            Verdict::Keep { workers: chosen }
        } else if left < run.min {
            Verdict::Quota { left }
        } else if chosen.len() < run.min {
            let sharing = sharing(suitable, gpus);
            if holds(run, &chosen) {
                taken.extend(&chosen);
            }
            Verdict::TooFew {
                free: chosen,
                sharing,
            }
        } else {
            let since = run.startable_since.unwrap_or(now);
            let until = since.saturating_add(grace);
            let free = chosen.len();
            // Taken, or held for it: a later run must not take what this one is about to have.
            taken.extend(&chosen);
            if let Some(quota) = quota {
                *quota -= free;
            }
            if free >= max || now >= until {
                Verdict::Start { workers: chosen }
            } else {
                Verdict::Grace { since, until, free }
            }
        };
        verdicts.push((run.number, verdict));
    }
    verdicts
}

/// Of the lists of workers that would do the best one, of which `free` ones are left, and whom the run takes of it: one that is enough
/// to start with; of these the lowest rank, then that which gives the most workers, then the first.
fn most_suitable(
    run: &Waiting,
    max: usize,
    gpus: &BTreeMap<SessionId, Gpu>,
    free: impl Fn(&SessionId) -> bool,
) -> (Vec<SessionId>, Vec<SessionId>) {
    let left = |alike: &Alike| {
        let workers: Vec<SessionId> = alike.workers.iter().copied().filter(&free).collect();
        let chosen = apart(workers.iter().copied(), gpus, max);
        let enough = chosen.len() >= run.min;
        let order = (
            !enough,
            alike.rank * u8::from(enough),
            Reverse(chosen.len()),
        );
        (order, (workers, chosen))
    };
    let best = run
        .suitable
        .iter()
        .map(left)
        .min_by_key(|(order, _)| *order);
    best.map(|(_, best)| best).unwrap_or_default()
}

#[cfg(test)]
mod tests;
