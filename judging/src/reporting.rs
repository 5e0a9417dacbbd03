//! From a judged model to its report: pure.

use std::collections::BTreeSet;

use fovea_core::spec::{Part, RunSpec, Scheme};
use fovea_dataset::{GradeScale, Manifest, Method, Preprocess, Sample as Indexed};
use fovea_evaluation::Sample;
use fovea_report::{
    Cost, Dataset, DatasetFacts, Duplicates, Judged as JudgedCheckpoint, JudgedPart, Labels,
    LeakCheck, LearningRate, Patients, PointsFrom, Report, RunFacts, Split, TestUse, WorstError,
    WorstErrors, sentence,
};

use crate::checkpoint::Chosen;
use crate::dataset::Described;
use crate::evaluation::EvaluationInfo;
use crate::judge::Judged;
use crate::run::{Phase, RunInfo};
use fovea_service::VERSION;

/// Photographs in the list of the worst errors.
const WORST: usize = 24;
/// Points of the curve of the learning rate.
const RATES: u64 = 200;

/// The report of `run`. `judged`: what the checkpoint `chosen` was judged on, the most telling first. `own` is the dataset that the
/// run trains on, as it saw it; None if it was removed. `written_at_ms` is in milliseconds since the Unix epoch.
pub fn report(
    run: &RunInfo,
    chosen: &Chosen,
    judged: &[Judged],
    own: Option<&Described>,
    written_at_ms: u64,
) -> Report {
    let spec = &run.spec;
    let epoch = run.epochs.iter().find(|e| e.step == chosen.step);
    let named = |number: u64| (number > 0).then_some(number);
    let hours = named(run.began_at_ms)
        .zip(named(run.ended_at_ms))
        .map(|(from, to)| to.saturating_sub(from) as f64 / 3_600_000.0);
    Report {
        run: RunFacts {
            id: run.id.clone(),
            name: spec.name.clone(),
            group: (!run.group.is_empty()).then(|| run.group.clone()),
            submitted_at_ms: run.submitted_at_ms,
            submitted_by: (!run.submitted_by.is_empty()).then(|| run.submitted_by.clone()),
            state: run.phase.as_str().into(),
            reason: (!run.reason.is_empty()).then(|| run.reason.clone()),
            spec: toml::to_string(spec).unwrap_or_default(),
            fingerprint: run.checkpoints.last().map(|c| c.fingerprint.clone()),
            cost: Cost {
                // Not known after a step back.
                images_per_s: run
                    .progress
                    .map(|p| p.images_per_s)
                    .filter(|speed| *speed > 0.0),
                hours,
                steps: run.step(),
                workers: run.most_workers.max(run.workers.len() as u32),
            },
        },
        labels: labels(spec),
        epochs: run.epochs.clone(),
        learning_rates: learning_rates(run),
        judged: JudgedCheckpoint {
            step: chosen.step,
            epoch: epoch.map(|e| e.epoch),
            chosen: chosen.why.clone(),
        },
        dataset: Dataset {
            name: spec.dataset.to_string(),
            digest: run.dataset_digest.clone(),
            facts: own.map(facts),
        },
        results: judged.iter().map(judged_part).collect(),
        test_uses: test_uses(run, judged, own),
        worst_errors: judged.first().map(worst_errors),
        warnings: warnings(run),
        written_at_ms,
        written_by: VERSION.into(),
    }
}

/// What the classes of a run's model mean.
pub fn labels(spec: &RunSpec) -> Labels {
    let from = spec.model.positive_from;
    let positive = match from {
        1 => "any DR".to_owned(),
        2 => "referable DR".to_owned(),
        3 => "severe or proliferative DR".to_owned(),
        4 => "proliferative DR".to_owned(),
        from => format!("grade {from} and above"),
    };
    let classes = 0..spec.model.classes;
    Labels {
        classes: classes.map(|class| spec.model.class_name(class)).collect(),
        positive_class: spec.positive_class() as usize,
        positive_from: from as u8,
        positive,
        head: spec.model.head,
    }
}

