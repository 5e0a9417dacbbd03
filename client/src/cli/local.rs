//! `fovea local`: the embedded cluster, from a run file to a model in one command.

use std::path::{Path, PathBuf};

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::metrics::Evaluation;
use fovea_core::run::EpochResult;
use fovea_core::spec::RunSpec;
use fovea_dataset::{Dataset, make_private};
use serde::Serialize;

use super::args::{Local, Step};
use super::checkpoints::fetch_with_bar;
use super::datasets::{self, add_with_bar, added_line};
use super::figures::short;
use super::follow::{Screen, verdict};
use super::format::{bytes, now_ms};
use super::narrate::{paused_line, summary};
use super::output::Output;
use super::record::Record;
use super::report::{self, Written};
use super::runs;
use super::weights::provide;
use crate::VERSION;
use crate::client::Client;
use crate::error::Error;
use crate::local::{Cluster, ClusterOptions, Death, Signals};
use crate::runfile::{RunFile, Weights, resolve_weights};
use crate::view::{Phase, RunInfo};
use crate::watch::{Patience, Watcher};
use fovea_core::count::{count, plural};
use fovea_judging::{Which, choose};

/// Number of workers by default.
const WORKERS: u32 = 2;

/// The task of one call.
enum Task {
    /// Train this.
    Train {
        spec: Box<RunSpec>,
        weights: Weights,
        workers: u32,
    },
    /// Continue an earlier run.
    Resume { run: String },
    /// List the earlier runs.
    List,
}

/// Starts the cluster, performs the task, and stops the cluster whatever the result.
pub async fn run(command: Local, output: &Output) -> Result<(), Error> {
    let task = task_of(&command)?;
    let data_dir = command.data_dir.clone();
    if matches!(task, Task::List | Task::Resume { .. }) && !data_dir.join("coordinator").is_dir() {
        return Err(Error::Usage(format!(
            "{} has no runs yet; give a run file to start one",
            data_dir.display()
        )));
    }
    // From here on signals are events, so that no process is left behind.
    let mut signals = Signals::listen()?;
    let options = ClusterOptions {
        data_dir: data_dir.clone(),
        device: command.device.clone(),
        bin_dir: command.bin_dir.clone(),
    };
    let (mut cluster, client) = tokio::select! {
        started = Cluster::start(options) => started?,
        () = signals.next() => return Err(Error::Interrupted("nothing was started".into())),
    };
    let outcome = drive(&mut cluster, &client, &mut signals, &command, task, output).await;
    let stopped = tokio::select! {
        stopped = cluster.stop() => stopped,
        // Dropping the cluster kills what is left of it.
        () = signals.next() => Err(Error::Interrupted("the processes were killed".into())),
    };
    outcome?;
    stopped
}

fn task_of(command: &Local) -> Result<Task, Error> {
    if let Some(run) = &command.resume {
        if !command.overrides.is_empty() {
            return Err(Error::Usage(
                "--set cannot change a run that is resumed; submit a new one".into(),
            ));
        }
        return Ok(Task::Resume { run: run.clone() });
    }
    let Some(path) = &command.file else {
        let meant_to_train = command.dataset.is_some() || !command.overrides.is_empty();
        if meant_to_train || command.checkpoint.is_some() {
            return Err(Error::Usage(
                "give a run file (deploy/run.toml is an example) or --resume RUN".into(),
            ));
        }
        return Ok(Task::List);
    };
    let mut file = RunFile::read(path)?;
    let workers = command.workers.unwrap_or(WORKERS);
    if let Some(dir) = &command.dataset {
        let manifest = Dataset::read_manifest(dir).map_err(|e| Error::Dataset(e.to_string()))?;
        let flag = format!("--dataset {}", dir.display());
        file.set_by_flag("dataset", manifest.name.as_str(), &flag);
    }
    for assignment in &command.overrides {
        file.set(assignment);
    }
    let flag = format!("-n {workers}");
    file.set_default("workers.min", i64::from(workers), &flag);
    file.set_default("workers.max", i64::from(workers), &flag);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores / workers as usize).clamp(1, 1024);
    file.set_default("train.threads", threads as i64, &flag);
    let spec = file.spec()?;
    if spec.workers.min > workers {
        let min = spec.workers.min;
        return Err(Error::Usage(format!(
            "{}: the run waits for {}, and only {workers} {} started; give -n {min}",
            file.place("workers.min"),
            count(min, "worker", "workers"),
            plural(workers, "is", "are"),
        )));
    }
    let weights = resolve_weights(&file, &spec)?;
    Ok(Task::Train {
        spec: Box::new(spec),
        weights,
        workers,
    })
}

