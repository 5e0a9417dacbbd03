//! What a report is made of: the scores of one checkpoint on the run's validation split, and on all else that it was evaluated on
//! before.

use fovea_core::ids::DatasetName;
use fovea_core::spec::Part;
use fovea_evaluation::{Draws, Estimate, Wanted};
use fovea_report::Report;

use crate::checkpoint::Chosen;
use crate::error::Error;
use crate::evaluation::EvaluationInfo;
use crate::judge::{Judged, Scored, judge};
use crate::reporting::report;
use crate::run::RunInfo;

/// Scores of one checkpoint, and what is missing.
#[derive(Debug)]
pub struct Material {
    validation: Option<Scored>,
    others: Vec<Scored>,
    seen: Vec<(String, Part, bool)>,
    left_out: Vec<String>,
}

/// A report, and what comes of it.
#[derive(Debug)]
pub struct Composed {
    /// The report.
    pub report: Report,
    /// AUC of the checkpoint on the validation split, if the dataset is there and it is defined.
    pub auc: Option<Estimate>,
    /// Digest of the dataset whose photographs are the worst errors.
    pub errors_of: Option<String>,
}

/// What is missing of a run whose dataset was removed, as sentences.
pub fn dataset_removed(dataset: &DatasetName, digest: &str) -> String {
    let digest: String = digest.chars().take(12).collect();
    format!(
        "Data set {dataset} ({digest}) of the run was removed. Left out are its splits, leak check and preprocessing, the figures on its \
         photographs, and all thresholds but 0.5. `fovea dataset add` with the same prepared dataset brings them back."
    )
}

impl Material {
    /// Begins with the scores on the validation split of `run`. None: its dataset was removed, and the labels with it.
    pub fn new(run: &RunInfo, validation: Option<Scored>) -> Self {
        let mut left_out = Vec::new();
        if validation.is_none() {
            left_out.push(dataset_removed(&run.spec.dataset, &run.dataset_digest));
        }
        Self {
            validation,
            others: Vec::new(),
            seen: Vec::new(),
            left_out,
        }
    }

    /// Evaluations of the checkpoint `chosen`, the newest first, without those that repeat what its epoch left: scores of upright
    /// photographs of the validation split. Of those on the same part of the same dataset, scored in the same way, one is enough,
    /// the first that [has](Self::has) scores.
    pub fn candidates<'a>(
        run: &'a RunInfo,
        chosen: &Chosen,
    ) -> impl Iterator<Item = &'a EvaluationInfo> {
        let step = chosen.step;
        let checkpoint = run.checkpoints.iter().find(|c| c.step == step);
        let generation = checkpoint.map(|c| c.generation);
        let wanted = move |e: &&EvaluationInfo| {
            let is_epoch = is_own_validation(e.part, &e.dataset_digest, run) && !e.rotations;
            (e.step, Some(e.generation)) == (step, generation) && !is_epoch
        };
        run.evaluations.iter().rev().filter(wanted)
    }

    /// Whether scores of the same photographs as in `evaluation` are there, scored in the same way.
    pub fn has(&self, evaluation: &EvaluationInfo) -> bool {
        self.seen.contains(&seen(evaluation))
    }

    /// Adds the scores that `evaluation` left. None: its dataset was removed.
    pub fn add(&mut self, evaluation: &EvaluationInfo, scored: Option<Scored>) {
        self.seen.push(seen(evaluation));
        match scored {
            Some(scored) => self.others.push(scored),
            None => self.left_out.push(format!(
                "The evaluation on {} ({}) is left out: that dataset was removed.",
                evaluation.dataset, evaluation.part
            )),
        }
    }

    /// What is missing, each as a sentence.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Judges all of it, the most telling first: the test part, other datasets, the validation split, what the model was trained
    /// on. It takes a while, on all cores.
    ///
    /// # Errors
    /// Scores that do not belong to their dataset.
    pub fn compose(
        self,
        run: &RunInfo,
        chosen: &Chosen,
        draws: Draws,
        now_ms: u64,
    ) -> Result<Composed, Error> {
        let Self {
            validation,
            others,
            seen: _,
            mut left_out,
        } = self;
        // What was scored with rotations has its thresholds from the validation split with rotations.
        let rotated = others.iter().find(|(scores, _)| {
            scores.rotations && is_own_validation(scores.part, &scores.dataset_digest, run)
        });
        let rotated = rotated.cloned();
        let on = |scored: Scored| {
            let (run, chosen) = (run.clone(), chosen.clone());
            let validation = match scored.0.rotations {
                true => rotated.as_ref(),
                false => validation.as_ref(),
            };
            judge(run, chosen, scored, validation, Wanted::default(), draws)
        };
        let can_be_judged = |(scores, of): &Scored| {
            let lacks = scores.rotations && rotated.is_none() && validation.is_some();
            if lacks {
                left_out.push(format!(
                    "The evaluation on {} ({}, four rotations) is left out: the scores of the validation split with rotations, on which \
                     thresholds are chosen, were removed. `fovea evaluate {} --rotations` makes them.",
                    of.manifest.name, scores.part, run.id
                ));
            }
            !lacks
        };
        let others: Vec<Scored> = others.into_iter().filter(can_be_judged).collect();
        let mut judged = others.into_iter().map(on).collect::<Result<Vec<_>, _>>()?;
        judged.sort_by_key(|j| (j.trained_here(), j.part != Part::Test, j.chosen_here()));
        let before_own = |j: &&Judged| !j.trained_here() && !j.chosen_here();
        let at = judged.iter().take_while(before_own).count();
        let own_split = validation.clone().map(on).transpose()?;
        let auc = own_split.as_ref().and_then(|split| split.evaluated.auc);
        judged.splice(at..at, own_split);
        // The validation split is of it.
        let own = validation.as_ref().map(|(_, own)| own);
        let mut report = report(run, chosen, &judged, own, now_ms);
        report.warnings.extend(left_out);
        let first = judged.first();
        Ok(Composed {
            report,
            auc,
            errors_of: first.map(|j| j.dataset.manifest.digest.clone()),
        })
    }
}

fn is_own_validation(part: Part, dataset_digest: &str, run: &RunInfo) -> bool {
    part == Part::Validation && dataset_digest == run.dataset_digest
}

/// What one evaluation of a checkpoint has in common with those that would give the same scores.
fn seen(evaluation: &EvaluationInfo) -> (String, Part, bool) {
    let EvaluationInfo {
        dataset_digest,
        part,
        rotations,
        ..
    } = evaluation;
    (dataset_digest.clone(), *part, *rotations)
}
