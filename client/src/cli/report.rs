//! `fovea report`: a run's report as one HTML file.

use std::path::Path;

use fovea_evaluation::{Draws, Estimate};
use fovea_judging::material::{Composed, Material};
use fovea_judging::{RunInfo, Which, choose};

use super::evaluate::{computed, own_validation, with_known_dataset};
use super::evaluate_args::Report as Command;
use super::format::{bytes, now_ms};
use super::heat_maps;
use super::output::Output;
use super::record::Record;
use crate::client::Client;
use crate::error::Error;
use crate::receive::{check_target, write_whole};

/// Writes the report of a run.
pub async fn run(client: &Client, command: &Command, output: &Output) -> Result<(), Error> {
    let default = format!("{}.html", command.run);
    let file = command.out.as_deref().unwrap_or(Path::new(&default));
    check_target(file, command.overwrite)?;
    let run = client.run(&command.run).await?;
    if let Some(evaluate) = &run.spec.evaluate {
        return Err(Error::Usage(format!(
            "{} is an evaluation: `fovea report {}` shows it in the report of its run",
            run.id, evaluate.run
        )));
    }
    let wanted = Report {
        which: command.checkpoint.0,
        photographs: command.photographs.as_deref(),
    };
    let Written { bytes: size, .. } =
        write(client, run, wanted, file, command.overwrite, output).await?;
    output.record(&Record::Report {
        run: &command.run,
        path: file,
        bytes: size,
    });
    output.line(format!("report   {} ({})", file.display(), bytes(size)));
    Ok(())
}

/// What a report shows.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The checkpoint that it judges.
    pub which: Which,
    /// The folder of the prepared dataset, for heat maps of the worst errors; None: without them.
    pub photographs: Option<&'a Path>,
}

/// A report that was written.
pub struct Written {
    /// Its size.
    pub bytes: u64,
    /// Committed steps of the checkpoint that it judges.
    pub step: u64,
    /// AUC of that checkpoint on the validation split, if the dataset is there and it is defined.
    pub auc: Option<Estimate>,
}

/// Judges a checkpoint on the validation split and on all that it was evaluated on before, and writes the report to `file`.
pub async fn write(
    client: &Client,
    run: RunInfo,
    wanted: Report<'_>,
    file: &Path,
    overwrite: bool,
    output: &Output,
) -> Result<Written, Error> {
    let chosen = choose(&run, wanted.which)?;
    let validation = own_validation(client, &run, chosen.step, false, output).await?;
    let mut material = Material::new(&run, validation);
    for evaluation in Material::candidates(&run, &chosen) {
        // It may have been removed or have failed.
        if !material.has(evaluation)
            && let Some(scores) = client.scores(&evaluation.run, chosen.step).await?
        {
            material.add(evaluation, with_known_dataset(client, scores).await?);
        }
    }
    for note in material.left_out() {
        output.remark(format!("note: {note}"));
    }
    let step = chosen.step;
    let judged_run = run.clone();
    let compute = move || Ok(material.compose(&run, &chosen, Draws::default(), now_ms())?);
    let Composed {
        mut report,
        auc,
        errors_of: digest,
    } = computed(compute).await?;
    if let (Some(folder), Some(worst), Some(digest)) =
        (wanted.photographs, report.worst_errors.as_mut(), &digest)
    {
        heat_maps::add(client, (&judged_run, step), (folder, digest), worst, output).await?;
    }
    let html = computed(move || Ok(fovea_report::html(&report))).await?;
    write_whole(file, overwrite, html.as_bytes())?;
    Ok(Written {
        bytes: html.len() as u64,
        step,
        auc,
    })
}
