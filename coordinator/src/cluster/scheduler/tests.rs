//! The table of the scheduler, and what it must never do.

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
