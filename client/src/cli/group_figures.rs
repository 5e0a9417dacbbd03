//! `fovea group evaluate`: figures of each run, their mean and spread, and of all folds together.

use fovea_core::spec::{FoldSpec, Part};
use fovea_evaluation::{Choice, Draws, Evaluated, Point, Sample, evaluate as figures_of};

use super::evaluate::{computed, judged};
use super::evaluate_args::Evaluate;
use super::figures::short;
use super::group_args::EvaluateGroup;
use super::output::{Output, Record};
use super::table::Table;
use crate::client::Client;
use crate::error::Error;
use crate::evaluations::{Which, ready};
use crate::judge::Judged;
use crate::spread::{RunFigures, Spreads, half};
use crate::view::{GroupInfo, MemberInfo, Phase};
use fovea_core::count::count;

/// Sensitivity and specificity that an operating point must reach; none of them is shown here.
const REACHED: f64 = 0.95;

/// All held-out photographs of the folds of one seed.
pub struct Pooled {
    /// The seed.
    pub seed: u64,
    /// Their figures.
    pub evaluated: Evaluated,
}

/// A member of a group, and how good its model is.
struct Entry<'a> {
    member: &'a MemberInfo,
    judged: Judged,
}

/// Evaluates a group and prints the figures.
pub async fn run(client: &Client, command: &EvaluateGroup, output: &Output) -> Result<(), Error> {
    let group = client.group(&command.group).await?;
    let mut entries = Vec::new();
    let completed = |m: &&MemberInfo| m.phase == Some(Phase::Completed);
    for member in group.runs.iter().filter(completed) {
        let of_run = Evaluate {
            run: member.run.clone(),
            split: command.split,
            dataset: command.dataset.clone(),
            checkpoint: command.checkpoint,
            sensitivity: REACHED,
            specificity: REACHED,
            draws: command.draws,
            csv: None,
            overwrite: false,
        };
        let judged = judged(client, &of_run, output).await?;
        output.record(&Record::evaluation(&judged));
        entries.push(Entry { member, judged });
    }
    let Some(first) = entries.first().map(|e| &e.judged) else {
        return Err(Error::Usage(format!(
            "no run of group {} has completed yet: `fovea group show {}` shows what they do",
            group.id, group.id
        )));
    };
    let left_out: Vec<&str> = group
        .runs
        .iter()
        .filter(|m| !completed(m))
        .map(|m| m.run.as_str())
        .collect();
    let figures: Vec<RunFigures> = entries
        .iter()
        .map(|e| (&e.judged.evaluated).into())
        .collect();
    let spread = Spreads::of(&figures);
    let pooled = pooled(&group, &entries, command.draws).await?;
    output.record(&Record::GroupEvaluation {
        group: &group.id,
        dataset: first.dataset.manifest.name.as_str(),
        dataset_digest: &first.dataset.manifest.digest,
        part: first.part,
        runs: entries.len(),
        left_out: &left_out,
        spread: &spread,
        pooled: pooled
            .iter()
            .map(|p| (p.seed, &p.evaluated))
            .map(Into::into)
            .collect(),
    });
    let mut lines = vec![format!(
        "group {} on {} ({}), {}",
        group.id,
        first.dataset.manifest.name,
        match first.chosen_here() && group.folds().is_some() {
            true => "what each run held out".to_owned(),
            false => first.part.to_string(),
        },
        match command.checkpoint.0 {
            Which::Newest => "newest checkpoints".to_owned(),
            Which::Best => "each run's best checkpoint".to_owned(),
            Which::At(step) => format!("checkpoints of step {step}"),
        }
    )];
    lines.push(String::new());
    lines.extend(table_of(&entries));
    lines.push(String::new());
    lines.push(format!("over {}:", count(entries.len(), "run", "runs")));
    lines.extend(spread_table(&spread));
    for Pooled { seed, evaluated } in &pooled {
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
        "95 % intervals: bootstrap over patients, {} draws; sensitivity and specificity are those of the threshold 0.5",
        command.draws
    ));
    lines.extend(caveats(&group, entries.len()));
    if !pooled.is_empty() {
        lines.push(
            "note: together the photographs are ranked by the scores of several models, which may mean different things: \
             their AUC can be below the mean over the folds. The interval is over patients, for these models"
                .into(),
        );
    }
    if command.checkpoint.0 == Which::Best && first.chosen_here() {
        lines.push(
            "note: each checkpoint was chosen as the best on the very photographs that it is judged on: the figures look \
             better than they are"
                .into(),
        );
    }
    if first.part == Part::Test {
        lines.push("note: each run's use of the test part is recorded in it".into());
    }
    if !left_out.is_empty() {
        lines.push(format!(
            "note: not completed, or removed, and left out: {}",
            left_out.join(", ")
        ));
    }
    lines.push("Fovea is research software, not a medical device.".into());
    output.lines(lines);
    Ok(())
}

