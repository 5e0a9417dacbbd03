//! `fovea dataset add` and `fovea dataset list`; `rm` is in [`super::remove`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::format::{bytes, without_event};
use super::output::Output;
use super::record::Record;
use super::table::Table;
use crate::client::Client;
use crate::error::Error;
use crate::upload::{Added, Outcome};
use crate::view::DatasetInfo;
use fovea_core::count::{count, plural};
use fovea_dataset::GradeScale;

/// Offers a prepared dataset to the coordinator and prints what the coordinator did.
pub async fn add(client: &Client, dir: &Path, output: &Output) -> Result<(), Error> {
    let added = add_with_bar(client, dir, output).await?;
    output.record(&record(&added));
    output.line(added_line(&added));
    Ok(())
}

/// The JSON form of an addition.
pub fn record(added: &Added) -> Record<'_> {
    let (outcome, packs, files): (_, &[u32], &[String]) = match &added.outcome {
        Outcome::Added => ("added", &[], &[]),
        Outcome::Unchanged => ("unchanged", &[], &[]),
        Outcome::Repaired { packs, files } => ("repaired", packs, files),
    };
    Record::Dataset {
        dataset: &added.dataset,
        already_there: Some(added.outcome != Outcome::Added),
        outcome: Some(outcome),
        repaired_packs: Some(packs),
        repaired_files: Some(files),
    }
}

/// What the coordinator did, in a line.
pub fn added_line(added: &Added) -> String {
    let d = &added.dataset;
    let done = match &added.outcome {
        Outcome::Added => "was added".into(),
        Outcome::Unchanged => "is unchanged, all digests are right".into(),
        Outcome::Repaired { packs, files } => format!(
            "was repaired, {}",
            [packs_line(d.packs, packs), files_line(files)]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(", and ")
        ),
    };
    format!(
        "dataset {} {done}: {} to train on, {} held out, {} px, {}",
        d.name,
        count(d.train_samples, "image", "images"),
        d.validation_samples,
        d.image_size,
        bytes(d.size_bytes),
    )
}

/// Which packs were replaced.
fn packs_line(of: u32, packs: &[u32]) -> Option<String> {
    let listed: Vec<String> = packs.iter().map(u32::to_string).collect();
    (!packs.is_empty()).then(|| {
        format!(
            "{} of {} {} damaged and {} been replaced (pack {})",
            packs.len(),
            count(of, "pack", "packs"),
            plural(packs.len(), "was", "were"),
            plural(packs.len(), "has", "have"),
            listed.join(", ")
        )
    })
}

/// Which of the describing files were replaced.
fn files_line(files: &[String]) -> Option<String> {
    (!files.is_empty()).then(|| {
        format!(
            "{} {} missing or damaged and {} been replaced",
            files.join(" and "),
            plural(files.len(), "was", "were"),
            plural(files.len(), "has", "have"),
        )
    })
}

/// Offers a dataset, with a bar in a terminal.
pub async fn add_with_bar(client: &Client, dir: &Path, output: &Output) -> Result<Added, Error> {
    let bar = output.byte_bar(0, "sending");
    let sent = Arc::new(AtomicU64::new(0));
    let upload = client.add_dataset(dir, |total| bar.set_length(total), sent.clone());
    tokio::pin!(upload);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let added = loop {
        tokio::select! {
            added = &mut upload => break added,
            // Only once there is a length: a bar without one looks full.
            _ = tick.tick() => match sent.load(Ordering::Relaxed) {
                0 => {}
                bytes => bar.set_position(bytes),
            },
        }
    };
    bar.finish_and_clear();
    added
}

/// Lists the coordinator's datasets: without `all` those with grades.
pub async fn list(client: &Client, all: bool, output: &Output) -> Result<(), Error> {
    let mut datasets = client.datasets().await?;
    let (there, none) = (datasets.len(), GradeScale::None.as_str());
    datasets.retain(|dataset| all || dataset.scale != none);
    let hidden = there - datasets.len();
    let mut table = Table::new(&[
        "dataset",
        ">size",
        "preprocessing",
        "scale",
        ">train",
        ">held out",
        ">test",
        "train by grade 0-4",
        "held out by grade",
        ">bytes",
        "digest",
        "problem",
    ]);
    for dataset in &datasets {
        output.record(&Record::Dataset {
            dataset,
            already_there: None,
            outcome: None,
            repaired_packs: None,
            repaired_files: None,
        });
        table.row([
            dataset.name.clone(),
            format!("{} px", dataset.image_size),
            dataset.preprocessing.clone(),
            match &*dataset.scale {
                "" => "-".to_owned(),
                scale => scale.to_owned(),
            },
            dataset.train_samples.to_string(),
            dataset.validation_samples.to_string(),
            dataset.test_samples.to_string(),
            grades(dataset, &dataset.train_grades),
            grades(dataset, &dataset.validation_grades),
            bytes(dataset.size_bytes),
            dataset.digest.chars().take(12).collect(),
            without_event(&dataset.problem).to_owned(),
        ]);
    }
    if datasets.is_empty() {
        output.line("the coordinator has no dataset; `fovea dataset add DIR` adds one");
    } else {
        output.lines(table.lines());
    }
    if hidden > 0 {
        output.remark(format!(
            "{} without grades, of predictions, {} not listed; --all lists {}",
            count(hidden, "dataset", "datasets"),
            plural(hidden, "is", "are"),
            plural(hidden, "it", "them")
        ));
    }
    Ok(())
}

fn grades(dataset: &DatasetInfo, counts: &[u64]) -> String {
    if dataset.scale == GradeScale::None.as_str() {
        return "-".into();
    }
    let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
    counts.join("/")
}
