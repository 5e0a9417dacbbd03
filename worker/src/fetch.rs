//! What a worker needs of a dataset to serve a run, in memory and on its disk.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use fovea_core::ids::WorkerId;
use fovea_core::plan::ShardPlan;
use fovea_core::roster::Roster;
use fovea_core::spec::RunSpec;
use fovea_dataset::{Index, Manifest};
use fovea_proto::pb;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::assignment::Context;
use crate::cache::{Cache, CacheError};
use crate::collective::probe;
use crate::data::{DataError, LocalData, packs_of};
use crate::training::MOST_SAMPLES;
use crate::vitals::Vitals;

/// How long a peer may take to answer a probe.
const PROBE: Duration = Duration::from_secs(2);

/// Why something cannot begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For people.
    pub reason: String,
    /// Another attempt would meet the same.
    pub fatal: bool,
}

impl Refusal {
    /// What was asked makes no sense.
    pub fn fatal(error: impl ToString) -> Self {
        Self {
            reason: error.to_string(),
            fatal: true,
        }
    }

    /// Another attempt may succeed.
    pub fn passing(error: impl ToString) -> Self {
        Self {
            reason: error.to_string(),
            fatal: false,
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

/// A dataset of which this worker's part is on its disk.
pub struct Fetched {
    /// The run's data order.
    pub plan: ShardPlan,
    manifest: Manifest,
    index: Index,
    dir: PathBuf,
    packs: BTreeSet<u32>,
}

impl Fetched {
    /// Fetches what rank `rank` of `roster` needs, waiting for the coordinator if it is away.
    pub async fn new(
        context: &Context,
        spec: &RunSpec,
        digest: &str,
        roster: &Roster,
        rank: usize,
        vitals: &Vitals,
    ) -> Result<Self, Refusal> {
        let mut coordinator = context.coordinator.clone();
        let (manifest, index, dir) = coordinator
            .patiently(
                "fetching the dataset's index",
                CacheError::is_away,
                |channel| {
                    let cache =
                        Cache::new(context.config.data_dir.clone(), channel, vitals.clone());
                    async move { cache.dataset(digest).await }
                },
            )
            .await
            .map_err(Refusal::passing)?;
        let samples = index.train().len() as u64;
        if samples > MOST_SAMPLES {
            return Err(Refusal::fatal(format!(
                "the training split has {samples} samples; at most {MOST_SAMPLES} are supported"
            )));
        }
        let patients: Vec<u32> = index.train().iter().map(|s| s.patient).collect();
        let plan = ShardPlan::new(
            &patients,
            index.validation().len() as u32,
            spec.train.virtual_ranks,
            spec.train.batch,
            spec.seed,
            spec.train.rotate,
        )
        .map_err(Refusal::fatal)?;
        let packs = packs_of(&plan, &index, &roster.members[rank]);
        let fetched = Self {
            plan,
            manifest,
            index,
            dir,
            packs,
        };
        fetched
            .packs(context, &fetched.packs, vitals)
            .await
            .map_err(Refusal::passing)?;
        Ok(fetched)
    }

    /// Opens this worker's part.
    pub fn open(&self) -> Result<LocalData, DataError> {
        LocalData::open(&self.dir, &self.manifest, self.index.clone(), &self.packs)
    }

    /// Fetches what other workers need, one pack after the other: then this one can take over from any of
    /// them without a download.
    pub async fn rest(&self, context: &Context) {
        for pack in (0..self.manifest.packs.len() as u32).filter(|pack| !self.packs.contains(pack))
        {
            // Not a sign of the assignment's work.
            let vitals = Vitals::default();
            if let Err(error) = self.packs(context, &BTreeSet::from([pack]), &vitals).await {
                warn!("packs of other workers are not fetched ahead: {error}");
                return;
            }
        }
        info!("all packs of the dataset are here");
    }

    async fn packs(
        &self,
        context: &Context,
        packs: &BTreeSet<u32>,
        vitals: &Vitals,
    ) -> Result<(), CacheError> {
        let mut coordinator = context.coordinator.clone();
        coordinator
            .patiently("fetching packs", CacheError::is_away, |channel| {
                let cache = Cache::new(context.config.data_dir.clone(), channel, vitals.clone());
                async move { cache.packs(&self.manifest, &self.dir, packs).await }
            })
            .await
    }
}

/// Gets ready to join a run: fetches its data and tries to reach the other members.
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
        &Vitals::default(),
    )
    .await?;
    let others = roster.members.iter().filter(|m| m.worker != context.worker);
    let mut probes: JoinSet<Result<(), String>> = others
        .cloned()
        .map(|member| async move {
            let (worker, address) = (member.worker, member.address);
            probe(&address, PROBE)
                .await
                .map_err(|e| format!("worker {worker} cannot be reached at {address}: {e}"))
        })
        .collect();
    while let Some(probed) = probes.join_next().await {
        probed
            .map_err(Refusal::passing)?
            .map_err(Refusal::passing)?;
    }
    Ok(())
}

/// The rank of `worker`, which must be there.
pub fn rank_of(roster: &Roster, worker: &WorkerId) -> Result<usize, Refusal> {
    roster
        .rank_of(worker)
        .ok_or_else(|| Refusal::fatal("the roster does not name this worker"))
}
