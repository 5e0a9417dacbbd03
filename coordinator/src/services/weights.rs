//! `Weights`: files of weights, in from people and out to workers.

use std::sync::Arc;

use fovea_core::count::plural;
use fovea_core::ids::WeightsName;
use fovea_core::weights;
use fovea_proto::pb::create_weights_request::Part;
use fovea_proto::pb::create_weights_response::Outcome;
use fovea_proto::pb::weights_server::Weights;
use fovea_proto::{CHUNK_BYTES, pb};
use tonic::{Request, Response, Status, Streaming};

use super::datasets::listed_commands;
use super::transfer::{Answers, Receiving, Stored, send_file};
use super::{Context, check, peer};
use crate::access::Subject;
use crate::blocking::{blocking, blocking_with};
use crate::error::ApiError;
use crate::net::Permit;
use crate::run::RunHandle;
use crate::store::{HeldWeights, StoreError, WeightsUpload};

/// The service.
#[derive(Debug)]
pub(crate) struct WeightsService(pub Context);

#[tonic::async_trait]
impl Weights for WeightsService {
    async fn create(
        &self,
        request: Request<Streaming<pb::CreateWeightsRequest>>,
    ) -> Result<Response<pb::CreateWeightsResponse>, Status> {
        let place = self.0.limits.upload(peer(&request));
        let place = Arc::new(place.map_err(ApiError::from)?);
        let subject = Subject::of(&request);
        let (held, outcome) = self.upload(request.into_inner(), &subject, place).await?;
        let live = self.0.runs.cluster.live().await?;
        Ok(Response::new(pb::CreateWeightsResponse {
            weights: Some(wire(&held, &live, None)),
            outcome: outcome.into(),
        }))
    }

    async fn list(
        &self,
        _: Request<pb::ListWeightsRequest>,
    ) -> Result<Response<pb::ListWeightsResponse>, Status> {
        let live = self.0.runs.cluster.live().await?;
        let catalogue = self.0.weights.now();
        let mut weights: Vec<pb::StoredWeights> = catalogue
            .all()
            .map(|(sha256, held)| {
                let problem = catalogue.problem(sha256);
                match held {
                    Some(held) => wire(held, &live, problem),
                    None => pb::StoredWeights {
                        sha256: sha256.to_owned(),
                        used_by: used_by(sha256, &live),
                        problem: problem.unwrap_or_default(),
                        ..pb::StoredWeights::default()
                    },
                }
            })
            .collect();
        weights.sort_by(|a, b| (&a.name, &a.sha256).cmp(&(&b.name, &b.sha256)));
        Ok(Response::new(pb::ListWeightsResponse { weights }))
    }

    type FetchStream = Answers<pb::WeightsChunk>;

    async fn fetch(
        &self,
        request: Request<pb::FetchWeightsRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let permit = self
            .0
            .limits
            .download(peer(&request))
            .map_err(ApiError::from)?;
        let sha256 = check::sha256("sha256", &request.into_inner().sha256)?;
        let catalogue = self.0.weights.now();
        let held = catalogue.find(&sha256).map_err(|error| match error {
            // A worker asks for them because a run needs them: people must act first.
            ApiError::NotFound(_) => {
                ApiError::Precondition(catalogue.problem(&sha256).unwrap_or_default())
            }
            error => error,
        })?;
        let name = held.name.clone();
        let (store, wanted) = (self.0.weight_files.clone(), Arc::clone(&held));
        let file = match blocking(move || store.open_file(&wanted)).await? {
            Ok(file) => file,
            Err(error) => {
                self.0.weights.report(&sha256, Err(&error)).await;
                return Err(explained(&name, &ApiError::from(&error)).into());
            }
        };
        let stored = Stored {
            file,
            what: format!("weights {name}"),
            bytes: held.bytes,
            sha256: held.sha256.clone(),
        };
        let weights = self.0.weights.clone();
        let read = move |result: Result<(), StoreError>| async move {
            let error = result.as_ref().err().map(ApiError::from);
            weights.report(&sha256, result.as_ref().copied()).await;
            error.map(|error| explained(&name, &error).to_string())
        };
        let piece = |data| pb::WeightsChunk { data };
        Ok(Response::new(send_file(
            &self.0, stored, None, piece, permit, read,
        )))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteWeightsRequest>,
    ) -> Result<Response<pb::DeleteWeightsResponse>, Status> {
        let subject = Subject::of(&request);
        let wanted = check::label("weights", &request.into_inner().weights)?;
        subject.set(format_args!("weights {wanted}"));
        let catalogue = self.0.weights.now();
        let sha256 = catalogue.digest_of(&wanted)?;
        let needing = used_by(&sha256, &self.0.runs.cluster.live().await?);
        if !needing.is_empty() {
            return Err(ApiError::Precondition(format!(
                "weights {wanted} are needed by {}; cancel {} first ({})",
                needing.join(", "),
                plural(needing.len(), "it", "them"),
                listed_commands(&needing)
            ))
            .into());
        }
        let freed_bytes = self.0.weights.remove(sha256).await?;
        Ok(Response::new(pb::DeleteWeightsResponse { freed_bytes }))
    }
}

