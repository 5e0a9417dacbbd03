//! What several tests need: a small dataset, a device that only pretends to compute, and peers.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use fovea_core::checkpoint::Fingerprint;
use fovea_core::class_map::ClassMap;
use fovea_core::googlenet::{FlatLayout, HEAD, param_specs};
use fovea_core::ids::{DatasetName, WorkerId};
use fovea_core::metrics::Score;
use fovea_core::plan::{ShardPlan, TrainingSplit};
use fovea_core::roster::Roster;
use fovea_core::run::{StepPhases, StepReport};
use fovea_core::spec::{Part, RunSpec};
use fovea_dataset::synthetic::{self, SyntheticOptions};
use fovea_dataset::{Blocks, Dataset, PackError, PackFile, PrepareOptions, prepare};
use fovea_proto::connect;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::transport::server::Router;

use crate::collective::Mesh;
use crate::data::{LocalData, ReplaceError, ReplacePack};
use crate::device::{
    Batch, Buckets, Device, DeviceError, Flat, Found, PhaseTimes, Pixels, Queued, state_digest,
};

/// A prepared synthetic dataset, made once for all tests.
pub(crate) struct Tiny {
    dataset: Dataset,
    _dir: tempfile::TempDir,
}

pub(crate) fn tiny() -> &'static Tiny {
    static TINY: OnceLock<Tiny> = OnceLock::new();
    TINY.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let photographs = dir.path().join("photographs");
        let options = SyntheticOptions {
            patients: 14,
            size: 128,
            ..SyntheticOptions::default()
        };
        synthetic::generate(&photographs, &options, &|_| {}).unwrap();
        let prepared = dir.path().join("prepared");
        let options = PrepareOptions {
            image_size: 32,
            ..PrepareOptions::new(
                photographs.join("trainLabels.csv"),
                photographs.join("images"),
                prepared.clone(),
                DatasetName::new("tiny").unwrap(),
            )
        };
        prepare(&options, &()).unwrap();
        Tiny {
            dataset: Dataset::open(&prepared).unwrap(),
            _dir: dir,
        }
    })
}

impl Tiny {
    pub(crate) fn plan(&self, spec: &RunSpec) -> ShardPlan {
        let index = self.dataset.index();
        let patients: Vec<u32> = index.train().iter().map(|s| s.patient).collect();
        let grades: Vec<u8> = index.train().iter().map(|s| s.grade).collect();
        let split = TrainingSplit {
            patients: &patients,
            grades: &grades,
        };
        let scored = index.part(spec.scored_part()).len() as u32;
        ShardPlan::of_run(spec, split, scored).unwrap()
    }

    /// All packs, verified at every read. A pack that cannot be read is not replaced.
    pub(crate) fn data(&self) -> LocalData {
        let manifest = self.dataset.manifest();
        let packs = manifest.packs.iter().enumerate().map(|(pack, entry)| {
            let path = self.dataset.pack_path(pack);
            let blocks = Blocks::of_pack(&path, manifest.record_bytes, entry).unwrap();
            let file = self.dataset.open_pack(pack).unwrap();
            (pack as u32, file.with_blocks(blocks))
        });
        LocalData::new(
            self.dataset.index().clone(),
            Part::Validation,
            manifest.image_size as usize,
            packs.collect(),
            Box::new(NoSource),
        )
    }

    /// The dataset itself.
    pub(crate) fn dataset(&self) -> &Dataset {
        &self.dataset
    }
}

/// Replaces no pack.
struct NoSource;

impl ReplacePack for NoSource {
    fn replace(
        &self,
        _: u32,
        _: u32,
        problem: &PackError,
        _: &CancellationToken,
    ) -> Result<PackFile, ReplaceError> {
        Err(ReplaceError::Failed {
            reason: problem.to_string(),
            trouble: None,
        })
    }
}

/// A run on four virtual ranks in which only the classifier is trained, with more settings.
pub(crate) fn spec(more: &str) -> RunSpec {
    let text = format!(
        "name = 't'\ndataset = 'd'\n[train]\nepochs = 2\nvirtual_ranks = 4\nbatch = 2\n\
         digest_every = 0\n[checkpoint]\nevery_epochs = 0\n{more}"
    );
    let mut spec: RunSpec = toml::from_str(&text).unwrap();
    let specs = param_specs(2);
    let layers = specs.iter().map(|param| param.layer.clone());
    spec.model.frozen = layers.filter(|layer| layer != HEAD).collect();
    spec.model.frozen.dedup();
    spec.validate().unwrap();
    spec
}

