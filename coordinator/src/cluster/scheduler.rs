//! Which queued run gets which idle workers: a pure function.
//!
//! First come, first served, with backfill: a run that cannot start does not keep a later one from
//! workers that it could not use itself. A run that could start with fewer workers than it may
//! have holds them for a grace period, so that workers that are just joining take part.

/// A queued run, as the scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Order of submission.
    pub number: u64,
    /// It cannot start with fewer workers.
    pub min: usize,
    /// It takes no more.
    pub max: usize,
    /// Since when it could start without interruption, milliseconds on the caller's clock.
    pub startable_since: Option<u64>,
    /// So many of the idle workers would do: others have failed it just now.
    pub suitable: usize,
}

/// What becomes of a queued run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It starts with so many workers: those after the ones that earlier runs took.
    Start { workers: usize },
    /// It could start, and waits for more until `until` (milliseconds).
    Grace { since: u64, until: u64, free: usize },
    /// There are too few idle workers.
    TooFew { free: usize },
}

/// Decides for every run in `queued`, which must be in order of submission; `idle` workers are
/// there. The verdicts come in the same order. Starting runs take idle workers in their order of
/// joining.
pub(crate) fn schedule(
    now: u64,
    grace: u64,
    queued: &[Waiting],
    idle: usize,
) -> Vec<(u64, Verdict)> {
    let mut free = idle;
    let mut verdicts = Vec::with_capacity(queued.len());
    for run in queued {
        let suitable = free.min(run.suitable);
        let verdict = if suitable < run.min {
            Verdict::TooFew { free: suitable }
        } else {
            let since = run.startable_since.unwrap_or(now);
            let until = since.saturating_add(grace);
            if suitable >= run.max {
                Verdict::Start { workers: run.max }
            } else if now >= until {
                Verdict::Start { workers: suitable }
            } else {
                Verdict::Grace {
                    since,
                    until,
                    free: suitable,
                }
            }
        };
        free -= match &verdict {
            Verdict::Start { workers } => *workers,
            // Held for it: a later run must not take what this one is about to have.
            Verdict::Grace { free, .. } => *free,
            Verdict::TooFew { .. } => 0,
        };
        verdicts.push((run.number, verdict));
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Grace, Start, TooFew};
    use super::*;

    fn run(number: u64, min: usize, max: usize, since: Option<u64>) -> Waiting {
        Waiting {
            number,
            min,
            max,
            startable_since: since,
            suitable: usize::MAX,
        }
    }

    #[test]
    fn table() {
        let start = |workers| Start { workers };
        let grace = |since, free| Grace {
            since,
            until: since + 10,
            free,
        };
        // (what, now, idle, queued, verdicts)
        type Case = (&'static str, u64, usize, Vec<Waiting>, Vec<Verdict>);
        let table: Vec<Case> = vec![
            ("nothing queued", 0, 3, vec![], vec![]),
            (
                "as many as it may have: at once",
                0,
                2,
                vec![run(1, 1, 2, None)],
                vec![start(2)],
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
                vec![start(1)],
            ),
            (
                "too few, however long it waited",
                99,
                1,
                vec![run(1, 2, 2, Some(5))],
                vec![TooFew { free: 1 }],
            ),
            (
                "first come, first served",
                0,
                3,
                vec![run(1, 2, 2, None), run(2, 1, 1, None), run(3, 1, 1, None)],
                vec![start(2), start(1), TooFew { free: 0 }],
            ),
            (
                "backfill when the head cannot start",
                0,
                1,
                vec![run(1, 2, 2, None), run(2, 1, 1, None)],
                vec![TooFew { free: 1 }, start(1)],
            ),
            (
                "no backfill into workers held during grace",
                0,
                1,
                vec![run(1, 1, 2, None), run(2, 1, 1, None)],
                vec![grace(0, 1), TooFew { free: 0 }],
            ),
            (
                "workers that have failed it do not count",
                0,
                2,
                vec![
                    Waiting {
                        suitable: 1,
                        ..run(1, 2, 2, None)
                    },
                    run(2, 2, 2, None),
                ],
                vec![TooFew { free: 1 }, start(2)],
            ),
            (
                "no workers",
                0,
                0,
                vec![run(1, 1, 1, Some(0))],
                vec![TooFew { free: 0 }],
            ),
        ];
        for (what, now, idle, queued, expected) in table {
            let verdicts = schedule(now, 10, &queued, idle);
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
        let verdicts = schedule(3, 0, &[run(1, 1, 8, None)], 2);
        assert_eq!(verdicts, vec![(1, Start { workers: 2 })]);
    }
}