async fn drive(
    cluster: &mut Cluster,
    client: &Client,
    signals: &mut Signals,
    command: &Local,
    task: Task,
    output: &Output,
) -> Result<(), Error> {
    let before = client.runs().await?;
    let (run, workers) = tokio::select! {
        begun = begin(client, command, task, &before, output) => match begun? {
            Some(begun) => begun,
            None => return Ok(()),
        },
        death = cluster.death() => return Err(error_of(death)),
        () = signals.next() => {
            return Err(Error::Interrupted("no run was submitted".into()));
        }
    };
    for other in before
        .iter()
        .filter(|r| !r.phase.is_terminal() && r.id != run.id)
    {
        output.remark(format!(
            "note: run {} was interrupted earlier and continues first; `fovea cancel {0} --coordinator {1}` stops it",
            other.id,
            cluster.address()
        ));
    }
    cluster.start_workers(workers)?;
    output.line(format!(
        "cluster: coordinator at {}, {}, logs in {}",
        cluster.address(),
        count(workers, "worker", "workers"),
        command.data_dir.join("logs").display()
    ));
    let run = follow(cluster, client, signals, &run, output).await?;
    if let Err(error) = verdict(&run) {
        output.record(&Record::result(&run));
        return Err(match error {
            Error::RunCancelled { run: id } => {
                let how = match run.checkpoints.is_empty() {
                    true => "stopped before its first checkpoint; begin it again",
                    false => "stopped with a checkpoint; continue it",
                };
                let resume = resume_command(&command.data_dir, &id);
                Error::Interrupted(format!("run {id} {how} with: {resume}"))
            }
            Error::RunFailed { run: id, reason } => {
                let resume = resume_command(&command.data_dir, &id);
                let reason =
                    format!("{reason}; correct the cause, then continue it with: {resume}");
                Error::RunFailed { run: id, reason }
            }
            other => other,
        });
    }
    if run.phase == Phase::Paused {
        output.record(&Record::result(&run));
        let resume = resume_command(&command.data_dir, &run.id);
        output.line(paused_line(&run, &resume));
        return Ok(());
    }
    let left = leave(client, &run, &command.data_dir, output).await?;
    let mut record = Record::result(&run);
    if let Record::Result {
        model,
        metrics,
        report,
        ..
    } = &mut record
    {
        *model = left.model.as_deref();
        *metrics = Some(&left.metrics);
        *report = left.report.as_ref().map(|(file, _)| file.as_path());
    }
    output.record(&record);
    output.line("");
    output.lines(summary(&run).into_iter().take(2));
    if let (Some(model), Some(info)) = (&left.model, run.checkpoints.last()) {
        output.line(format!(
            "model    {} ({}, sha256 {})",
            model.display(),
            bytes(info.bytes),
            info.sha256
        ));
    }
    output.line(format!("metrics  {}", left.metrics.display()));
    if let Some((file, written)) = &left.report {
        if let Some(auc) = &written.auc {
            output.line(format!(
                "step {}, the best by its validation metric: AUC {}, a 95 % interval over patients",
                written.step,
                short(Some(auc))
            ));
        }
        output.line(format!("report   {}", file.display()));
    }
    let central = cluster.central_checkpoints(&run.id);
    if central.is_dir() {
        output.line(format!("central  {}", central.display()));
    }
    Ok(())
}

