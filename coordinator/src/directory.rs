//! Finding a run, live or ended: a live one has an actor, an ended one is in the journal.

use fovea_core::group::{Group, number_of};
use fovea_core::ids::{GroupId, RunId};
use fovea_core::run::Run;
use std::sync::Arc;
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::error::ApiError;
use crate::journal::{Journal, JournalError};
use crate::messages::Reply;
use crate::run::{RunHandle, RunInput, Shown};

/// An ended run's actor may close while it is being asked; then it is opened again, at most so often.
const ATTEMPTS: usize = 5;

/// The way to all runs.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub cluster: Cluster,
    pub journal: Journal,
}

impl Directory {
    /// The run as people may see it now.
    pub(crate) async fn shown(&self, id: &RunId) -> Result<Shown, ApiError> {
        match self.cluster.find(id).await? {
            Some(live) => Ok(self.with_journal(live.shown())),
            None => Ok(ended(self.written(id).await?)),
        }
    }

    /// Newest first: runs with a number below `before`, at most `limit`.
    pub(crate) async fn list(&self, before: u64, limit: usize) -> Result<Vec<Shown>, ApiError> {
        let live = self.cluster.live().await?;
        let written = self
            .journal
            .runs_before(before, limit)
            .await
            .map_err(unreadable)?;
        let live_one = |number: u64| {
            let at = live
                .binary_search_by_key(&number, |live| live.number)
                .ok()?;
            Some(self.with_journal(live[at].shown()))
        };
        let shown = |run: Run| live_one(run.number).unwrap_or_else(|| ended(run));
        Ok(written.into_iter().map(shown).collect())
    }

    /// A group. NotFound if no run of it is there.
    pub(crate) async fn group(&self, id: &GroupId) -> Result<Group, ApiError> {
        let number = number_of(id).ok_or_else(|| ApiError::no_group(id))?;
        let group = self.journal.group(number).await.map_err(unreadable)?;
        group
            .filter(|group| group.id == *id)
            .ok_or_else(|| ApiError::no_group(id))
    }

    /// The runs of a group as they are now, in its order; None: it was removed.
    pub(crate) async fn members(&self, group: &Group) -> Result<Vec<Option<Shown>>, ApiError> {
        let mut members = Vec::new();
        for member in &group.runs {
            members.push(match self.shown(&member.run).await {
                Ok(shown) => Some(shown),
                Err(ApiError::NotFound(_)) => None,
                Err(error) => return Err(error),
            });
        }
        Ok(members)
    }

    /// The run's actor, which is started for an ended run.
    pub(crate) async fn actor(&self, id: &RunId) -> Result<RunHandle, ApiError> {
        if let Some(live) = self.cluster.find(id).await? {
            return Ok(live);
        }
        let number = number(id).ok_or_else(|| ApiError::no_run(id))?;
        let stored = self.journal.live_run(number).await.map_err(unreadable)?;
        let stored = stored
            .filter(|stored| stored.run.id == *id)
            .ok_or_else(|| ApiError::no_run(id))?;
        self.cluster.open(stored).await
    }

    /// Asks the run's actor.
    pub(crate) async fn ask<T>(
        &self,
        id: &RunId,
        input: impl Fn(Reply<T>) -> RunInput,
    ) -> Result<T, ApiError> {
        let asking = async {
            for _ in 0..ATTEMPTS {
                let actor = self.actor(id).await?;
                if let Some(answer) = actor.ask(&input).await {
                    return answer;
                }
            }
            Err(ApiError::ShuttingDown)
        };
        self.unless_blocked(asking).await?
    }

    /// Waits for a run's actor, unless the journal cannot be written: the actor waits for it, too, and drops a request when
    /// nobody waits for its answer.
    ///
    /// # Errors
    /// Why the journal cannot be written.
    pub(crate) async fn unless_blocked<T>(
        &self,
        asking: impl Future<Output = T>,
    ) -> Result<T, ApiError> {
        let mut blocked = self.journal.blocked();
        tokio::select! {
            biased;
            Some(problem) = problem(&mut blocked) => Err(ApiError::Unavailable(problem)),
            answer = asking => Ok(answer),
        }
    }

    /// While the journal cannot be written, every live run waits for it.
    pub(crate) fn with_journal(&self, mut shown: Shown) -> Shown {
        if let Some(problem) = &*self.journal.blocked().borrow() {
            shown.waiting = Some(problem.to_string());
        }
        shown
    }

    /// The run as the journal holds it.
    async fn written(&self, id: &RunId) -> Result<Run, ApiError> {
        let number = number(id).ok_or_else(|| ApiError::no_run(id))?;
        let run = self.journal.run(number).await.map_err(unreadable)?;
        run.filter(|run| run.id == *id)
            .ok_or_else(|| ApiError::no_run(id))
    }
}

/// Waits until the journal cannot be written, and gives the reason. None: the journal is closed.
async fn problem(blocked: &mut watch::Receiver<Option<JournalError>>) -> Option<String> {
    let reason = blocked.wait_for(Option::is_some).await.ok()?;
    reason.as_ref().map(ToString::to_string)
}

/// A run's number is the last part of its id.
fn number(id: &RunId) -> Option<u64> {
    let (_, number) = id.as_str().rsplit_once('-')?;
    number.parse().ok()
}

fn ended(run: Run) -> Shown {
    Shown {
        progress: run.progress,
        run: Arc::new(run),
        waiting: None,
    }
}

fn unreadable(error: JournalError) -> ApiError {
    ApiError::Unavailable(error.to_string())
}