/// Such as `Test part`, or `All photographs of messidor2`.
pub fn title(judged: &Judged) -> String {
    let of = photographs(judged);
    match judged.rotations {
        true => format!("{of}, mean over four rotations"),
        false => of,
    }
}

fn photographs(judged: &Judged) -> String {
    if let Some(fold) = judged.fold() {
        return format!("Held-out fold {fold}");
    }
    let part = match judged.part {
        Part::Train => "Training split",
        Part::Validation => "Validation split",
        Part::Test => "Test part",
        Part::All => "All photographs",
    };
    match judged.is_own_dataset() {
        true => part.to_owned(),
        false => format!("{part} of {}", judged.dataset.manifest.name),
    }
}

fn judged_part(judged: &Judged) -> JudgedPart {
    JudgedPart {
        title: title(judged),
        about: about(judged),
        evaluated: judged.evaluated.clone(),
        fellow_eye: judged.fellow_eye.clone(),
        points_from: match judged.chosen_here() {
            _ if !judged.own_is_there => PointsFrom::Fixed,
            true => PointsFrom::Same,
            false => PointsFrom::Other(match judged.run.spec.fold {
                None => "Validation split".into(),
                Some(fold) => format!("Held-out fold {fold}"),
            }),
        },
    }
}

/// What a reader must know of the part.
fn about(judged: &Judged) -> Option<String> {
    if let Some(shared) = &judged.shared {
        let notes: Vec<String> = shared.notes().iter().map(|note| sentence(note)).collect();
        return Some(notes.join(" "));
    }
    judged.trained_here().then(|| {
        "The model was trained on photographs of this part: the figures say nothing about others.".into()
    })
}

fn learning_rates(run: &RunInfo) -> Vec<LearningRate> {
    let (total, per_epoch) = (run.total_steps, run.steps_per_epoch.max(1));
    let schedule = run.spec.schedule(total);
    let every = total.div_ceil(RATES).max(1);
    (0..total)
        .step_by(every as usize)
        .map(|step| LearningRate {
            epochs: step as f64 / per_epoch as f64,
            rate: schedule.rate(step),
        })
        .collect()
}

fn facts(own: &Described) -> DatasetFacts {
    let Manifest {
        preprocess,
        image_size,
        scale,
        duplicates,
        ..
    } = &own.manifest;
    let parts = [
        ("Training", Part::Train),
        ("Validation", Part::Validation),
        ("Test", Part::Test),
    ];
    let mut sides: Vec<BTreeSet<u32>> = Vec::new();
    let mut splits = Vec::new();
    for (name, part) in parts {
        let samples = own.index.part(part);
        if samples.is_empty() {
            continue;
        }
        let patients: BTreeSet<u32> = samples.iter().map(|s| s.patient).collect();
        let mut by_grade = [0; 5];
        for sample in samples.iter() {
            by_grade[usize::from(sample.grade)] += 1;
        }
        splits.push(Split {
            name: name.into(),
            by_grade,
            patients: Some(patients.len() as u64),
        });
        sides.push(patients);
    }
    let apart: usize = sides.iter().map(BTreeSet::len).sum();
    let all: BTreeSet<u32> = sides.into_iter().flatten().collect();
    DatasetFacts {
        splits,
        preprocessing: preprocessing(preprocess, *image_size),
        scale: scale_in_words(*scale).into(),
        leak_check: LeakCheck {
            patients: Patients::OnSeveralSides((apart - all.len()) as u64),
            duplicates: duplicates.map(|d| Duplicates {
                exact: d.sides_exact,
                near: d.resaved.then_some(d.sides_resaved),
                found: d.found,
            }),
        },
    }
}

fn scale_in_words(scale: Option<GradeScale>) -> &'static str {
    match scale {
        Some(GradeScale::Icdr) => "International Clinical Diabetic Retinopathy scale",
        Some(GradeScale::None) => "no grades",
        Some(GradeScale::Messidor) => "Messidor's scale R0 to R3",
        Some(GradeScale::Unstated) | None => {
            "taken for the International Clinical Diabetic Retinopathy scale: the labels do not say which"
        }
    }
}

