//! `fovea checkpoints`, `fovea checkpoint get` and `fovea checkpoint verify`; `rm` is in
//! [`super::remove`].

use std::path::{Path, PathBuf};

use fovea_core::checkpoint::CheckpointInfo;

use super::args::Step;
use super::format::{ago, bytes, now_ms};
use super::output::Output;
use super::record::Record;
use super::table::Table;
use crate::client::Client;
use crate::error::{Error, VerifiedCounts};
use crate::view::{FileState, Place, StoredCheckpoints, VerifiedCheckpoint};

/// Lists the checkpoints of a run.
pub async fn list(client: &Client, run: &str, output: &Output) -> Result<(), Error> {
    let StoredCheckpoints {
        checkpoints,
        store_problem,
    } = client.stored_checkpoints(run).await?;
    for (info, place) in &checkpoints {
        output.record(&Record::Checkpoint {
            run,
            info,
            path: None,
            place: *place,
        });
    }
    if checkpoints.is_empty() {
        output.line(format!("run {run} has no checkpoint"));
    } else {
        output.lines(table(&checkpoints, now_ms()).lines());
    }
    remark_store(&store_problem, output);
    Ok(())
}

/// Says what is wrong with the object store, if anything is.
pub fn remark_store(problem: &str, output: &Output) {
    if !problem.is_empty() {
        output.remark(format!("note: {problem}"));
    }
}

/// The checkpoints as a table. Where each is stored is shown if the coordinator has an object store.
pub fn table(checkpoints: &[(CheckpointInfo, Option<Place>)], now_ms: u64) -> Table {
    let mut heads = vec![">step", ">size", "stored", "device", ">threads", "sha256"];
    let placed = checkpoints.iter().any(|(_, place)| place.is_some());
    if placed {
        heads.push("where");
    }
    let mut table = Table::new(&heads);
    for (info, place) in checkpoints {
        let mut row = vec![
            info.step.to_string(),
            bytes(info.bytes),
            ago(info.stored_at_ms, now_ms),
            info.fingerprint.device.clone(),
            info.fingerprint.threads.to_string(),
            info.sha256.chars().take(16).collect(),
        ];
        if placed {
            row.push(place.map_or("", Place::as_str).to_owned());
        }
        table.row(row);
    }
    table
}

/// Fetches a checkpoint to a file.
pub async fn get(
    client: &Client,
    run: &str,
    step: Step,
    out: Option<PathBuf>,
    overwrite: bool,
    output: &Output,
) -> Result<(), Error> {
    // The default name contains the step, which for `newest` only the coordinator knows.
    let (step, target) = match (step, out) {
        (step, Some(out)) => (step.number(), out),
        (Step::At(step), None) => (Some(step), default_name(run, step)),
        (Step::Newest, None) => {
            let step = newest(client, run).await?;
            (Some(step), default_name(run, step))
        }
    };
    let info = fetch_with_bar(client, run, step, &target, overwrite, output).await?;
    output.record(&Record::Checkpoint {
        run,
        info: &info,
        path: Some(&target),
        place: None,
    });
    output.line(format!(
        "{}: checkpoint of run {run} at step {}, {}, sha256 {} (verified)",
        target.display(),
        info.step,
        bytes(info.bytes),
        info.sha256,
    ));
    Ok(())
}

/// Has the coordinator verify stored checkpoints, and fails unless all are whole.
pub async fn verify(
    client: &Client,
    run: &str,
    step: Option<Step>,
    output: &Output,
) -> Result<(), Error> {
    let step = match step {
        None => None,
        Some(Step::At(step)) => Some(step),
        Some(Step::Newest) => Some(newest(client, run).await?),
    };
    let verified = client.verify_checkpoints(run, step).await?;
    if verified.is_empty() {
        // Not a success: a script that relies on a checkpoint must not take silence for one.
        return Err(none_there(run));
    }
    for VerifiedCheckpoint {
        info,
        state,
        problem,
        manifest_state,
        manifest_problem,
    } in &verified
    {
        output.record(&Record::Verified {
            run,
            info,
            ok: *state == FileState::Ok && *manifest_state == FileState::Ok,
            state: *state,
            problem,
            manifest_state: *manifest_state,
            manifest_problem,
        });
    }
    output.lines(verified_table(&verified, now_ms()).lines());
    for v in &verified {
        if v.manifest_state != FileState::Ok {
            output.line(format!(
                "{} manifest of checkpoint {}: {}",
                v.manifest_state.as_str().to_uppercase(),
                v.info.step,
                v.manifest_problem
            ));
        }
    }
    let in_state = |state| {
        let files = verified.iter().flat_map(|v| [v.state, v.manifest_state]);
        files.filter(|found| *found == state).count()
    };
    if in_state(FileState::Ok) == 2 * verified.len() {
        return Ok(());
    }
    let whole = verified.iter().filter(|v| v.state == FileState::Ok).count();
    if verified.iter().any(|v| v.state == FileState::Corrupt) {
        output.remark(format!(
            "corrupt checkpoints were put aside; `fovea checkpoints {run}` lists the remaining ones"
        ));
    }
    Err(Error::Verification(VerifiedCounts {
        what: format!("run {run}"),
        // With the manifests of those that are whole.
        of: verified.len() + whole,
        corrupt: in_state(FileState::Corrupt),
        missing: in_state(FileState::Missing),
        unreadable: in_state(FileState::Unreadable),
        unlisted: in_state(FileState::Unlisted),
    }))
}

fn verified_table(verified: &[VerifiedCheckpoint], now_ms: u64) -> Table {
    let mut table = Table::new(&[">step", ">size", "stored", "sha256", "file"]);
    for VerifiedCheckpoint {
        info,
        state,
        problem,
        ..
    } in verified
    {
        table.row([
            info.step.to_string(),
            bytes(info.bytes),
            ago(info.stored_at_ms, now_ms),
            info.sha256.chars().take(16).collect(),
            match state {
                FileState::Ok => state.as_str().to_owned(),
                FileState::Missing
                | FileState::Unreadable
                | FileState::Corrupt
                | FileState::Unlisted => {
                    format!("{}: {problem}", state.as_str().to_uppercase())
                }
            },
        ]);
    }
    table
}

/// The step of a run's newest checkpoint.
pub(super) async fn newest(client: &Client, run: &str) -> Result<u64, Error> {
    let checkpoints = client.checkpoints(run).await?;
    checkpoints
        .last()
        .map(|c| c.step)
        .ok_or_else(|| none_there(run))
}

fn none_there(run: &str) -> Error {
    Error::Refused(format!("run {run} has no checkpoint"))
}

/// Fetches a checkpoint, with a bar in a terminal.
pub async fn fetch_with_bar(
    client: &Client,
    run: &str,
    step: Option<u64>,
    target: &Path,
    overwrite: bool,
    output: &Output,
) -> Result<CheckpointInfo, Error> {
    let bar = output.byte_bar(0, "fetching");
    let info = client
        .fetch_checkpoint(run, step, target, overwrite, |received, total| {
            bar.set_length(total);
            bar.set_position(received);
        })
        .await;
    bar.finish_and_clear();
    info
}

fn default_name(run: &str, step: u64) -> PathBuf {
    // The coordinator validates a run's id before anything is written; an invalid one must not name
    // a folder here either.
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
