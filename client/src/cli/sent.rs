//! Photographs that are sent to the coordinator for one prediction: scored there, and removed, whatever happens.
//!
//! From the first byte on, signals are events and no error returns early: patients' photographs must not stay at the
//! coordinator without a word.
//!
//! ```text
//! Nothing ── Sending ── Stored ── Asked ── Scoring ──> scores
//!                │         │        │         │
//!                └─────────┴────────┴─────────┴── an error, a signal, the end ──> removed, or named with what removes it
//! ```

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use fovea_core::count::count;
use fovea_core::ids::DatasetName;

use super::datasets::add_with_bar;
use super::follow::{follow_listening, verdict};
use super::output::Output;
use crate::client::Client;
use crate::error::Error;
use crate::evaluations::Views;
use crate::local::Signals;
use crate::view::{Phase, RunInfo, Scores};

/// Patience, in seconds, while the cluster scores.
const PATIENCE_S: u64 = 300;
/// How long an interrupted upload may go on. One that is nearly done gets its answer, which says what there is to remove.
const UPLOAD_ENDING: Duration = Duration::from_secs(2);
/// How long the coordinator may take, after an interruption, to say which run it has begun; and how long that run may take
/// to end.
const ENDING: Duration = Duration::from_secs(20);

/// What is sent to the coordinator for a prediction.
pub struct Sent<'a> {
    pub client: &'a Client,
    /// Whose model it is.
    pub run: &'a RunInfo,
    /// Of the checkpoint.
    pub step: u64,
    /// What the dataset without grades is called.
    pub dataset: &'a DatasetName,
}

impl Sent<'_> {
    /// Sends the dataset in `set`, has it scored, and removes both, unless `keep`. Returns the run that scored, and the
    /// scores.
    pub async fn score(
        &self,
        set: &Path,
        views: Views,
        keep: bool,
        (signals, output): (&mut Signals, &Output),
    ) -> Result<(String, Scores), Error> {
        let mut under_way = UnderWay {
            sent: self,
            output,
            signals,
            reached: Reached::Nothing,
            quits: false,
        };
        let scored = under_way.scored(set, views).await;
        match &under_way.reached {
            Reached::Scoring(id) if keep => output.remark(format!(
                "kept at the coordinator: `fovea runs rm {id} --with-checkpoints` and `fovea dataset rm {}` remove them",
                self.dataset
            )),
            _ => under_way.clean_up().await,
        }
        scored
    }
}

/// How far a prediction came, and so what may be at the coordinator.
#[derive(Debug)]
enum Reached {
    /// Nothing was stored.
    Nothing,
    /// The photographs may be there: they are being sent, or how that ended is not known.
    Sending,
    /// The photographs are there.
    Stored,
    /// They are, and a run that scores them may be.
    Asked,
    /// They are, and this run scores them.
    Scoring(String),
}

/// A prediction that is under way.
struct UnderWay<'a> {
    sent: &'a Sent<'a>,
    output: &'a Output,
    signals: &'a mut Signals,
    reached: Reached,
    /// A second signal came: nothing more is asked of the coordinator.
    quits: bool,
}

