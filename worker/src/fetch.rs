//! Fetching what a worker needs of a dataset to serve a run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fovea_core::ids::WorkerId;
use fovea_core::plan::{ShardPlan, TrainingSplit};
use fovea_core::roster::{Roster, UNREACHABLE_HINT};
use fovea_core::run::{Outcome, Trouble};
use fovea_core::spec::{Part, RunSpec};
use fovea_dataset::{Index, PackError, PackFile, Split};
use fovea_proto::pb;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cache::{Cache, CacheError, CachedDataset};
use crate::context::Context;
use crate::data::{LocalData, ReplaceError, ReplacePack, packs_of};
use crate::link::Coordinator;
use crate::progress::Progress;
use crate::training::MOST_SAMPLES;

/// How long a peer may take to answer a probe.
const PROBE: Duration = Duration::from_secs(2);

/// Why an assignment cannot begin. The text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another attempt would meet the same error.
    #[error("{0}")]
    Fatal(String),
    /// Another attempt may succeed.
    #[error("{0}")]
    Passing(String),
    /// Something at the coordinator must be repaired first.
    #[error("{0}")]
    Blocked(String),
    /// This worker has trouble of its own.
    #[error("{1}")]
    Own(Trouble, String),
}

impl Refusal {
    /// Another attempt would meet the same error.
    pub fn fatal(error: impl ToString) -> Self {
        Self::Fatal(error.to_string())
    }

    /// Another attempt may succeed.
    pub fn passing(error: impl ToString) -> Self {
        Self::Passing(error.to_string())
    }

    /// The trouble of this worker alone that it shows; None if it may lie elsewhere.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Own(trouble, _) => Some(*trouble),
            Self::Fatal(_) | Self::Passing(_) | Self::Blocked(_) => None,
        }
    }

    /// How the assignment ends.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Fatal(reason) => Outcome::Failed {
                reason,
                fatal: true,
            },
            Self::Passing(reason) => Outcome::Failed {
                reason,
                fatal: false,
            },
            Self::Blocked(reason) => Outcome::Blocked { reason },
            Self::Own(trouble, reason) => Outcome::Unfit { trouble, reason },
        }
    }
}

impl From<CacheError> for Refusal {
    fn from(error: CacheError) -> Self {
        let reason = error.to_string();
        match error.trouble() {
            _ if error.is_blocked() => Self::Blocked(reason),
            Some(trouble) => Self::Own(trouble, reason),
            None => Self::Passing(reason),
        }
    }
}

/// A spec from the wire, checked.
pub fn spec_of(wire: Option<pb::RunSpec>) -> Result<RunSpec, Refusal> {
    let wire = wire.ok_or_else(|| Refusal::fatal("the spec of the run is missing"))?;
    let spec = RunSpec::try_from(wire).map_err(Refusal::fatal)?;
    spec.validate().map_err(Refusal::fatal)?;
    Ok(spec)
}

/// A dataset of which this worker's packs are on its disk, and open.
pub struct Fetched {
    /// The run's data order.
    pub plan: ShardPlan,
    dataset: CachedDataset,
    index: Index,
    scored: Part,
    packs: BTreeMap<u32, PackFile>,
}

impl Fetched {
    /// Fetches what rank `rank` of `roster` needs, waiting for the coordinator if it is away.
    pub async fn new(
        context: &Context,
        spec: &RunSpec,
        digest: &str,
        roster: &Roster,
        rank: usize,
        progress: &Progress,
    ) -> Result<Self, Refusal> {
        let (dataset, index) = context
            .with_cache(
                "fetching the dataset's index",
                progress,
                |cache| async move { cache.dataset(digest).await },
            )
            .await?;
        let index = index.folded(spec.fold).map_err(Refusal::fatal)?;
        let samples = index.train().len() as u64;
        if samples > MOST_SAMPLES {
            return Err(Refusal::fatal(format!(
                "the training split has {samples} samples; at most {MOST_SAMPLES} are supported"
            )));
        }
        let patients: Vec<u32> = index.train().iter().map(|s| s.patient).collect();
        let grades: Vec<u8> = index.train().iter().map(|s| s.grade).collect();
        let split = TrainingSplit {
            patients: &patients,
            grades: &grades,
        };
        let scored = spec.scored_part();
        let plan = ShardPlan::of_run(spec, split, index.part(scored).len() as u32)
            .map_err(Refusal::fatal)?;
        let needed = packs_of(&plan, &index, scored, &roster.members[rank]);
        // Over all attempts: what one has fetched is no hit of the next.
        let fetched = Mutex::default();
        let packs = context
            .with_cache("fetching packs", progress, |cache| {
                let (dataset, needed, fetched) = (&dataset, &needed, &fetched);
                async move { cache.packs(dataset, needed, fetched).await }
            })
            .await?;
        let misses = fetched
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .len();
        let hits = needed.len().saturating_sub(misses);
        context.hits.packs.add(hits as u64, misses as u64);
        Ok(Self {
            plan,
            dataset,
            index,
            scored,
            packs,
        })
    }

    /// Hands out this worker's part, and what is needed to fetch the rest. Must be called inside a tokio runtime.
    pub fn open(self, context: &Context, progress: &Progress) -> (LocalData, Rest) {
        let Self {
            plan: _,
            dataset,
            index,
            scored,
            packs,
        } = self;
        let rest = Rest {
            dataset: dataset.clone(),
            held: packs.keys().copied().collect(),
        };
        let size = dataset.manifest.image_size as usize;
        let source = Refetch {
            runtime: Handle::current(),
            cache: context.cache(),
            dataset,
            progress: progress.clone(),
        };
        (
            LocalData::new(index, scored, size, packs, Box::new(source)),
            rest,
        )
    }
}