/// Of each seed, the held-out photographs of all folds. Empty unless these are what is judged, and all folds are there.
async fn pooled(
    group: &GroupInfo,
    entries: &[Entry<'_>],
    draws: u32,
) -> Result<Vec<Pooled>, Error> {
    let Some(folds) = group.folds() else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for seed in group.seeds() {
        let of_seed: Vec<&Entry<'_>> = entries
            .iter()
            .filter(|e| e.member.seed == seed && e.judged.chosen_here())
            .collect();
        if of_seed.len() != folds as usize {
            continue;
        }
        let spec = of_seed[0].judged.run.spec.clone();
        let samples: Vec<Sample> = of_seed
            .iter()
            .flat_map(|e| e.judged.samples.iter().cloned())
            .collect();
        let draws = Draws {
            number: draws,
            ..Draws::default()
        };
        // A threshold that is chosen on them would flatter.
        let half = [Point {
            choice: Choice::Half,
            threshold: 0.5,
        }];
        let compute = move || Ok(figures_of(&ready(&samples, &spec)?, &half, draws));
        all.push(Pooled {
            seed,
            evaluated: computed(compute).await?,
        });
    }
    Ok(all)
}

fn table_of(entries: &[Entry<'_>]) -> Vec<String> {
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
    for Entry { member, judged } in entries {
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
        ("AUC", &evaluated.auc),
        ("quadratic weighted kappa", &evaluated.kappa),
        ("accuracy", &evaluated.accuracy),
        ("sensitivity at 0.5", half.map_or(&None, |p| &p.sensitivity)),
        ("specificity at 0.5", half.map_or(&None, |p| &p.specificity)),
        ("Brier score (0 is best)", &evaluated.brier),
        (
            "calibration error (0 is best)",
            &evaluated.calibration_error,
        ),
    ] {
        table.row([name.to_owned(), short(figure.as_ref())]);
    }
    table.lines()
}

/// Mean and spread of each figure.
pub fn spread_table(spreads: &Spreads) -> Vec<String> {
    let mut table = Table::with_width(
        &[
            "figure",
            ">mean",
            ">deviation",
            ">lowest",
            ">highest",
            ">runs",
        ],
        None,
    );
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

/// What the spread is, and what it is not.
pub fn caveats(group: &GroupInfo, runs: usize) -> Vec<String> {
    /// With fewer, the interval of a standard deviation is wider than it is itself.
    const FEW: usize = 8;
    let what = match (group.folds(), group.seeds().len() > 1) {
        (None, _) => {
            "the deviation is over seeds: what chance in training changes, with the same photographs on both sides. How \
             the figures would differ with other patients it does not say"
        }
        (Some(_), false) => {
            "the deviation is over folds: other patients are held out, and chance in training differs. The training sets \
             overlap, so the runs are not independent, and it is no standard error of the mean"
        }
        (Some(_), true) => {
            "the deviation is over folds and seeds together. The training sets of folds overlap and those of seeds are the \
             same, so the runs are not independent, and it is no standard error of the mean"
        }
    };
    let mut notes = Vec::new();
    if runs > 1 {
        notes.push(format!("note: {what}"));
    }
    if (2..FEW).contains(&runs) {
        notes.push(format!(
            "note: of {runs} values a deviation is known roughly at best"
        ));
    }
    notes
}