/// The ordinals that a step uses, virtual rank by virtual rank.
pub(crate) fn planned(plan: &ShardPlan, step: u64) -> Vec<u32> {
    let at = plan.position(step - 1);
    (0..plan.virtual_ranks())
        .flat_map(|rank| plan.epoch_order(rank, at.epoch).batch(at.step_in_epoch))
        .map(|draw| draw.sample)
        .collect()
}

/// What a pretending device was asked to do.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Samples of each gradient.
    pub(crate) gradients: Vec<Vec<u32>>,
    /// First element of each mean gradient, and learning rate.
    pub(crate) updates: Vec<(f32, f64)>,
    /// Gradients that were computed between each update that was queued and the wait for it.
    pub(crate) computed_meanwhile: Vec<usize>,
}

/// How a pretending device behaves.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    /// Loss of a sample.
    pub(crate) loss: f32,
    /// Gradient of a sample, everywhere; None makes it depend on state and samples, and updates change the
    /// state.
    pub(crate) gradient: Option<f32>,
    /// Fails when asked for this gradient (0-based).
    pub(crate) fails_at: Option<usize>,
    /// Queues updates, as a GPU does.
    pub(crate) queues: bool,
    /// How long it scores a batch.
    pub(crate) scoring: Duration,
    pub(crate) asked: Arc<Mutex<Asked>>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            loss: 0.5,
            gradient: None,
            fails_at: None,
            queues: false,
            scoring: Duration::ZERO,
            asked: Arc::default(),
        }
    }
}

/// Keeps a state, and pretends to compute.
pub(crate) struct Pretending {
    layout: FlatLayout,
    manner: Manner,
    state: Vec<f32>,
}

impl Pretending {
    pub(crate) fn new(layout: &FlatLayout, manner: &Manner) -> Self {
        Self {
            layout: layout.clone(),
            manner: manner.clone(),
            state: vec![0.0; layout.state_len()],
        }
    }
}

impl Device for Pretending {
    fn layout(&self) -> &FlatLayout {
        &self.layout
    }

    fn load(&mut self, state: &[f32]) -> Result<(), DeviceError> {
        self.state.copy_from_slice(state);
        Ok(())
    }

    fn read(&mut self, range: Range<usize>) -> Result<Vec<f32>, DeviceError> {
        Ok(self.state[range].to_vec())
    }

    fn digest(&mut self) -> Result<u128, DeviceError> {
        Ok(state_digest(&self.state))
    }

    fn gradient_buffer(&self, behind: usize) -> Flat {
        Flat::new(&self.layout, behind, |len| vec![0.0; len].into())
    }

    fn gradient(
        &mut self,
        batch: &Batch,
        into: &mut dyn Buckets,
    ) -> Result<PhaseTimes, DeviceError> {
        let n = batch.samples.len();
        let Pixels::Turned(pixels) = &batch.pixels else {
            panic!("this device holds no images");
        };
        assert_eq!(pixels.len(), n * batch.size * batch.size * 3);
        assert_eq!(batch.dropout.len(), n * 1024);
        let mut asked = self.manner.asked.lock().unwrap();
        if self.manner.fails_at == Some(asked.gradients.len()) {
            return Err(DeviceError {
                doing: "pretending",
                reason: "a test wants it".into(),
            });
        }
        asked.gradients.push(batch.samples.clone());
        let mut gradient = vec![0.0; self.layout.trainable_len()];
        match self.manner.gradient {
            Some(each) => gradient.fill(each * n as f32),
            None => {
                let sum: u32 = batch.samples.iter().sum();
                for (g, s) in gradient.iter_mut().zip(&self.state) {
                    *g = s * 0.3 + sum as f32 * 0.1;
                }
            }
        }
        let ranges = self.layout.buckets();
        let loss = ranges[FlatLayout::OTHERS].len();
        let place = into.bucket(FlatLayout::OTHERS);
        place.write(loss, &[self.manner.loss * n as f32]);
        for bucket in FlatLayout::BUCKET_ORDER {
            let part = &gradient[ranges[bucket].clone()];
            into.bucket(bucket).write(0, part);
            into.finished(bucket, None);
        }
        Ok(PhaseTimes::default())
    }

    fn queue_update(
        &mut self,
        sum: &mut Flat,
        scale: f32,
        rate: f64,
    ) -> Result<Option<Queued>, DeviceError> {
        if !self.manner.queues {
            return Ok(None);
        }
        let behind = sum.read(self.layout.trainable_len()..sum.len());
        let finite = behind[0].is_finite() && self.update(sum, scale, rate)?;
        let asked = self.manner.asked.clone();
        let number = asked.lock().unwrap().gradients.len();
        Ok(Some(Queued::new(move || {
            let mut asked = asked.lock().unwrap();
            let since = asked.gradients.len() - number;
            asked.computed_meanwhile.push(since);
            Ok(Found { finite, behind })
        })))
    }

