//! What should be in the object store, and whether it is. It is looked up, and not read.

use std::collections::BTreeSet;

use fovea_proto::pb;

use super::{Listed, Verification};
use crate::error::ApiError;
use crate::remote::Item;

impl Verification {
    /// Looks up the listed checkpoints, datasets and weights. What the object store should hold and does not is uploaded anew.
    pub(super) async fn objects(
        &mut self,
        listed: Option<Listed>,
        datasets: bool,
        weights: bool,
    ) -> Result<(), ApiError> {
        let remote = self.context.remote.clone();
        let Some(view) = remote.view() else {
            return Ok(());
        };
        let found = match remote.look().await {
            Ok(found) => found,
            Err(error) => return self.store_problem(&error.to_string()).await,
        };
        if let Some(problem) = &view.problem {
            self.store_problem(problem).await?;
        }
        let Listed { runs, checkpoints } = listed.clone().unwrap_or_default();
        let mut wanted: Vec<(Item, String, Option<_>)> = Vec::new();
        for (run, info) in &checkpoints {
            let what = format!("run {run}, checkpoint {}", info.step);
            wanted.push((Item::checkpoint(run, info), what, Some(info.clone())));
        }
        if datasets {
            for (name, digest) in self.context.datasets.now().names() {
                let item = Item::Dataset(digest.to_owned());
                wanted.push((item, format!("dataset {name}"), None));
            }
        }
        if weights {
            for held in self.context.weights.now().held() {
                let item = Item::Weights(held.sha256.clone());
                wanted.push((item, format!("weights {}", held.name), None));
            }
        }
        for (item, what, info) in wanted {
            self.summary.objects += 1;
            // What has not been uploaded yet is not missing.
            if found.contains(&item) || !view.stored.contains(&item) || !remote.has(&item) {
                continue;
            }
            remote.lost(item, info);
            let problem = pb::VerifyProblem {
                what: format!("object store, {what}"),
                state: pb::FileState::Missing.into(),
                problem: format!("{} does not hold all of it any more", view.store),
                action: "if it is here, it is uploaded again now: verify again later. Look who else writes to the bucket".into(),
            };
            self.problem(problem).await?;
        }
        if listed.is_none() {
            return Ok(());
        }
        let in_bucket: BTreeSet<_> = found.iter().filter_map(Item::run).collect();
        for run in in_bucket.into_iter().filter(|run| !runs.contains(*run)) {
            // It may have been submitted, or be on its way out, since the runs were listed.
            if remote.removes(run) || self.context.runs.shown(run).await.is_ok() {
                continue;
            }
            let problem = pb::VerifyProblem {
                what: format!("object store, checkpoints of {run}"),
                state: pb::FileState::Unlisted.into(),
                problem: format!(
                    "{} holds them, but the journal knows no run {run}",
                    view.store
                ),
                action: format!(
                    "restore a newer journal, or delete checkpoints/{run} and ledger/{run} under that prefix; no run uses them"
                ),
            };
            self.problem(problem).await?;
        }
        Ok(())
    }

    async fn store_problem(&mut self, problem: &str) -> Result<(), ApiError> {
        let problem = pb::VerifyProblem {
            what: "object store".into(),
            state: pb::FileState::Unreadable.into(),
            problem: problem.to_owned(),
            action:
                "correct what the text names; it is tried again by itself, and training goes on"
                    .into(),
        };
        self.problem(problem).await
    }
}
