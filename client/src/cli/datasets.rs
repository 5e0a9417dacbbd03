//! `fovea dataset add` and `fovea dataset list`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::format::{bytes, count};
use super::output::{Output, Record};
use super::table::Table;
use crate::client::Client;
use crate::error::Error;
use crate::upload::Added;

/// Gives a prepared dataset to the coordinator and says what came of it.
pub async fn add(client: &Client, dir: &Path, output: &Output) -> Result<(), Error> {
    let added = add_with_bar(client, dir, output).await?;
    output.record(&Record::Dataset {
        dataset: &added.dataset,
        already_there: Some(added.already_there),
    });
    output.line(added_line(&added));
    Ok(())
}

/// What came of it, in a line.
pub fn added_line(added: &Added) -> String {
    let d = &added.dataset;
    format!(
        "dataset {} {}: {} to train on, {} held out, {} px, {}",
        d.name,
        if added.already_there {
            "was there already"
        } else {
            "is at the coordinator"
        },
        count(d.train_samples, "image", "images"),
        d.validation_samples,
        d.image_size,
        bytes(d.size_bytes),
    )
}

/// Sends a dataset, with a bar where somebody looks.
pub async fn add_with_bar(client: &Client, dir: &Path, output: &Output) -> Result<Added, Error> {
    let bar = output.byte_bar(0, "sending");
    let sent = Arc::new(AtomicU64::new(0));
    let upload = client.add_dataset(dir, |total| bar.set_length(total), sent.clone());
    tokio::pin!(upload);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let added = loop {
        tokio::select! {
            added = &mut upload => break added,
            // Not before there is a length: a bar of nothing would look full.
            _ = tick.tick() => match sent.load(Ordering::Relaxed) {
                0 => {}
                bytes => bar.set_position(bytes),
            },
        }
    };
    bar.finish_and_clear();
    added
}

/// Lists the datasets that the coordinator holds.
pub async fn list(client: &Client, output: &Output) -> Result<(), Error> {
    let datasets = client.datasets().await?;
    let mut table = Table::new(&[
        "dataset",
        ">size",
        ">train",
        ">held out",
        "train by grade 0-4",
        "held out by grade",
        ">bytes",
        "digest",
    ]);
    for dataset in &datasets {
        output.record(&Record::Dataset {
            dataset,
            already_there: None,
        });
        table.row([
            dataset.name.clone(),
            format!("{} px", dataset.image_size),
            dataset.train_samples.to_string(),
            dataset.validation_samples.to_string(),
            grades(&dataset.train_grades),
            grades(&dataset.validation_grades),
            bytes(dataset.size_bytes),
            dataset.digest.chars().take(12).collect(),
        ]);
    }
    if datasets.is_empty() {
        output.line("the coordinator holds no dataset; `fovea dataset add DIR` gives it one");
    } else {
        output.lines(table.lines());
    }
    Ok(())
}

fn grades(counts: &[u64]) -> String {
    let counts: Vec<String> = counts.iter().map(u64::to_string).collect();
    counts.join("/")
}
