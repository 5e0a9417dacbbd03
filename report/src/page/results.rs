//! A part on which the checkpoint was judged.

use fovea_evaluation::{Choice, Draws, Estimate, FellowEye};
use maud::{Markup, html};

use super::{figure, head, notes, points};
use crate::charts::{
    ConfusionTable, IntervalChart, IntervalRow, ReliabilityChart, RocChart, RocPoint, Shape,
};
use crate::model::{JudgedPart, Labels};
use crate::number::{Unit, basis, count, share};
use crate::prose::prose;

/// Bins with fewer samples say little.
const FEW: u64 = 20;

pub(super) fn section(number: usize, part: &JudgedPart, labels: &Labels) -> Markup {
    let e = &part.evaluated;
    html! {
        section id=(format!("part-{number}")) {
            h2 { "Result: " (part.title) }
            p class="lead" {
                (part.basis()) ", " (count(e.positives)) " of them (" (share(e.positives, e.samples)) ") with " (labels.positive) "."
                @if let Some(about) = &part.about { " " (prose(about)) }
            }
            div class="grid" {
                (roc(part))
                (points::people(part, labels))
                @if !e.points.is_empty() { (points::table(part, labels)) }
                (confusion(part, labels))
                (reliability(part))
                (points::grades(part, labels))
                (recall(part, labels))
            }
            (fellow(part))
        }
    }
}

fn shape(choice: Choice) -> Shape {
    match choice {
        Choice::HighSensitivity => Shape::Circle,
        Choice::HighSpecificity => Shape::Square,
        Choice::Youden => Shape::Triangle,
        Choice::Half => Shape::Diamond,
    }
}

fn roc(part: &JudgedPart) -> Markup {
    let e = &part.evaluated;
    let mut all: Vec<RocPoint> = e
        .points
        .iter()
        .map(|at| RocPoint {
            name: points::name(at.point.choice),
            sensitivity: at.sensitivity,
            specificity: at.specificity,
            shape: shape(at.point.choice),
        })
        .collect();
    all.extend(part.fellow_eye.as_ref().map(|fellow| RocPoint {
        name: "fellow-eye reference",
        sensitivity: fellow.sensitivity,
        specificity: fellow.specificity,
        shape: Shape::Cross,
    }));
    let shown: Vec<Option<Estimate>> = all
        .iter()
        .flat_map(|point| [point.sensitivity, point.specificity])
        .chain([e.auc])
        .collect();
    let chart = RocChart {
        curve: &e.roc,
        points: all,
        auc: e.auc,
    };
    let note = html! {
        "On " (part.basis()) ". "
        @if !e.points.is_empty() { (head::chosen(&part.points_from)) " " }
        "Crosses of lines are intervals. " (notes::intervals(e.draws, shown.iter()))
        @if let Some(fellow) = &part.fellow_eye {
            " The reference is of the " (basis(fellow.samples, fellow.patients)) " with both eyes."
        }
    };
    figure("ROC curve", chart.draw(), note)
}

fn reliability(part: &JudgedPart) -> Markup {
    let e = &part.evaluated;
    let chart = ReliabilityChart {
        bins: &e.reliability,
        few: FEW,
    };
    let content = html! {
        (chart.draw())
        dl class="pair" {
            div { dt { "ECE" } dd { (Unit::Plain.with_range(e.calibration_error.as_ref())) } }
            div { dt { "Brier score" } dd { (Unit::Plain.with_range(e.brier.as_ref())) } }
        }
    };
    let shown = e.reliability.iter().map(|bin| &bin.positive);
    let note = html! {
        "On " (part.basis()) ", in ten bins of equal width. Below the diagonal the model says more than is true. Hollow points: fewer \
         than " (FEW) " photographs. "
        (notes::intervals(e.draws, shown.chain([&e.calibration_error, &e.brier])))
    };
    figure("Calibration", content, note)
}

