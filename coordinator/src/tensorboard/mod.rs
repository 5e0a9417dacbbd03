//! Live event files for TensorBoard (`tensorboard_dir`): a folder for each run.
//!
//! A task follows all live runs. Every 2 s it writes what the journal has and the files have not, so nothing depends on
//! having heard of each step, and a coordinator that was killed goes on where its files end. Nothing waits for it.
//!
//! - `folder`: the files of one run

mod folder;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fovea_core::ids::RunId;
use fovea_core::run::{Phase, Run, StepReport};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::blocking::blocking;
use crate::cluster::WeakCluster;
use crate::journal::{Journal, LossRow};
use folder::Folder;

/// How often the files are brought up to date.
const EVERY: Duration = Duration::from_secs(2);
/// Steps that are read and written at a time.
const PAGE: usize = 10_000;

/// What happened to a run since its files were written.
struct News {
    run: Arc<Run>,
    /// The newest step with its speed, while it trains.
    speed: Option<StepReport>,
    workers: usize,
}

impl News {
    fn of(run: Arc<Run>, progress: Option<StepReport>) -> Self {
        let running = matches!(run.phase, Phase::Running { .. });
        // Steps of the ledger have no speed.
        let speed = progress.filter(|newest| running && newest.images_per_s > 0.0);
        Self {
            speed,
            workers: run.roster().map_or(0, |roster| roster.members.len()),
            run,
        }
    }
}

/// Writes event files below `dir` until `closing`.
pub(crate) fn start(
    dir: PathBuf,
    cluster: WeakCluster,
    journal: Journal,
    closing: CancellationToken,
) -> JoinHandle<()> {
    let mut task = Task {
        dir,
        journal,
        folders: BTreeMap::new(),
        failed: false,
    };
    tokio::spawn(async move {
        task.find_ended().await;
        let mut look = interval(EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                _ = look.tick() => {}
            }
            let Some(cluster) = cluster.upgrade() else {
                return;
            };
            let Ok(live) = cluster.live().await else {
                return;
            };
            drop(cluster);
            let mut runs = BTreeMap::new();
            for handle in live {
                let shown = handle.shown();
                runs.insert(handle.number, News::of(shown.run, shown.progress));
            }
            task.write_all(runs).await;
        }
    })
}

struct Task {
    dir: PathBuf,
    journal: Journal,
    /// By the numbers of their runs; None: not opened yet, or given up after an error.
    folders: BTreeMap<u64, Option<Folder>>,
    /// Whether writing fails, which was logged.
    failed: bool,
}

impl Task {
    /// Runs that ended while no coordinator wrote their files: those that have a folder.
    async fn find_ended(&mut self) {
        let dir = self.dir.clone();
        let Ok(Ok(names)) = blocking(move || folder_names(&dir)).await else {
            return;
        };
        for number in names {
            self.folders.insert(number, None);
        }
    }

    async fn write_all(&mut self, mut live: BTreeMap<u64, News>) {
        let known = self.folders.keys().copied();
        let ended: Vec<u64> = known.filter(|number| !live.contains_key(number)).collect();
        for number in ended {
            match self.journal.run(number).await {
                Ok(Some(run)) => {
                    live.insert(number, News::of(Arc::new(run), None));
                }
                // Removed: its files stay.
                Ok(None) => {
                    self.folders.remove(&number);
                }
                Err(_) => {}
            }
        }
        let mut problem = None;
        for (number, news) in live {
            // An evaluation trains on nothing.
            if news.run.spec.evaluate.is_some() {
                self.folders.remove(&number);
                continue;
            }
            let ended = news.run.is_terminal();
            match self.write(number, news).await {
                Ok(()) if ended => {
                    self.folders.remove(&number);
                }
                Ok(()) => {}
                Err(error) => {
                    // It is read again before more is written: what arrived of the last records is not known.
                    self.folders.insert(number, None);
                    problem = Some(error);
                }
            }
        }
        match &problem {
            Some(problem) if !self.failed => {
                warn!(
                    "tensorboard.failed: event files are not up to date: {problem}; trying again"
                );
            }
            None if self.failed => info!("tensorboard.resumed: event files are written again"),
            Some(_) | None => {}
        }
        self.failed = problem.is_some();
    }

    /// Brings the files of a run up to date.
    async fn write(&mut self, number: u64, news: News) -> Result<(), String> {
        let News {
            run,
            speed,
            workers,
        } = news;
        let mut folder = match self.folders.remove(&number).flatten() {
            Some(folder) => folder,
            None => {
                let (path, of) = (self.dir.join(run.id.as_str()), Arc::clone(&run));
                blocking(move || Folder::open(path, &of))
                    .await
                    .map_err(|e| e.to_string())?
                    .map_err(|e| e.to_string())?
            }
        };
        let mut last = false;
        while !last {
            let from = folder.next_step(&run);
            let rows = self.journal.losses(number, from, PAGE).await;
            let rows: Vec<LossRow> = rows.map_err(|error| error.to_string())?;
            last = rows.len() < PAGE;
            let (of, speed) = (Arc::clone(&run), speed.filter(|_| last));
            folder = blocking(move || {
                folder.write(&of, &rows, last, speed.map(|report| (report, workers)))?;
                Ok::<_, std::io::Error>(folder)
            })
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        }
        self.folders.insert(number, Some(folder));
        Ok(())
    }
}

/// The numbers of the runs that have a folder below `dir`.
fn folder_names(dir: &Path) -> std::io::Result<Vec<u64>> {
    std::fs::create_dir_all(dir)?;
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        numbers.extend(RunId::new(name).ok().and_then(|run| run.number()));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests;
