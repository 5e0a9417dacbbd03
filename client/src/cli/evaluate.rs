//! `fovea evaluate`: scores of a checkpoint, from the journal or from the cluster, and the figures of them.

use std::path::Path;

use fovea_core::spec::Part;
use fovea_evaluation::{
    Draws, Evaluated, FellowEye, Point, Sample, Wanted, choose as choose_points, evaluate,
    fellow_eye,
};

use super::evaluate_args::Evaluate;
use super::figures::{self, Heading};
use super::follow::{follow_to_end, verdict};
use super::output::{Output, Record};
use crate::client::Client;
use crate::error::Error;
use crate::evaluations::{Chosen, Described, choose, ready, samples};
use crate::receive::{check_target, write_whole};
use crate::view::{EvaluationInfo, RunInfo, Scores};

/// Patience, in seconds, while the cluster scores.
const PATIENCE_S: u64 = 300;

/// A model, judged on a part of a dataset.
pub struct Judged {
    /// The run that trained it, as it is after the evaluation.
    pub run: RunInfo,
    /// Its checkpoint.
    pub chosen: Chosen,
    /// The dataset that was scored.
    pub dataset: Described,
    /// The part of it.
    pub part: Part,
    /// The scored photographs, in the order of the dataset's index.
    pub samples: Vec<Sample>,
    /// The figures.
    pub evaluated: Evaluated,
    /// What copying the other eye's grade would score, where there are other eyes.
    pub fellow_eye: Option<FellowEye>,
}

impl Judged {
    /// Evaluations of any checkpoint of the run on the part that was scored.
    pub fn uses(&self) -> impl Iterator<Item = &EvaluationInfo> {
        let same = |e: &&EvaluationInfo| {
            e.part == self.part && e.dataset_digest == self.dataset.manifest.digest
        };
        self.run.evaluations.iter().filter(same)
    }

    /// Whether thresholds and checkpoint were chosen on the very photographs that are judged.
    pub fn chosen_here(&self) -> bool {
        self.part == Part::Validation && self.dataset.manifest.digest == self.run.dataset_digest
    }
}

/// Evaluates a run and prints the figures.
pub async fn run(client: &Client, command: &Evaluate, output: &Output) -> Result<(), Error> {
    if let Some(file) = &command.csv {
        check_target(file, command.overwrite)?;
    }
    let judged = judge(client, command, output).await?;
    output.record(&Record::Evaluation {
        run: &judged.run.id,
        step: judged.chosen.step,
        dataset: judged.dataset.manifest.name.as_str(),
        dataset_digest: &judged.dataset.manifest.digest,
        part: judged.part,
        chosen_here: judged.chosen_here(),
        uses: judged.uses().count(),
        evaluated: &judged.evaluated,
        fellow_eye: judged.fellow_eye.as_ref(),
    });
    output.lines(figures::lines(
        &Heading::of(&judged),
        &judged.evaluated,
        judged.fellow_eye.as_ref(),
    ));
    if let Some(file) = &command.csv {
        write_csv(&judged, file, command.overwrite)?;
        output.line(format!("scores   {}", file.display()));
    }
    Ok(())
}

/// Scores what is asked for, unless that was done before, and computes the figures.
pub async fn judge(client: &Client, command: &Evaluate, output: &Output) -> Result<Judged, Error> {
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
    let scores = scored(client, &run, chosen.step, other, part, output).await?;
    let dataset = client.describe_dataset(&scores.dataset_digest).await?;
    let of = samples(&scores, &dataset, &run.spec)?;
    let own = scores.dataset_digest == run.dataset_digest;
    let validation = match (own, part) {
        (true, Part::Validation) => of.clone(),
        _ => {
            let scores = scored(client, &run, chosen.step, None, Part::Validation, output).await?;
            let dataset = client.describe_dataset(&scores.dataset_digest).await?;
            samples(&scores, &dataset, &run.spec)?
        }
    };
    let (judging, choosing) = (ready(&of, &run.spec)?, ready(&validation, &run.spec)?);
    let wanted = Wanted {
        sensitivity: command.sensitivity,
        specificity: command.specificity,
    };
    let draws = Draws {
        number: command.draws,
        ..Draws::default()
    };
    let compute = move || {
        let points: Vec<Point> = choose_points(&choosing, wanted);
        let evaluated = evaluate(&judging, &points, draws);
        (evaluated, fellow_eye(&judging, draws))
    };
    let (evaluated, fellow_eye) = tokio::task::spawn_blocking(compute)
        .await
        .map_err(|e| Error::Protocol(format!("the figures could not be computed: {e}")))?;
    Ok(Judged {
        // With what was recorded in it meanwhile.
        run: client.run(&run.id).await?,
        chosen,
        dataset,
        part,
        samples: of,
        evaluated,
        fellow_eye,
    })
}

/// The scores of a checkpoint on a part, from the journal if they are there, otherwise from the cluster.
async fn scored(
    client: &Client,
    run: &RunInfo,
    step: u64,
    dataset: Option<&str>,
    part: Part,
    output: &Output,
) -> Result<Scores, Error> {
    if dataset.is_none()
        && part == Part::Validation
        && let Some(scores) = client.scores(&run.id, step).await?
    {
        return Ok(scores);
    }
    let (mut evaluation, existed) = client.evaluate(&run.id, step, dataset, part).await?;
    if !evaluation.phase.is_terminal() {
        output.remark(format!(
            "{} scores step {step} of {} on {} ({part}, {} images){}",
            evaluation.id,
            run.id,
            evaluation.spec.dataset,
            evaluation.validation_samples,
            if existed { "; it was begun before" } else { "" }
        ));
        evaluation = follow_to_end(client, &evaluation.id, PATIENCE_S, output).await?;
    }
    verdict(&evaluation)?;
    let scores = client.scores(&evaluation.id, step).await?;
    scores.ok_or_else(|| {
        Error::Protocol(format!(
            "evaluation {} is {} and has no scores",
            evaluation.id,
            evaluation.phase.as_str()
        ))
    })
}

/// Writes the score of each photograph.
fn write_csv(judged: &Judged, file: &Path, overwrite: bool) -> Result<(), Error> {
    let classes = judged.run.spec.model.classes as usize;
    let positive = judged.run.spec.positive_class() as usize;
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut head = vec!["image".to_owned()];
    head.extend(["patient", "eye", "grade", "label"].map(String::from));
    head.extend((0..classes).map(|class| format!("p{class}")));
    head.push("p_positive".into());
    let failed = |e: csv::Error| Error::io(file, std::io::Error::other(e));
    writer.write_record(&head).map_err(failed)?;
    let part = judged.dataset.index.part(judged.part);
    for (indexed, sample) in part.iter().zip(&judged.samples) {
        let mut row = vec![indexed.image.clone(), sample.patient.clone()];
        row.push(indexed.eye.as_str().to_owned());
        row.extend([sample.grade.to_string(), sample.label.to_string()]);
        row.extend(sample.probabilities.iter().map(|p| p.to_string()));
        let p: f64 = sample.probabilities[positive..]
            .iter()
            .map(|&p| f64::from(p))
            .sum();
        row.push(format!("{p:.7}"));
        writer.write_record(&row).map_err(failed)?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|e| Error::io(file, std::io::Error::other(e.to_string())))?;
    write_whole(file, overwrite, &bytes)
}
