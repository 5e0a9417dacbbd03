//! `fovea group evaluate`: figures of each run, their mean and spread, and of all folds together.

use fovea_core::spec::FoldSpec;
use fovea_evaluation::{Estimate, Evaluated};

use super::figures::short;
use super::group_args::EvaluateGroup;
use super::group_judge::{JudgedGroup, JudgedMember, Pooled, judge_group, named, none_completed};
use super::output::Output;
use super::record::Record;
use super::table::Table;
use crate::client::Client;
use crate::error::Error;
use crate::spread::{Spread, Spreads, half};
use crate::view::{GroupInfo, Phase};
use fovea_core::count::count;

/// Evaluates a group and prints the figures.
pub async fn run(client: &Client, command: &EvaluateGroup, output: &Output) -> Result<(), Error> {
    let group = named(client, command).await?;
    if !group.variants.is_empty() {
        return sweep(client, &group, command, output).await;
    }
    let judged = judge_group(client, group, command, output).await?;
    record(&judged, command.variant, None, output);
    output.lines(lines(&judged, command.draws));
    Ok(())
}

fn record(judged: &JudgedGroup, variant: Option<u32>, settings: Option<&str>, output: &Output) {
    let first = &judged.runs[0].judged;
    output.record(&Record::GroupEvaluation {
        group: &judged.group.id,
        variant,
        settings,
        dataset: first.dataset.manifest.name.as_str(),
        dataset_digest: &first.dataset.manifest.digest,
        part: first.part,
        runs: judged.runs.len(),
        left_out: &judged.left_out,
        spread: &judged.spread,
        pooled: judged
            .pooled
            .iter()
            .map(|p| (p.seed, &p.evaluated).into())
            .collect(),
    });
}

/// Evaluates each variant of a sweep that has completed runs, and prints one table.
async fn sweep(
    client: &Client,
    group: &GroupInfo,
    command: &EvaluateGroup,
    output: &Output,
) -> Result<(), Error> {
    let mut judged = Vec::new();
    for (variant, settings) in group.variants.iter().enumerate() {
        let of_variant = group.of_variant(variant);
        if !of_variant
            .there()
            .any(|(_, phase)| phase == Phase::Completed)
        {
            continue;
        }
        let one = judge_group(client, of_variant, command, output).await?;
        record(&one, Some(variant as u32 + 1), Some(settings), output);
        judged.push((variant, one));
    }
    if judged.is_empty() {
        return Err(none_completed(group, None));
    }
    output.lines(sweep_lines(group, &judged, command.draws));
    Ok(())
}

fn sweep_lines(group: &GroupInfo, judged: &[(usize, JudgedGroup)], draws: u32) -> Vec<String> {
    let (_, first) = &judged[0];
    let dataset = &first.runs[0].judged.dataset.manifest.name;
    let mut lines = vec![
        format!("group {} on {dataset}: {}", group.id, first.what()),
        String::new(),
    ];
    let rows = judged.iter().map(|(variant, of)| SweepRow {
        variant: *variant,
        settings: &group.variants[*variant],
        runs: of.runs.len(),
        spread: &of.spread,
        // With several seeds, that of the first.
        together: of
            .pooled
            .first()
            .and_then(|pooled| pooled.evaluated.auc.as_ref()),
    });
    lines.extend(sweep_table(&rows.collect::<Vec<_>>()));
    lines.push(String::new());
    let left: Vec<String> = (0..group.variants.len())
        .filter(|variant| judged.iter().all(|(there, _)| there != variant))
        .map(|variant| (variant + 1).to_string())
        .collect();
    if !left.is_empty() {
        lines.push(format!(
            "note: without a completed run, and left out: variant {}",
            left.join(", ")
        ));
    }
    lines.push(format!(
        "AUC: mean over a variant's runs; 95 % intervals: bootstrap over patients, {draws} draws"
    ));
    lines.push(
        "note: the best of several variants looks better than it is on the photographs that it was chosen by: judge it on others"
            .into(),
    );
    lines.push(format!(
        "of one variant in full: fovea group evaluate {} --variant N",
        group.id
    ));
    lines.push("Fovea is research software, not a medical device.".into());
    lines
}

/// A variant that was judged.
struct SweepRow<'a> {
    variant: usize,
    settings: &'a str,
    runs: usize,
    spread: &'a Spreads,
    /// AUC of the held-out photographs of all its folds.
    together: Option<&'a Estimate>,
}

fn sweep_table(rows: &[SweepRow]) -> Vec<String> {
    // Seeds have no photographs that could be put together.
    let is_together = rows.iter().any(|row| row.together.is_some());
    let headings = [
        ">variant",
        "settings",
        ">runs",
        ">AUC",
        ">deviation",
        ">kappa",
        ">accuracy",
        "AUC of all folds together",
    ];
    let shown = headings.len() - usize::from(!is_together);
    let mut table = Table::with_width(&headings[..shown], None);
    let value =
        |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.3}"));
    let mean = |spread: Option<Spread>| value(spread.map(|spread| spread.mean));
    for row in rows {
        let cells = [
            (row.variant + 1).to_string(),
            row.settings.to_owned(),
            row.runs.to_string(),
            mean(row.spread.auc),
            value(row.spread.auc.and_then(|spread| spread.sd)),
            mean(row.spread.kappa),
            mean(row.spread.accuracy),
            short(row.together),
        ];
        table.row(cells);
    }
    table.lines()
}

