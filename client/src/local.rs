//! The embedded cluster: a coordinator and workers on this machine, as child processes that this
//! process starts, watches and stops.
//!
//! ```text
//! DATA_DIR/coordinator/   the coordinator's files: journal, datasets, central checkpoints
//! DATA_DIR/workers/N/     a worker's files: cached packs
//! DATA_DIR/logs/*.log     their logs
//! DATA_DIR/RUN/           a run's results: model.safetensors, metrics.json, report.html
//! ```

mod process;
mod signals;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use fovea_dataset::leftovers::{self, Names, TemporaryFolder};
use fovea_dataset::make_private;

use crate::client::Client;
use crate::error::Error;
pub(crate) use process::PASSED_ON;
use process::Process;
pub use signals::Signals;

/// Longest time until the coordinator has written its address.
const START: Duration = Duration::from_secs(30);

/// Time between two polls for the address file. There is no portable event for a new file.
const POLL: Duration = Duration::from_millis(20);

/// Longest time for a worker to stop on request; then it is killed.
const WORKER_STOP: Duration = Duration::from_secs(15);

/// Longest time for the coordinator to stop on request, with checkpoints to finish.
const COORDINATOR_STOP: Duration = Duration::from_secs(30);

/// The coordinator's exit code if it cannot use its data folder, and what it says if that is because
/// another one uses it.
const DATA_DIR_REFUSED: i32 = 4;
const IN_USE: &str = "is used by another coordinator";

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The folder for all files.
    pub data_dir: PathBuf,
    /// Device of the workers; None for the default.
    pub device: Option<String>,
    /// Folder with the programs; None for this program's folder, then PATH.
    pub bin_dir: Option<PathBuf>,
}

/// A running cluster. Its processes die with this one, even if it is killed.
pub struct Cluster {
    options: ClusterOptions,
    worker_program: PathBuf,
    address: String,
    coordinator: Process,
    workers: Vec<Process>,
}

/// The unexpected end of a process.
#[derive(Debug)]
pub enum Death {
    /// The coordinator, without which nothing can continue.
    Coordinator(Error),
    /// A worker.
    Worker {
        /// Number of remaining workers.
        left: usize,
        /// What happened.
        error: Error,
    },
}

impl Cluster {
    /// Starts the coordinator, on a free port of the loopback, and waits until it answers.
    pub async fn start(options: ClusterOptions) -> Result<(Self, Client), Error> {
        let bin_dir = options.bin_dir.as_deref();
        let coordinator_program = process::find_program("fovea-coordinator", bin_dir)?;
        let worker_program = process::find_program("fovea-worker", bin_dir)?;
        let own = options.data_dir.join("coordinator");
        let logs = options.data_dir.join("logs");
        for dir in [&own, &logs] {
            // Photographs of patients, their names in logs and results: for the owner alone.
            make_private(dir).map_err(|e| Error::io(dir, e))?;
        }
        // A new file for each start: an old one names a port that is no longer used.
        let starts = Names::new(".start-", "");
        // Housekeeping: a folder that cannot be listed does not prevent the start.
        let _ = leftovers::sweep(&options.data_dir, &starts);
        let start = TemporaryFolder::create(&options.data_dir, &starts, 0o700)
            .map_err(|e| Error::io(&options.data_dir, e))?;
        let address_file = start.path().join("address");
        let args = [
            "--listen".into(),
            "127.0.0.1:0".into(),
            "--data-dir".into(),
            own.into_os_string(),
            "--address-file".into(),
            address_file.clone().into_os_string(),
        ];
        let log = logs.join("coordinator.log");
        let mut coordinator = Process::spawn("coordinator", &coordinator_program, &args, &log)?;
        let address = tokio::select! {
            address = address_in(&address_file) => address?,
            status = coordinator.exited() => {
                return Err(not_started(&coordinator, &status, &options.data_dir));
            }
            () = tokio::time::sleep(START) => {
                return Err(coordinator.complaint(&format!(
                    "did not write its address in {} s", START.as_secs()
                )));
            }
        };
        let client = tokio::select! {
            client = Client::connect(&address, START) => client?,
            status = coordinator.exited() => return Err(coordinator.ended(&status)),
        };
        let cluster = Self {
            options,
            worker_program,
            address,
            coordinator,
            workers: Vec::new(),
        };
        Ok((cluster, client))
    }

