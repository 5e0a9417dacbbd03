//! `fovea baseline`: classical classifiers of explicit features, judged as a run is, and beside runs.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use fovea_baseline::{DIAMETER, Features, Kernel, Method, Settings};
use fovea_core::count::count;
use fovea_core::spec::Part;
use fovea_dataset::Sample as Indexed;
use fovea_evaluation::{Draws, FellowEye, Wanted, fellow_eye};
use fovea_predict::pace::Pace;

use super::baseline_args::{Baseline, FeatureName};
use super::baseline_masks;
use super::baseline_models::{of_files, of_runs};
use super::baseline_table::{self, heading};
use super::figures;
use super::output::Output;
use super::record::Record;
use crate::baseline::{Model, Origin, Task, differences};
use crate::client::Client;
use crate::cnn_features::CnnFeatures;
use crate::error::Error;
use crate::receive::check_target;
use crate::scores_file;

/// Fits the baselines, scores, and prints the figures. `connect` is called for runs only.
pub async fn run(
    connect: impl AsyncFnOnce() -> Result<Client, Error>,
    command: &Baseline,
    output: &Output,
) -> Result<(), Error> {
    let wanted = command.wanted()?;
    let positive_from = command.positive_from()?;
    check_names(command, &wanted)?;
    check_files(command, &wanted)?;
    let task = tokio::task::block_in_place(|| {
        Task::open(&command.dataset, command.labels, positive_from)
    })?;
    let part: Part = command.split.into();
    if task.part(part).is_empty() {
        return Err(Error::Usage(format!(
            "{} has no {part} part",
            command.dataset.display()
        )));
    }
    if command.masks.is_some() || measures(&wanted) {
        task.check_photographs()?;
    }
    // What files have wrong is said before the cluster scores, and before a photograph is measured.
    let (cnn, from_files) = tokio::task::block_in_place(|| {
        let cnn = command.cnn_features.as_ref();
        let cnn = cnn.map(|file| CnnFeatures::read(file, &task.described));
        Ok::<_, Error>((cnn.transpose()?, of_files(&task, command, part)?))
    })?;
    let mut models = Vec::new();
    if !command.runs.is_empty() {
        models.extend(of_runs(&connect().await?, &task, command, part, output).await?);
    }
    models.extend(from_files);
    let compared_with = models.len();
    let measured = tokio::task::block_in_place(|| measured(&task, &wanted, part, output))?;
    let rows = Rows { measured, cnn };
    let draws = draws(command);
    tokio::task::block_in_place(|| {
        for &(features, method) in &wanted {
            models.push(fitted(&task, command, part, (features, method), &rows)?);
        }
        let fellow = fellow_eye(&models[0].judging, draws);
        let (others, baselines) = models.split_at(compared_with);
        for (model, &(features, method)) in baselines.iter().zip(&wanted) {
            record(
                &task,
                part,
                model,
                (features, method),
                fellow.as_ref(),
                output,
            );
            if command.details || wanted.len() == 1 {
                output.lines(figures::lines(
                    &heading(&task, model, part),
                    &model.evaluated,
                    fellow.as_ref(),
                ));
                output.line("");
            }
            if let Some(file) = csv_file(command, &wanted, (features, method)) {
                let of = task.described.index.part(part);
                scores_file::write(&file, command.overwrite, of, &model.samples, &task.spec)?;
                output.line(format!("scores   {}", file.display()));
            }
        }
        // The first network, if there is one.
        let differences = differences(&models, 0, draws)?;
        baseline_table::records(&models, &differences, output);
        if models.len() > 1 {
            output.lines(baseline_table::lines(
                &task,
                part,
                &models,
                &differences,
                fellow.as_ref(),
                !others.is_empty(),
            ));
        }
        if let Some(dir) = &command.masks {
            baseline_masks::write(&task, part, &baselines[0], dir, command.overwrite, output)?;
        }
        Ok(())
    })
}

/// Refuses models that the table would show under one name.
fn check_names(command: &Baseline, wanted: &[(FeatureName, Method)]) -> Result<(), Error> {
    let runs = command.runs.iter().cloned();
    let files = command.scores.iter().map(|named| named.name.clone());
    let baselines = wanted.iter().map(|&(f, method)| name(f, method));
    let mut seen = HashSet::new();
    for name in runs.chain(files).chain(baselines) {
        if !seen.insert(name.clone()) {
            return Err(Error::Usage(format!(
                "two models are called {name}: give each --run once, and each --scores a name of its own"
            )));
        }
    }
    Ok(())
}

