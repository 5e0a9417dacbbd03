//! What the tests of the stores share: a store with checkpoints in it, and a small dataset.

#[path = "../../tests/common/photographs.rs"]
mod photographs;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use fovea_core::checkpoint::{CheckpointInfo, Fingerprint};
use fovea_core::ids::{RunId, WeightsName};
use fovea_core::ledger::Entry;
use fovea_core::metrics::Evaluation;
use fovea_core::run::EpochResult;
use fovea_dataset::{INDEX_FILE, MANIFEST_FILE, Manifest};
use fovea_weights::{Checked, Format};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::trash::TRASH;
use super::{
    CheckpointRecord, CheckpointStore, DatasetStore, Moment, Purged, RunRecord, StoreOptions,
    StoredWeights, TrashAges, Upload, UploadError, Verified, WeightsStore, WeightsUpload,
};

/// Elements of a state: enough for several slices.
pub(crate) const ELEMENTS: u64 = 3000;

/// A store with the checkpoints 10 and 20 of run `r-1` and one of run `other-2`.
pub(super) struct Shelf {
    root: TempDir,
    pub store: CheckpointStore,
    pub id: String,
    /// The checkpoints of `r-1`.
    pub infos: Vec<CheckpointInfo>,
    pub other: RunId,
}

impl Shelf {
    pub fn new() -> Self {
        let root = memory_folder();
        let (store, id) =
            CheckpointStore::open(&root.path().join("checkpoints"), None, 0, options()).unwrap();
        let infos = [10, 20].map(|step| store_one(&store, &run_id(), step, 1));
        let other = RunId::new("other-2").unwrap();
        store_one(&store, &other, 7, 1);
        Self {
            root,
            store,
            id,
            infos: infos.into(),
            other,
        }
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn dir(&self) -> PathBuf {
        self.root.path().join("checkpoints")
    }

    pub fn datasets(&self) -> PathBuf {
        self.root.path().join("datasets")
    }

    pub fn options(&self) -> StoreOptions {
        options()
    }

    /// Names of the files in the trash.
    pub fn trash(&self) -> Vec<String> {
        let trash = self.dir().join(TRASH);
        let entries = files(&trash).into_iter();
        let mut names: Vec<String> = entries
            .flat_map(|entry| files(&trash.join(entry)))
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn options() -> StoreOptions {
    StoreOptions {
        accept: false,
        trash_keep: Duration::from_secs(7 * 86_400),
        min_free_bytes: 0,
    }
}

/// A folder in memory where there is one: these tests sync thousands of times.
pub(crate) fn memory_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Empties the trash as a coordinator does that has run for so many days since it saw the trash first.
pub(crate) fn empty_trash_after(store: &CheckpointStore, days: u32) -> Purged {
    let (mut ages, wall) = (TrashAges::default(), SystemTime::now());
    let running = Duration::ZERO;
    store.empty_trash(&mut ages, Moment { wall, running });
    let running = days * Duration::from_secs(86_400);
    let wall = wall + running;
    store.empty_trash(&mut ages, Moment { wall, running })
}

pub(crate) fn run_id() -> RunId {
    RunId::new("r-1").unwrap()
}

pub(super) fn folder(shelf: &Shelf) -> PathBuf {
    shelf.dir().join("r-1")
}

/// Names in a folder.
pub(crate) fn files(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Assembles and stores a checkpoint, as a run does.
pub(crate) fn store_one(
    store: &CheckpointStore,
    run: &RunId,
    step: u64,
    generation: u64,
) -> CheckpointInfo {
    let bytes = state(step, generation);
    let file = store
        .begin(run, step, generation, &header(), ELEMENTS)
        .unwrap();
    for (number, slice) in bytes.chunks(5000).enumerate() {
        file.write_at(slice, number as u64 * 5000).unwrap();
        file.sync().unwrap();
    }
    let mut record = record(step);
    record.run.id = run.clone();
    file.finish(&digest_of(&bytes), &record).unwrap()
}

/// A header of a file with one array.
pub(crate) fn header() -> Vec<u8> {
    let end = ELEMENTS * 4;
    let json =
        format!(r#"{{"x":{{"dtype":"F32","shape":[{ELEMENTS}],"data_offsets":[0,{end}]}}}}"#);
    let json = format!("{json:<width$}", width = json.len().next_multiple_of(8));
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat()
}

/// Another one for every checkpoint.
pub(crate) fn state(step: u64, generation: u64) -> Vec<u8> {
    (0..ELEMENTS)
        .flat_map(|i| ((i + ELEMENTS * (step + generation)) as f32).to_le_bytes())
        .collect()
}

pub(crate) fn digest_of(state: &[u8]) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(state))
}

pub(crate) fn fingerprint() -> Fingerprint {
    Fingerprint {
        device: "cpu".into(),
        cpu: "x".into(),
        libtorch: "2".into(),
        threads: 1,
        precision: "float32".into(),
        fovea: "test".into(),
        kernels: String::new(),
        path: String::new(),
    }
}

/// What is recorded with the checkpoint of `step`.
pub(super) fn record(step: u64) -> CheckpointRecord {
    let entry = |step| Entry {
        step,
        loss: 0.1 + step as f64,
        samples: vec![0, 39, step as u32 % 40],
    };
    let validation = Evaluation {
        samples: 2,
        positives: 1,
        loss: 0.1 + 0.2,
        accuracy: 0.5,
        auc: None,
        sensitivity: Some(1.0),
        specificity: None,
        quadratic_kappa: None,
        confusion: vec![vec![1, 0], vec![1, 0]],
    };
    CheckpointRecord {
        fingerprint: fingerprint(),
        lineage: 3,
        stored_at_ms: 7,
        run: RunRecord {
            number: 1,
            id: run_id(),
            name: "r".into(),
            epochs: vec![EpochResult {
                epoch: 0,
                step: 5,
                train_loss: Some(1.0 / 3.0),
                validation,
            }],
            train_samples: 40,
            ledger: (step.saturating_sub(9)..=step).map(entry).collect(),
        },
    }
}

/// A prepared dataset in memory.
pub(crate) struct Source {
    pub manifest: Manifest,
    pub manifest_bytes: Vec<u8>,
    pub index: Vec<u8>,
    pub packs: Vec<Vec<u8>>,
}

/// A dataset of 24 photographs of 12 patients with several packs.
pub(crate) fn dataset() -> &'static Source {
    static SOURCE: OnceLock<Source> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let out = photographs::dataset(dir.path(), "eyes", 0);
        let read = |file: &str| std::fs::read(out.join(file)).unwrap();
        let manifest_bytes = read(MANIFEST_FILE);
        let manifest = Manifest::parse(&manifest_bytes).unwrap();
        let packs = manifest.packs.iter().map(|pack| read(&pack.file)).collect();
        Source {
            manifest,
            manifest_bytes,
            index: read(INDEX_FILE),
            packs,
        }
    })
}

