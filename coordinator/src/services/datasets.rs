//! `Datasets`: prepared datasets, in from people and out to workers.

use std::sync::Arc;

use fovea_core::count::plural;
use fovea_core::ids::DatasetName;
use fovea_dataset::{GradeScale, PackEntry, Split};
use fovea_proto::pb::create_dataset_request::Part;
use fovea_proto::pb::create_dataset_response::Outcome;
use fovea_proto::pb::datasets_server::Datasets;
use fovea_proto::{CHUNK_BYTES, pb};
use prost::bytes::Bytes;
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;

use super::transfer::{Answers, Receiving, Stored, send_file};
use super::{Context, check, peer};
use crate::access::{Subject, caller};
use crate::blocking::{blocking, blocking_with};
use crate::catalogue::{Repaired, name_taken};
use crate::error::ApiError;
use crate::net::Permit;
use crate::remote::{Item, Wanted};
use crate::store::{HeldDataset, StoreError, Upload};

/// The service.
#[derive(Debug)]
pub(crate) struct DatasetsService(pub Context);

#[tonic::async_trait]
impl Datasets for DatasetsService {
    async fn create(
        &self,
        request: Request<Streaming<pb::CreateDatasetRequest>>,
    ) -> Result<Response<pb::CreateDatasetResponse>, Status> {
        let place = self.0.limits.upload(peer(&request));
        let place = Arc::new(place.map_err(ApiError::from)?);
        let subject = Subject::of(&request);
        let answer = self.upload(request.into_inner(), &subject, place).await?;
        Ok(Response::new(answer))
    }

    async fn list(
        &self,
        _: Request<pb::ListDatasetsRequest>,
    ) -> Result<Response<pb::ListDatasetsResponse>, Status> {
        let catalogue = self.0.datasets.now();
        let mut datasets: Vec<pb::Dataset> = catalogue
            .names()
            .map(|(name, digest)| match catalogue.named(name) {
                Some(held) => wire(held, catalogue.problem(digest)),
                // Its files cannot be read: all that is known is in the journal.
                None => pb::Dataset {
                    name: name.to_string(),
                    digest: digest.to_owned(),
                    problem: catalogue.problem(digest).unwrap_or_default(),
                    ..pb::Dataset::default()
                },
            })
            .collect();
        datasets.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Response::new(pb::ListDatasetsResponse { datasets }))
    }

    async fn get(
        &self,
        request: Request<pb::GetDatasetRequest>,
    ) -> Result<Response<pb::DatasetFiles>, Status> {
        let wanted = request.into_inner().dataset;
        named(&wanted)?;
        let held = self.0.datasets.now().find(&wanted)?;
        let store = self.0.dataset_files.clone();
        let files = blocking(move || store.read_files(&held.manifest.digest)).await?;
        let (manifest, index) = files.map_err(|e| ApiError::from(&e))?;
        Ok(Response::new(pb::DatasetFiles {
            manifest: Bytes::from(manifest),
            index: Bytes::from(index),
        }))
    }

    type FetchPackStream = Answers<pb::PackChunk>;

    async fn fetch_pack(
        &self,
        request: Request<pb::FetchPackRequest>,
    ) -> Result<Response<Self::FetchPackStream>, Status> {
        let permit = self
            .0
            .limits
            .download(peer(&request))
            .map_err(ApiError::from)?;
        let pb::FetchPackRequest { digest, pack } = request.into_inner();
        let digest = check::sha256("digest", &digest)?;
        let held = self.0.datasets.now().find(&digest)?;
        let packs = &held.manifest.packs;
        let Some(entry) = packs.get(pack as usize).cloned() else {
            let problem = format!("{pack} is not below {}, the dataset's packs", packs.len());
            return Err(ApiError::invalid("pack", problem).into());
        };
        let name = held.manifest.name.clone();
        let file = match self.open_pack(&held, pack, &entry).await? {
            Ok(file) => file,
            Err(error) => {
                let datasets = &self.0.datasets;
                datasets.report(&digest, pack, Err(&error)).await;
                return Err(explained(&name, pack, &ApiError::from(&error)).into());
            }
        };
        let stored = Stored {
            file,
            what: format!("dataset {name}, pack {pack}"),
            bytes: entry.bytes,
            sha256: entry.sha256,
        };
        let datasets = self.0.datasets.clone();
        let read = move |result: Result<(), StoreError>| async move {
            let text = result
                .as_ref()
                .err()
                .map(|error| explained(&name, pack, &ApiError::from(error)).to_string());
            // A right reading says nothing new, but for a pack that was reported before.
            if result.is_err() || datasets.now().problem(&digest).is_some() {
                datasets
                    .report(&digest, pack, result.as_ref().copied())
                    .await;
            }
            text
        };
        let piece = |data| pb::PackChunk { data };
        Ok(Response::new(send_file(
            &self.0, stored, None, piece, permit, read,
        )))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteDatasetRequest>,
    ) -> Result<Response<pb::DeleteDatasetResponse>, Status> {
        let subject = Subject::of(&request);
        let caller = caller(&request);
        let wanted = request.into_inner().dataset;
        named(&wanted)?;
        subject.set(format_args!("dataset {wanted}"));
        let catalogue = self.0.datasets.now();
        let found = catalogue
            .names()
            .find(|(name, digest)| name.as_str() == wanted || *digest == wanted)
            .map(|(name, digest)| (name.clone(), digest.to_owned()));
        let (name, digest) = found.ok_or_else(|| ApiError::no_dataset(&wanted))?;
        let held = catalogue.named(&name);
        if !held.is_some_and(|held| held.manifest.is_ungraded()) {
            caller.must_be_admin(format_args!("remove dataset {name}"))?;
        }
        let needing: Vec<String> = self
            .0
            .runs
            .cluster
            .live()
            .await?
            .iter()
            .filter(|run| *run.dataset_digest == *digest && !run.shown().run.is_terminal())
            .map(|run| run.id.to_string())
            .collect();
        if !needing.is_empty() {
            return Err(ApiError::Precondition(format!(
                "dataset {name} is needed by {}; cancel {} first ({})",
                needing.join(", "),
                plural(needing.len(), "it", "them"),
                listed_commands(&needing)
            ))
            .into());
        }
        let freed_bytes = self.0.datasets.remove(name).await?;
        Ok(Response::new(pb::DeleteDatasetResponse { freed_bytes }))
    }
}

