//! Models that stand beside the baselines: those of runs, and those whose scores are in files.

use fovea_core::spec::{ModelSpec, Part};
use fovea_judging::{Which, choose};

use super::baseline::{draws, shown, wanted_points};
use super::baseline_args::{Baseline, NamedFile};
use super::evaluate::{Photographs, scored};
use super::output::Output;
use crate::baseline::{Model, Origin, Task};
use crate::client::Client;
use crate::error::Error;
use crate::scores_file;

/// The models of runs on this very dataset.
pub async fn of_runs(
    client: &Client,
    task: &Task,
    command: &Baseline,
    part: Part,
    output: &Output,
) -> Result<Vec<Model>, Error> {
    let mut models = Vec::new();
    for id in &command.runs {
        let run = client.run(id).await?;
        if let Some(evaluate) = &run.spec.evaluate {
            return Err(Error::Usage(format!(
                "{id} is an evaluation: give the run {} that it is of",
                evaluate.run
            )));
        }
        let own = &task.described.manifest;
        let (model, spec) = (&run.spec.model, &task.spec.model);
        if (model.classes, model.positive_from) != (spec.classes, spec.positive_from) {
            return Err(Error::Usage(other_labels(id, model)));
        }
        if run.spec.fold.is_some() {
            return Err(Error::Usage(format!(
                "{id} is a fold of a cross-validation, and not trained on the training split of {}",
                own.name
            )));
        }
        if run.dataset_digest != own.digest {
            return Err(Error::Usage(format!(
                "{id} was trained on a dataset with digest {}, and {} has {}: the split and the photographs must be the same. \
                 Where only the size differs, give its scores with --scores",
                run.dataset_digest,
                command.dataset.display(),
                own.digest
            )));
        }
        let chosen = choose(&run, Which::Best)?;
        let step = chosen.step;
        let (scores, _) = scored(client, &run, step, Photographs::own(part), output).await?;
        let own = Photographs::own(Part::Validation);
        let validation = scored(client, &run, step, own, output).await?;
        let how = (wanted_points(command), draws(command));
        let origin = Origin::Run { step: chosen.step };
        let (name, validation) = (run.id.clone(), Some(&validation.0));
        models.push(task.judged(name, origin, &scores, validation, how, &run.spec)?);
    }
    Ok(models)
}

/// Which options would take a run with these labels.
fn other_labels(id: &str, model: &ModelSpec) -> String {
    let from = model.positive_from;
    let wanted = match (model.classes, from) {
        (2, 1) => "give --labels any_dr".to_owned(),
        (2, 2) => "give --labels referable".to_owned(),
        (4, _) => format!("give --labels four_classes --positive-from {from}"),
        (5, _) => format!("give --labels grades --positive-from {from}"),
        _ => "no --labels mean that, so it cannot be compared".to_owned(),
    };
    format!(
        "{id} tells {} classes apart, positive from grade {from} on: {wanted}",
        model.classes
    )
}

/// The models whose scores are in files.
pub fn of_files(task: &Task, command: &Baseline, part: Part) -> Result<Vec<Model>, Error> {
    let index = &task.described.index;
    let patient = |number: u32| index.patient(number).unwrap_or_default().to_owned();
    let model = |named: &NamedFile| {
        let p = scores_file::read(&named.file, index.part(part), patient, &task.spec)?;
        let scores = task.scores(part, p);
        let validation = (part == Part::Validation).then_some(&scores);
        let file = shown(&named.file);
        let how = (wanted_points(command), draws(command));
        let origin = Origin::Scores { file };
        let name = named.name.clone();
        task.judged(name, origin, &scores, validation, how, &task.spec)
    };
    command.scores.iter().map(model).collect()
}