/// Uploads it, as the service does.
pub(crate) fn upload(store: &DatasetStore, source: &Source) -> Result<Verified, UploadError> {
    let manifest = Upload::check(&source.manifest_bytes, &source.index)?;
    let mut upload = Upload::begin(store, manifest, &source.manifest_bytes, &source.index)?;
    for (number, pack) in source.packs.iter().enumerate() {
        for piece in pack.chunks(20_000) {
            upload.piece(number as u32, piece)?;
        }
    }
    upload.verify()
}

/// The content of a file of weights; the check of it is left out.
pub(crate) const WEIGHTS: &[u8] = b"the weights of a network";

pub(crate) fn weights_digest() -> String {
    hex::encode(Sha256::digest(WEIGHTS))
}

/// Uploads [`WEIGHTS`], called `w`.
pub(crate) fn add_weights(store: &WeightsStore) -> Result<StoredWeights, UploadError> {
    let bytes = WEIGHTS.len() as u64;
    let mut upload = WeightsUpload::begin(store, weights_digest(), bytes, "w.x".into())?;
    upload.piece(&WEIGHTS[..9])?;
    upload.piece(&WEIGHTS[9..])?;
    let verified = upload.verify_by(|_| {
        Ok(Checked {
            format: Format::Caffemodel,
            layers: vec![],
            ignored: vec![],
            pipeline: None,
        })
    })?;
    Ok(verified.store(WeightsName::new("w").unwrap(), 7)?)
}
