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
mod tests {
    use super::Verdict::{Grace, Keep, Quota, Start, TooFew};
    use super::*;

    /// A run that every idle worker would do for.
    fn run(number: u64, min: usize, max: usize, since: Option<u64>) -> Waiting {
        Waiting {
            number,
            min,
            max,
            recovers: false,
            startable_since: since,
            owner: None,
            suitable: Vec::new(),
        }
    }

    fn ids(of: &[u64]) -> Vec<SessionId> {
        of.iter().copied().map(SessionId).collect()
    }

    /// Workers that a run can have together.
    fn any(of: &[u64]) -> Vec<Alike> {
        alike(&[(0, of)])
    }

    fn alike(of: &[(u8, &[u64])]) -> Vec<Alike> {
        of.iter()
            .map(|(rank, workers)| Alike {
                rank: *rank,
                workers: ids(workers),
            })
            .collect()
    }

    fn start(workers: &[u64]) -> Verdict {
        Start {
            workers: ids(workers),
        }
    }

    fn too_few(free: &[u64]) -> Verdict {
        TooFew {
            free: ids(free),
            sharing: Vec::new(),
        }
    }

    #[test]
    fn table() {
        let grace = |since, free| Grace {
            since,
            until: since + 10,
            free,
        };
        // (what, now, idle workers, from 1, queued, verdicts)
        type Case = (&'static str, u64, u64, Vec<Waiting>, Vec<Verdict>);
        let table: Vec<Case> = vec![
            ("nothing queued", 0, 3, vec![], vec![]),
            (
                "as many as it may have: at once",
                0,
                2,
                vec![run(1, 1, 2, None)],
                vec![start(&[1, 2])],
            ),
            (
                "fewer than it may have: grace from now",
                5,
                1,
                vec![run(1, 1, 2, None)],
                vec![grace(5, 1)],
            ),
            (
                "grace under way",
                14,
                1,
                vec![run(1, 1, 2, Some(5))],
                vec![grace(5, 1)],
            ),
            (
                "grace over",
                15,
                1,
                vec![run(1, 1, 2, Some(5))],
                vec![start(&[1])],
            ),
            (
                "too few, however long it waited",
                99,
                1,
                vec![run(1, 2, 2, Some(5))],
                vec![too_few(&[1])],
            ),
            (
                "first come, first served",
                0,
                3,
                vec![run(1, 2, 2, None), run(2, 1, 1, None), run(3, 1, 1, None)],
                vec![start(&[1, 2]), start(&[3]), too_few(&[])],
            ),
            (
                "backfill when the head cannot start",
                0,
                1,
                vec![run(1, 2, 2, None), run(2, 1, 1, None)],
                vec![too_few(&[1]), start(&[1])],
            ),
            (
                "no backfill into workers held during grace",
                0,
                1,
                vec![run(1, 1, 2, None), run(2, 1, 1, None)],
                vec![grace(0, 1), too_few(&[])],
            ),
            (
                "workers that have failed it do not count",
                0,
                2,
                vec![
                    Waiting {
                        suitable: any(&[2]),
                        ..run(1, 2, 2, None)
                    },
                    run(2, 2, 2, None),
                ],
                vec![too_few(&[2]), start(&[1, 2])],
            ),
            (
                "no workers",
                0,
                0,
                vec![run(1, 1, 1, Some(0))],
                vec![too_few(&[])],
            ),
        ];
        for (what, now, idle, mut queued, expected) in table {
            for run in queued.iter_mut().filter(|run| run.suitable.is_empty()) {
                run.suitable = any(&(1..=idle).collect::<Vec<_>>());
            }
            let verdicts = schedule(
                now,
                10,
                &queued,
                &BTreeMap::new(),
                BTreeMap::new(),
                |_, _| false,
            );
            let numbers: Vec<u64> = verdicts.iter().map(|(n, _)| *n).collect();
            assert_eq!(
                numbers,
                queued.iter().map(|r| r.number).collect::<Vec<_>>(),
                "{what}"
            );
            let got: Vec<Verdict> = verdicts.into_iter().map(|(_, v)| v).collect();
            assert_eq!(got, expected, "{what}");
        }
    }

    #[test]
    fn without_grace_it_starts_at_once() {
        let queued = Waiting {
            suitable: any(&[1, 2]),
            ..run(1, 1, 8, None)
        };
        let verdicts = schedule(
            3,
            0,
            &[queued],
            &BTreeMap::new(),
            BTreeMap::new(),
            |_, _| false,
        );
        assert_eq!(verdicts, vec![(1, start(&[1, 2]))]);
    }

    #[test]
    fn a_run_to_which_others_come_keeps_its_few_from_those_behind() {
        let mut queued = [run(1, 2, 2, None), run(2, 1, 1, None)];
        queued[0].suitable = any(&[1]);
        queued[1].suitable = any(&[1]);
        let holds = |run: &Waiting, free: &[SessionId]| run.number == 1 && free == ids(&[1]);
        let verdicts = schedule(0, 0, &queued, &BTreeMap::new(), BTreeMap::new(), holds);
        let got: Vec<Verdict> = verdicts.into_iter().map(|(_, v)| v).collect();
        assert_eq!(got, [too_few(&[1]), too_few(&[])]);
    }

    #[test]
    fn a_run_whose_members_may_come_back_keeps_as_many_from_those_behind() {
        let all = any(&[1, 2, 3]);
        let mut queued = [run(1, 1, 1, None), run(2, 1, 1, None), run(3, 1, 2, None)];
        for run in &mut queued {
            run.suitable.clone_from(&all);
        }
        queued[1].recovers = true;
        let keep = Keep { workers: ids(&[2]) };
        let schedule = |queued: &[Waiting]| {
            let none = (BTreeMap::new(), BTreeMap::new());
            schedule(0, 0, queued, &none.0, none.1, |_, _| false)
                .into_iter()
                .map(|(_, verdict)| verdict)
                .collect::<Vec<_>>()
        };
        assert_eq!(schedule(&queued), [start(&[1]), keep, start(&[3])]);
        queued[1].max = 9;
        let keep = Keep {
            workers: ids(&[2, 3]),
        };
        assert_eq!(schedule(&queued), [start(&[1]), keep, too_few(&[])]);
    }

    #[test]
    fn the_runs_of_one_owner_share_a_quota() {
        let of = |owner: &str, run: Waiting| Waiting {
            owner: Some(owner.into()),
            suitable: any(&[1, 2, 3, 4, 5]),
            ..run
        };
        let queued = [
            of("ann", run(1, 1, 2, None)),
            of("ann", run(2, 1, 4, None)),
            of("ann", run(3, 1, 1, None)),
            of("bob", run(4, 1, 1, None)),
        ];
        let quotas = BTreeMap::from([("ann".to_owned(), 3)]);
        let verdicts = schedule(0, 0, &queued, &BTreeMap::new(), quotas, |_, _| false);
        let got: Vec<Verdict> = verdicts.into_iter().map(|(_, v)| v).collect();
        let expected = [start(&[1, 2]), start(&[3]), Quota { left: 0 }, start(&[4])];
        assert_eq!(got, expected);
    }

    #[test]
    fn a_run_that_wants_its_workers_alike_gets_one_kind() {
        type Case = (
            &'static str,
            (usize, usize),
            Vec<(u8, &'static [u64])>,
            Verdict,
        );
        let table: Vec<Case> = vec![
            (
                "the most",
                (1, 2),
                vec![(1, &[1]), (1, &[2, 3])],
                start(&[2, 3]),
            ),
            (
                "of equally many the first",
                (1, 2),
                vec![(1, &[1, 4]), (1, &[2, 3])],
                start(&[1, 4]),
            ),
            (
                "rather fewer of a lower rank",
                (1, 3),
                vec![(0, &[1]), (1, &[2, 3, 4])],
                Grace {
                    since: 0,
                    until: 9,
                    free: 1,
                },
            ),
            (
                "unless they are too few",
                (2, 2),
                vec![(0, &[1]), (1, &[2, 3])],
                start(&[2, 3]),
            ),
            (
                "not some of each",
                (2, 2),
                vec![(0, &[1]), (1, &[2])],
                too_few(&[1]),
            ),
            (
                "too few of each: the most",
                (3, 3),
                vec![(0, &[1]), (1, &[2, 3])],
                too_few(&[2, 3]),
            ),
        ];
        for (what, (min, max), kinds, expected) in table {
            let queued = Waiting {
                suitable: alike(&kinds),
                ..run(1, min, max, None)
            };
            let none = (BTreeMap::new(), BTreeMap::new());
            let verdicts = schedule(0, 9, &[queued], &none.0, none.1, |_, _| false);
            assert_eq!(verdicts, [(1, expected)], "{what}");
        }
        // What an earlier run has taken is not there.
        let kinds = alike(&[(1, &[1, 2]), (1, &[3])]);
        let waiting = |number| Waiting {
            suitable: kinds.clone(),
            ..run(number, 1, 2, None)
        };
        let none = (BTreeMap::new(), BTreeMap::new());
        let queued = [waiting(1), waiting(2)];
        let verdicts = schedule(0, 0, &queued, &none.0, none.1, |_, _| false);
        assert_eq!(verdicts, [(1, start(&[1, 2])), (2, start(&[3]))]);
    }

    /// Workers 1 and 2 share a GPU; 3 has its own; 4 has none.
    #[test]
    fn no_run_gets_two_workers_of_one_gpu() {
        let gpu = |uuid: &str| Gpu {
            boot_id: "m".into(),
            uuid: uuid.into(),
        };
        let gpus: BTreeMap<SessionId, Gpu> = [(1, "a"), (2, "a"), (3, "b")]
            .map(|(id, uuid)| (SessionId(id), gpu(uuid)))
            .into();
        let shared = |free: &[u64], pairs: &[(u64, u64)]| TooFew {
            free: ids(free),
            sharing: pairs
                .iter()
                .map(|(a, b)| (SessionId(*a), SessionId(*b)))
                .collect(),
        };
        type Case = (&'static str, Vec<(usize, usize)>, Vec<u64>, Vec<Verdict>);
        let table: Vec<Case> = vec![
            (
                "one of the two",
                vec![(1, 3)],
                vec![1, 2, 3],
                vec![start(&[1, 3])],
            ),
            (
                "not both",
                vec![(2, 2)],
                vec![1, 2],
                vec![shared(&[1], &[(2, 1)])],
            ),
            (
                "each for a run of its own",
                vec![(1, 1), (1, 1)],
                vec![1, 2],
                vec![start(&[1]), start(&[2])],
            ),
            (
                "the one left over, with others",
                vec![(2, 2), (2, 2)],
                vec![1, 2, 3, 4],
                vec![start(&[1, 3]), start(&[2, 4])],
            ),
            (
                "what earlier runs took shares nothing any more",
                vec![(1, 1), (3, 3)],
                vec![1, 2, 3],
                vec![start(&[1]), shared(&[2, 3], &[])],
            ),
            (
                "by the order in which the run takes them",
                vec![(2, 2)],
                vec![2, 1, 3],
                vec![start(&[2, 3])],
            ),
        ];
        for (what, limits, suitable, expected) in table {
            let queued: Vec<Waiting> = (1..)
                .zip(&limits)
                .map(|(number, (min, max))| Waiting {
                    suitable: any(&suitable),
                    ..run(number, *min, *max, None)
                })
                .collect();
            let verdicts = schedule(0, 0, &queued, &gpus, BTreeMap::new(), |_, _| false);
            let got: Vec<Verdict> = verdicts.into_iter().map(|(_, v)| v).collect();
            assert_eq!(got, expected, "{what}");
        }
    }
}