impl UnderWay<'_> {
    async fn scored(&mut self, set: &Path, views: Views) -> Result<(String, Scores), Error> {
        let Sent {
            client,
            run,
            step,
            dataset,
        } = *self.sent;
        self.reached = Reached::Sending;
        let added = self
            .answered(add_with_bar(client, set, self.output), UPLOAD_ENDING)
            .await;
        match &added.answer {
            Some(Ok(_)) => self.reached = Reached::Stored,
            Some(Err(error)) if is_refusal(error) => self.reached = Reached::Nothing,
            Some(Err(_)) | None => {}
        }
        let photographs = added.going_on()?.dataset.validation_samples;
        self.output.remark(format!(
            "{} sent as dataset {dataset}",
            count(photographs, "photograph", "photographs")
        ));
        self.reached = Reached::Asked;
        let asked = client.predict(&run.id, step, dataset.as_str(), views);
        let begun = self.answered(asked, ENDING).await;
        match &begun.answer {
            Some(Ok(run)) => self.reached = Reached::Scoring(run.id.clone()),
            Some(Err(error)) if !is_lost(error) => self.reached = Reached::Stored,
            Some(Err(_)) | None => {}
        }
        let id = begun.going_on()?.id;
        let ended = follow_listening(client, &id, PATIENCE_S, self.signals, self.output).await;
        let ended = ended.map_err(|error| match error {
            Error::Interrupted(_) => {
                self.say_stopping();
                interrupted()
            }
            other => other,
        })?;
        verdict(&ended)?;
        let asked = client.scores_with(&id, step, views.maps);
        let scores = self.answered(asked, Duration::ZERO).await;
        match scores.going_on()? {
            Some(scores) => Ok((id, scores)),
            None => Err(Error::Protocol(format!(
                "{id} is {} and has no scores",
                ended.phase.as_str()
            ))),
        }
    }

    /// Waits for the coordinator's answer; after a signal, not longer than `patience`.
    async fn answered<T>(
        &mut self,
        request: impl Future<Output = Result<T, Error>>,
        patience: Duration,
    ) -> Answered<T> {
        tokio::pin!(request);
        tokio::select! {
            answer = &mut request => return Answered { answer: Some(answer), interrupted: false },
            () = self.signals.next() => {}
        }
        self.say_stopping();
        let answer = tokio::select! {
            answer = tokio::time::timeout(patience, request) => answer.ok(),
            () = self.signals.next() => {
                self.quits = true;
                None
            }
        };
        Answered {
            answer,
            interrupted: true,
        }
    }

    fn say_stopping(&self) {
        self.output
            .remark("stopping, and removing what was sent; a second signal leaves it there");
    }

    /// Removes what there is at the coordinator, and names what is left. The scores are here, or why there are none is the error to
    /// report.
    async fn clean_up(&mut self) {
        let mut left = Left::default();
        let problem = match self.quits {
            true => {
                left = Left::of(&self.reached);
                Some("a second signal came".to_owned())
            }
            false => tokio::select! {
                removed = self.sent.remove(&self.reached, &mut left) => {
                    removed.err().map(|error| error.to_string())
                }
                () = self.signals.next() => Some("it was interrupted".to_owned()),
            },
        };
        let dataset = self.sent.dataset;
        if let Some(problem) = problem
            && let Some(text) =
                left.named(dataset, matches!(self.reached, Reached::Sending), &problem)
        {
            self.output.complain(&text);
        } else if left.unknown_run {
            self.output.complain(&format!(
                "a run that scores dataset {dataset}, which is removed, may begin all the same: `fovea runs` lists it, and \
                 `fovea runs rm RUN --with-checkpoints` removes it"
            ));
        }
    }
}

/// An answer of the coordinator, if it came, and whether a signal came before it.
struct Answered<T> {
    answer: Option<Result<T, Error>>,
    interrupted: bool,
}

impl<T> Answered<T> {
    /// What the answer brings, unless the prediction is to stop.
    fn going_on(self) -> Result<T, Error> {
        match self.answer {
            Some(answer) if !self.interrupted => answer,
            Some(_) | None => Err(interrupted()),
        }
    }
}

fn interrupted() -> Error {
    Error::Interrupted("nothing was scored".into())
}

/// Whether the coordinator's answer is not known.
fn is_lost(error: &Error) -> bool {
    matches!(error, Error::Lost { .. } | Error::Channel(_))
}

/// Whether the coordinator has answered that it did not take what it was sent.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::Refused(_) | Error::Precondition { .. } | Error::NoRoom(_) | Error::LimitReached(_)
    )
}

/// What is at the coordinator, or may be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    photographs: bool,
    /// The run that scores them.
    run: Option<String>,
    /// It was asked to begin one, and has none of which is known.
    unknown_run: bool,
}