fn confusion(part: &JudgedPart, labels: &Labels) -> Markup {
    let e = &part.evaluated;
    let chart = ConfusionTable {
        classes: &labels.classes,
        counts: &e.confusion,
        positive_class: labels.positive_class,
    };
    let content = html! {
        (chart.draw())
        dl class="pair" {
            div { dt { "Kappa" } dd { (Unit::Plain.with_range(e.kappa.as_ref())) } }
            div { dt { "Accuracy" } dd { (Unit::Percent.with_range(e.accuracy.as_ref())) } }
            @if let Some(auc) = &e.macro_auc {
                div { dt { "Mean AUC of class against others" } dd { (Unit::Plain.with_range(Some(auc))) } }
            }
        }
    };
    let note = html! {
        "On " (part.basis()) ": each photograph's label (rows) and the model's " (labels.named()) " (columns), with its share of the row. \
         Framed: right. Lines: where " (labels.positive) " begins. " (notes::intervals(e.draws, [&e.kappa, &e.accuracy, &e.macro_auc].into_iter()))
        " Where most photographs are of one class, accuracy says little."
    };
    figure("Confusion matrix", content, note)
}

fn recall(part: &JudgedPart, labels: &Labels) -> Markup {
    let e = &part.evaluated;
    let rows = e.recall.iter().enumerate().map(|(class, estimate)| {
        let number: u64 = e.confusion.get(class).map_or(0, |row| row.iter().sum());
        IntervalRow {
            name: labels.classes.get(class).cloned().unwrap_or_default(),
            note: format!("n = {}", count(number)),
            estimate: *estimate,
            reference: false,
        }
    });
    let chart = IntervalChart {
        title: "Recall of each class",
        x_label: "share recognised as that class, %",
        unit: Unit::Percent,
        from: 0.0,
        to: 1.0,
        rows: rows.collect(),
    };
    let note = html! {
        "On " (part.basis()) ": share of each class's photographs whose " (labels.named()) " it is. "
        (notes::intervals(e.draws, e.recall.iter()))
    };
    let title = if labels.classes.len() == 5 {
        "Recall by grade"
    } else {
        "Recall by class"
    };
    figure(title, chart.draw(), note)
}

/// The reference beside the result.
fn fellow(part: &JudgedPart) -> Markup {
    let e = &part.evaluated;
    let Some(fellow) = &part.fellow_eye else {
        return html! {
            aside class="fellow" {
                h3 { "Fellow-eye reference" }
                p { "No patient of this part has photographs of both eyes, so there is none." }
            }
        };
    };
    let at = head::main_point(part);
    let rows: [(&str, Unit, Option<Estimate>, Option<Estimate>); 4] = [
        ("AUC", Unit::Plain, e.auc, fellow.auc),
        ("Kappa", Unit::Plain, e.kappa, fellow.kappa),
        (
            "Sensitivity",
            Unit::Percent,
            at.and_then(|at| at.sensitivity),
            fellow.sensitivity,
        ),
        (
            "Specificity",
            Unit::Percent,
            at.and_then(|at| at.specificity),
            fellow.specificity,
        ),
    ];
    let shown: Vec<Option<Estimate>> = rows.iter().flat_map(|row| [row.2, row.3]).collect();
    html! {
        aside class="fellow" {
            h3 { "Beside the fellow-eye reference" }
            p { (reading(e.auc, fellow)) }
            table {
                thead { tr { td {} th scope="col" { "Model" } th scope="col" { "Fellow eye" } } }
                tbody {
                    @for (name, unit, model, reference) in rows {
                        tr {
                            th scope="row" { (name) }
                            @for estimate in [model, reference] {
                                td { b { (unit.show_some(estimate.as_ref())) }
                                    @if let Some(e) = &estimate { span class="small" { (unit.range(e)) } } }
                            }
                        }
                    }
                }
            }
            p class="note" {
                "Model: " (part.basis())
                @if let Some(at) = at { ", sensitivity and specificity at the " (points::named(at.point.choice)) }
                ". Fellow eye: the " (basis(fellow.samples, fellow.patients)) " with both eyes. "
                (notes::intervals(e.draws, shown.iter()))
            }
        }
    }
}

