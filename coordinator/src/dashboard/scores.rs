//! The figures of an epoch's scores: ROC, operating points, intervals.

use std::sync::Arc;

use fovea_core::run::{EpochScores, Run};
use fovea_evaluation::{Draws, Evaluated, Wanted, choose, evaluate};
use fovea_judging::{Described, Scores, ready, samples};

use super::background::on_one_thread;
use crate::blocking::blocking;
use crate::journal::Journal;
use crate::store::DatasetStore;

/// Draws of the intervals: a tenth of what a report takes, so that one thread is done in a second or two.
const DRAWS: u32 = 200;

/// Run, lineage and step.
pub(super) type ScoresKey = (u64, u64, u64);

/// The figures, or why there are none.
pub(super) type Outcome = Result<Arc<Evaluated>, String>;

/// Computes the figures of the epoch of `run` that ended at `step`, on one thread of low priority.
pub(super) async fn compute(
    journal: Journal,
    store: DatasetStore,
    run: Arc<Run>,
    step: u64,
) -> Outcome {
    let scores = journal
        .scores(run.number, step)
        .await
        .map_err(|error| format!("The scores cannot be read: {error}."))?;
    let Some(scores) = scores else {
        return Err(
            "No scores are kept of this epoch: it was evaluated by a version that kept none."
                .into(),
        );
    };
    let computed = blocking(move || {
        let files = store.read_files(&run.dataset_digest);
        let (manifest, index) = files.map_err(|error| {
            format!(
                "The scores are there, but the labels of dataset {} are not: {error}.",
                run.spec.dataset
            )
        })?;
        let unusable = |error: &dyn std::fmt::Display| {
            format!(
                "The labels of dataset {} cannot be used: {error}.",
                run.spec.dataset
            )
        };
        let EpochScores {
            classes,
            probabilities,
            ..
        } = scores;
        let of = Described::parse(run.spec.dataset.as_str(), &manifest, &index)
            .and_then(|dataset| dataset.folded(run.spec.fold))
            .map_err(|e| unusable(&e))?;
        let (digest, part) = (run.dataset_digest.clone(), run.spec.scored_part());
        let scores = Scores::without_maps(digest, part, classes as usize, probabilities);
        let samples = samples(&scores, &of, &run.spec)
            .and_then(|samples| ready(&samples, &run.spec))
            .map_err(|e| unusable(&e))?;
        let draws = Draws {
            number: DRAWS,
            seed: 0,
        };
        let computed = on_one_thread(|| {
            let points = choose(&samples, Wanted::default());
            Arc::new(evaluate(&samples, &points, draws))
        });
        computed.map_err(|error| format!("The figures cannot be computed: {error}."))
    })
    .await;
    computed.map_err(|error| error.to_string())?
}
