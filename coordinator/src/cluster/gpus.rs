//! Which workers may be in one run together: none shares its GPU with another. Pure decisions.
//!
//! Two workers on one GPU share its memory and its time, and NCCL does not connect them. It happens where several workers
//! of a machine, or of its containers, all take the first GPU. Each may still work for a run of its own.

use std::collections::{BTreeMap, BTreeSet};

use super::SessionId;
use crate::messages::Gpu;

/// GPUs that the workers of a run use.
#[derive(Debug, Default)]
pub(super) struct InUse<'a> {
    gpus: BTreeSet<&'a Gpu>,
    /// The GPU of a member is not known, because it is not connected at the moment.
    unknown: bool,
}

/// Whether a worker may be in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may.
    Admitted,
    /// A worker that is in the run uses its GPU.
    Shares,
    /// That is known when all members are connected again, or lost.
    Later,
}

impl<'a> InUse<'a> {
    /// A member, with its GPU if it uses one.
    pub fn add(&mut self, gpu: Option<&'a Gpu>) {
        self.gpus.extend(gpu);
    }

    /// A member that is not connected.
    pub fn add_unknown(&mut self) {
        self.unknown = true;
    }

    /// Whether a worker with this GPU may be in the run, too. It is not added.
    pub fn admission(&self, gpu: Option<&Gpu>) -> Admission {
        match gpu {
            // On the CPU they may share a machine.
            None => Admission::Admitted,
            Some(gpu) if self.gpus.contains(gpu) => Admission::Shares,
            Some(_) if self.unknown => Admission::Later,
            Some(_) => Admission::Admitted,
        }
    }
}

/// The first `most` of `candidates` of which no two share a GPU.
pub(super) fn apart(
    candidates: impl IntoIterator<Item = SessionId>,
    gpus: &BTreeMap<SessionId, Gpu>,
    most: usize,
) -> Vec<SessionId> {
    let mut in_use = InUse::default();
    let admitted = |id: &SessionId| {
        let gpu = gpus.get(id);
        let admitted = in_use.admission(gpu) == Admission::Admitted;
        in_use.add(gpu);
        admitted
    };
    candidates.into_iter().filter(admitted).take(most).collect()
}

/// Those of `candidates` that share a GPU with one before them, each with that one.
pub(super) fn sharing(
    candidates: impl IntoIterator<Item = SessionId>,
    gpus: &BTreeMap<SessionId, Gpu>,
) -> Vec<(SessionId, SessionId)> {
    let mut first: BTreeMap<&Gpu, SessionId> = BTreeMap::new();
    let mut pairs = Vec::new();
    for id in candidates {
        let Some(gpu) = gpus.get(&id) else { continue };
        match first.get(gpu) {
            Some(with) => pairs.push((id, *with)),
            None => drop(first.insert(gpu, id)),
        }
    }
    pairs
}

/// Why a worker is left out, and what to do.
pub(super) fn reason(worker: &str, gpu: &Gpu, with: &str) -> String {
    format!(
        "{worker} shares {} with {with}: they are not put into one run; give each worker of a machine a GPU of its own \
         (`local_rank` or `device`)",
        gpu.uuid
    )
}

#[cfg(test)]
mod tests {
    use super::Admission::{Admitted, Later, Shares};
    use super::*;

    fn gpu(boot_id: &str, uuid: &str) -> Gpu {
        Gpu {
            boot_id: boot_id.into(),
            uuid: uuid.into(),
        }
    }

    fn ids(of: &[u64]) -> Vec<SessionId> {
        of.iter().copied().map(SessionId).collect()
    }

    /// Workers 1 and 2 on GPU a, 3 on b, 4 on the CPU, 5 on a GPU of another machine with the UUID of a, 6 on b.
    fn cluster() -> BTreeMap<SessionId, Gpu> {
        [
            (1, gpu("m", "a")),
            (2, gpu("m", "a")),
            (3, gpu("m", "b")),
            (5, gpu("n", "a")),
            (6, gpu("m", "b")),
        ]
        .into_iter()
        .map(|(id, gpu)| (SessionId(id), gpu))
        .collect()
    }

    #[test]
    fn of_the_workers_on_one_gpu_the_first_is_taken() {
        let gpus = cluster();
        for (candidates, most, expected, left_out) in [
            (&[][..], 9, &[][..], &[][..]),
            (&[1, 2], 9, &[1], &[(2, 1)]),
            (&[2, 1], 9, &[2], &[(1, 2)]),
            (&[1, 2, 3, 4, 5, 6], 9, &[1, 3, 4, 5], &[(2, 1), (6, 3)]),
            (&[1, 2, 3, 4, 5, 6], 2, &[1, 3], &[(2, 1), (6, 3)]),
            // Any number on CPUs, of which nothing is known.
            (&[4, 7, 8], 9, &[4, 7, 8], &[]),
            (&[2, 6, 1, 3], 9, &[2, 6], &[(1, 2), (3, 6)]),
        ] {
            let taken = apart(ids(candidates), &gpus, most);
            assert_eq!(taken, ids(expected), "{candidates:?}");
            let pairs: Vec<(u64, u64)> = sharing(ids(candidates), &gpus)
                .into_iter()
                .map(|(a, b)| (a.0, b.0))
                .collect();
            assert_eq!(pairs, left_out, "{candidates:?}");
        }
        // Where sharing is allowed nothing is known of GPUs.
        assert_eq!(apart(ids(&[1, 2]), &BTreeMap::new(), 9), ids(&[1, 2]));
    }

    #[test]
    fn a_worker_joins_a_run_that_does_not_use_its_gpu() {
        let (a, b, elsewhere) = (gpu("m", "a"), gpu("m", "b"), gpu("n", "a"));
        for (members, unknown, joins, expected) in [
            (&[][..], false, Some(&a), Admitted),
            (&[Some(&a)], false, Some(&a), Shares),
            (&[Some(&a)], false, Some(&b), Admitted),
            (&[Some(&a)], false, Some(&elsewhere), Admitted),
            (&[Some(&b), None, Some(&a)], false, Some(&a), Shares),
            (&[Some(&a)], false, None, Admitted),
            (&[None], false, Some(&a), Admitted),
            // The missing member may be the one that uses it.
            (&[Some(&b)], true, Some(&a), Later),
            (&[Some(&a)], true, Some(&a), Shares),
            (&[Some(&a)], true, None, Admitted),
        ] {
            let mut in_use = InUse::default();
            members.iter().for_each(|gpu| in_use.add(*gpu));
            if unknown {
                in_use.add_unknown();
            }
            assert_eq!(in_use.admission(joins), expected, "{members:?} {joins:?}");
        }
    }

    #[test]
    fn the_reason_names_both_the_gpu_and_the_settings() {
        let text = reason("w2", &gpu("m", "GPU-1"), "w1");
        assert!(text.starts_with("w2 shares GPU-1 with w1"), "{text}");
        assert!(text.contains("`local_rank`") && text.contains("`device`"));
    }
}
