//! `fovea group`, and `fovea submit` with --folds or --seeds.

use std::time::{Duration, Instant};

use fovea_core::count::count;
use fovea_core::group::{Differs, GroupPlan};
use fovea_core::run::EpochResult;
use fovea_core::selection::Selection;
use fovea_core::spec::RunSpec;

use super::follow::verdict;
use super::format::{ago, now_ms, one_line, share, without_event};
use super::group_figures::{self, spread_table};
use super::group_judge;
use super::output::Output;
use super::record::Record;
use super::runs::remark;
use super::table::Table;
use super::weights::provide;
use crate::client::Client;
use crate::error::Error;
use crate::local::Signals;
use crate::runfile::Weights;
use crate::spread::{RunFigures, Spreads};
use crate::view::{GroupInfo, MemberInfo, Phase, RunInfo};

/// How often a group is looked at while it is followed.
const LOOK: Duration = Duration::from_secs(1);
/// Patience, in seconds, of a watch that follows another command.
const PATIENCE_S: u64 = 300;

/// Submits a group, after the file of weights if the spec names one, and follows it if asked.
pub async fn submit(
    client: &Client,
    plan: &GroupPlan,
    mut spec: RunSpec,
    weights: &Weights,
    watch: bool,
    output: &Output,
) -> Result<(), Error> {
    provide(client, &mut spec, weights, output).await?;
    submit_plan(client, plan, &spec, watch, output).await
}

/// Submits a group whose weights the coordinator has, and follows it if asked.
pub async fn submit_plan(
    client: &Client,
    plan: &GroupPlan,
    spec: &RunSpec,
    watch: bool,
    output: &Output,
) -> Result<(), Error> {
    let group = client.submit_group(spec, plan).await?;
    output.record(&Record::Group(&group));
    output.line(format!(
        "group {} accepted: {} ({}) on {}",
        group.id,
        count(group.runs.len(), "run", "runs"),
        differing(&group),
        spec.dataset
    ));
    for member in &group.runs {
        output.line(format!("  {}{}", member.run, particulars(&group, member)));
    }
    if let Some(selection) = &group.selection {
        output.line(selection_text(selection));
    }
    // One stands for all: they rarely differ in how many workers they may have.
    if let Some(first) = group.runs.first() {
        remark(&client.run(&first.run).await?, output);
    }
    if watch {
        return follow(client, &group.id, PATIENCE_S, output).await;
    }
    output.line(format!("follow it with: fovea group watch {}", group.id));
    Ok(())
}

/// Such as `5 folds`, `3 seeds of each of 5 folds`, or `6 variants, each: 5 folds`.
pub fn differing(group: &GroupInfo) -> String {
    let differs = Differs {
        variants: group.variants.len(),
        folds: group.folds(),
        seeds: group.seeds().len(),
    };
    differs.to_string()
}

/// What tells a run of a group from the others.
fn particulars(group: &GroupInfo, member: &MemberInfo) -> String {
    let settings = group.variants.get(member.variant as usize).cloned();
    let fold = member.fold.map(|fold| format!("holds out fold {fold}"));
    let parts: Vec<String> = settings.into_iter().chain(fold).collect();
    match parts.is_empty() {
        true => String::new(),
        false => format!(": {}", parts.join(", ")),
    }
}

/// How the runs of a group are selected, in a sentence.
pub fn selection_text(selection: &Selection) -> String {
    format!("selection: {}", selection.in_words())
}

/// Lists all groups.
pub async fn list(client: &Client, output: &Output) -> Result<(), Error> {
    let groups = client.groups().await?;
    for group in &groups {
        output.record(&Record::Group(group));
    }
    if groups.is_empty() {
        output
            .line("no groups yet; `fovea submit run.toml --folds 5` or `--seeds 0,1,2`, or `fovea sweep`, starts one");
        return Ok(());
    }
    let mut table = Table::new(&["group", ">runs", "differ in", "submitted", "phases"]);
    for group in &groups {
        table.row([
            group.id.clone(),
            group.runs.len().to_string(),
            differing(group),
            ago(group.submitted_at_ms, now_ms()),
            phases(group),
        ]);
    }
    output.lines(table.lines());
    Ok(())
}

/// Such as `2 running, 3 queued`.
pub fn phases(group: &GroupInfo) -> String {
    const ORDER: [Option<Phase>; 9] = [
        Some(Phase::Running),
        Some(Phase::Forming),
        Some(Phase::Finishing),
        Some(Phase::Queued),
        Some(Phase::Paused),
        Some(Phase::Completed),
        Some(Phase::Failed),
        Some(Phase::Cancelled),
        None,
    ];
    let counted = ORDER.iter().filter_map(|phase| {
        let n = group.runs.iter().filter(|r| r.phase == *phase).count();
        (n > 0).then(|| format!("{n} {}", phase.map_or("removed", Phase::as_str)))
    });
    counted.collect::<Vec<_>>().join(", ")
}