impl WeightsService {
    /// Takes an upload. `place` is its place among those that there may be; all work for it keeps it.
    async fn upload(
        &self,
        stream: Streaming<pb::CreateWeightsRequest>,
        subject: &Subject,
        place: Arc<Permit>,
    ) -> Result<(Arc<HeldWeights>, Outcome), ApiError> {
        let mut stream = Receiving::new(stream, |message| match &message.part {
            Some(Part::Data(data)) => data.len(),
            Some(Part::Header(_)) | None => 0,
        });
        let first = stream.next(&self.0).await?;
        let Some(Part::Header(header)) = first.and_then(|message| message.part) else {
            return Err(ApiError::invalid("header", "must come first"));
        };
        let pb::WeightsHeader {
            name,
            file_name,
            sha256,
            size_bytes,
        } = header;
        let given = match &*name {
            "" => None,
            name => Some(weights::name(name).map_err(|e| ApiError::invalid("header.name", e))?),
        };
        let file_name = check::label("header.file_name", &file_name)?;
        let sha256 = check::sha256("header.sha256", &sha256)?;
        subject.set(format_args!("weights {sha256} ({file_name})"));
        // Before anything is sent; it is asked again when the upload is stored.
        let catalogue = self.0.weights.now();
        catalogue.name_for(&sha256, given.as_ref(), &file_name)?;
        if let Some(held) = self.sound(&sha256, &place).await? {
            return Ok((held, Outcome::Unchanged));
        }
        let (store, digest, label) = (
            self.0.weight_files.clone(),
            sha256.clone(),
            file_name.clone(),
        );
        let begin = move || WeightsUpload::begin(&store, digest, size_bytes, label);
        let mut upload = blocking_with(Arc::clone(&place), begin).await??;
        while let Some(message) = stream.next(&self.0).await? {
            let data = match message.part {
                Some(Part::Data(data)) => data,
                Some(Part::Header(_)) => {
                    return Err(ApiError::invalid("header", "comes only once"));
                }
                None => return Err(ApiError::invalid("part", "is missing")),
            };
            if data.len() > CHUNK_BYTES {
                return Err(ApiError::invalid(
                    "data",
                    format!("has {} bytes; at most {CHUNK_BYTES} are taken", data.len()),
                ));
            }
            let piece = move || upload.piece(&data).map(|()| upload);
            upload = blocking_with(Arc::clone(&place), piece).await??;
        }
        // One at a time: a hostile file takes memory for its largest layer.
        let turn = Arc::clone(&self.0.checking).acquire_owned().await;
        let verified = blocking_with((Arc::clone(&place), turn), move || upload.verify()).await??;
        let added = self.0.weights.add(verified, given, file_name).await?;
        let outcome = match (added.added, added.repaired) {
            (true, _) => Outcome::Added,
            (false, true) => Outcome::Repaired,
            (false, false) => Outcome::Unchanged,
        };
        Ok((added.held, outcome))
    }

    /// The weights of that digest, if they are here and their file is read and is right. One that is missing or corrupt is
    /// to be replaced by the upload.
    async fn sound(
        &self,
        sha256: &str,
        place: &Arc<Permit>,
    ) -> Result<Option<Arc<HeldWeights>>, ApiError> {
        let (store, digest) = (self.0.weight_files.clone(), sha256.to_owned());
        let verify = move || {
            let held = store.describe(&digest)?;
            let verified = store.verify(&held, |_| ());
            Ok::<_, StoreError>((held, verified))
        };
        match blocking_with(Arc::clone(place), verify).await? {
            Ok((held, verified)) => {
                let result = verified.as_ref().copied();
                self.0.weights.report(sha256, result).await;
                match verified {
                    Ok(()) => Ok(Some(Arc::new(held))),
                    Err(StoreError::Missing { .. } | StoreError::Corrupt { .. }) => Ok(None),
                    // What cannot be read now is no reason to replace anything.
                    Err(error) => Err(error.into()),
                }
            }
            Err(StoreError::Missing { .. } | StoreError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The file's error with the name that people know, and the cure.
fn explained(name: &WeightsName, error: &ApiError) -> ApiError {
    let text = format!(
        "the coordinator's copy of weights {name} cannot be used ({error}); `fovea weights add FILE` with the same file \
         repairs it"
    );
    match error {
        ApiError::Damaged(_) => ApiError::Damaged(text),
        _ => ApiError::Precondition(text),
    }
}

/// The runs that have not ended and start from these weights.
fn used_by(sha256: &str, live: &[RunHandle]) -> Vec<String> {
    live.iter()
        .filter(|run| {
            let model = &run.spec.model;
            !model.weights.is_empty()
                && model.weights_sha256 == sha256
                && !run.shown().run.is_terminal()
        })
        .map(|run| run.id.to_string())
        .collect()
}

fn wire(held: &HeldWeights, live: &[RunHandle], problem: Option<String>) -> pb::StoredWeights {
    let shape = |shape: &[usize]| shape.iter().map(|n| *n as u32).collect();
    pb::StoredWeights {
        name: held.name.to_string(),
        sha256: held.sha256.clone(),
        size_bytes: held.bytes,
        added_at_ms: held.added_at_ms,
        format: held.checked.format.as_str().to_owned(),
        layers: held
            .checked
            .layers
            .iter()
            .map(|layer| pb::WeightsLayer {
                name: layer.name.clone(),
                shape: shape(&layer.shape),
            })
            .collect(),
        ignored: held
            .checked
            .ignored
            .iter()
            .map(|layer| pb::IgnoredLayer {
                name: layer.name.clone(),
                reason: layer.why.as_str().to_owned(),
            })
            .collect(),
        used_by: used_by(&held.sha256, live),
        problem: problem.unwrap_or_default(),
    }
}
