//! `fovea checkpoints` and `fovea checkpoint get`.

use std::path::{Path, PathBuf};

use fovea_core::checkpoint::CheckpointInfo;

use super::args::Step;
use super::format::{ago, bytes, now_ms};
use super::output::{Output, Record};
use super::table::Table;
use crate::client::Client;
use crate::error::Error;

/// Lists the checkpoints of a run.
pub async fn list(client: &Client, run: &str, output: &Output) -> Result<(), Error> {
    let checkpoints = client.checkpoints(run).await?;
    for info in &checkpoints {
        output.record(&Record::Checkpoint {
            run,
            info,
            path: None,
        });
    }
    if checkpoints.is_empty() {
        output.line(format!("run {run} has no checkpoint yet"));
    } else {
        output.lines(table(&checkpoints, now_ms()).lines());
    }
    Ok(())
}

/// The checkpoints as a table.
pub fn table(checkpoints: &[CheckpointInfo], now_ms: u64) -> Table {
    let mut table = Table::new(&[">step", ">size", "stored", "device", ">threads", "sha256"]);
    for info in checkpoints {
        table.row([
            info.step.to_string(),
            bytes(info.bytes),
            ago(info.stored_at_ms, now_ms),
            info.fingerprint.device.clone(),
            info.fingerprint.threads.to_string(),
            info.sha256.chars().take(16).collect(),
        ]);
    }
    table
}

/// Fetches a checkpoint to a file.
pub async fn get(
    client: &Client,
    run: &str,
    step: Step,
    out: Option<PathBuf>,
    output: &Output,
) -> Result<(), Error> {
    // The default name says the step, which for `newest` only the coordinator knows.
    let (step, target) = match (step, out) {
        (step, Some(out)) => (step.number(), out),
        (Step::At(step), None) => (Some(step), default_name(run, step)),
        (Step::Newest, None) => {
            let checkpoints = client.checkpoints(run).await?;
            let newest = checkpoints
                .last()
                .ok_or_else(|| Error::Refused(format!("run {run} has no checkpoint yet")))?;
            (Some(newest.step), default_name(run, newest.step))
        }
    };
    let info = fetch_with_bar(client, run, step, &target, output).await?;
    output.record(&Record::Checkpoint {
        run,
        info: &info,
        path: Some(&target),
    });
    output.line(format!(
        "{}: checkpoint of run {run} at step {}, {}, sha256 {} (checked)",
        target.display(),
        info.step,
        bytes(info.bytes),
        info.sha256,
    ));
    Ok(())
}

/// Fetches a checkpoint, with a bar where somebody looks.
pub async fn fetch_with_bar(
    client: &Client,
    run: &str,
    step: Option<u64>,
    target: &Path,
    output: &Output,
) -> Result<CheckpointInfo, Error> {
    let bar = output.byte_bar(0, "fetching");
    let info = client
        .fetch_checkpoint(run, step, target, |received, total| {
            bar.set_length(total);
            bar.set_position(received);
        })
        .await;
    bar.finish_and_clear();
    info
}

fn default_name(run: &str, step: u64) -> PathBuf {
    // A run's id is checked by the coordinator before anything is written; a wild one must not
    // choose a folder here either.
    let run: String = run
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!("{run}-step-{step}.safetensors").into()
}
