//! The figures of an evaluation as lines for people: pure.

use fovea_core::spec::{Head, Part};
use fovea_evaluation::{Choice, Estimate, Evaluated, FellowEye, Method, PointResult};

use super::format::date;
use super::table::Table;
use crate::spread::MACRO_AUC;
use fovea_core::count::count;
use fovea_judging::Judged;
use fovea_judging::reporting::labels;
use fovea_report::number::threshold;

/// What was judged.
pub struct Heading {
    /// Run, checkpoint, dataset, part.
    pub title: String,
    /// What positive means.
    pub positive: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// It decides which class the model names.
    pub head: Head,
    /// Where the thresholds were chosen.
    pub points: String,
    /// What a reader must know.
    pub notes: Vec<String>,
}

impl Heading {
    pub fn of(judged: &Judged) -> Self {
        let (run, chosen) = (&judged.run, &judged.chosen);
        let dataset = &judged.dataset.manifest.name;
        let labels = labels(&run.spec);
        let mut notes = Vec::new();
        if judged.chosen_here() {
            notes.push(
                "thresholds and checkpoint were chosen on these photographs: the figures look better than they are"
                    .to_owned(),
            );
        }
        if let Some(shared) = &judged.shared {
            notes.extend(shared.notes());
        } else if judged.trained_here() {
            notes.push(
                "the model was trained on these photographs: the figures say nothing about others"
                    .to_owned(),
            );
        }
        if !judged.own_is_there {
            notes.push(format!(
                "dataset {} of the run was removed: no threshold could be chosen, and what the model has seen of these photographs is \
                 not known",
                run.spec.dataset
            ));
        }
        if judged.includes_test_part() {
            let uses: Vec<String> = judged
                .uses()
                .map(|u| {
                    let by = if u.by.is_empty() {
                        String::new()
                    } else {
                        format!(" by {}", u.by)
                    };
                    let all = match u.part {
                        Part::All => ", all photographs",
                        _ => "",
                    };
                    let rotated = match u.rotations {
                        true => ", four rotations",
                        false => "",
                    };
                    format!("{}{by} (step {}{all}{rotated})", date(u.at_ms), u.step)
                })
                .collect();
            let among = match judged.part {
                Part::All => "the test part is among these photographs; ",
                _ => "",
            };
            notes.push(format!(
                "{among}{} has used this test part {}: {}",
                run.id,
                count(uses.len(), "time", "times"),
                uses.join(", ")
            ));
        }
        let fold = judged.fold().map(|fold| format!("fold {fold}, held out"));
        Self {
            title: format!(
                "{} step {} ({}) on {dataset} ({}{})",
                run.id,
                chosen.step,
                chosen.why,
                fold.unwrap_or_else(|| judged.part.to_string()),
                if judged.rotations {
                    ", mean over four rotations"
                } else {
                    ""
                }
            ),
            positive: format!(
                "{}, grade {} and above",
                labels.positive, labels.positive_from
            ),
            classes: labels.classes,
            head: labels.head,
            points: match run.spec.fold {
                _ if !judged.own_is_there => "fixed".into(),
                None => format!("chosen on the validation split of {}", run.id),
                Some(fold) => format!("chosen on fold {fold}, which {} held out", run.id),
            },
            notes,
        }
    }
}

/// All lines.
pub fn lines(
    heading: &Heading,
    evaluated: &Evaluated,
    fellow_eye: Option<&FellowEye>,
) -> Vec<String> {
    let mut lines = vec![
        heading.title.clone(),
        format!(
            "{} of {}, {} positive ({})",
            count(evaluated.samples, "image", "images"),
            count(evaluated.patients, "patient", "patients"),
            evaluated.positives,
            heading.positive
        ),
        String::new(),
    ];
    lines.extend(summary(evaluated));
    lines.push(String::new());
    lines.push(format!("operating points, {}:", heading.points));
    lines.extend(points(&evaluated.points));
    lines.push(String::new());
    lines.push("share of each grade that is called positive, by point:".into());
    lines.extend(grades(&evaluated.points));
    lines.push(String::new());
    lines.push("labels (rows) and predictions (columns):".into());
    if heading.head == Head::Ordinal {
        lines.push(
            "(predicted: the highest class that is reached with a probability above 1/2)".into(),
        );
    }
    lines.extend(confusion(heading, evaluated));
    if let Some(fellow) = fellow_eye {
        lines.push(String::new());
        lines.push(fellow_line(fellow));
    }
    lines.push(String::new());
    lines.push(format!(
        "95 % intervals: bootstrap over patients, {} draws, seed {}; (w): Wilson's, by the number of patients",
        evaluated.draws.number, evaluated.draws.seed
    ));
    lines.extend(heading.notes.iter().map(|note| format!("note: {note}")));
    lines.push("Fovea is research software, not a medical device.".into());
    lines
}

