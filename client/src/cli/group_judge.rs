//! Judging a group: each completed run, their figures' spread, and the held-out photographs of all folds together.

use fovea_core::spec::Part;
use fovea_evaluation::{Draws, Evaluated, FellowEye, Sample, evaluate as figures_of, fellow_eye};
use fovea_judging::{HALF, Judged, Which, ready};

use super::evaluate::{computed, judged};
use super::evaluate_args::Evaluate;
use super::group_args::EvaluateGroup;
use super::groups::phases;
use super::output::Output;
use super::record::Record;
use crate::client::Client;
use crate::error::Error;
use crate::spread::{RunFigures, Spreads};
use crate::view::{GroupInfo, MemberInfo, Phase};

/// Sensitivity and specificity that an operating point must reach; none of these points is shown.
const REACHED: f64 = 0.95;

/// A group, judged.
pub struct JudgedGroup {
    /// The group.
    pub group: GroupInfo,
    /// Its completed runs; at least one.
    pub runs: Vec<JudgedMember>,
    /// Its other runs.
    pub left_out: Vec<String>,
    /// Figures over the runs.
    pub spread: Spreads,
    /// The held-out photographs of all folds, by seed. Empty unless these are what is judged, and all folds are there.
    pub pooled: Vec<Pooled>,
    /// Which checkpoints.
    pub which: Which,
}

/// A run of a group, and how good its model is.
pub struct JudgedMember {
    pub member: MemberInfo,
    pub judged: Judged,
}

/// All held-out photographs of the folds of one seed, each scored by the run that held it out.
pub struct Pooled {
    pub seed: u64,
    pub evaluated: Evaluated,
    pub fellow_eye: Option<FellowEye>,
}

impl JudgedGroup {
    /// What is judged, for people.
    pub fn what(&self) -> String {
        let first = &self.runs[0].judged;
        let part = match first.chosen_here() && self.group.folds().is_some() {
            true => "what each run held out".to_owned(),
            false => first.part.to_string(),
        };
        let checkpoints = match self.which {
            Which::Newest => "newest checkpoints".to_owned(),
            Which::Best => "each run's best checkpoint".to_owned(),
            Which::At(step) => format!("checkpoints of step {step}"),
        };
        let rotations = match first.rotations {
            true => ", mean over four rotations",
            false => "",
        };
        format!("{part}, {checkpoints}{rotations}")
    }

    /// What a reader must know.
    pub fn notes(&self) -> Vec<String> {
        let first = &self.runs[0].judged;
        let mut notes = caveats(&self.group, self.runs.len());
        if first.chosen_here() {
            let judged: Vec<&str> = self.runs.iter().map(|run| &*run.member.run).collect();
            notes.extend(not_together(&self.group, &judged));
        }
        if !self.pooled.is_empty() {
            notes.push(
                "together the photographs are ranked by the scores of several models, which may mean different things: their \
                 AUC can be below the mean over the folds. The interval is over patients, for these models"
                    .into(),
            );
        }
        if self.which == Which::Best && first.chosen_here() {
            notes.push(
                "each checkpoint was chosen as the best on the very photographs that it is judged on: the figures look better \
                 than they are"
                    .into(),
            );
        }
        if let Some(shared) = &first.shared {
            // Folds were trained on different photographs.
            for JudgedMember { member, judged } in &self.runs {
                let of_run = judged.shared.iter().flat_map(|shared| shared.notes());
                match judged.shared == Some(shared.clone()) && self.group.folds().is_none() {
                    true if member.run != self.runs[0].member.run => {}
                    true => notes.extend(of_run),
                    false => notes.extend(of_run.map(|note| format!("{}: {note}", member.run))),
                }
            }
        } else if first.trained_here() {
            notes.push(
                "the models were trained on photographs of this part: the figures say nothing about others".into(),
            );
        }
        if first.includes_test_part() {
            notes.push(match first.part {
                Part::Test => "each run's use of the test part is recorded in it".into(),
                _ => "the test part is among these photographs; each run's use of it is recorded in it".into(),
            });
        }
        notes
    }
}

/// The group that a command names, of a sweep the runs of the variant alone that it names.
///
/// # Errors
/// There is no such group or variant.
pub async fn named(client: &Client, command: &EvaluateGroup) -> Result<GroupInfo, Error> {
    let group = client.group(&command.group).await?;
    let Some(variant) = command.variant else {
        return Ok(group);
    };
    match group.variants.len() {
        0 => Err(Error::Usage(format!(
            "--variant {variant}: {} is no sweep and has no variants",
            group.id
        ))),
        there if variant as usize > there => Err(Error::Usage(format!(
            "--variant {variant}: {} has {there}",
            group.id
        ))),
        _ => Ok(group.of_variant(variant as usize - 1)),
    }
}