/// Refuses a dataset that is a file, and files and folders that could not be written in the end.
fn check_files(command: &Baseline, wanted: &[(FeatureName, Method)]) -> Result<(), Error> {
    if command.dataset.is_file() {
        return Err(Error::Usage(format!(
            "{}: it is a file; give the folder of a prepared dataset",
            command.dataset.display()
        )));
    }
    for file in wanted.iter().filter_map(|w| csv_file(command, wanted, *w)) {
        check_target(&file, command.overwrite)?;
        if command.masks.as_ref() == Some(&file) {
            return Err(Error::Usage(format!(
                "{}: --csv and --masks name the same; give each a name of its own",
                file.display()
            )));
        }
    }
    match &command.masks {
        Some(dir) => baseline_masks::check(dir, command.overwrite),
        None => Ok(()),
    }
}

pub(super) fn draws(command: &Baseline) -> Draws {
    Draws {
        number: command.draws,
        ..Draws::default()
    }
}

pub(super) fn wanted_points(command: &Baseline) -> Wanted {
    Wanted {
        sensitivity: command.sensitivity,
        specificity: command.specificity,
    }
}

/// Such as `all svm-rbf`.
fn name(features: FeatureName, method: Method) -> String {
    let (classifier, kernel) = described(method);
    match kernel {
        None => format!("{} {classifier}", features.as_str()),
        Some(kernel) => format!("{} {classifier}-{}", features.as_str(), kernel_name(kernel)),
    }
}

fn described(method: Method) -> (&'static str, Option<Kernel>) {
    match method {
        Method::Svm(kernel) => ("svm", Some(kernel)),
        Method::Mlp => ("mlp", None),
    }
}

fn kernel_name(kernel: Kernel) -> &'static str {
    match kernel {
        Kernel::Rbf => "rbf",
        Kernel::Linear => "linear",
        Kernel::Polynomial => "polynomial",
    }
}

/// Where the scores of a baseline go.
fn csv_file(
    command: &Baseline,
    wanted: &[(FeatureName, Method)],
    (features, method): (FeatureName, Method),
) -> Option<PathBuf> {
    let file = command.csv.as_ref()?;
    if wanted.len() == 1 {
        return Some(file.clone());
    }
    let name = name(features, method).replace(' ', "-");
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let ending = file
        .extension()
        .map_or("csv".into(), |e| e.to_string_lossy());
    Some(file.with_file_name(format!("{stem}-{name}.{ending}")))
}

/// The features of the photographs that are needed.
struct Rows {
    /// What was measured, by part.
    measured: Vec<(Part, Vec<Features>)>,
    cnn: Option<CnnFeatures>,
}

impl Rows {
    /// Those of a part's photographs for a classifier.
    fn of(&self, task: &Task, features: FeatureName, part: Part) -> Vec<Vec<f64>> {
        if let Some(set) = features.explicit() {
            let of_part = self.measured.iter().find(|(of, _)| *of == part);
            let all = of_part.map(|(_, all)| all.as_slice()).unwrap_or_default();
            return all.iter().map(|f| set.values(f)).collect();
        }
        let before: usize = match part {
            Part::Train | Part::All => 0,
            Part::Validation => task.part(Part::Train).len(),
            Part::Test => task.part(Part::Train).len() + task.part(Part::Validation).len(),
        };
        let all = self.cnn.iter().flat_map(|cnn| &cnn.rows);
        let of_part = all.skip(before).take(task.part(part).len());
        of_part.cloned().collect()
    }
}

/// The parts whose photographs are needed: to learn, to choose operating points, to judge.
fn parts(part: Part) -> Vec<Part> {
    match part {
        Part::Test => vec![Part::Train, Part::Validation, Part::Test],
        _ => vec![Part::Train, Part::Validation],
    }
}

/// Whether some baseline is of features that are measured.
fn measures(wanted: &[(FeatureName, Method)]) -> bool {
    wanted.iter().any(|(f, _)| f.explicit().is_some())
}

