//! What the lists show: runs, workers, datasets, and runs beside each other.

use std::collections::BTreeMap;
use std::time::Duration;

use fovea_core::ids::RunId;
use fovea_dashboard::model::{
    Compared, DatasetList, DatasetRow, Disk, Overview, RunList, RunRow, SplitRow, WorkerList,
    WorkerRow, WorkerState, best_epoch,
};
use fovea_dashboard::page::MOST_COMPARED;
use fovea_dataset::{GradeScale, Index, Manifest, Split};
use fovea_proto::pb;

use super::Dashboard;
use super::views::Refusal;
use super::visitor::Visitor;
use crate::blocking::blocking;
use crate::catalogue::Catalogue;
use crate::run::Shown;
use crate::space::Space;
use crate::store::{DatasetStore, HeldDataset};

/// Rows of a page.
const RUNS: usize = 50;
const WORKERS: usize = 100;
const DATASETS: usize = 20;
/// Runs that ended last, on the overview, and how many runs are looked through for them.
const ENDED: usize = 10;
const LOOKED_THROUGH: usize = 60;

/// How long a page waits for the patients of a dataset to be counted.
const PATIENCE: Duration = Duration::from_millis(150);

pub(super) fn row(shown: &Shown) -> RunRow {
    RunRow::of(&shown.run, shown.progress, shown.waiting.as_deref())
}

impl Dashboard {
    pub(super) async fn overview(&self, visitor: &Visitor) -> Result<Overview, Refusal> {
        let runs = &self.0.context.runs;
        let queue = runs.cluster.queue().await?;
        let live = runs.cluster.live().await?;
        let mut live: Vec<Shown> = live
            .iter()
            .rev()
            .map(|handle| runs.with_journal(handle.shown()))
            .collect();
        // Queued runs in the order in which they get workers.
        let places: BTreeMap<RunId, usize> = (0..)
            .zip(queue)
            .map(|(place, run)| (run.id, place))
            .collect();
        for shown in &live {
            self.0.full_steps.of(shown);
        }
        live.sort_by_key(|shown| places.get(&shown.run.id).copied().unwrap_or(usize::MAX));
        let newest = runs.list(u64::MAX, LOOKED_THROUGH).await?;
        let ended = newest.iter().filter(|shown| shown.run.is_terminal());
        let mut workers = BTreeMap::new();
        for worker in self.connected(visitor).await? {
            *workers.entry(worker.state).or_default() += 1;
        }
        let mut problems = Vec::new();
        if let Some(problem) = &*runs.journal.blocked().borrow() {
            problems.push(problem.to_string());
        }
        let remote = self.0.context.remote.view();
        problems.extend(remote.and_then(|view| view.problem.clone()));
        Ok(Overview {
            live: live
                .iter()
                .filter(|shown| !shown.run.is_terminal())
                .map(row)
                .collect(),
            ended: ended.take(ENDED).map(row).collect(),
            workers,
            disk: self.disk().await,
            problems,
        })
    }

    async fn disk(&self) -> Option<Disk> {
        let Space { free, total } = self.0.context.space.known().await?;
        Some(Disk {
            free,
            total,
            wanted: self.0.context.config.min_free_mib << 20,
        })
    }

    pub(super) async fn runs(&self, before: Option<u64>) -> Result<RunList, Refusal> {
        let runs = &self.0.context.runs;
        // One more tells whether there are more.
        let mut page = runs.list(before.unwrap_or(u64::MAX), RUNS + 1).await?;
        let more = page.len() > RUNS;
        page.truncate(RUNS);
        let last = page.last().map(|shown| shown.run.number);
        Ok(RunList {
            runs: page.iter().map(row).collect(),
            older: last.filter(|_| more),
            is_later: before.is_some(),
        })
    }

    /// All connected workers.
    pub(super) async fn connected(&self, visitor: &Visitor) -> Result<Vec<WorkerRow>, Refusal> {
        let mut cluster = self.0.api.cluster(visitor);
        let listed = cluster.list_workers(pb::ListWorkersRequest {}).await?;
        let workers = listed.into_inner().workers;
        Ok(workers.into_iter().filter_map(worker).collect())
    }