impl DatasetsService {
    /// Opens a pack; one that is missing here is fetched from the object store, if it is there.
    async fn open_pack(
        &self,
        held: &Arc<HeldDataset>,
        pack: u32,
        entry: &PackEntry,
    ) -> Result<Result<std::fs::File, StoreError>, ApiError> {
        let open = || {
            let (store, held) = (self.0.dataset_files.clone(), Arc::clone(held));
            blocking(move || store.open_pack(&held, pack))
        };
        let digest = &held.manifest.digest;
        let path = match open().await? {
            Err(StoreError::Missing { path })
                if self.0.remote.has(&Item::Dataset(digest.clone())) =>
            {
                path
            }
            result => return Ok(result),
        };
        let wanted = Wanted::Pack {
            digest: digest.clone(),
            entry: entry.clone(),
        };
        match self.0.remote.fetch(wanted).await {
            Ok(()) => Ok(open().await?),
            Err(error) => Ok(Err(StoreError::Unreadable {
                path,
                source: std::io::Error::other(format!("it is not here, and {error}")),
            })),
        }
    }

    /// Takes an upload. `place` is its place among those that there may be; all work for it keeps it.
    async fn upload(
        &self,
        stream: Streaming<pb::CreateDatasetRequest>,
        subject: &Subject,
        place: Arc<Permit>,
    ) -> Result<pb::CreateDatasetResponse, ApiError> {
        let mut stream = Receiving::new(stream, |message| match &message.part {
            Some(Part::Header(files)) => files.manifest.len() + files.index.len(),
            Some(Part::Piece(piece)) => piece.data.len(),
            None => 0,
        });
        let first = stream.next(&self.0).await?;
        let Some(Part::Header(header)) = first.and_then(|message| message.part) else {
            return Err(ApiError::invalid("header", "must come first"));
        };
        let pb::DatasetFiles { manifest, index } = header;
        let checking = (manifest.clone(), index.clone());
        let check = move || Upload::check(&checking.0, &checking.1);
        let checked = blocking_with(Arc::clone(&place), check).await??;
        subject.set(format_args!("dataset {}", checked.name));
        let catalogue = self.0.datasets.now();
        let same_name = catalogue.names().find(|(name, _)| **name == checked.name);
        if let Some((name, digest)) = same_name {
            if digest != checked.digest {
                return Err(name_taken(name, digest));
            }
            if let Some(held) = self.sound(name, digest, &place).await? {
                return Ok(answer(&held, Outcome::Unchanged, Repaired::default()));
            }
        }
        let store = self.0.dataset_files.clone();
        let begin = move || Upload::begin(&store, checked, &manifest, &index);
        let mut upload = blocking_with(Arc::clone(&place), begin).await??;
        while let Some(message) = stream.next(&self.0).await? {
            let piece = match message.part {
                Some(Part::Piece(piece)) => piece,
                Some(Part::Header(_)) => {
                    return Err(ApiError::invalid("header", "comes only once"));
                }
                None => return Err(ApiError::invalid("part", "is missing")),
            };
            let pb::PackPiece { pack, data } = piece;
            if data.len() > CHUNK_BYTES {
                return Err(ApiError::invalid(
                    "piece.data",
                    format!("has {} bytes; at most {CHUNK_BYTES} are taken", data.len()),
                ));
            }
            let piece = move || upload.piece(pack, &data).map(|()| upload);
            upload = blocking_with(Arc::clone(&place), piece).await??;
        }
        let verified = blocking_with(Arc::clone(&place), move || upload.verify()).await??;
        let added = self.0.datasets.add(verified).await?;
        Ok(match added.repaired {
            None => answer(&added.held, Outcome::Added, Repaired::default()),
            Some(none) if none == Repaired::default() => {
                answer(&added.held, Outcome::Unchanged, none)
            }
            Some(repaired) => answer(&added.held, Outcome::Repaired, repaired),
        })
    }