/// Measures the photographs, as far as some baseline needs it.
fn measured(
    task: &Task,
    wanted: &[(FeatureName, Method)],
    part: Part,
    output: &Output,
) -> Result<Vec<(Part, Vec<Features>)>, Error> {
    if !measures(wanted) {
        return Ok(Vec::new());
    }
    let size = task.described.manifest.image_size;
    if size < DIAMETER {
        output.remark(format!(
            "the photographs were prepared at {size} pixels: microaneurysms are lost there; prepare them with --size {DIAMETER} for \
             features"
        ));
    }
    let parts = parts(part);
    let samples: Vec<&Indexed> = parts.iter().flat_map(|p| task.part(*p)).collect();
    let began = Instant::now();
    let bar = output.count_bar(samples.len() as u64, "measuring");
    let pace = Mutex::new(Pace::new(began, "measured"));
    let total = samples.len() as u64;
    let done = || {
        bar.inc(1);
        // Where no bar can be drawn, long work must not look like work that hangs.
        if !output.interactive()
            && let Ok(mut pace) = pace.try_lock()
            && let Some(line) = pace.line(Instant::now(), bar.position(), total)
        {
            output.remark(line);
        }
    };
    let all = task.measure(&samples, &done);
    bar.finish_and_clear();
    let mut all = all?.into_iter();
    output.remark(format!(
        "measured {} in {:.1} s",
        count(samples.len(), "photograph", "photographs"),
        began.elapsed().as_secs_f64()
    ));
    let of_part = |part: Part| (part, all.by_ref().take(task.part(part).len()).collect());
    Ok(parts.into_iter().map(of_part).collect())
}

fn fitted(
    task: &Task,
    command: &Baseline,
    part: Part,
    (features, method): (FeatureName, Method),
    rows: &Rows,
) -> Result<Model, Error> {
    let settings = Settings {
        method,
        class_weights: command.class_weights,
        seed: command.seed,
    };
    let of_part = |part: Part| rows.of(task, features, part);
    let (chosen, scores) = task.fitted(settings, of_part, &[part, Part::Validation])?;
    let origin = Origin::Baseline(Box::new(chosen));
    let how = (wanted_points(command), draws(command));
    task.judged(
        name(features, method),
        origin,
        &scores[0],
        Some(&scores[1]),
        how,
        &task.spec,
    )
}

pub(super) fn shown(file: &Path) -> String {
    file.display().to_string()
}

fn record(
    task: &Task,
    part: Part,
    model: &Model,
    (features, method): (FeatureName, Method),
    fellow_eye: Option<&FellowEye>,
    output: &Output,
) {
    let Origin::Baseline(chosen) = &model.origin else {
        return;
    };
    let (classifier, kernel) = described(method);
    output.record(&Record::Baseline {
        name: &model.name,
        features: features.as_str(),
        classifier,
        kernel,
        chosen,
        dataset: task.described.manifest.name.as_str(),
        dataset_digest: &task.described.manifest.digest,
        part,
        evaluated: &model.evaluated,
        fellow_eye,
    });
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        of: Baseline,
    }

    fn command(words: &[&str]) -> Baseline {
        Line::try_parse_from(["fovea"].iter().chain(words))
            .unwrap()
            .of
    }

    #[test]
    fn each_model_has_a_name_of_its_own() {
        let names = |words: &[&str]| {
            let command = command(words);
            check_names(&command, &command.wanted().unwrap()).map_err(|e| e.to_string())
        };
        names(&[
            "set", "--scores", "lp=a", "--scores", "ln=a", "--run", "dr-1",
        ])
        .unwrap();
        for (words, called) in [
            (["set", "--scores", "lp=a", "--scores", "lp=b"], "lp"),
            (["set", "--run", "dr-1", "--scores", "dr-1=b"], "dr-1"),
            (["set", "--run", "dr-1", "--run", "dr-1"], "dr-1"),
            (
                ["set", "--features", "all", "--scores", "all svm-rbf=b"],
                "all svm-rbf",
            ),
        ] {
            let said = names(&words).unwrap_err();
            assert!(
                said.starts_with(&format!("two models are called {called}: ")),
                "{said}"
            );
        }
    }

    #[test]
    fn what_could_not_be_read_or_written_is_refused_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let said = |words: &[&str]| {
            let command = command(words);
            let checked = check_files(&command, &command.wanted().unwrap());
            checked.map_err(|e| e.to_string())
        };
        std::fs::write(at("manifest.json"), "{}").unwrap();
        let file = said(&[&at("manifest.json")]).unwrap_err();
        assert!(
            file.ends_with("it is a file; give the folder of a prepared dataset"),
            "{file}"
        );
        let set = at("set");
        let with = |more: &[&str]| said(&[&[set.as_str(), "--features", "all"], more].concat());
        with(&["--csv", &at("a"), "--masks", &at("b")]).unwrap();
        let same = with(&["--csv", &at("a"), "--masks", &at("a")]).unwrap_err();
        assert!(same.contains("name the same"), "{same}");
        // Nothing can be made there, whoever asks.
        assert!(with(&["--csv", "/proc/a.csv"]).is_err());
        assert!(with(&["--masks", "/proc/masks"]).is_err());
        let file = with(&["--masks", &at("manifest.json")]).unwrap_err();
        assert!(file.ends_with("it is a file; name a folder"), "{file}");
    }
}
