//! The members of one generation of a run, and which virtual ranks each hosts.

use serde::{Deserialize, Serialize};

use crate::ids::WorkerId;
use crate::spec::RunSpec;

/// The largest number of workers with which a test has trained a run (`tests/tests/cluster/mesh.rs`, which starts so many).
pub const MOST_TESTED_WORKERS: u32 = 32;

/// A remark if `spec` allows more workers than a test has run.
pub fn beyond_tested(spec: &RunSpec) -> Option<String> {
    let most = spec.max_workers();
    (most > MOST_TESTED_WORKERS).then(|| {
        format!(
            "up to {most} workers may train this run, and no more than {MOST_TESTED_WORKERS} have been tested; set \
             workers.max = {MOST_TESTED_WORKERS} to stay within that"
        )
    })
}

/// What to do about a worker whose peers cannot connect to its address. It follows the address.
pub const UNREACHABLE_HINT: &str = "check that this is its right address (`advertise`), that no firewall blocks it, and \
                                    that its port is fixed (`listen`) where one filters";

/// One worker of a generation. Its place in [`Roster::members`] is its rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The worker.
    pub worker: WorkerId,
    /// Where its peers reach it: `host:port`.
    pub address: String,
    /// First virtual rank that it hosts.
    pub first_virtual_rank: u32,
    /// How many it hosts, at least one.
    pub virtual_ranks: u32,
}

/// One generation of a run. Messages of an older generation are void.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Counts up with every change of membership.
    pub generation: u64,
    /// The workers by rank. Their virtual ranks are contiguous and in order.
    pub members: Vec<Member>,
    /// Committed steps at which the generation starts; its checkpoint when over 0.
    pub start_step: u64,
}

impl Roster {
    /// Deals `virtual_ranks` to `workers` (id, address) in the given order: contiguous blocks whose
    /// sizes differ by at most one. Workers beyond the number of virtual ranks are left out.
    pub fn deal(
        generation: u64,
        workers: &[(WorkerId, String)],
        virtual_ranks: u32,
        start_step: u64,
    ) -> Self {
        let n = (workers.len() as u32).min(virtual_ranks);
        let members = workers
            .iter()
            .take(n as usize)
            .zip(0..n)
            .map(|((worker, address), rank)| {
                let (from, to) = block(virtual_ranks, n, rank);
                Member {
                    worker: worker.clone(),
                    address: address.clone(),
                    first_virtual_rank: from,
                    virtual_ranks: to - from,
                }
            })
            .collect();
        Self {
            generation,
            members,
            start_step,
        }
    }

    /// The rank of `worker`.
    pub fn rank_of(&self, worker: &WorkerId) -> Option<usize> {
        self.members.iter().position(|m| &m.worker == worker)
    }

    /// Virtual ranks in the run.
    pub fn virtual_ranks(&self) -> u32 {
        self.members.iter().map(|m| m.virtual_ranks).sum()
    }
}

/// The `i`-th of `parts` nearly equal blocks of `0..total`, as (from, to).
fn block(total: u32, parts: u32, i: u32) -> (u32, u32) {
    let cut = |i: u32| (u64::from(total) * u64::from(i) / u64::from(parts)) as u32;
    (cut(i), cut(i + 1))
}

/// The slice of a flat buffer of `len` elements that `rank` of `ranks` owns: which it reduces, and
/// which it uploads of a checkpoint.
pub fn slice_of(len: u64, ranks: usize, rank: usize) -> std::ops::Range<u64> {
    let cut = |i: usize| (u128::from(len) * i as u128 / ranks as u128) as u64;
    cut(rank)..cut(rank + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn more_workers_than_were_tested_are_remarked() {
        let spec = |more: &str| -> RunSpec {
            toml::from_str(&format!("name = 'a'\ndataset = 'b'\n{more}")).unwrap()
        };
        for within in [
            "",
            "[train]\nvirtual_ranks = 32",
            "[train]\nvirtual_ranks = 64\n[workers]\nmax = 32",
        ] {
            assert_eq!(beyond_tested(&spec(within)), None, "{within}");
        }
        let beyond = beyond_tested(&spec("[train]\nvirtual_ranks = 33")).unwrap();
        assert!(beyond.starts_with("up to 33 workers "), "{beyond}");
    }

    proptest! {
        #[test]
        fn every_virtual_rank_has_one_host(workers in 1usize..9, v in 1u32..20) {
            let workers: Vec<_> = (0..workers)
                .map(|i| (WorkerId::new(format!("w{i}")).unwrap(), format!("h:{i}")))
                .collect();
            let roster = Roster::deal(1, &workers, v, 0);
            let mut next = 0;
            for m in &roster.members {
                prop_assert_eq!(m.first_virtual_rank, next);
                prop_assert!(m.virtual_ranks >= 1);
                next += m.virtual_ranks;
            }
            prop_assert_eq!(next, v);
            let sizes: Vec<u32> = roster.members.iter().map(|m| m.virtual_ranks).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }

        #[test]
        fn slices_cover_the_buffer(len in 0u64..1_000_000, ranks in 1usize..20) {
            let mut next = 0;
            for rank in 0..ranks {
                let slice = slice_of(len, ranks, rank);
                prop_assert_eq!(slice.start, next);
                next = slice.end;
            }
            prop_assert_eq!(next, len);
        }
    }
}