/// How to read the reference.
fn reading(model: Option<Estimate>, fellow: &FellowEye) -> String {
    let mut out = String::from(
        "Copying the grade of the patient's other eye, with no model at all, scores the right-hand column. ",
    );
    out += match (model, fellow.auc) {
        (Some(model), Some(other)) if model.low > other.high => {
            "The model's AUC is above it, and the intervals do not overlap: it sees more in a photograph than the other eye's \
             grade tells."
        }
        (Some(model), Some(other)) if model.value > other.value => {
            "The model's AUC is above it, but the intervals overlap: by this part alone it is not sure that the model sees more \
             than the other eye's grade tells."
        }
        (Some(_), Some(_)) => {
            "The model's AUC is not above it: it has not been shown to see more than the other eye's grade tells."
        }
        (None, _) | (_, None) => "An AUC is not defined here, so the two cannot be compared by it.",
    };
    out
}

/// All parts beside each other.
pub(super) fn comparison(parts: &[JudgedPart]) -> Markup {
    let rows = |of: &dyn Fn(&JudgedPart) -> Option<Estimate>,
                fellow: Option<fn(&FellowEye) -> Option<Estimate>>| {
        let mut out = Vec::new();
        for part in parts {
            out.push(IntervalRow {
                name: part.title.clone(),
                note: format!("n = {}", count(part.evaluated.samples)),
                estimate: of(part),
                reference: false,
            });
            if let (Some(of), Some(eye)) = (fellow, &part.fellow_eye) {
                out.push(IntervalRow {
                    name: "fellow eye".into(),
                    note: format!("n = {}", count(eye.samples)),
                    estimate: of(eye),
                    reference: true,
                });
            }
        }
        out
    };
    let sensitivity = |part: &JudgedPart| head::main_point(part)?.sensitivity;
    let specificity = |part: &JudgedPart| head::main_point(part)?.specificity;
    let beside = Beside {
        auc: rows(&|part| part.evaluated.auc, Some(|eye| eye.auc)),
        kappa: rows(&|part| part.evaluated.kappa, Some(|eye| eye.kappa)),
        sensitivity: rows(&sensitivity, None),
        specificity: rows(&specificity, None),
    };
    html! {
        section id="comparison" {
            h2 { "Parts beside each other" }
            p class="lead" {
                "Sensitivity and specificity are those of the high-sensitivity point, where there is one. Patients, cameras and graders \
                 differ between data sets, so that a difference is not of the model alone."
            }
            (beside.draw(parts.first().map(|part| part.evaluated.draws)))
        }
    }
}

/// The figures that people compare, of several parts or runs.
pub(super) struct Beside {
    pub auc: Vec<IntervalRow>,
    pub kappa: Vec<IntervalRow>,
    pub sensitivity: Vec<IntervalRow>,
    pub specificity: Vec<IntervalRow>,
}

impl Beside {
    /// A chart for each figure. `draws`: of their intervals.
    pub fn draw(self, draws: Option<Draws>) -> Markup {
        let charts = [
            ("AUC", Unit::Plain, self.auc, 0.8),
            ("Kappa", Unit::Plain, self.kappa, 0.5),
            ("Sensitivity", Unit::Percent, self.sensitivity, 0.7),
            ("Specificity", Unit::Percent, self.specificity, 0.5),
        ];
        html! {
            div class="grid" {
                @for (title, unit, rows, from) in charts {
                    @let shown: Vec<Option<Estimate>> = rows.iter().map(|row| row.estimate).collect();
                    @let label = if unit == Unit::Percent { format!("{title}, %") } else { title.to_owned() };
                    @let chart = IntervalChart { title, x_label: &label, unit, from, to: 1.0, rows };
                    @let note = html! {
                        "n: photographs. " (chart.caution())
                        @if let Some(draws) = draws { (notes::intervals(draws, shown.iter())) }
                    };
                    (figure(title, chart.draw(), note))
                }
            }
        }
    }
}
