//! The child carries out operations on a real journal and real stores.

use std::path::Path;

use fovea_core::checkpoint::CheckpointInfo;
use fovea_core::ids::{DatasetName, RunId};

use super::SPLIT;
use super::story::Operation;
use crate::data_dir::DataDir;
use crate::journal::{Journal, OnFull, RunChange, Urgency};
use crate::store::test_support::{
    ELEMENTS, dataset, digest_of, fingerprint, header, options, state, upload,
};
use crate::store::{CheckpointRecord, CheckpointStore, DatasetStore, RunRecord};

/// Bytes of a slice of a checkpoint.
const SLICE: usize = 5000;

/// What the child has open.
pub(super) struct Files {
    journal: Journal,
    checkpoints: CheckpointStore,
    datasets: DatasetStore,
    _dir: DataDir,
}

impl Files {
    pub(super) async fn open(root: &Path) -> Self {
        let dir = DataDir::open(root).unwrap();
        let (journal, recovered) = Journal::open(&dir.journal(), true).unwrap();
        let known = |kind: &str| recovered.stores.get(kind).map(String::as_str);
        let (checkpoints, id) =
            CheckpointStore::open(&dir.checkpoints(), known("checkpoints"), 0, options()).unwrap();
        let named = recovered.datasets.len();
        let (datasets, datasets_id) =
            DatasetStore::open(&dir.datasets(), known("datasets"), named, options()).unwrap();
        for (kind, id) in [("checkpoints", id), ("datasets", datasets_id)] {
            if known(kind) != Some(&id) {
                journal.put_store(kind, &id).await.unwrap();
            }
        }
        Self {
            journal,
            checkpoints,
            datasets,
            _dir: dir,
        }
    }

    pub(super) async fn perform(
        open: &mut Option<Self>,
        operation: Operation,
        number: u64,
        head: u64,
    ) {
        if let Operation::Close = operation {
            return open.take().unwrap().journal.close().await.unwrap();
        }
        let files = open.as_ref().unwrap();
        let id = RunId::new(format!("r-{number}")).unwrap();
        let name = DatasetName::new("eyes").unwrap();
        let digest = &dataset().manifest.digest;
        match operation {
            Operation::Open | Operation::Close => unreachable!(),
            Operation::AddDataset => {
                let verified = upload(&files.datasets, dataset()).unwrap();
                assert!(verified.store().unwrap().added);
                files.journal.put_dataset(&name, digest).await.unwrap();
            }
            Operation::RemoveDataset => {
                files.journal.remove_dataset(&name).await.unwrap();
                assert!(files.datasets.remove(digest).unwrap() > 0);
            }
            Operation::Store(info, run) => files.store(&info, run),
            Operation::Put {
                number: of,
                run,
                rewind,
                steps,
            } => {
                let urgency = match run {
                    Some(_) => Urgency::Now,
                    None => Urgency::Soon,
                };
                let put = files.journal.put_run(
                    RunChange {
                        number: of,
                        run: run.as_deref(),
                        rewind,
                        steps,
                        scores: None,
                        train_samples: SPLIT,
                        head: 0,
                    },
                    urgency,
                    OnFull::Wait,
                );
                let found = put.await.unwrap();
                assert!(of != number || found == head, "head {found}, not {head}");
            }
            Operation::RemoveFile(info) => {
                assert!(files.checkpoints.remove(&id, &info).unwrap() > 0);
            }
            Operation::RemoveRun => {
                assert!(files.checkpoints.remove_run(&id).unwrap() > 0);
                files.journal.remove_run(number).await.unwrap();
            }
        }
    }

    fn store(&self, info: &CheckpointInfo, run: RunRecord) {
        let bytes = state(info.step, info.generation);
        let file = self
            .checkpoints
            .begin(&run.id, info.step, info.generation, &header(), ELEMENTS)
            .unwrap();
        for (number, slice) in bytes.chunks(SLICE).enumerate() {
            file.write_at(slice, (number * SLICE) as u64).unwrap();
            file.sync().unwrap();
        }
        let record = CheckpointRecord {
            fingerprint: fingerprint(),
            lineage: info.lineage,
            stored_at_ms: info.stored_at_ms,
            run,
        };
        let stored = file.finish(&digest_of(&bytes), &record).unwrap();
        assert_eq!(stored, *info);
    }
}