fn lines(judged: &JudgedGroup, draws: u32) -> Vec<String> {
    let dataset = &judged.runs[0].judged.dataset.manifest.name;
    let mut lines = vec![
        format!("group {} on {dataset}: {}", judged.group.id, judged.what()),
        String::new(),
    ];
    lines.extend(table_of(&judged.runs));
    lines.push(String::new());
    lines.push(format!("over {}:", count(judged.runs.len(), "run", "runs")));
    lines.extend(spread_table(&judged.spread));
    for Pooled {
        seed, evaluated, ..
    } in &judged.pooled
    {
        lines.push(String::new());
        lines.push(format!(
            "all {} of {} together, each scored by the run that held it out (seed {seed}):",
            count(evaluated.samples, "photograph", "photographs"),
            count(evaluated.patients, "patient", "patients"),
        ));
        lines.extend(pooled_table(evaluated));
    }
    lines.push(String::new());
    lines.push(format!(
        "95 % intervals: bootstrap over patients, {draws} draws; sensitivity and specificity are those of the threshold 0.5"
    ));
    lines.extend(judged.notes().iter().map(|note| format!("note: {note}")));
    if !judged.left_out.is_empty() {
        lines.push(format!(
            "note: not completed, or removed, and left out: {}",
            judged.left_out.join(", ")
        ));
    }
    lines.push("Fovea is research software, not a medical device.".into());
    lines
}

fn table_of(runs: &[JudgedMember]) -> Vec<String> {
    let mut table = Table::with_width(
        &[
            "run",
            "fold",
            ">seed",
            ">step",
            ">images",
            "AUC",
            "kappa",
            "sensitivity",
            "specificity",
        ],
        None,
    );
    for JudgedMember { member, judged } in runs {
        let evaluated = &judged.evaluated;
        let half = half(evaluated);
        table.row([
            member.run.clone(),
            fold(member.fold),
            member.seed.to_string(),
            judged.chosen.step.to_string(),
            evaluated.samples.to_string(),
            short(evaluated.auc.as_ref()),
            short(evaluated.kappa.as_ref()),
            short(half.and_then(|p| p.sensitivity.as_ref())),
            short(half.and_then(|p| p.specificity.as_ref())),
        ]);
    }
    table.lines()
}

fn pooled_table(evaluated: &Evaluated) -> Vec<String> {
    let mut table = Table::with_width(&["figure", "value and 95 % interval"], None);
    let half = half(evaluated);
    for (name, figure) in [
        ("AUC", evaluated.auc),
        ("quadratic weighted kappa", evaluated.kappa),
        ("accuracy", evaluated.accuracy),
        ("sensitivity at 0.5", half.and_then(|p| p.sensitivity)),
        ("specificity at 0.5", half.and_then(|p| p.specificity)),
        ("Brier score (0 is best)", evaluated.brier),
        ("calibration error (0 is best)", evaluated.calibration_error),
    ] {
        table.row([name.to_owned(), short(figure.as_ref())]);
    }
    table.lines()
}

/// Mean and spread of each figure.
pub fn spread_table(spreads: &Spreads) -> Vec<String> {
    let headings = [
        "figure",
        ">mean",
        ">deviation",
        ">lowest",
        ">highest",
        ">runs",
    ];
    let mut table = Table::with_width(&headings, None);
    let value = |value: f64| format!("{value:.3}");
    for (name, spread) in spreads.named() {
        table.row([
            name.to_owned(),
            value(spread.mean),
            spread.sd.map_or_else(|| "-".into(), value),
            value(spread.min),
            value(spread.max),
            spread.runs.to_string(),
        ]);
    }
    table.lines()
}

/// A fold in a cell.
pub fn fold(fold: Option<FoldSpec>) -> String {
    fold.map_or_else(|| "-".into(), |f| format!("{}/{}", f.index, f.of))
}

#[cfg(test)]
mod tests {
    use fovea_evaluation::Method;

    use super::*;
    use crate::spread::RunFigures;

    #[test]
    fn only_folds_are_shown_together() {
        let figures = RunFigures {
            auc: Some(0.9),
            macro_auc: None,
            kappa: None,
            accuracy: Some(0.8),
            brier: None,
            calibration_error: None,
            sensitivity: None,
            specificity: None,
        };
        let spread = Spreads::of(&[figures]);
        let row = |together| SweepRow {
            variant: 1,
            settings: "train.batch=8",
            runs: 1,
            spread: &spread,
            together,
        };
        assert_eq!(
            sweep_table(&[row(None)]),
            [
                "variant  settings       runs    AUC  deviation  kappa  accuracy",
                "      2  train.batch=8     1  0.900          -      -     0.800",
            ]
        );
        let auc = Estimate {
            value: 0.91,
            low: 0.8,
            high: 0.95,
            method: Method::Bootstrap,
            undefined: 0,
        };
        let folds = sweep_table(&[row(Some(&auc)), row(None)]);
        assert!(folds[0].ends_with("accuracy  AUC of all folds together"));
        assert!(
            folds[1].ends_with("0.800  0.910 (0.800 to 0.950)"),
            "{folds:?}"
        );
        assert!(folds[2].ends_with("0.800  -"), "{folds:?}");
    }
}