impl Left {
    fn of(reached: &Reached) -> Self {
        let (photographs, run) = match reached {
            Reached::Nothing => (false, None),
            Reached::Sending | Reached::Stored | Reached::Asked => (true, None),
            Reached::Scoring(id) => (true, Some(id.clone())),
        };
        Self {
            photographs,
            run,
            unknown_run: matches!(reached, Reached::Asked),
        }
    }

    /// What people must know of it; `perhaps`: whether the photographs are there is not known. None: nothing is left.
    fn named(&self, dataset: &DatasetName, perhaps: bool, problem: &str) -> Option<String> {
        let are = if perhaps { "may still be" } else { "are still" };
        let run = |id| format!("`fovea runs rm {id} --with-checkpoints`");
        match (self.photographs, &self.run) {
            (true, None) if self.unknown_run => Some(format!(
                "the photographs are still at the coordinator as dataset {dataset} ({problem}), and perhaps a run that scores them: \
                 `fovea runs` lists it, `fovea runs rm RUN --with-checkpoints` and `fovea dataset rm {dataset}` remove them"
            )),
            (true, None) => Some(format!(
                "the photographs {are} at the coordinator as dataset {dataset} ({problem}): remove them with `fovea dataset rm {dataset}`"
            )),
            (true, Some(id)) => Some(format!(
                "the photographs are still at the coordinator as dataset {dataset} ({problem}): remove them with {} and \
                 `fovea dataset rm {dataset}`",
                run(id)
            )),
            (false, Some(id)) => Some(format!(
                "run {id}, which scored the photographs, is still at the coordinator ({problem}): remove it with {}",
                run(id)
            )),
            (false, None) => None,
        }
    }
}

impl Sent<'_> {
    /// Removes the run that scores, once it has ended, and the photographs, whatever became of the run. What is not there need not be
    /// removed. `left` is what there is still.
    async fn remove(&self, reached: &Reached, left: &mut Left) -> Result<(), Error> {
        *left = Left::of(reached);
        if matches!(reached, Reached::Asked) {
            left.run = self.begun().await?;
            left.unknown_run = left.run.is_none();
        }
        let mut removed = Ok(());
        if let Some(id) = left.run.clone() {
            removed = self.remove_run(&id).await;
            if removed.is_ok() {
                left.run = None;
            }
        }
        if left.photographs {
            self.remove_photographs().await?;
            left.photographs = false;
        }
        removed
    }

    /// The run that scores the photographs, where the coordinator did not answer which. Nobody else knows their name.
    async fn begun(&self) -> Result<Option<String>, Error> {
        let mut runs = self.client.runs().await?.into_iter();
        let begun = runs.find(|run| run.spec.dataset == *self.dataset);
        Ok(begun.map(|run| run.id))
    }

    async fn remove_run(&self, id: &str) -> Result<(), Error> {
        let mut run = match self.client.run(id).await {
            Ok(run) => run,
            // Somebody has removed it.
            Err(Error::Refused(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let has_ended = |run: &RunInfo| run.phase.is_terminal() && run.phase != Phase::Paused;
        if !has_ended(&run) {
            self.client.cancel(id).await?;
            let end = Instant::now() + ENDING;
            while !has_ended(&run) && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(100)).await;
                run = self.client.run(id).await?;
            }
        }
        self.client.remove_run(id, true).await.map(drop)
    }

    async fn remove_photographs(&self) -> Result<(), Error> {
        match self.client.remove_dataset(self.dataset.as_str()).await {
            Ok(_) => Ok(()),
            Err(refused @ Error::Refused(_)) => {
                let datasets = self.client.datasets().await?;
                match datasets.iter().any(|d| d.name == self.dataset.as_str()) {
                    true => Err(refused),
                    false => Ok(()),
                }
            }
            Err(error) => Err(error),
        }
    }
}