/// What continues a run of this folder, to be copied into a shell.
fn resume_command(data_dir: &Path, run: &str) -> String {
    format!("fovea local --data-dir {} --resume {run}", quoted(data_dir))
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Submits or resumes the run to be followed. None if the task was to list runs.
async fn begin(
    client: &Client,
    command: &Local,
    task: Task,
    before: &[RunInfo],
    output: &Output,
) -> Result<Option<(RunInfo, u32)>, Error> {
    match task {
        Task::List => {
            for run in before {
                output.record(&Record::Run(run));
            }
            let dir = command.data_dir.display();
            if before.is_empty() {
                output.line(format!("{dir} has no runs yet"));
            } else {
                output.lines(runs::table(before, now_ms()).lines());
                let resume = resume_command(&command.data_dir, "RUN");
                output.line(format!("\ncontinue one with: {resume}"));
            }
            Ok(None)
        }
        Task::Resume { run } => {
            let run = client.run(&run).await.map_err(|error| match error {
                Error::Refused(text) => Error::Refused(format!(
                    "{text}; `fovea local --data-dir {}` lists the runs there",
                    quoted(&command.data_dir)
                )),
                other => other,
            })?;
            let min = run.spec.workers.min;
            let workers = command.workers.unwrap_or(min);
            if workers < min {
                return Err(Error::Usage(format!(
                    "run {} waits for {}: give -n {min}",
                    run.id,
                    count(min, "worker", "workers")
                )));
            }
            // A run that was interrupted by the end of its coordinator continues by itself.
            let chosen = command.checkpoint.and_then(Step::number);
            let run = if run.phase.is_terminal() || command.checkpoint.is_some() {
                client.resume(&run.id, chosen).await?
            } else {
                run
            };
            output.line(runs::resumed(&run, chosen));
            Ok(Some((run, workers)))
        }
        Task::Train {
            mut spec,
            weights,
            workers,
        } => {
            if !before.is_empty() {
                output.remark(format!(
                    "note: {dir} has {} already; `fovea local --data-dir {dir}` lists them",
                    count(before.len(), "run", "runs"),
                    dir = command.data_dir.display(),
                ));
            }
            if let Some(dir) = &command.dataset {
                let added = add_with_bar(client, dir, output).await?;
                output.record(&datasets::record(&added));
                output.line(added_line(&added));
            }
            provide(client, &mut spec, &weights, output).await?;
            let run = client.submit(&spec).await?;
            output.record(&Record::Run(&run));
            output.line(runs::accepted(&run));
            runs::remark(&run, output);
            Ok(Some((run, workers)))
        }
    }
}

/// Follows the run to its end and watches the processes. The first signal cancels the run, which
/// takes a checkpoint; the second abandons it.
async fn follow(
    cluster: &mut Cluster,
    client: &Client,
    signals: &mut Signals,
    run: &RunInfo,
    output: &Output,
) -> Result<RunInfo, Error> {
    let mut watcher = Watcher::new(client, &run.id, Patience::default()).await?;
    let mut screen = Screen::new(&run.id, *output);
    let mut cancelling = false;
    loop {
        tokio::select! {
            ended = screen.follow(&mut watcher) => return ended,
            death = cluster.death() => match death {
                Death::Worker { left, error } if left >= run.spec.workers.min as usize => {
                    screen.remark(&format!(
                        "{error}\n{} left; the run continues",
                        count(left, "worker is", "workers are")
                    ));
                }
                death => {
                    screen.close();
                    return Err(error_of(death));
                }
            },
            () = signals.next() => {
                if cancelling {
                    screen.close();
                    return Err(Error::Interrupted(format!(
                        "run {} was stopped at once; its newest checkpoint is kept", run.id
                    )));
                }
                cancelling = true;
                screen.remark("stopping at the next step, with a checkpoint; a second signal stops at once");
                match client.cancel(&run.id).await {
                    // Refused: the run has just ended, which the watch is about to report.
                    Ok(_) | Err(Error::Refused(_) | Error::Precondition { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

fn error_of(death: Death) -> Error {
    match death {
        Death::Coordinator(error) | Death::Worker { error, .. } => error,
    }
}

/// The files of a run in the data folder.
struct Left {
    model: Option<PathBuf>,
    metrics: PathBuf,
    report: Option<(PathBuf, Written)>,
}

/// The content of metrics.json.
#[derive(Serialize)]
struct Metrics<'a> {
    run: &'a str,
    dataset: &'a str,
    dataset_digest: &'a str,
    train_samples: u64,
    validation_samples: u64,
    total_steps: u64,
    spec: &'a RunSpec,
    epochs: &'a [EpochResult],
    /// Metrics of the last epoch, which are those of the checkpoint.
    validation: Option<&'a Evaluation>,
    checkpoint: Option<&'a CheckpointInfo>,
    /// The checkpoint's copy beside this file.
    model: Option<&'a Path>,
    fovea: &'a str,
}

async fn leave(
    client: &Client,
    run: &RunInfo,
    data_dir: &Path,
    output: &Output,
) -> Result<Left, Error> {
    let dir = data_dir.join(&run.id);
    make_private(&dir).map_err(|e| Error::io(&dir, e))?;
    let mut model = None;
    if let Some(newest) = run.checkpoints.last() {
        let path = dir.join("model.safetensors");
        fetch_with_bar(client, &run.id, Some(newest.step), &path, true, output).await?;
        model = Some(path);
    }
    let metrics = dir.join("metrics.json");
    let content = Metrics {
        run: &run.id,
        dataset: run.spec.dataset.as_str(),
        dataset_digest: &run.dataset_digest,
        train_samples: run.train_samples,
        validation_samples: run.validation_samples,
        total_steps: run.total_steps,
        spec: &run.spec,
        epochs: &run.epochs,
        validation: run.last_epoch().map(|e| &e.validation),
        checkpoint: run.checkpoints.last(),
        model: model.as_deref(),
        fovea: VERSION,
    };
    let json = serde_json::to_vec_pretty(&content)
        .map_err(|e| Error::io(&metrics, std::io::Error::other(e)))?;
    // Renamed into place, so that no reader sees half of it.
    let partial = dir.join(".metrics.json.part");
    std::fs::write(&partial, json).map_err(|e| Error::io(&partial, e))?;
    std::fs::rename(&partial, &metrics).map_err(|e| Error::io(&metrics, e))?;
    let report = match report_of(client, run, &dir.join("report.html"), output).await {
        Ok(report) => report,
        // The model is there all the same.
        Err(error) => {
            output.remark(format!("note: no report was written: {error}"));
            None
        }
    };
    Ok(Left {
        model,
        metrics,
        report,
    })
}

/// Writes the report of a run whose validation scores were kept. None if they were not.
async fn report_of(
    client: &Client,
    run: &RunInfo,
    file: &Path,
    output: &Output,
) -> Result<Option<(PathBuf, Written)>, Error> {
    let Ok(chosen) = choose(run, Which::Best) else {
        return Ok(None);
    };
    if client.scores(&run.id, chosen.step).await?.is_none() {
        return Ok(None);
    }
    let written = {
        let wanted = report::Report {
            which: Which::Best,
            photographs: None,
        };
        report::write(client, run.clone(), wanted, file, true, output).await?
    };
    Ok(Some((file.to_owned(), written)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_copied_whatever_the_folder_is_called() {
        for (folder, expected) in [
            ("fovea-local", "fovea-local"),
            ("/srv/my runs", "'/srv/my runs'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
        ] {
            let command = resume_command(Path::new(folder), "dr-1");
            let text = format!("fovea local --data-dir {expected} --resume dr-1");
            assert_eq!(command, text);
        }
    }
}
