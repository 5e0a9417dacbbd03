//! `fovea evaluate`: scores of a checkpoint, from the journal or from the cluster, and the figures of them.

use fovea_core::spec::Part;
use fovea_evaluation::{Draws, Wanted};
use fovea_judging::{Judged, Scored, choose, judge};

use super::evaluate_args::Evaluate;
use super::figures::{self, Heading};
use super::follow::{follow_to_end, verdict};
use super::output::Output;
use super::record::Record;
use crate::client::Client;
use crate::error::Error;
use crate::evaluations::removed;
use crate::receive::check_target;
use crate::scores_file;
use crate::view::{RunInfo, Scores};

/// Patience, in seconds, while the cluster scores.
const PATIENCE_S: u64 = 300;

/// Evaluates a run and prints the figures.
pub async fn run(client: &Client, command: &Evaluate, output: &Output) -> Result<(), Error> {
    if let Some(file) = &command.csv {
        check_target(file, command.overwrite)?;
    }
    let judged = judged(client, command, output).await?;
    output.record(&Record::evaluation(&judged));
    output.lines(figures::lines(
        &Heading::of(&judged),
        &judged.evaluated,
        judged.fellow_eye.as_ref(),
    ));
    if let Some(file) = &command.csv {
        let part = judged.dataset.index.part(judged.part);
        let spec = &judged.run.spec;
        scores_file::write(file, command.overwrite, part, &judged.samples, spec)?;
        output.line(format!("scores   {}", file.display()));
    }
    Ok(())
}

/// Scores what is asked for, unless that was done before, and computes the figures.
pub async fn judged(client: &Client, command: &Evaluate, output: &Output) -> Result<Judged, Error> {
    let run = client.run(&command.run).await?;
    if let Some(evaluate) = &run.spec.evaluate {
        return Err(Error::Usage(format!(
            "{} is an evaluation itself: give the run {} and --split {}",
            run.id, evaluate.run, evaluate.part
        )));
    }
    let chosen = choose(&run, command.checkpoint.0)?;
    let other = command.dataset.as_deref();
    let part = match (command.split, other) {
        (Some(name), _) => name.into(),
        (None, Some(_)) => Part::All,
        (None, None) => Part::Validation,
    };
    let step = chosen.step;
    let on = |dataset, part| Photographs {
        dataset,
        part,
        rotations: command.rotations,
    };
    let of = scored(client, &run, step, on(other, part), output).await?;
    let validation = own_validation(client, &run, step, command.rotations, output).await?;
    let wanted = Wanted {
        sensitivity: command.sensitivity,
        specificity: command.specificity,
    };
    let draws = Draws {
        number: command.draws,
        ..Draws::default()
    };
    // With what was recorded in it meanwhile.
    let run = client.run(&run.id).await?;
    computed(move || Ok(judge(run, chosen, of, validation.as_ref(), wanted, draws)?)).await
}

/// The result of a computation that takes a while.
pub async fn computed<T: Send + 'static>(
    compute: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(compute)
        .await
        .map_err(|e| Error::Protocol(format!("the figures could not be computed: {e}")))?
}

/// What is scored.
#[derive(Debug, Clone, Copy)]
pub struct Photographs<'a> {
    /// Name or digest of the dataset; None: the run's own.
    pub dataset: Option<&'a str>,
    pub part: Part,
    /// Each counts as the mean over its four rotations.
    pub rotations: bool,
}

impl Photographs<'_> {
    /// A part of the run's own dataset, upright.
    pub fn own(part: Part) -> Self {
        Self {
            dataset: None,
            part,
            rotations: false,
        }
    }
}

/// The scores of a checkpoint, from the journal if they are there, otherwise from the cluster.
pub async fn scored(
    client: &Client,
    run: &RunInfo,
    step: u64,
    on: Photographs<'_>,
    output: &Output,
) -> Result<Scored, Error> {
    let Photographs {
        dataset,
        part,
        rotations,
    } = on;
    if !rotations
        && dataset.is_none()
        && part == Part::Validation
        && let Some(scores) = client.scores(&run.id, step).await?
    {
        return with_dataset(client, scores, run.spec.dataset.as_str()).await;
    }
    let asked = client
        .evaluate(&run.id, step, dataset, part, rotations)
        .await;
    let (mut evaluation, existed) = asked?;
    if !evaluation.phase.is_terminal() {
        output.remark(format!(
            "{} scores step {step} of {} on {} ({part}, {} images{}){}",
            evaluation.id,
            run.id,
            evaluation.spec.dataset,
            evaluation.validation_samples,
            if rotations { ", four rotations" } else { "" },
            if existed { "; it was begun before" } else { "" }
        ));
        evaluation = follow_to_end(client, &evaluation.id, PATIENCE_S, output).await?;
    }
    verdict(&evaluation)?;
    let Some(scores) = client.scores(&evaluation.id, step).await? else {
        return Err(Error::Protocol(format!(
            "evaluation {} is {} and has no scores",
            evaluation.id,
            evaluation.phase.as_str()
        )));
    };
    with_dataset(client, scores, evaluation.spec.dataset.as_str()).await
}

/// The scores of a checkpoint on the validation split of its run. None: the run's own dataset was removed, and the labels with it.
pub async fn own_validation(
    client: &Client,
    run: &RunInfo,
    step: u64,
    rotations: bool,
    output: &Output,
) -> Result<Option<Scored>, Error> {
    if client
        .describe_dataset(&run.dataset_digest)
        .await?
        .is_none()
    {
        return Ok(None);
    }
    let on = Photographs {
        rotations,
        ..Photographs::own(Part::Validation)
    };
    Ok(Some(scored(client, run, step, on, output).await?))
}

/// Scores with the dataset that they are of, which is called `name`.
async fn with_dataset(client: &Client, scores: Scores, name: &str) -> Result<Scored, Error> {
    let digest = scores.dataset_digest.clone();
    let scored = with_known_dataset(client, scores).await?;
    scored.ok_or_else(|| removed(name, &digest))
}

/// Scores with the dataset that they are of. None: it was removed.
pub async fn with_known_dataset(client: &Client, scores: Scores) -> Result<Option<Scored>, Error> {
    let Some(dataset) = client.describe_dataset(&scores.dataset_digest).await? else {
        return Ok(None);
    };
    let dataset = dataset.folded(scores.fold)?;
    Ok(Some((scores, dataset)))
}