    pub(super) async fn workers(
        &self,
        visitor: &Visitor,
        page: usize,
    ) -> Result<WorkerList, Refusal> {
        let mut workers = self.connected(visitor).await?;
        let all = workers.len();
        let (page, pages, range) = cut(all, WORKERS, page);
        workers.truncate(range.end);
        Ok(WorkerList {
            workers: workers.split_off(range.start),
            all,
            page,
            pages,
        })
    }

    pub(super) async fn datasets(&self, page: usize) -> Result<DatasetList, Refusal> {
        let context = &self.0.context;
        let catalogue = context.datasets.now();
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for run in context.runs.cluster.live().await? {
            if !run.shown().run.is_terminal() {
                let of = users.entry(run.dataset_digest.to_string()).or_default();
                of.push(run.id.to_string());
            }
        }
        let names: Vec<(String, String)> = catalogue
            .names()
            .map(|(name, digest)| (name.to_string(), digest.to_owned()))
            .collect();
        let (page, pages, range) = cut(names.len(), DATASETS, page);
        let mut list = DatasetList {
            page,
            pages,
            ..DatasetList::default()
        };
        for (name, digest) in &names[range] {
            match catalogue.find(digest) {
                Ok(held) => {
                    let patients = self.patients(digest).await;
                    let used_by = users.remove(digest).unwrap_or_default();
                    list.datasets
                        .push(dataset(&catalogue, &held, patients, used_by));
                }
                Err(error) => list.unreadable.push((name.clone(), error.to_string())),
            }
        }
        Ok(list)
    }

    /// Patients of the training, validation and test part of a dataset, as soon as they are counted.
    async fn patients(&self, digest: &str) -> Option<[u64; 3]> {
        let store = self.0.context.dataset_files.clone();
        let (kept, wanted) = (&self.0.patients, digest.to_owned());
        let count = || async move {
            let counted = blocking(move || patients(&store, &wanted)).await;
            counted.ok().flatten()
        };
        let key = digest.to_owned();
        kept.get(&key, &self.0.computing, PATIENCE, count).await?
    }

    /// The runs of these ids, and a remark on those that are left out.
    pub(super) async fn compared(
        &self,
        ids: &[String],
    ) -> Result<(Vec<Compared>, Vec<String>), Refusal> {
        let context = &self.0.context;
        let (mut compared, mut left_out) = (Vec::<Compared>::new(), Vec::new());
        for id in ids {
            if compared.iter().any(|run| run.row.id == *id) {
                continue;
            }
            if compared.len() == MOST_COMPARED {
                left_out.push(format!(
                    "Only the first {MOST_COMPARED} runs are compared: a chart with more lines cannot be read."
                ));
                break;
            }
            let shown = match RunId::new(id) {
                Ok(id) => context.runs.shown(&id).await.map_err(|e| e.to_string()),
                Err(error) => Err(format!("{id:?} is no run: {error}")),
            };
            let shown = match shown {
                Ok(shown) => shown,
                Err(reason) => {
                    left_out.push(reason);
                    continue;
                }
            };
            if let Some(evaluate) = &shown.run.spec.evaluate {
                left_out.push(format!(
                    "{id} is an evaluation of {} and has no epochs: its figures, of the {} part of {}, are on its own page. Compare the run \
                     itself.",
                    evaluate.run,
                    evaluate.part.name(),
                    shown.run.spec.dataset
                ));
                continue;
            }
            let losses = self.0.curves.losses(&shown.run, &context.runs.journal);
            compared.push(Compared {
                losses: losses.await.unwrap_or_default(),
                row: row(&shown),
                spec: shown.run.spec.clone(),
                epochs: shown.run.epochs.clone(),
                best: best_epoch(&shown.run).cloned(),
            });
        }
        Ok((compared, left_out))
    }
}

/// The page of that number of a list, the number of pages, and which entries are on it. A number beyond the last is the last.
fn cut(all: usize, size: usize, page: usize) -> (usize, usize, std::ops::Range<usize>) {
    let pages = all.div_ceil(size).max(1);
    let page = page.clamp(1, pages);
    let start = (page - 1) * size;
    (page, pages, start..(start + size).min(all))
}

