//! `fovea tensorboard`: runs as event files.

use std::fs;
use std::path::{Path, PathBuf};

use super::format::bytes;
use super::output::Output;
use super::record::Record;
use crate::client::Client;
use crate::error::Error;
use crate::receive::write_whole;
use crate::tensorboard::{event_file, file_name};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  fovea tensorboard dr-1 dr-2 --out events
  tensorboard --logdir events

Writes DIR/RUN with one file: loss and learning rate of every committed step and the metrics of every
evaluated epoch, as the journal has them. A later call replaces it; restart TensorBoard then. After a resume
from an older checkpoint the file holds what counts, one value for each step. The journal keeps no speeds
and no times of steps: times are interpolated between checkpoints, and system/ is left out. For files that
are written while runs train, with speeds, set tensorboard_dir at the coordinator.")]
pub struct Tensorboard {
    /// Ids of runs, such as dr-1
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<String>,
    /// The folder for TensorBoard's --logdir; it gets a folder for each run
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Writes the event files.
pub async fn run(client: &Client, command: &Tensorboard, output: &Output) -> Result<(), Error> {
    // A name that is given twice is one run, and nothing is written if one of the names is wrong.
    let mut names: Vec<&String> = Vec::new();
    for name in &command.runs {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in &names {
        let run = client.run(name).await?;
        refuse_others(&command.out.join(&run.id), &file_name(&run))?;
    }
    for run_id in names {
        // First the losses: what is committed meanwhile is then in neither of the two, or in the run alone.
        let losses = client.losses(run_id).await?;
        let run = client.run(run_id).await?;
        let folder = command.out.join(&run.id);
        let name = file_name(&run);
        refuse_others(&folder, &name)?;
        fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let content = event_file(&run, &losses);
        let path = folder.join(name);
        write_whole(&path, true, &content)?;
        output.record(&Record::Tensorboard {
            run: &run.id,
            path: &path,
            bytes: content.len() as u64,
            steps: losses.len() as u64,
            epochs: run.epochs.len() as u64,
        });
        output.line(format!(
            "{}: {} steps and {} epochs of {}, {}",
            path.display(),
            losses.len(),
            run.epochs.len(),
            run.id,
            bytes(content.len() as u64)
        ));
    }
    Ok(())
}

/// TensorBoard reads all event files of a folder as one run: nothing is added to others' files.
fn refuse_others(folder: &Path, name: &str) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let other = entry.file_name().to_string_lossy().into_owned();
        if other.contains("tfevents") && other != name && !other.starts_with('.') {
            return Err(Error::Usage(format!(
                "{} has another event file, {other}, and TensorBoard would read both as one run; name another folder with --out",
                folder.display()
            )));
        }
    }
    Ok(())
}
