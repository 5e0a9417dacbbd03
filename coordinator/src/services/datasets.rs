//! `Datasets`: prepared datasets, in from people and out to workers.

use std::sync::Arc;

use fovea_core::ids::DatasetName;
use fovea_dataset::{INDEX_FILE, MANIFEST_FILE, Split};
use fovea_proto::pb::create_dataset_request::Part;
use fovea_proto::pb::datasets_server::Datasets;
use fovea_proto::{CHUNK_BYTES, pb};
use prost::bytes::Bytes;
use tonic::{Request, Response, Status, Streaming};

use super::transfer::{self, Answers, send_file};
use super::{Context, check};
use crate::datasets::{HeldDataset, Upload};
use crate::error::ApiError;
use crate::owner::Message;

/// The service.
#[derive(Debug)]
pub(crate) struct DatasetsService(pub Context);

#[tonic::async_trait]
impl Datasets for DatasetsService {
    async fn create(
        &self,
        request: Request<Streaming<pb::CreateDatasetRequest>>,
    ) -> Result<Response<pb::CreateDatasetResponse>, Status> {
        let held = self.upload(request.into_inner()).await?;
        Ok(Response::new(pb::CreateDatasetResponse {
            dataset: Some(wire(&held)),
            outcome: pb::create_dataset_response::Outcome::Unspecified.into(),
            repaired_packs: Vec::new(),
        }))
    }

    async fn list(
        &self,
        _: Request<pb::ListDatasetsRequest>,
    ) -> Result<Response<pb::ListDatasetsResponse>, Status> {
        let held = self
            .0
            .owner
            .ask(|reply| Message::ListDatasets { reply })
            .await?;
        Ok(Response::new(pb::ListDatasetsResponse {
            datasets: held.iter().map(|d| wire(d)).collect(),
        }))
    }

    async fn get(
        &self,
        request: Request<pb::GetDatasetRequest>,
    ) -> Result<Response<pb::DatasetFiles>, Status> {
        let held = self.find(request.into_inner().dataset).await?;
        let read = |file: &str| {
            let path = held.dir.join(file);
            async move {
                tokio::fs::read(&path).await.map(Bytes::from).map_err(|e| {
                    ApiError::Damaged(format!(
                        "the dataset's {} cannot be read: {e}",
                        path.display()
                    ))
                })
            }
        };
        Ok(Response::new(pb::DatasetFiles {
            manifest: read(MANIFEST_FILE).await?,
            index: read(INDEX_FILE).await?,
        }))
    }

    async fn delete(
        &self,
        _: Request<pb::DeleteDatasetRequest>,
    ) -> Result<Response<pb::DeleteDatasetResponse>, Status> {
        Err(Status::unimplemented("Datasets.Delete"))
    }

    type FetchPackStream = Answers<pb::PackChunk>;

    async fn fetch_pack(
        &self,
        request: Request<pb::FetchPackRequest>,
    ) -> Result<Response<Self::FetchPackStream>, Status> {
        let pb::FetchPackRequest { digest, pack } = request.into_inner();
        let held = self.find(check::sha256("digest", &digest)?).await?;
        let packs = &held.manifest.packs;
        let (Some(entry), Some(path)) = (packs.get(pack as usize), held.pack(pack)) else {
            let problem = format!("{pack} is not below {}, the dataset's packs", packs.len());
            return Err(ApiError::invalid("pack", problem).into());
        };
        let piece = |data| pb::PackChunk { data };
        let answers = send_file(&self.0, path, entry.bytes, None, piece, None).await?;
        Ok(Response::new(answers))
    }
}

impl DatasetsService {
    async fn upload(
        &self,
        mut stream: Streaming<pb::CreateDatasetRequest>,
    ) -> Result<Arc<HeldDataset>, ApiError> {
        let _place = self.0.uploads.try_acquire().map_err(|_| {
            ApiError::Exhausted(format!(
                "{} datasets are being uploaded already (max_uploads); try again later",
                self.0.config.max_uploads
            ))
        })?;
        let first = transfer::next(&mut stream, &self.0).await?;
        let Some(Part::Header(header)) = first.and_then(|message| message.part) else {
            return Err(ApiError::invalid("header", "must come first"));
        };
        let pb::DatasetFiles { manifest, index } = header;
        let checking = (manifest.clone(), index.clone());
        let checked = on_disk_thread(move || Upload::check(&checking.0, &checking.1)).await?;
        let offer = |reply| Message::OfferDataset {
            name: checked.name.clone(),
            digest: checked.digest.clone(),
            reply,
        };
        if let Some(held) = self.0.owner.ask(offer).await? {
            return Ok(held);
        }
        let folder = self.0.dir.datasets();
        let mut upload =
            on_disk_thread(move || Upload::begin(&folder, checked, &manifest, &index)).await?;
        while let Some(message) = transfer::next(&mut stream, &self.0).await? {
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
            upload = on_disk_thread(move || {
                upload.piece(pack, &data)?;
                Ok(upload)
            })
            .await?;
        }
        let verified = Box::new(on_disk_thread(move || upload.verify()).await?);
        self.0
            .owner
            .ask(|reply| Message::AddDataset {
                upload: verified,
                reply,
            })
            .await
    }

    async fn find(&self, dataset: String) -> Result<Arc<HeldDataset>, ApiError> {
        let is_digest = check::sha256("dataset", &dataset).is_ok();
        if !is_digest {
            DatasetName::new(&*dataset).map_err(|e| ApiError::invalid("dataset", e))?;
        }
        self.0
            .owner
            .ask(|reply| Message::FindDataset { dataset, reply })
            .await
    }
}

/// Runs what waits for the disk where it holds up nobody.
pub(super) async fn on_disk_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| ApiError::Internal(format!("a task on the disk died: {e}")))?
}

fn wire(held: &HeldDataset) -> pb::Dataset {
    let manifest = &held.manifest;
    pb::Dataset {
        name: manifest.name.to_string(),
        digest: manifest.digest.clone(),
        image_size: manifest.image_size,
        train_samples: manifest.samples(Split::Train),
        validation_samples: manifest.samples(Split::Validation),
        train_grades: manifest.counts.train.to_vec(),
        validation_grades: manifest.counts.validation.to_vec(),
        packs: manifest.packs.len() as u32,
        size_bytes: manifest.packs.iter().map(|p| p.bytes).sum(),
        problem: String::new(),
    }
}
