//! Verifying the stored weights.

use super::{Away, Verification, file_state};
use crate::error::ApiError;
use crate::store::StoreError;
use fovea_proto::pb;

impl Verification {
    /// Every file of weights, and its manifest.
    pub(super) async fn all_weights(&mut self) -> Result<Option<Away>, ApiError> {
        let store = self.context.weight_files.clone();
        let digests = match crate::blocking::blocking(move || store.digests()).await? {
            Ok(digests) => digests,
            Err(error) => return self.away("weights store", &error).await.map(Some),
        };
        for sha256 in digests {
            if let Some(away) = self.of_digest(&sha256).await? {
                return Ok(Some(away));
            }
        }
        Ok(None)
    }

    async fn of_digest(&mut self, sha256: &str) -> Result<Option<Away>, ApiError> {
        let catalogue = self.context.weights.now();
        let known = catalogue.held().find(|held| held.sha256 == sha256);
        let what = match known {
            Some(held) => format!("weights {}", held.name),
            None => format!("weights {sha256}"),
        };
        let (store, digest) = (self.context.weight_files.clone(), sha256.to_owned());
        let read = self
            .read(&what, move |progress| {
                let held = store.describe(&digest)?;
                store.verify(&held, progress)
            })
            .await?;
        if let Err(error @ StoreError::Unavailable { .. }) = &read {
            return self.away("weights store", error).await.map(Some);
        }
        let weights = &self.context.weights;
        if weights.now().digest_of(sha256).is_err() {
            // Removed since the verification began.
            return Ok(None);
        }
        weights.report(sha256, read.as_ref().copied()).await;
        self.summary.weights += 1;
        if let Err(error) = read {
            let action = match &error {
                StoreError::Missing { .. } | StoreError::Corrupt { .. } => {
                    "`fovea weights add FILE` with the same file repairs it"
                }
                // An upload does not replace what it cannot compare.
                _ => "correct the cause, then verify again; nothing was deleted",
            };
            let problem = pb::VerifyProblem {
                what,
                problem: error.finding(),
                state: file_state(&Err(error)).into(),
                action: action.into(),
            };
            self.problem(problem).await?;
        }
        Ok(None)
    }
}