    /// The dataset that is held under this name, if every file of it is read and is right. What is missing or corrupt
    /// is to be replaced by the upload; what cannot be read now is no reason to replace anything.
    async fn sound(
        &self,
        name: &DatasetName,
        digest: &str,
        place: &Arc<Permit>,
    ) -> Result<Option<Arc<HeldDataset>>, ApiError> {
        let Some(held) = self.0.datasets.now().named(name).cloned() else {
            return Ok(None);
        };
        let (store, reading) = (self.0.dataset_files.clone(), Arc::clone(&held));
        let verify = move || {
            let packs = store.verify(&reading, |_| {});
            (packs, store.verify_description(&reading))
        };
        let (problems, of_files) = blocking_with(Arc::clone(place), verify).await?;
        if problems.is_empty() && of_files.is_empty() {
            self.0.datasets.sound(digest).await;
            return Ok(Some(held));
        }
        for (pack, error) in &problems {
            warn!(dataset = %name, pack, %error, "pack.corrupt: dataset {name}, pack {pack}: {error}");
            self.0.datasets.report(digest, *pack, Err(error)).await;
        }
        Ok(None)
    }
}

/// Whether a text can name a dataset: its name, or its digest.
fn named(text: &str) -> Result<(), ApiError> {
    if check::sha256("dataset", text).is_err() {
        DatasetName::new(text).map_err(|e| ApiError::invalid("dataset", e))?;
    }
    Ok(())
}

/// A pack's error with the name that people know, and the cure.
fn explained(name: &DatasetName, pack: u32, error: &ApiError) -> ApiError {
    let text = format!(
        "the coordinator's copy of dataset {name}, pack {pack}, cannot be used ({error}); `fovea dataset add DIR` with \
         the prepared dataset repairs it"
    );
    match error {
        ApiError::Damaged(_) => ApiError::Damaged(text),
        _ => ApiError::Precondition(text),
    }
}

/// The commands that cancel these runs, for people.
pub(super) fn listed_commands(runs: &[String]) -> String {
    let commands: Vec<String> = runs
        .iter()
        .map(|id| format!("`fovea cancel {id}`"))
        .collect();
    commands.join(", ")
}

fn answer(held: &HeldDataset, outcome: Outcome, repaired: Repaired) -> pb::CreateDatasetResponse {
    let Repaired { packs, files } = repaired;
    pb::CreateDatasetResponse {
        dataset: Some(wire(held, None)),
        outcome: outcome.into(),
        repaired_packs: packs,
        repaired_files: files.iter().map(|file| file.name().to_owned()).collect(),
    }
}

fn wire(held: &HeldDataset, problem: Option<String>) -> pb::Dataset {
    let manifest = &held.manifest;
    pb::Dataset {
        name: manifest.name.to_string(),
        digest: manifest.digest.clone(),
        image_size: manifest.image_size,
        train_samples: manifest.samples(Split::Train),
        validation_samples: manifest.samples(Split::Validation),
        train_grades: manifest.counts.train.to_vec(),
        validation_grades: manifest.counts.validation.to_vec(),
        test_samples: manifest.samples(Split::Test),
        test_grades: manifest.counts.test.to_vec(),
        packs: manifest.packs.len() as u32,
        size_bytes: manifest.packs.iter().map(|p| p.bytes).sum(),
        problem: problem.unwrap_or_default(),
        preprocessing: manifest.preprocess.shown(),
        pipeline: manifest.pipeline().digest,
        scale: manifest.scale.map_or("", GradeScale::as_str).to_owned(),
    }
}
