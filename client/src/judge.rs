//! A model that is judged: its scores on a part of a dataset, and the figures of them.

use std::collections::HashSet;

use fovea_core::spec::{FoldSpec, Part};
use fovea_dataset::Sample as Indexed;
use fovea_evaluation::{
    Draws, Evaluated, FellowEye, Sample, Wanted, choose as choose_points, evaluate, fellow_eye,
};

use serde::Serialize;

use crate::error::Error;
use crate::evaluations::{Chosen, Described, ready, samples};
use crate::view::{EvaluationInfo, RunInfo, Scores};

/// Judged photographs of another dataset that the run's own dataset has, too: by their names, which is all that both say of a
/// photograph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// Name of the run's own dataset.
    pub own: String,
    /// Photographs that are judged.
    pub of: usize,
    /// How many of them the run was trained on.
    pub trained: usize,
    /// How many checkpoint and thresholds were chosen on.
    pub chosen: usize,
    /// How many are of the own dataset's test part.
    pub test: usize,
}

impl Shared {
    /// Compares the names of image and patient. `own` is the dataset as the run saw it.
    fn between(dataset: &Described, part: Part, own: &Described) -> Option<Self> {
        if dataset.manifest.digest == own.manifest.digest {
            return None;
        }
        let name = |of: &'_ Described, sample: &Indexed| {
            let patient = of.index.patient(sample.patient).unwrap_or_default();
            (sample.image.clone(), patient.to_owned())
        };
        let judged: HashSet<(String, String)> = dataset
            .index
            .part(part)
            .iter()
            .map(|sample| name(dataset, sample))
            .collect();
        let among = |part| {
            let samples = own.index.part(part);
            samples
                .iter()
                .filter(|s| judged.contains(&name(own, s)))
                .count()
        };
        let shared = Self {
            own: own.manifest.name.to_string(),
            of: judged.len(),
            trained: among(Part::Train),
            chosen: among(Part::Validation),
            test: among(Part::Test),
        };
        (shared.trained + shared.chosen + shared.test > 0).then_some(shared)
    }

    /// What a reader must know, each as a sentence without a full stop.
    pub fn notes(&self) -> Vec<String> {
        let Self {
            own,
            of,
            trained,
            chosen,
            test,
        } = self;
        let here = |part: &str| {
            format!("in the {part} of {own} under the same names of image and patient")
        };
        let said = [
            (
                trained,
                format!(
                    "the model was trained on {trained} of the {of} photographs, which are {}: the figures look better than they \
                     are",
                    here("training split")
                ),
            ),
            (
                chosen,
                format!(
                    "{chosen} of the {of} photographs are {}: what was chosen on it, such as thresholds, looks better than it is",
                    here("validation split")
                ),
            ),
            (
                test,
                format!(
                    "{test} of the {of} photographs are {}: this was a use of it",
                    here("test part")
                ),
            ),
        ];
        let there = said.into_iter().filter(|(number, _)| **number > 0);
        there.map(|(_, note)| note).collect()
    }
}

/// A model, judged on a part of a dataset.
pub struct Judged {
    /// The run that trained it, as it is after the evaluation.
    pub run: RunInfo,
    /// Its checkpoint.
    pub chosen: Chosen,
    /// The dataset that was scored.
    pub dataset: Described,
    /// The part of it.
    pub part: Part,
    /// The scored photographs, in the order of the dataset's index.
    pub samples: Vec<Sample>,
    /// The figures.
    pub evaluated: Evaluated,
    /// What copying the other eye's grade would score, where there are other eyes.
    pub fellow_eye: Option<FellowEye>,
    /// Photographs of another dataset that the run has seen under the same names.
    pub shared: Option<Shared>,
}

impl Judged {
    /// Whether samples of the dataset's test part are among those that were scored.
    pub fn includes_test_part(&self) -> bool {
        matches!(self.part, Part::Test | Part::All) && !self.dataset.index.test().is_empty()
    }

    /// Evaluations of any checkpoint of the run on the part that was scored; where that holds the test part, all that read it.
    pub fn uses(&self) -> impl Iterator<Item = &EvaluationInfo> {
        let with_test = self.includes_test_part();
        let same = move |e: &&EvaluationInfo| {
            e.dataset_digest == self.dataset.manifest.digest
                && match with_test {
                    true => e.reads_test_part(Some(true)),
                    false => e.part == self.part,
                }
        };
        self.run.evaluations.iter().filter(same)
    }

    /// Whether the run was trained on the dataset that was scored.
    pub fn is_own_dataset(&self) -> bool {
        self.dataset.manifest.digest == self.run.dataset_digest
    }

    /// The fold that was scored in place of the validation split.
    pub fn fold(&self) -> Option<FoldSpec> {
        self.run.spec.fold.filter(|_| self.chosen_here())
    }

    /// Whether the model was trained on some of the photographs that are judged.
    pub fn trained_here(&self) -> bool {
        let shared = self
            .shared
            .as_ref()
            .is_some_and(|shared| shared.trained > 0);
        shared || matches!(self.part, Part::Train | Part::All) && self.is_own_dataset()
    }

    /// Whether thresholds and checkpoint were chosen on the very photographs that are judged.
    pub fn chosen_here(&self) -> bool {
        self.part == Part::Validation && self.is_own_dataset()
    }
}

/// Scores with the dataset that they are of.
pub type Scored = (Scores, Described);

/// Computes the figures of `scored`. Thresholds are chosen on `validation`, the scores of the same checkpoint on the validation
/// split of the run. It takes a while, on all cores.
///
/// # Errors
/// Scores that do not belong to their dataset.
pub fn judge(
    run: RunInfo,
    chosen: Chosen,
    scored: Scored,
    validation: &Scored,
    wanted: Wanted,
    draws: Draws,
) -> Result<Judged, Error> {
    let (scores, dataset) = scored;
    let of = samples(&scores, &dataset, &run.spec)?;
    let judging = ready(&of, &run.spec)?;
    let choosing = samples(&validation.0, &validation.1, &run.spec)?;
    let points = choose_points(&ready(&choosing, &run.spec)?, wanted);
    let shared = Shared::between(&dataset, scores.part, &validation.1);
    Ok(Judged {
        shared,
        run,
        chosen,
        dataset,
        part: scores.part,
        samples: of,
        evaluated: evaluate(&judging, &points, draws),
        fellow_eye: fellow_eye(&judging, draws),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photographs_that_the_run_has_seen_are_counted() {
        let shared = Shared {
            own: "eyes".into(),
            of: 80,
            trained: 42,
            chosen: 0,
            test: 3,
        };
        let [trained, test] = &shared.notes()[..] else {
            panic!("{:?}", shared.notes());
        };
        assert!(
            trained.starts_with(
                "the model was trained on 42 of the 80 photographs, which are in the training split of eyes under the same names"
            ),
            "{trained}"
        );
        assert!(
            test.starts_with("3 of the 80 photographs are in the test part of eyes")
                && test.ends_with("this was a use of it"),
            "{test}"
        );
    }
}
