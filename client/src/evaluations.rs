//! Evaluating a run: asking for scores, and for the datasets that they are of.

use fovea_core::spec::Part;
use fovea_judging::{Described, Receiving, RunInfo, Scores};
use fovea_proto::pb;

use crate::client::Client;
use crate::error::Error;

/// How photographs are shown to a model that predicts, and what is asked for besides the scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Views {
    /// The mean over four rotations.
    pub rotations: bool,
    /// Class activation maps.
    pub maps: bool,
}

impl Client {
    /// Scores the checkpoint of `step` on a part of `dataset` (None: the run's own), or finds where that was done before. With
    /// `rotations` a score is the mean over the four rotations of a photograph.
    /// Returns the run that scores, and whether it was there.
    pub async fn evaluate(
        &self,
        run_id: &str,
        step: u64,
        dataset: Option<&str>,
        part: Part,
        rotations: bool,
    ) -> Result<(RunInfo, bool), Error> {
        let request = pb::EvaluateRequest {
            run_id: run_id.into(),
            step,
            dataset: dataset.unwrap_or_default().into(),
            part: pb::Part::from(part).into(),
            rotations,
            ..pb::EvaluateRequest::default()
        };
        self.begin_scoring(request).await
    }

    /// Scores the photographs of a dataset without grades with the checkpoint of `step`. Returns the run that scores.
    pub async fn predict(
        &self,
        run_id: &str,
        step: u64,
        dataset: &str,
        views: Views,
    ) -> Result<RunInfo, Error> {
        let Views { rotations, maps } = views;
        let request = pb::EvaluateRequest {
            run_id: run_id.into(),
            step,
            dataset: dataset.into(),
            part: pb::Part::Validation.into(),
            prediction: true,
            rotations,
            maps,
        };
        Ok(self.begin_scoring(request).await?.0)
    }

    async fn begin_scoring(&self, request: pb::EvaluateRequest) -> Result<(RunInfo, bool), Error> {
        // The checkpoint may have to come from the object store first.
        let reply = self.unbounded(self.runs_client().evaluate(request)).await?;
        let run = reply
            .run
            .ok_or_else(|| Error::Protocol("the reply to an evaluation lacks the run".into()))?;
        Ok((run.try_into()?, reply.existed))
    }

    /// The scores of the epoch of a run that ended at `step`. None: that epoch was not evaluated, or its scores were not kept.
    pub async fn scores(&self, run_id: &str, step: u64) -> Result<Option<Scores>, Error> {
        self.scores_with(run_id, step, false).await
    }

    /// The same with class activation maps, if `maps` and there are any.
    pub async fn scores_with(
        &self,
        run_id: &str,
        step: u64,
        maps: bool,
    ) -> Result<Option<Scores>, Error> {
        let request = pb::ScoresRequest {
            run_id: run_id.into(),
            step,
            maps,
        };
        let mut stream = match self.runs_client().scores(request).await {
            Ok(reply) => reply.into_inner(),
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
            Err(status) => return Err(self.error(&status)),
        };
        let mut receiving = Receiving::default();
        while let Some(part) = stream.message().await.map_err(|s| self.error(&s))? {
            receiving.take(part)?;
        }
        Ok(Some(receiving.finish()?))
    }

    /// Manifest and index of a dataset, by name or digest, checked against each other.
    /// None: there is none, any more.
    pub async fn describe_dataset(&self, dataset: &str) -> Result<Option<Described>, Error> {
        let request = pb::GetDatasetRequest {
            dataset: dataset.into(),
        };
        let mut datasets = self.datasets_client();
        let getting = async {
            match datasets.get(request).await {
                Ok(reply) => Ok(reply.map(Some)),
                Err(status) if status.code() == tonic::Code::NotFound => {
                    Ok(tonic::Response::new(None))
                }
                Err(status) => Err(status),
            }
        };
        let Some(pb::DatasetFiles { manifest, index }) = self.answer(getting).await? else {
            return Ok(None);
        };
        Ok(Some(Described::parse(dataset, &manifest, &index)?))
    }
}

/// The error about a dataset that was removed, by the name under which people know it.
pub fn removed(name: &str, digest: &str) -> Error {
    let digest: String = digest.chars().take(12).collect();
    Error::Refused(format!(
        "dataset {name} ({digest}) was removed; `fovea dataset add DIR` with the same prepared dataset brings it back"
    ))
}