/// The runs of a group that are there, as they are now.
pub async fn runs_of(client: &Client, group: &GroupInfo) -> Result<Vec<RunInfo>, Error> {
    let mut runs = Vec::new();
    for (member, _) in group.there() {
        match client.run(&member.run).await {
            Ok(run) => runs.push(run),
            // Removed in between.
            Err(Error::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(runs)
}

/// Shows a group: its runs, and their figures.
pub async fn show(client: &Client, group_id: &str, output: &Output) -> Result<(), Error> {
    let group = client.group(group_id).await?;
    let runs = runs_of(client, &group).await?;
    output.record(&Record::Group(&group));
    for run in &runs {
        output.record(&Record::Run(run));
    }
    let figures = figures(&runs);
    output.record(&Record::GroupFigures {
        group: &group.id,
        runs: figures.len(),
        of: group.runs.len(),
        spread: &Spreads::of(&figures),
    });
    output.lines(details(&group, &runs, now_ms()));
    Ok(())
}

/// Figures of the last epoch of the completed runs.
fn figures(runs: &[RunInfo]) -> Vec<RunFigures> {
    let completed = runs.iter().filter(|run| run.phase == Phase::Completed);
    completed
        .filter_map(|run| Some((&run.last_epoch()?.validation).into()))
        .collect()
}

/// A group with its runs and their figures.
fn details(group: &GroupInfo, runs: &[RunInfo], now_ms: u64) -> Vec<String> {
    let mut lines = Vec::new();
    let mut field = |what: &str, text: String| lines.push(format!("{what:<12}{text}"));
    field("group", group.id.clone());
    let by = match &*group.submitted_by {
        "" => String::new(),
        name => format!(" by {name}"),
    };
    field("submitted", ago(group.submitted_at_ms, now_ms) + &by);
    field(
        "runs",
        format!("{}: {}", group.runs.len(), differing(group)),
    );
    field("phases", phases(group));
    if let Some(run) = runs.first() {
        let digest: String = run.dataset_digest.chars().take(12).collect();
        field("dataset", format!("{} ({digest})", run.spec.dataset));
    }
    let selected = selected::Selected::of(group, runs);
    if let Some(selected) = &selected {
        field("left", selected.left());
    }
    if let Some(selection) = &group.selection {
        lines.push(selection_text(selection));
    }
    if let Some(held_up) = selected.as_ref().and_then(selected::Selected::held_up) {
        lines.push(held_up);
    }
    lines.push(String::new());
    if !group.variants.is_empty() {
        lines.extend(variants::table(group, runs, selected.as_ref()));
        lines.push(String::new());
    }
    let mut table = Table::new(&[
        "run",
        "fold",
        ">seed",
        "phase",
        ">epoch",
        ">AUC",
        ">kappa",
        ">accuracy",
        "reason",
    ]);
    for member in &group.runs {
        let run = runs.iter().find(|run| run.id == member.run);
        let last = run.and_then(RunInfo::last_epoch).map(|e| &e.validation);
        table.row([
            member.run.clone(),
            group_figures::fold(member.fold),
            member.seed.to_string(),
            run.map_or("removed", |run| run.phase.as_str()).to_owned(),
            run.map_or_else(String::new, |run| {
                format!("{}/{}", run.epochs_done(), run.spec.train.epochs)
            }),
            share(last.and_then(|v| v.auc)),
            share(last.and_then(|v| v.quadratic_kappa)),
            share(last.map(|v| v.accuracy)),
            run.map_or_else(String::new, |run| {
                reason(run, member.variant, selected.as_ref())
            }),
        ]);
    }
    lines.extend(table.lines());
    let figures = figures(runs);
    // Over different settings a mean says nothing.
    if figures.is_empty() || !group.variants.is_empty() {
        if !figures.is_empty() {
            lines.push(format!(
                "intervals over patients: fovea group evaluate {}",
                group.id
            ));
        }
        return lines;
    }
    lines.push(String::new());
    lines.push(format!(
        "after the last epoch, over {} of {}:",
        count(figures.len(), "completed run", "completed runs"),
        group.runs.len()
    ));
    lines.extend(spread_table(&Spreads::of(&figures)));
    let notes = group_judge::caveats(group, figures.len());
    lines.extend(notes.iter().map(|note| format!("note: {note}")));
    lines.push(format!(
        "intervals over patients: fovea group evaluate {}",
        group.id
    ));
    lines
}

/// Why a run waits, has failed, or is not trained on.
fn reason(run: &RunInfo, variant: u32, selected: Option<&selected::Selected>) -> String {
    match (run.phase, &*run.reason) {
        (Phase::Paused, "") => "paused by a person".into(),
        (Phase::Cancelled, "") => selected
            .and_then(|selected| selected.dropped(variant as usize))
            .map(one_line)
            .unwrap_or_default(),
        (_, reason) => one_line(without_event(reason)),
    }
}

/// Cancels the runs of a group.
pub async fn cancel(client: &Client, group_id: &str, output: &Output) -> Result<(), Error> {
    let group = client.cancel_group(group_id).await?;
    output.record(&Record::Group(&group));
    output.line(cancelled(&group));
    Ok(())
}

/// What becomes of a group that was asked to stop. Runs that waited have ended at once.
fn cancelled(group: &GroupInfo) -> String {
    let (id, now) = (&group.id, phases(group));
    let ended = |phase: Phase| matches!(phase, Phase::Completed | Phase::Failed | Phase::Cancelled);
    match group.there().all(|(_, phase)| ended(phase)) {
        true => format!("all runs of group {id} have ended: {now}"),
        false => format!(
            "the runs of group {id} that have begun will stop at their next step, with a checkpoint; now: {now}"
        ),
    }
}

/// Follows a group until all its runs have ended or are paused, and fails if one did.
pub async fn follow(
    client: &Client,
    group_id: &str,
    patience_s: u64,
    output: &Output,
) -> Result<(), Error> {
    let mut signals = Signals::listen()?;
    let runs = tokio::select! {
        runs = follow_to_end(client, group_id, Duration::from_secs(patience_s), output) => runs?,
        () = signals.next() => return Err(Error::Interrupted(format!(
            "group {group_id} continues; `fovea group watch {group_id}` follows it again, `fovea group cancel {group_id}` stops it"
        ))),
    };
    let group = client.group(group_id).await?;
    output.line("");
    output.lines(details(&group, &runs, now_ms()));
    for run in &runs {
        output.record(&Record::result(run));
    }
    runs.iter().try_for_each(verdict)
}

/// Shows changes of the runs until all have ended or are paused, and returns them.
async fn follow_to_end(
    client: &Client,
    group_id: &str,
    patience: Duration,
    output: &Output,
) -> Result<Vec<RunInfo>, Error> {
    // Those there are when it begins; one that is removed later is not missed.
    let group = client.group(group_id).await?;
    let mut known: Vec<RunInfo> = Vec::new();
    let mut heard = Instant::now();
    let mut away = false;
    loop {
        match runs_of(client, &group).await {
            Ok(runs) => {
                heard = Instant::now();
                if std::mem::take(&mut away) {
                    output.line("the coordinator is back");
                }
                for run in &runs {
                    let before = known.iter().find(|k| k.id == run.id);
                    report_changes(before, run, output);
                }
                known = runs;
            }
            Err(error @ (Error::Lost { .. } | Error::Unavailable { .. })) => {
                if heard.elapsed() >= patience {
                    return Err(error);
                }
                if !std::mem::replace(&mut away, true) {
                    output.line(format!(
                        "the coordinator is away ({error}); trying again for {} s",
                        patience.as_secs()
                    ));
                }
            }
            Err(error) => return Err(error),
        }
        if heard.elapsed() < LOOK && at_rest(&known) && !is_deciding(client, group_id).await {
            // What was decided in between has been carried out by now.
            let runs = runs_of(client, &group).await?;
            if at_rest(&runs) {
                return Ok(runs);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn at_rest(runs: &[RunInfo]) -> bool {
    runs.iter().all(|run| run.phase.is_terminal())
}

/// Whether runs that are paused will go on by themselves; also if that cannot be known now.
async fn is_deciding(client: &Client, group_id: &str) -> bool {
    match client.group(group_id).await {
        Ok(group) => group.deciding,
        Err(Error::Lost { .. } | Error::Unavailable { .. }) => true,
        // It was removed.
        Err(_) => false,
    }
}

/// Reports what has changed in a run.
fn report_changes(before: Option<&RunInfo>, now: &RunInfo, output: &Output) {
    for change in changes(before, now) {
        match change {
            Change::Epoch(result) => output.record(&Record::Epoch {
                run: &now.id,
                result,
            }),
            Change::Phase => output.record(&Record::Run(now)),
        }
        output.line(change.line(now));
    }
}

/// A change of a run that is reported.
#[derive(Debug, Clone, Copy)]
enum Change<'a> {
    Epoch(&'a EpochResult),
    Phase,
}

impl Change<'_> {
    fn line(self, run: &RunInfo) -> String {
        let id = &run.id;
        match self {
            Self::Epoch(result) => format!(
                "{id}: epoch {}/{}, AUC {}",
                result.epoch + 1,
                run.spec.train.epochs,
                share(result.validation.auc)
            ),
            Self::Phase => match &*run.reason {
                "" => format!("{id}: {}", run.phase.as_str()),
                reason => format!(
                    "{id}: {} ({})",
                    run.phase.as_str(),
                    one_line(without_event(reason))
                ),
            },
        }
    }
}

/// What has changed, in the order in which it happened: a run is evaluated after it began to run, and ends or pauses after that.
fn changes<'a>(before: Option<&RunInfo>, now: &'a RunInfo) -> Vec<Change<'a>> {
    let reported = before.map_or(0, |run| run.epochs.len());
    let epochs = now.epochs.iter().skip(reported).map(Change::Epoch);
    let is_new = before.map(|run| (run.phase, &run.reason)) != Some((now.phase, &now.reason));
    let phase = is_new.then_some(Change::Phase);
    let began = now.phase == Phase::Running && before.map(|run| run.phase) != Some(Phase::Running);
    match began {
        true => phase.into_iter().chain(epochs).collect(),
        false => epochs.chain(phase).collect(),
    }
}

mod selected;
mod variants;

#[cfg(test)]
mod tests;
