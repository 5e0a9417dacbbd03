//! What `fovea baseline` prints of its models: pure.

use fovea_baseline::{Chosen, Criterion};
use fovea_core::count::count;
use fovea_core::spec::Part;
use fovea_evaluation::{Choice, Estimate, FellowEye, Method, PointResult};
use fovea_judging::reporting::labels;

use super::figures::{Heading, fellow_line, short};
use super::output::Output;
use super::record::{Compared, Difference, Record};
use super::table::Table;
use crate::baseline::{Model, Origin, Task};

/// The heading of a baseline's figures.
pub fn heading(task: &Task, model: &Model, part: Part) -> Heading {
    let labels = labels(&task.spec);
    let mut notes = Vec::new();
    if let Origin::Baseline(chosen) = &model.origin {
        notes.push(chosen_line(chosen));
    }
    if part == Part::Validation {
        notes.push("thresholds other than 0.5 were chosen on these photographs: what they give looks better than it is".into());
    }
    notes.extend(test_note(part));
    Heading {
        title: format!(
            "{} on {} ({part})",
            model.name, task.described.manifest.name
        ),
        positive: format!(
            "{}, grade {} and above",
            labels.positive, labels.positive_from
        ),
        classes: labels.classes,
        head: labels.head,
        points: "chosen on the validation split".into(),
        notes,
    }
}

fn test_note(part: Part) -> Option<String> {
    (part == Part::Test).then(|| {
        "this was a use of the test part; for baselines and score files it is recorded nowhere, as they are no runs"
            .to_owned()
    })
}

/// Such as `C 2, gamma 0.125: AUC 0.79 in a cross-validation of the training split`.
fn chosen_line(chosen: &Chosen) -> String {
    let parameters: Vec<String> = chosen
        .parameters
        .iter()
        .map(|(name, value)| format!("{name} {}", plain(*value)))
        .collect();
    format!(
        "{}, chosen on {} of the training split: {} {:.3} in 5 folds of patients",
        parameters.join(", "),
        count(chosen.samples, "photograph", "photographs"),
        match chosen.criterion {
            Criterion::Auc => "AUC",
            Criterion::Kappa => "quadratic weighted kappa",
        },
        chosen.value
    )
}

/// Parameters are powers of 2 or of 10.
fn plain(value: f64) -> String {
    match value {
        v if v < 1e-3 => format!("{v:.1e}"),
        v => format!("{:.4}", v)
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
    }
}

/// One object a model.
pub fn records(models: &[Model], differences: &[Option<Estimate>], output: &Output) {
    for (model, difference) in models.iter().zip(differences) {
        let half = half(model);
        let (kind, of) = match &model.origin {
            Origin::Baseline(_) => ("baseline", None),
            Origin::Run { step } => ("run", Some(step.to_string())),
            Origin::Scores { file } => ("scores", Some(file.clone())),
        };
        output.record(&Record::Compared(Compared {
            name: &model.name,
            kind,
            of,
            auc: model.evaluated.auc,
            kappa: model.evaluated.kappa,
            sensitivity: half.and_then(|p| p.sensitivity),
            specificity: half.and_then(|p| p.specificity),
            calibration_error: model.evaluated.calibration_error,
            difference: difference.map(|auc| Difference {
                to: &models[0].name,
                auc,
            }),
        }));
    }
}

fn half(model: &Model) -> Option<&PointResult> {
    let mut points = model.evaluated.points.iter();
    points.find(|p| p.point.choice == Choice::Half)
}

/// The table of all models and what a reader must know. The first is the one that the others are compared with.
pub fn lines(
    task: &Task,
    part: Part,
    models: &[Model],
    differences: &[Option<Estimate>],
    fellow_eye: Option<&FellowEye>,
    with_others: bool,
) -> Vec<String> {
    let labels = labels(&task.spec);
    let first = &models[0];
    let mut lines = vec![
        format!("{} ({part})", task.described.manifest.name),
        format!(
            "{} of {}, {} positive ({}, grade {} and above)",
            count(first.evaluated.samples, "image", "images"),
            count(first.evaluated.patients, "patient", "patients"),
            first.evaluated.positives,
            labels.positive,
            labels.positive_from
        ),
        String::new(),
    ];
    let to_first = format!("AUC minus that of {}", first.name);
    let columns = [
        "model",
        "AUC",
        &to_first,
        "kappa",
        "sensitivity",
        "specificity",
        "calibration error",
    ];
    let mut table = Table::with_width(&columns, None);
    for (at, (model, difference)) in models.iter().zip(differences).enumerate() {
        let half = half(model);
        table.row([
            model.name.clone(),
            short(model.evaluated.auc.as_ref()),
            match at {
                0 => String::new(),
                _ => signed(difference.as_ref()),
            },
            short(model.evaluated.kappa.as_ref()),
            short(half.and_then(|p| p.sensitivity.as_ref())),
            short(half.and_then(|p| p.specificity.as_ref())),
            short(model.evaluated.calibration_error.as_ref()),
        ]);
    }
    lines.extend(table.lines());
    lines.push(String::new());
    for model in models {
        if let Origin::Baseline(chosen) = &model.origin {
            lines.push(format!("{}: {}", model.name, chosen_line(chosen)));
        }
    }
    lines.extend(fellow_eye.map(fellow_line));
    lines.push(format!(
        "95 % intervals: bootstrap over patients, {} draws, seed {}; of a difference with both models in each draw; (w): Wilson's, \
         by the number of patients",
        first.evaluated.draws.number, first.evaluated.draws.seed
    ));
    lines.push(
        "sensitivity and specificity at the threshold 0.5, which nothing was chosen for".into(),
    );
    if with_others && part == Part::Validation {
        lines.push(
            "note: where a run's checkpoint was chosen on these photographs, its figures look better than they are; nothing of \
             the baselines was chosen on them"
                .into(),
        );
    }
    lines.extend(test_note(part).map(|note| format!("note: {note}")));
    lines.push("Fovea is research software, not a medical device.".into());
    lines
}

/// A difference and its interval in one cell.
fn signed(difference: Option<&Estimate>) -> String {
    let Some(estimate) = difference else {
        return "-".into();
    };
    let Estimate {
        value, low, high, ..
    } = estimate;
    match estimate.method {
        Method::Bootstrap | Method::Wilson => format!("{value:+.3} ({low:+.3} to {high:+.3})"),
        Method::None | Method::Same => format!("{value:+.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [2.0, 0.125, 0.0009765625].map(plain),
            ["2", "0.125", "9.8e-4"]
        );
        let estimate = Estimate {
            value: -0.0514,
            low: -0.1,
            high: 0.02,
            method: Method::Bootstrap,
            undefined: 0,
        };
        assert_eq!(signed(Some(&estimate)), "-0.051 (-0.100 to +0.020)");
        let same = Estimate {
            method: Method::Same,
            ..estimate
        };
        assert_eq!(signed(Some(&same)), "-0.051");
        assert_eq!(signed(None), "-");
    }

    #[test]
    fn the_choice_is_told() {
        let chosen = Chosen {
            parameters: vec![("C", 2.0), ("gamma", 0.5)],
            criterion: Criterion::Auc,
            value: 0.7889,
            samples: 356,
        };
        assert_eq!(
            chosen_line(&chosen),
            "C 2, gamma 0.5, chosen on 356 photographs of the training split: AUC 0.789 in 5 folds of patients"
        );
    }
}
