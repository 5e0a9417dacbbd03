//! `fovea weights add` and `fovea weights list`, and adding a run's file of weights; `rm` is in [`super::remove`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fovea_core::count::count;
use fovea_core::spec::RunSpec;
use fovea_core::weights;

use super::format::{ago, bytes, now_ms, without_event};
use super::output::Output;
use super::record::Record;
use super::table::Table;
use crate::client::Client;
use crate::error::Error;
use crate::runfile::Weights;
use crate::view::WeightsInfo;
use crate::weights::{AddedWeights, WeightsFile, WeightsOutcome};

/// Names of ignored layers that are shown; the others are counted.
const SHOWN: usize = 4;

/// Checks the command line and the file of an addition.
///
/// # Errors
/// `Usage` or `Weights`.
pub fn read(path: &Path, name: Option<&str>) -> Result<WeightsFile, Error> {
    if let Some(name) = name {
        weights::name(name).map_err(|e| Error::Usage(format!("--name: {e}")))?;
    }
    WeightsFile::read(path).map_err(Error::Weights)
}

/// Offers a file to the coordinator and prints what it found in the file and did.
pub async fn add(
    client: &Client,
    file: &WeightsFile,
    name: Option<&str>,
    output: &Output,
) -> Result<(), Error> {
    let added = add_with_bar(client, file, name, output).await?;
    output.record(&record(&added));
    output.line(added_line(&added));
    output.lines(summary(&added.weights));
    Ok(())
}

/// Completes a run that names a file of weights: adds the file unless the coordinator has it, and names it as the
/// coordinator does.
pub async fn provide(
    client: &Client,
    spec: &mut RunSpec,
    weights: &Weights,
    output: &Output,
) -> Result<(), Error> {
    let Weights::File(file) = weights else {
        return Ok(());
    };
    let stored = client.weights().await?;
    let usable = |w: &WeightsInfo| w.sha256 == file.sha256 && w.problem.is_empty();
    let info = match stored.into_iter().find(usable) {
        Some(info) => info,
        None => {
            let added = add_with_bar(client, file, None, output).await?;
            output.record(&record(&added));
            output.line(added_line(&added));
            added.weights
        }
    };
    spec.model.weights = info.name;
    spec.model.weights_sha256 = info.sha256;
    Ok(())
}

async fn add_with_bar(
    client: &Client,
    file: &WeightsFile,
    name: Option<&str>,
    output: &Output,
) -> Result<AddedWeights, Error> {
    let bar = output.byte_bar(file.bytes, "sending");
    let sent = Arc::new(AtomicU64::new(0));
    let upload = client.add_weights(file, name, sent.clone());
    tokio::pin!(upload);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let added = loop {
        tokio::select! {
            added = &mut upload => break added,
            _ = tick.tick() => bar.set_position(sent.load(Ordering::Relaxed)),
        }
    };
    bar.finish_and_clear();
    added
}

fn record(added: &AddedWeights) -> Record<'_> {
    Record::Weights {
        weights: &added.weights,
        outcome: Some(added.outcome.as_str()),
    }
}

fn added_line(added: &AddedWeights) -> String {
    let w = &added.weights;
    let done = match added.outcome {
        WeightsOutcome::Added => "were added",
        WeightsOutcome::Unchanged => "are here already, unchanged",
        WeightsOutcome::Repaired => {
            "were repaired: the coordinator's copy was missing or damaged and has been replaced"
        }
    };
    format!(
        "weights {} {done}: BVLC GoogLeNet, {}, {}, sha256:{}",
        w.name,
        w.format,
        bytes(w.size_bytes),
        w.sha256
    )
}

/// What is in the file, for people.
fn summary(weights: &WeightsInfo) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Some(first), Some(last)) = (weights.layers.first(), weights.layers.last()) {
        lines.push(format!(
            "  {} that a run starts from: {} {} to {} {}",
            count(weights.layers.len(), "layer", "layers"),
            first.name,
            shape(&first.shape),
            last.name,
            shape(&last.shape),
        ));
    }
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for layer in &weights.ignored {
        by_reason
            .entry(&layer.reason)
            .or_default()
            .push(&layer.name);
    }
    for (reason, names) in by_reason {
        let more = match names.len().saturating_sub(SHOWN) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let shown: Vec<&str> = names.iter().copied().take(SHOWN).collect();
        lines.push(format!("  ignored {}{more} ({reason})", shown.join(", ")));
    }
    lines
}

fn shape(shape: &[u32]) -> String {
    let numbers: Vec<String> = shape.iter().map(u32::to_string).collect();
    numbers.join("x")
}

/// Lists the coordinator's weights.
pub async fn list(client: &Client, output: &Output) -> Result<(), Error> {
    let all = client.weights().await?;
    let mut table = Table::new(&[
        "weights", ">bytes", ">layers", "format", "added", "used by", "digest", "problem",
    ]);
    let now = now_ms();
    for weights in &all {
        output.record(&Record::Weights {
            weights,
            outcome: None,
        });
        table.row([
            match &*weights.name {
                "" => "?".to_owned(),
                name => name.to_owned(),
            },
            bytes(weights.size_bytes),
            weights.layers.len().to_string(),
            weights.format.clone(),
            match weights.added_at_ms {
                0 => "?".to_owned(),
                at => ago(at, now),
            },
            match &weights.used_by[..] {
                [] => "-".to_owned(),
                runs => runs.join(", "),
            },
            weights.sha256.chars().take(12).collect(),
            without_event(&weights.problem).to_owned(),
        ]);
    }
    if all.is_empty() {
        output.line("the coordinator has no weights; `fovea weights add FILE` adds some");
    } else {
        output.lines(table.lines());
    }
    Ok(())
}