/// The packs of a dataset that other workers of the run use.
pub struct Rest {
    dataset: CachedDataset,
    held: BTreeSet<u32>,
}

impl Rest {
    /// Fetches them, one pack after the other, as far as they fit in the cache: then this worker can serve any
    /// virtual rank without a download.
    pub async fn prefetch(&self, context: &Context) {
        let packs = (0..).zip(&self.dataset.manifest.packs);
        // No run reads the test part.
        let used = packs.filter(|(_, entry)| entry.split != Split::Test);
        let missing = used.filter(|(pack, _)| !self.held.contains(pack));
        for (pack, _) in missing {
            // Not a sign of the assignment's work.
            let progress = Progress::default();
            let fetched = context
                .with_cache("fetching packs ahead", &progress, |cache| {
                    let dataset = &self.dataset;
                    async move { cache.prefetch(dataset, pack).await }
                })
                .await;
            match fetched {
                Ok(true) => {}
                Ok(false) => {
                    info!(
                        "prefetch.stopped: the other packs of the dataset do not fit within cache_disk_mib"
                    );
                    return;
                }
                Err(error) => {
                    warn!("prefetch.failed: packs of other workers are not fetched ahead: {error}");
                    return;
                }
            }
        }
        info!("prefetch.completed: all packs of the dataset that runs read are in the cache");
    }
}

/// Replaces packs by fetching them again.
pub(crate) struct Refetch {
    pub(crate) runtime: Handle,
    pub(crate) cache: CacheHandle,
    pub(crate) dataset: CachedDataset,
    pub(crate) progress: Progress,
}

impl ReplacePack for Refetch {
    fn replace(
        &self,
        pack: u32,
        record: u32,
        problem: &PackError,
        cancel: &CancellationToken,
    ) -> Result<PackFile, ReplaceError> {
        let replacing = self
            .cache
            .call("fetching a pack again", &self.progress, |cache| {
                let dataset = &self.dataset;
                async move { cache.replace(dataset, pack, record, problem).await }
            });
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(ReplaceError::Cancelled),
                replaced = replacing => replaced.map_err(|error| match error.is_blocked() {
                    true => ReplaceError::Blocked(error.to_string()),
                    false => ReplaceError::Failed {
                        reason: error.to_string(),
                        trouble: error.trouble(),
                    },
                }),
            }
        })
    }
}

impl Context {
    fn cache(&self) -> CacheHandle {
        CacheHandle {
            dir: self.config.data_dir.clone(),
            limit: self.config.cache_disk_bytes(),
            coordinator: self.coordinator.clone(),
        }
    }

    /// [`CacheHandle::call`].
    pub(crate) async fn with_cache<T, F>(
        &self,
        what: &str,
        progress: &Progress,
        attempt: impl Fn(Cache) -> F,
    ) -> Result<T, CacheError>
    where
        F: Future<Output = Result<T, CacheError>>,
    {
        self.cache().call(what, progress, attempt).await
    }
}

/// What a cache needs apart from a channel, which may change between attempts.
#[derive(Clone)]
pub(crate) struct CacheHandle {
    pub(crate) dir: PathBuf,
    pub(crate) limit: u64,
    pub(crate) coordinator: Coordinator,
}

impl CacheHandle {
    /// Calls `attempt` with the cache over the newest channel, again while the coordinator is away.
    pub(crate) async fn call<T, F>(
        &self,
        what: &str,
        progress: &Progress,
        attempt: impl Fn(Cache) -> F,
    ) -> Result<T, CacheError>
    where
        F: Future<Output = Result<T, CacheError>>,
    {
        self.coordinator
            .retry_while_away(what, CacheError::is_away, |channel| {
                let dir = self.dir.clone();
                attempt(Cache::new(dir, self.limit, channel, progress.clone()))
            })
            .await
    }
}

/// Prepares to join a run: fetches its data and tries to reach the other members.
pub async fn prepare(context: &Context, request: pb::Prepare) -> Result<(), Refusal> {
    let pb::Prepare {
        run_id: _,
        spec,
        dataset_digest,
        members,
    } = request;
    let as_if = pb::Assignment {
        members,
        ..pb::Assignment::default()
    };
    let roster = as_if.roster().map_err(Refusal::fatal)?;
    let spec = spec_of(spec)?;
    let rank = rank_of(&roster, &context.worker)?;
    Fetched::new(
        context,
        &spec,
        &dataset_digest,
        &roster,
        rank,
        &Progress::default(),
    )
    .await?;
    let others = roster.members.iter().filter(|m| m.worker != context.worker);
    let mut probes: JoinSet<Result<(), Refusal>> = others
        .cloned()
        .map(|member| {
            let mesh = context.mesh.clone();
            async move {
                mesh.probe(&member, PROBE).await.map_err(|e| {
                    let (worker, address) = (member.worker, member.address);
                    Refusal::passing(format!(
                        "worker {worker} cannot be reached at {address}: {e}; {UNREACHABLE_HINT}"
                    ))
                })
            }
        })
        .collect();
    while let Some(probed) = probes.join_next().await {
        probed.map_err(Refusal::passing)??;
    }
    Ok(())
}

/// The rank of `worker`, which must be there.
pub fn rank_of(roster: &Roster, worker: &WorkerId) -> Result<usize, Refusal> {
    roster
        .rank_of(worker)
        .ok_or_else(|| Refusal::fatal("the roster does not name this worker"))
}