fn summary(evaluated: &Evaluated) -> Vec<String> {
    let mut table = Table::with_width(&["figure", ">value", "95 % interval"], None);
    for (name, figure) in [
        ("AUC", &evaluated.auc),
        ("quadratic weighted kappa", &evaluated.kappa),
        ("accuracy", &evaluated.accuracy),
        ("Brier score (0 is best)", &evaluated.brier),
        (
            "calibration error (0 is best)",
            &evaluated.calibration_error,
        ),
    ] {
        let (value, interval) = parts(figure.as_ref());
        table.row([name.to_owned(), value, interval]);
        if name == "AUC"
            && let Some(figure) = &evaluated.macro_auc
        {
            let (value, interval) = parts(Some(figure));
            table.row([MACRO_AUC.to_owned(), value, interval]);
        }
    }
    table.lines()
}

fn points(points: &[PointResult]) -> Vec<String> {
    let mut table = Table::with_width(
        &[
            "point",
            ">threshold",
            "sensitivity",
            "specificity",
            "PPV",
            "NPV",
        ],
        None,
    );
    for result in points {
        table.row([
            name(result.point.choice).to_owned(),
            threshold(result.point.threshold),
            short(result.sensitivity.as_ref()),
            short(result.specificity.as_ref()),
            short(result.ppv.as_ref()),
            short(result.npv.as_ref()),
        ]);
    }
    table.lines()
}

fn name(choice: Choice) -> &'static str {
    match choice {
        Choice::Half => "0.5",
        Choice::HighSensitivity => "high sensitivity",
        Choice::HighSpecificity => "high specificity",
        Choice::Youden => "Youden",
    }
}

/// Of a positive grade this is its recall.
fn grades(points: &[PointResult]) -> Vec<String> {
    let mut heads = vec!["grade", ">images"];
    heads.extend(points.iter().map(|result| name(result.point.choice)));
    let mut table = Table::with_width(&heads, None);
    // Every point has the same grades.
    let of_first = points.first().map_or(&[][..], |first| &first.grades);
    for (at, calls) in of_first.iter().enumerate() {
        let mut row = vec![calls.grade.to_string(), calls.samples.to_string()];
        let shares = points.iter().map(|result| result.grades.get(at));
        row.extend(shares.map(|calls| short(calls.and_then(|calls| calls.share.as_ref()))));
        table.row(row);
    }
    table.lines()
}

fn confusion(heading: &Heading, evaluated: &Evaluated) -> Vec<String> {
    let right: Vec<String> = heading.classes.iter().map(|c| format!(">{c}")).collect();
    let mut heads = vec![""];
    heads.extend(right.iter().map(String::as_str));
    heads.push("recall");
    let mut table = Table::with_width(&heads, None);
    for (class, counts) in evaluated.confusion.iter().enumerate() {
        let mut row = vec![heading.classes.get(class).cloned().unwrap_or_default()];
        row.extend(counts.iter().map(ToString::to_string));
        let recall = evaluated.recall.get(class).and_then(Option::as_ref);
        row.push(short(recall));
        table.row(row);
    }
    table.lines()
}

pub fn fellow_line(fellow: &FellowEye) -> String {
    format!(
        "fellow eye: copying the grade of the patient's other eye would score AUC {}, sensitivity {}, specificity {} on the {} \
         of {} that have one",
        short(fellow.auc.as_ref()),
        short(fellow.sensitivity.as_ref()),
        short(fellow.specificity.as_ref()),
        count(fellow.samples, "image", "images"),
        count(fellow.patients, "patient", "patients"),
    )
}

/// A value, and its interval.
fn parts(figure: Option<&Estimate>) -> (String, String) {
    let Some(figure) = figure else {
        return ("-".into(), "not defined here".into());
    };
    let interval = match figure.method {
        Method::Bootstrap => format!("{:.3} to {:.3}", figure.low, figure.high),
        Method::Wilson => format!("{:.3} to {:.3} (w)", figure.low, figure.high),
        Method::None => "none: defined in too few draws".into(),
        Method::Same => "none: all draws gave the same value".into(),
    };
    (format!("{:.3}", figure.value), interval)
}

/// Both in one cell.
pub fn short(figure: Option<&Estimate>) -> String {
    let Some(figure) = figure else {
        return "-".into();
    };
    let Estimate {
        value, low, high, ..
    } = figure;
    match figure.method {
        Method::Bootstrap => format!("{value:.3} ({low:.3} to {high:.3})"),
        Method::Wilson => format!("{value:.3} ({low:.3} to {high:.3}, w)"),
        Method::None | Method::Same => format!("{value:.3}"),
    }
}