fn preprocessing(preprocess: &Preprocess, size: u32) -> Vec<String> {
    let Preprocess {
        name,
        parameters: _,
        crop,
        filter,
        version,
        pipeline: _,
    } = preprocess;
    let cut = match &**crop {
        "circle" => "Cropped to the square around the fundus".to_owned(),
        "frame" => "Not cropped: the whole photograph in a black square".to_owned(),
        other => format!("Cropped: {other}"),
    };
    let mut steps = vec![
        format!("{cut} (version {version} of the rules)"),
        format!("Resized to {size} x {size} pixels ({filter})"),
    ];
    steps.extend(match name {
        Method::None | Method::Crop => None,
        Method::BenGraham => Some(format!(
            "Relative to its own local mean, grey outside the disc: {}",
            preprocess.shown()
        )),
        Method::Clahe => Some(format!(
            "Lightness equalized tile by tile, with limited contrast: {}",
            preprocess.shown()
        )),
    });
    steps.extend([
        "Mean of the ImageNet photographs subtracted, as the first weights expect".into(),
        "Turned by 0, 90, 180 or 270 degrees at random in training, if train.rotate is set".into(),
        format!(
            "Digest of all but the last two: {}",
            preprocess.pipeline(size).digest
        ),
    ]);
    steps
}

/// Every evaluation that scored samples of a test part, whatever was asked for.
fn test_uses(run: &RunInfo, judged: &[Judged], own: Option<&Described>) -> Vec<TestUse> {
    let known = || judged.iter().map(|judged| &judged.dataset).chain(own);
    let use_of = |e: &EvaluationInfo| {
        let here = known().find(|of| of.manifest.digest == e.dataset_digest);
        let direct = e.reads_test_part(here.map(|of| !of.index.test().is_empty()));
        let of_own = || {
            let same =
                |j: &&Judged| j.part == e.part && j.dataset.manifest.digest == e.dataset_digest;
            let shared = judged.iter().find(same)?.shared.as_ref()?;
            (shared.test.number() > 0).then(|| shared.own.clone())
        };
        let dataset = match direct {
            true => Some(e.dataset.clone()),
            false => of_own(),
        };
        let rotated = if e.rotations { ", four rotations" } else { "" };
        Some(TestUse {
            at_ms: e.at_ms,
            by: (!e.by.is_empty()).then(|| e.by.clone()),
            scored: match e.part {
                Part::All => format!("all of {}{rotated}", e.dataset),
                part => format!("{part} of {}{rotated}", e.dataset),
            },
            dataset: dataset?,
        })
    };
    run.evaluations.iter().filter_map(use_of).collect()
}

/// The photographs whose P(positive) is farthest from what it should be, among those on the wrong side of 0.5.
fn worst_errors(judged: &Judged) -> WorstErrors {
    let Scheme {
        positive_class: positive,
        head,
        ..
    } = judged.run.spec.scheme();
    let part = judged.dataset.index.part(judged.part);
    let mut all: Vec<(f64, &Indexed, &Sample, f64)> = part
        .iter()
        .zip(&judged.samples)
        .map(|(indexed, sample)| {
            let p = sample.p_positive(positive);
            let should = if sample.label >= positive { 1.0 } else { 0.0 };
            ((p - should).abs(), indexed, sample, p)
        })
        .filter(|(distance, ..)| *distance > 0.5)
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.image.cmp(&b.1.image)));
    let error = |(_, indexed, sample, p): (f64, &Indexed, &Sample, f64)| WorstError {
        image: indexed.image.clone(),
        patient: sample.patient.clone(),
        grade: sample.grade,
        label: sample.label,
        predicted: head.predicted(&sample.probabilities),
        p_positive: p,
        quality: None,
        heat_map: None,
    };
    WorstErrors {
        part: title(judged),
        all: all.into_iter().take(WORST).map(error).collect(),
    }
}

fn warnings(run: &RunInfo) -> Vec<String> {
    let mut warnings = Vec::new();
    if run.phase != Phase::Completed {
        warnings.push(format!(
            "The run is {}: {} of {} steps are done.",
            run.phase.as_str(),
            run.step(),
            run.total_steps
        ));
    }
    warnings
}