    fn update(&mut self, sum: &mut Flat, scale: f32, rate: f64) -> Result<bool, DeviceError> {
        let mut gradient = sum.read(0..self.layout.trainable_len());
        if gradient.iter().any(|g| !g.is_finite()) {
            return Ok(false);
        }
        gradient.iter_mut().for_each(|g| *g *= scale);
        let mut asked = self.manner.asked.lock().unwrap();
        asked.updates.push((gradient[0], rate));
        if self.manner.gradient.is_none() {
            for (s, g) in self.state.iter_mut().zip(gradient) {
                *s -= g * rate as f32;
            }
        }
        Ok(true)
    }

    fn score(&mut self, batch: &Batch) -> Result<Vec<Score>, DeviceError> {
        std::thread::sleep(self.manner.scoring);
        let scored = batch.samples.iter().zip(&batch.labels);
        Ok(scored
            .map(|(&sample, &label)| Score {
                sample,
                label,
                probabilities: vec![0.5, 0.5],
                loss: 0.7,
                map: None,
            })
            .collect())
    }

    fn score_mapped(&mut self, batch: &Batch) -> Result<Vec<Score>, DeviceError> {
        let mut scores = self.score(batch)?;
        for score in &mut scores {
            // As sure as its probabilities, everywhere.
            score.map = Some(ClassMap {
                height: 2,
                width: 2,
                values: vec![0.0; 4],
            });
        }
        Ok(scores)
    }
}

/// Longest wait for something that happens at once on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `happened`, which something else brings about.
pub(crate) fn wait_until(what: &str, happened: impl Fn() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a device reports about a step.
pub(crate) fn step_report(step: u64) -> StepReport {
    StepReport {
        step,
        loss: 0.5,
        images: 1,
        images_per_s: 1.0,
        learning_rate: 0.1,
        phases: StepPhases::default(),
    }
}

/// A machine of which nothing is known.
pub(crate) fn no_fingerprint() -> Fingerprint {
    Fingerprint {
        device: String::new(),
        cpu: String::new(),
        libtorch: String::new(),
        threads: 1,
        precision: String::new(),
        fovea: String::new(),
        kernels: String::new(),
        path: String::new(),
    }
}

/// Two threads for tasks.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A connection with `server`, which serves on a port of its own until the runtime ends.
pub(crate) async fn serve(server: Router) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    connect(&format!("http://{address}"), PATIENCE)
        .await
        .unwrap()
}

/// An address without a listener. A port that was just closed might be another test's by now.
pub(crate) fn closed() -> String {
    "127.0.0.1:1".to_owned()
}

/// Workers' ends of a mesh on this machine.
pub(crate) struct Peers {
    pub(crate) runtime: Runtime,
    pub(crate) meshes: Vec<Mesh>,
    _tasks: JoinSet<()>,
}

pub(crate) fn peers(count: usize) -> Peers {
    let runtime = runtime();
    let mut tasks = JoinSet::new();
    let meshes = runtime.block_on(async {
        let mut meshes = Vec::new();
        for _ in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            meshes.push(Mesh::start(listener, None, &mut tasks).unwrap());
        }
        meshes
    });
    Peers {
        runtime,
        meshes,
        _tasks: tasks,
    }
}

impl Peers {
    /// A generation of these, named by their places.
    pub(crate) fn roster(&self, generation: u64, members: &[usize], start_step: u64) -> Roster {
        let peer = |&i: &usize| {
            let address = self.meshes[i].address().to_string();
            (WorkerId::new(format!("w{i}")).unwrap(), address)
        };
        let peers: Vec<_> = members.iter().map(peer).collect();
        Roster::deal(generation, &peers, 4, start_step)
    }
}

/// Whether a message that contains `text` was logged by any test of this process so far.
pub(crate) fn logged(text: &str) -> bool {
    let log = log().lock().unwrap();
    log.iter().any(|message| message.contains(text))
}

/// The messages of this process. The first call starts to collect them.
fn log() -> &'static Mutex<Vec<String>> {
    static LOG: OnceLock<Mutex<Vec<String>>> = OnceLock::new();
    LOG.get_or_init(|| {
        tracing::subscriber::set_global_default(Collector).expect("this is the only collector");
        Mutex::default()
    })
}

/// Starts to collect messages, for [`logged`].
pub(crate) fn collect_log() {
    log();
}

struct Collector;

impl tracing::Subscriber for Collector {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("fovea") && *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        log().lock().unwrap().push(message.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