/// Judges the completed runs of a group, which differ in fold and seed alone.
///
/// # Errors
/// None has completed, or one cannot be judged.
pub async fn judge_group(
    client: &Client,
    group: GroupInfo,
    command: &EvaluateGroup,
    output: &Output,
) -> Result<JudgedGroup, Error> {
    let (completed, others): (Vec<_>, Vec<_>) = group
        .runs
        .iter()
        .cloned()
        .partition(|m| m.phase == Some(Phase::Completed));
    if completed.is_empty() {
        return Err(none_completed(&group, command.variant));
    }
    let mut runs = Vec::new();
    for member in completed {
        let of_run = Evaluate {
            run: member.run.clone(),
            split: command.split,
            dataset: command.dataset.clone(),
            checkpoint: command.checkpoint,
            rotations: command.rotations,
            sensitivity: REACHED,
            specificity: REACHED,
            draws: command.draws,
            csv: None,
            overwrite: false,
        };
        let judged = judged(client, &of_run, output).await?;
        output.record(&Record::evaluation(&judged));
        runs.push(JudgedMember { member, judged });
    }
    let figures: Vec<RunFigures> = runs.iter().map(|r| (&r.judged.evaluated).into()).collect();
    let pooled = pooled(&group, &runs, command.draws).await?;
    Ok(JudgedGroup {
        group,
        runs,
        left_out: others.into_iter().map(|m| m.run).collect(),
        spread: Spreads::of(&figures),
        pooled,
        which: command.checkpoint.0,
    })
}

/// Nothing can be judged: `group` has no completed run. It is of one variant, if one is given, from 1.
pub fn none_completed(group: &GroupInfo, variant: Option<u32>) -> Error {
    let id = &group.id;
    let of = match variant {
        Some(variant) => format!("variant {variant} of group {id}"),
        None => format!("group {id}"),
    };
    // What is paused may be resumed, and does not go on by itself.
    let yet = match group.deciding || group.there().any(|(_, phase)| !phase.is_terminal()) {
        true => " yet",
        false => "",
    };
    Error::Usage(format!(
        "no run of {of} has completed{yet}: {}; `fovea group show {id}` lists them",
        phases(group)
    ))
}

async fn pooled(
    group: &GroupInfo,
    runs: &[JudgedMember],
    draws: u32,
) -> Result<Vec<Pooled>, Error> {
    let Some(folds) = group.folds() else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for seed in group.seeds() {
        let of_seed: Vec<&Judged> = runs
            .iter()
            .filter(|r| r.member.seed == seed && r.judged.chosen_here())
            .map(|r| &r.judged)
            .collect();
        if of_seed.len() != folds as usize {
            continue;
        }
        let spec = of_seed[0].run.spec.clone();
        let samples = of_seed.iter().flat_map(|judged| judged.samples.clone());
        let samples: Vec<Sample> = samples.collect();
        let draws = Draws {
            number: draws,
            ..Draws::default()
        };
        let compute = move || {
            let ready = ready(&samples, &spec)?;
            Ok(Pooled {
                seed,
                evaluated: figures_of(&ready, &[HALF], draws),
                fellow_eye: fellow_eye(&ready, draws),
            })
        };
        all.push(computed(compute).await?);
    }
    Ok(all)
}

/// Why not all folds of a seed are shown together.
fn not_together(group: &GroupInfo, judged: &[&str]) -> Option<String> {
    group.folds()?;
    let missing: Vec<String> = group
        .runs
        .iter()
        .filter(|member| !judged.contains(&&*member.run))
        .filter_map(|member| {
            let why = member.phase.map_or("removed", Phase::as_str);
            Some(format!("fold {} ({}, {why})", member.fold?, member.run))
        })
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "all folds together are shown only where each has a model that scored it; without one: {}",
            missing.join(", ")
        )
    })
}

/// What the spread over a group's runs is, and what it is not.
pub fn caveats(group: &GroupInfo, runs: usize) -> Vec<String> {
    /// With fewer, the interval of a standard deviation is wider than it is itself.
    const FEW: usize = 12;
    let what = match (group.folds(), group.seeds().len() > 1) {
        (None, _) => {
            "the deviation is over seeds: what chance in training changes, with the same photographs on both sides. How the \
             figures would differ with other patients it does not say"
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
        notes.push(what.to_owned());
    }
    if (2..FEW).contains(&runs) {
        notes.push(format!(
            "of {runs} values a deviation is known roughly at best"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use fovea_core::spec::FoldSpec;

    use super::*;

    fn group(runs: Vec<MemberInfo>) -> GroupInfo {
        GroupInfo {
            id: "dr-g1".into(),
            name: "dr".into(),
            submitted_at_ms: 0,
            submitted_by: String::new(),
            variants: Vec::new(),
            selection: None,
            deciding: false,
            runs,
        }
    }

    #[test]
    fn a_fold_without_a_model_says_why_the_folds_are_not_together() {
        let member = |index, phase| MemberInfo {
            run: format!("dr.f{index}-{}", index + 1),
            variant: 0,
            fold: Some(FoldSpec { index, of: 2 }),
            seed: 0,
            phase,
        };
        let group = group(vec![member(1, Some(Phase::Completed)), member(2, None)]);
        assert_eq!(not_together(&group, &["dr.f1-2", "dr.f2-3"]), None);
        let note = not_together(&group, &["dr.f1-2"]).unwrap();
        assert!(
            note.ends_with("without one: fold 2 of 2 (dr.f2-3, removed)"),
            "{note}"
        );
    }
    #[test]
    fn what_has_no_completed_run_is_named_and_nothing_is_promised() {
        let of_one = |phase| {
            group(vec![MemberInfo {
                run: "dr-1".into(),
                variant: 0,
                fold: None,
                seed: 0,
                phase: Some(phase),
            }])
        };
        assert_eq!(
            none_completed(&of_one(Phase::Running), None).to_string(),
            "no run of group dr-g1 has completed yet: 1 running; `fovea group show dr-g1` lists them"
        );
        assert_eq!(
            none_completed(&of_one(Phase::Cancelled), Some(2)).to_string(),
            "no run of variant 2 of group dr-g1 has completed: 1 cancelled; `fovea group show dr-g1` lists them"
        );
    }
}
