//! `fovea report`: a run's report as one HTML file.

use std::path::Path;

use fovea_core::spec::Part;
use fovea_evaluation::{Draws, Estimate, Wanted};

use super::evaluate::{computed, own_validation, with_known_dataset};
use super::evaluate_args::Report as Command;
use super::format::{bytes, now_ms};
use super::heat_maps;
use super::output::Output;
use super::record::Record;
use crate::client::Client;
use crate::error::Error;
use crate::evaluations::{Which, choose};
use crate::judge::judge;
use crate::receive::{check_target, write_whole};
use crate::reporting;
use crate::view::RunInfo;

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
    let validation = own_validation(client, &run, chosen.step, output).await?;
    let generation = run
        .checkpoints
        .iter()
        .find(|c| c.step == chosen.step)
        .map(|c| c.generation);
    let mut others = Vec::new();
    let mut seen = Vec::new();
    let mut left_out = Vec::new();
    if validation.is_none() {
        let digest: String = run.dataset_digest.chars().take(12).collect();
        left_out.push(format!(
            "Data set {} ({digest}) of the run was removed. Left out are its splits, leak check and preprocessing, the figures on its \
             photographs, and all thresholds but 0.5. `fovea dataset add` with the same prepared dataset brings them back.",
            run.spec.dataset
        ));
    }
    // The newest of equal ones.
    for evaluation in run.evaluations.iter().rev() {
        let what = (&evaluation.dataset_digest, evaluation.part);
        let is_validation =
            evaluation.part == Part::Validation && evaluation.dataset_digest == run.dataset_digest;
        if (evaluation.step, Some(evaluation.generation)) != (chosen.step, generation)
            || is_validation
            || seen.contains(&what)
        {
            continue;
        }
        // It may have been removed or have failed.
        if let Some(scores) = client.scores(&evaluation.run, chosen.step).await? {
            seen.push(what);
            match with_known_dataset(client, scores).await? {
                Some(scored) => others.push(scored),
                None => left_out.push(format!(
                    "The evaluation on {} ({}) is left out: that dataset was removed.",
                    evaluation.dataset, evaluation.part
                )),
            }
        }
    }
    for note in &left_out {
        output.remark(format!("note: {note}"));
    }
    let step = chosen.step;
    let judged_run = run.clone();
    let compute = move || {
        let (wanted, draws) = (Wanted::default(), Draws::default());
        let mut judged = Vec::new();
        let on = |scored| {
            let (run, chosen) = (run.clone(), chosen.clone());
            judge(run, chosen, scored, validation.as_ref(), wanted, draws)
        };
        for scored in others {
            judged.push(on(scored)?);
        }
        // The most telling first: the test part, other datasets, the validation split, what the model was trained on.
        judged.sort_by_key(|j| (j.trained_here(), j.part != Part::Test));
        let at = judged.iter().take_while(|j| !j.trained_here()).count();
        let own_split = validation.clone().map(on).transpose()?;
        let auc = own_split.as_ref().and_then(|split| split.evaluated.auc);
        judged.splice(at..at, own_split);
        // The validation split is of it.
        let own = validation.as_ref().map(|(_, own)| own);
        let mut report = reporting::report(&run, &chosen, &judged, own, now_ms());
        report.warnings.extend(left_out);
        let first = judged.first();
        Ok((
            report,
            auc,
            first.map(|j| j.dataset.manifest.digest.clone()),
        ))
    };
    let (mut report, auc, digest) = computed(compute).await?;
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