    /// The coordinator's address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The folder in which the coordinator stores the checkpoints of a run.
    pub fn central_checkpoints(&self, run_id: &str) -> PathBuf {
        let own = self.options.data_dir.join("coordinator");
        own.join("checkpoints").join(run_id)
    }

    /// Starts `count` workers.
    pub fn start_workers(&mut self, count: u32) -> Result<(), Error> {
        for i in 0..count {
            let name = format!("worker-{i}");
            let own = self.options.data_dir.join("workers").join(i.to_string());
            make_private(&own).map_err(|e| Error::io(&own, e))?;
            let mut args = vec![
                "--coordinator".into(),
                self.address.clone().into(),
                "--data-dir".into(),
                own.into_os_string(),
                "--name".into(),
                name.clone().into(),
                "--local-rank".into(),
                i.to_string().into(),
            ];
            if let Some(device) = &self.options.device {
                args.extend(["--device".into(), device.into()]);
            }
            let log = self.options.data_dir.join(format!("logs/{name}.log"));
            let worker = Process::spawn(&name, &self.worker_program, &args, &log)?;
            self.workers.push(worker);
        }
        Ok(())
    }

    /// Waits until a process ends by itself. Safe to drop and call again.
    pub async fn death(&mut self) -> Death {
        let worker = {
            let exits = self
                .workers
                .iter_mut()
                .enumerate()
                .map(|(i, w)| Box::pin(async move { (i, w.exited().await) }));
            tokio::select! {
                status = self.coordinator.exited() => {
                    return Death::Coordinator(self.coordinator.ended(&status));
                }
                ended = first_of(exits.collect()) => ended,
            }
        };
        let (i, status) = worker;
        // Workers end when the coordinator does; then its end is the cause to report.
        if let Some(status) = self.coordinator.has_exited() {
            return Death::Coordinator(self.coordinator.ended(&status));
        }
        let error = self.workers.remove(i).ended(&status);
        Death::Worker {
            left: self.workers.len(),
            error,
        }
    }

    /// Stops the workers, then the coordinator, with SIGTERM; kills those that do not stop in time.
    pub async fn stop(mut self) -> Result<(), Error> {
        let mut late = Vec::new();
        for worker in &self.workers {
            worker.terminate();
        }
        let deadline = tokio::time::Instant::now() + WORKER_STOP;
        for worker in &mut self.workers {
            late.extend(worker.stopped_by(deadline).await.err());
        }
        self.coordinator.terminate();
        let deadline = tokio::time::Instant::now() + COORDINATOR_STOP;
        late.extend(self.coordinator.stopped_by(deadline).await.err());
        late.into_iter().next().map_or(Ok(()), Err)
    }
}

/// The error for a coordinator that ended before it served. One cause is common: the folder's cluster
/// before is still storing its last checkpoint.
fn not_started(
    coordinator: &Process,
    status: &std::io::Result<ExitStatus>,
    data_dir: &Path,
) -> Error {
    let code = status.as_ref().ok().and_then(ExitStatus::code);
    if code == Some(DATA_DIR_REFUSED) && coordinator.tail().contains(IN_USE) {
        return Error::Cluster(format!(
            "{dir} is used by another coordinator. If that is of a `fovea local` that is stopping, wait \
             a moment and try again; else stop it, or name another folder with --data-dir (log: {log})",
            dir = data_dir.display(),
            log = coordinator.log().display(),
        ));
    }
    coordinator.ended(status)
}

/// Waits for the file in which the coordinator writes its address.
async fn address_in(file: &Path) -> Result<String, Error> {
    loop {
        match std::fs::read_to_string(file) {
            Ok(text) if !text.trim().is_empty() => {
                let text = text.trim();
                return Ok(if text.contains("://") {
                    text.to_owned()
                } else {
                    format!("http://{text}")
                });
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(file, e)),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The result of whichever future is ready first; never, if there is none.
async fn first_of<F: Future + Unpin>(mut futures: Vec<F>) -> F::Output {
    std::future::poll_fn(|cx| {
        for future in &mut futures {
            if let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(cx) {
                return std::task::Poll::Ready(output);
            }
        }
        std::task::Poll::Pending
    })
    .await
}
