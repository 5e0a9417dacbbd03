//! `fovea group report`: a group's report as one HTML file.

use std::path::Path;

use fovea_judging::reporting::labels;
use fovea_report::charts::Unit;
use fovea_report::{GroupReport, GroupRun, JudgedPart, PointsFrom, SpreadRow, group_html};

use super::format::{bytes, now_ms};
use super::group_args::ReportGroup;
use super::group_judge::{JudgedGroup, JudgedMember, Pooled, judge_group, named};
use super::groups::differing;
use super::output::Output;
use super::record::Record;
use crate::VERSION;
use crate::client::Client;
use crate::error::Error;
use crate::receive::{check_target, write_whole};
use crate::spread::half;

/// Writes the report of a group.
pub async fn run(client: &Client, command: &ReportGroup, output: &Output) -> Result<(), Error> {
    let variant = command.what.variant.map(|variant| format!(".v{variant}"));
    let default = format!("{}{}.html", command.what.group, variant.unwrap_or_default());
    let file = command.out.as_deref().unwrap_or(Path::new(&default));
    check_target(file, command.overwrite)?;
    let group = named(client, &command.what).await?;
    if !group.variants.is_empty() {
        return Err(Error::Usage(format!(
            "{} is a sweep: say with --variant which of its {} variants the report is of (`fovea group show {}` ranks them)",
            group.id,
            group.variants.len(),
            group.id
        )));
    }
    let judged = judge_group(client, group, &command.what, output).await?;
    let html = group_html(&report(&judged, now_ms()));
    write_whole(file, command.overwrite, html.as_bytes())?;
    let size = html.len() as u64;
    output.record(&Record::GroupReport {
        group: &judged.group.id,
        path: file,
        bytes: size,
    });
    output.line(format!("report   {} ({})", file.display(), bytes(size)));
    Ok(())
}

fn report(judged: &JudgedGroup, written_at_ms: u64) -> GroupReport {
    let first = &judged.runs[0].judged;
    let (group, spec) = (&judged.group, &first.run.spec);
    let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    GroupReport {
        id: group.id.clone(),
        name: group.name.clone(),
        differing: differing(group),
        submitted_at_ms: group.submitted_at_ms,
        submitted_by: named(&group.submitted_by),
        dataset: first.dataset.manifest.name.to_string(),
        judged: judged.what(),
        labels: labels(spec),
        runs: judged.runs.iter().map(|run| of_run(judged, run)).collect(),
        left_out: judged.left_out.clone(),
        spread: spread(judged),
        together: judged.pooled.iter().map(|p| of_pooled(judged, p)).collect(),
        notes: judged.notes(),
        spec: toml::to_string(spec).unwrap_or_default(),
        written_at_ms,
        written_by: VERSION.into(),
    }
}

fn of_run(group: &JudgedGroup, run: &JudgedMember) -> GroupRun {
    let JudgedMember { member, judged } = run;
    let fold = member.fold.map(|fold| format!("fold {fold}"));
    let several = group.group.seeds().len() > 1;
    let seed = (several || fold.is_none()).then(|| format!("seed {}", member.seed));
    let parts: Vec<String> = fold.into_iter().chain(seed).collect();
    let half = half(&judged.evaluated);
    GroupRun {
        id: member.run.clone(),
        title: parts.join(", "),
        step: judged.chosen.step,
        sensitivity: half.and_then(|p| p.sensitivity),
        specificity: half.and_then(|p| p.specificity),
        evaluated: judged.evaluated.clone(),
    }
}

fn of_pooled(group: &JudgedGroup, pooled: &Pooled) -> JudgedPart {
    let title = match group.pooled.len() {
        1 => "All folds together".to_owned(),
        _ => format!("All folds together, seed {}", pooled.seed),
    };
    JudgedPart {
        title,
        about: Some(
            "Each photograph was scored by the run that held it out. The scores of several models are ranked together.".into(),
        ),
        evaluated: pooled.evaluated.clone(),
        fellow_eye: pooled.fellow_eye.clone(),
        points_from: PointsFrom::Fixed,
    }
}

fn spread(judged: &JudgedGroup) -> Vec<SpreadRow> {
    let row = |(name, spread): (&'static str, crate::spread::Spread)| SpreadRow {
        name: name.into(),
        unit: match name {
            "accuracy" | "sensitivity at 0.5" | "specificity at 0.5" => Unit::Percent,
            _ => Unit::Plain,
        },
        runs: spread.runs,
        mean: spread.mean,
        deviation: spread.sd,
        lowest: spread.min,
        highest: spread.max,
    };
    judged.spread.named().map(row).collect()
}