/// None: a state that is newer than this code, which cannot be.
fn worker(wire: pb::Worker) -> Option<WorkerRow> {
    let pb::Worker {
        id,
        state,
        reason,
        host,
        address,
        device,
        version,
        host_bytes,
        gpu_bytes,
        gpu_free_bytes,
        run_id,
        first_virtual_rank,
        virtual_ranks,
        last_seen_ms,
        connected_ms,
        left_out: _,
        token_id: _,
        load,
    } = wire;
    let pb::Load {
        step_ms,
        wait_ratio,
        gpu_used_bytes,
        resident_bytes,
    } = load.unwrap_or_default();
    let state = match pb::WorkerState::try_from(state).ok()? {
        pb::WorkerState::Idle => WorkerState::Idle,
        pb::WorkerState::Preparing => WorkerState::Preparing,
        pb::WorkerState::Training => WorkerState::Training,
        pb::WorkerState::Waiting => WorkerState::Waiting,
        pb::WorkerState::Barred => WorkerState::Barred,
        pb::WorkerState::LeftOut => WorkerState::LeftOut,
        pb::WorkerState::Leaving => WorkerState::Leaving,
        pb::WorkerState::Unspecified => return None,
    };
    let known = |bytes: u64| (bytes > 0).then_some(bytes);
    Some(WorkerRow {
        id,
        state,
        reason,
        host,
        address,
        device,
        version,
        run: (!run_id.is_empty()).then_some(run_id),
        hosts: (virtual_ranks > 0).then_some((first_virtual_rank, virtual_ranks)),
        memory: known(gpu_free_bytes).or(known(host_bytes)),
        used: match gpu_used_bytes {
            Some(used) => Some((used, known(gpu_bytes))),
            None => resident_bytes.map(|resident| (resident, None)),
        },
        step_ms,
        waiting: wait_ratio,
        last_seen_ms,
        connected_ms,
    })
}

fn dataset(
    catalogue: &Catalogue,
    held: &HeldDataset,
    patients: Option<[u64; 3]>,
    used_by: Vec<String>,
) -> DatasetRow {
    let manifest = &held.manifest;
    let parts = [
        ("Training", Split::Train),
        ("Validation", Split::Validation),
        ("Test", Split::Test),
    ];
    let splits = parts
        .into_iter()
        .enumerate()
        .map(|(at, (name, split))| SplitRow {
            name,
            samples: manifest.samples(split),
            patients: patients.map(|patients| patients[at]),
            grades: *manifest.counts.of(split),
        });
    DatasetRow {
        name: manifest.name.to_string(),
        digest: manifest.digest.clone(),
        image_size: manifest.image_size,
        preprocessing: manifest.preprocess.shown(),
        scale: manifest.scale.map_or("", GradeScale::as_str).to_owned(),
        is_graded: !manifest.is_ungraded(),
        packs: manifest.packs.len(),
        bytes: manifest.packs.iter().map(|pack| pack.bytes).sum(),
        splits: splits.filter(|split| split.samples > 0).collect(),
        problem: catalogue.problem(&manifest.digest),
        used_by,
    }
}

/// Patients of the three splits.
fn patients(store: &DatasetStore, digest: &str) -> Option<[u64; 3]> {
    let (manifest, index) = store.read_files(digest).ok()?;
    let manifest = Manifest::parse(&manifest).ok()?;
    let index = Index::parse(&index, &manifest).ok()?;
    let of = |split| {
        let mut all: Vec<u32> = index
            .of(split)
            .iter()
            .map(|sample| sample.patient)
            .collect();
        all.sort_unstable();
        all.dedup();
        all.len() as u64
    };
    Some([Split::Train, Split::Validation, Split::Test].map(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_into_pages() {
        assert_eq!(cut(0, 100, 1), (1, 1, 0..0));
        assert_eq!(cut(100, 100, 1), (1, 1, 0..100));
        assert_eq!(cut(201, 100, 2), (2, 3, 100..200));
        assert_eq!(cut(201, 100, 9), (3, 3, 200..201));
        assert_eq!(cut(5, 100, 0), (1, 1, 0..5));
    }
}
