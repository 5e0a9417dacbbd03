//! A model that is judged: its scores on a part of a dataset, and the figures of them.

use fovea_core::spec::{FoldSpec, Part};
use fovea_evaluation::{
    Choice, Draws, Evaluated, FellowEye, Point, Sample, Wanted, choose as choose_points, evaluate,
    fellow_eye,
};

use crate::checkpoint::Chosen;
use crate::dataset::Described;
use crate::error::Error;
use crate::evaluation::EvaluationInfo;
use crate::run::RunInfo;
use crate::samples::{ready, samples};
use crate::scores::Scores;
use crate::shared::Shared;

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
    /// Whether each photograph was scored as the mean over its four rotations.
    pub rotations: bool,
    /// The scored photographs, in the order of the dataset's index.
    pub samples: Vec<Sample>,
    /// The figures.
    pub evaluated: Evaluated,
    /// What copying the other eye's grade would score, where there are other eyes.
    pub fellow_eye: Option<FellowEye>,
    /// Photographs of another dataset that the run has seen.
    pub shared: Option<Shared>,
    /// Whether the labels of the run's validation split are there. Without them, because its dataset was removed, no threshold can
    /// be chosen, and what the run has seen of another dataset is not known.
    pub own_is_there: bool,
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
            .is_some_and(|shared| shared.trained.number() > 0);
        shared || matches!(self.part, Part::Train | Part::All) && self.is_own_dataset()
    }

    /// Whether thresholds and checkpoint were chosen on the very photographs that are judged.
    pub fn chosen_here(&self) -> bool {
        self.part == Part::Validation && self.is_own_dataset()
    }
}

/// The threshold that nobody has chosen.
pub const HALF: Point = Point {
    choice: Choice::Half,
    threshold: 0.5,
};

/// Scores with the dataset that they are of.
pub type Scored = (Scores, Described);

/// Computes the figures of `scored`. Thresholds are chosen on `validation`, the scores of the same checkpoint on the validation
/// split of the run, in the same way: with or without rotations; None: the run's own dataset was removed, and only the threshold 0.5 is left. It takes a while, on all cores.
///
/// # Errors
/// Scores that do not belong to their dataset.
pub fn judge(
    run: RunInfo,
    chosen: Chosen,
    scored: Scored,
    validation: Option<&Scored>,
    wanted: Wanted,
    draws: Draws,
) -> Result<Judged, Error> {
    let (scores, dataset) = scored;
    let of = samples(&scores, &dataset, &run.spec)?;
    let judging = ready(&of, &run.spec)?;
    let points = match validation {
        Some((scores, own)) => {
            let choosing = samples(scores, own, &run.spec)?;
            choose_points(&ready(&choosing, &run.spec)?, wanted)
        }
        None => vec![HALF],
    };
    let shared = validation.and_then(|(_, own)| Shared::between(&dataset, scores.part, own));
    Ok(Judged {
        shared,
        own_is_there: validation.is_some(),
        run,
        chosen,
        dataset,
        part: scores.part,
        rotations: scores.rotations,
        samples: of,
        evaluated: evaluate(&judging, &points, draws),
        fellow_eye: fellow_eye(&judging, draws),
    })
}
