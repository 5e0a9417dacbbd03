//! What this worker measures of itself: the times of its steps and its memory. Heartbeats and the operations listener tell it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::Duration;

use fovea_core::run::StepPhases;
use fovea_proto::pb;
use fovea_service::ops::{Figures, Histogram, Kind, Metric};
use fovea_traces::Traces;
use procfs::process::Process;
use tracing::debug;

use crate::gpu;
use crate::hits::CacheHits;
use crate::memory::Gpu;

/// Steps whose times are averaged.
const WINDOW: f64 = 8.0;

/// How often the memory is measured.
const MEASURE_AGAIN: Duration = Duration::from_secs(2);

/// Upper bounds for the time of a step, seconds.
const STEP_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

static STEPS: Metric = Metric {
    name: "fovea_local_step_seconds",
    kind: Kind::Histogram,
    labels: &[],
    help: "Time of a step at this worker",
};
static WAITS: Metric = Metric {
    name: "fovea_local_wait_seconds",
    kind: Kind::Counter,
    labels: &[],
    help: "Time in which it waited for other workers or the network to end the reduction of a step",
};
static IMAGES: Metric = Metric {
    name: "fovea_local_images",
    kind: Kind::Counter,
    labels: &[],
    help: "Images whose gradient it computed, those included whose step was not committed",
};

static ACTIVATION_HITS: Metric = Metric {
    name: "fovea_local_activation_cache_hits",
    kind: Kind::Counter,
    labels: &[],
    help: "Images whose activations after the frozen layers were kept when they were asked for",
};
static ACTIVATION_MISSES: Metric = Metric {
    name: "fovea_local_activation_cache_misses",
    kind: Kind::Counter,
    labels: &[],
    help: "Images whose activations after the frozen layers had to be computed although there is a cache for them",
};
static PACK_HITS: Metric = Metric {
    name: "fovea_local_pack_cache_hits",
    kind: Kind::Counter,
    labels: &[],
    help: "Packs that an assignment needed and that were on this machine's disk",
};
static PACK_MISSES: Metric = Metric {
    name: "fovea_local_pack_cache_misses",
    kind: Kind::Counter,
    labels: &[],
    help: "Packs that an assignment needed and that were fetched from the coordinator for it",
};

static TRACES_DROPPED: Metric = Metric {
    name: "fovea_traces_dropped",
    kind: Kind::Counter,
    labels: &[],
    help: "Spans that were given up, because the collector is away, slow or refuses them",
};

/// The metrics of a worker.
pub static METRICS: [&Metric; 8] = [
    &STEPS,
    &WAITS,
    &IMAGES,
    &ACTIVATION_HITS,
    &ACTIVATION_MISSES,
    &PACK_HITS,
    &PACK_MISSES,
    &TRACES_DROPPED,
];

/// The newest figures. The agent, the training loop and [`watch_memory`] write them.
#[derive(Debug)]
pub struct Meter {
    measured: Mutex<Measured>,
    step_seconds: Histogram,
    /// Shared with the progress of assignments.
    images: Arc<AtomicU64>,
    hits: OnceLock<CacheHits>,
    traces: OnceLock<Traces>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            measured: Mutex::default(),
            step_seconds: Histogram::new(STEP_SECONDS),
            images: Arc::default(),
            hits: OnceLock::new(),
            traces: OnceLock::new(),
        }
    }
}

#[derive(Debug, Default)]
struct Measured {
    recent: Recent,
    /// Since the start, seconds.
    waited: f64,
    /// Resident memory of this process, bytes.
    resident: Option<u64>,
    gpu: Option<Gpu>,
}

/// Times of the last steps, exponentially weighted.
#[derive(Debug, Default)]
struct Recent {
    steps: f64,
    total_ms: f64,
    reduce_ms: f64,
}

impl Recent {
    fn add(&mut self, phases: &StepPhases) {
        let keep = 1.0 - 1.0 / WINDOW;
        self.steps = self.steps * keep + 1.0;
        self.total_ms = self.total_ms * keep + phases.total_ms();
        self.reduce_ms = self.reduce_ms * keep + phases.reduce_ms;
    }

    fn step_ms(&self) -> Option<f64> {
        (self.steps > 0.0).then(|| self.total_ms / self.steps)
    }

    fn wait_ratio(&self) -> Option<f64> {
        (self.total_ms > 0.0).then(|| (self.reduce_ms / self.total_ms).clamp(0.0, 1.0))
    }
}

impl Meter {
    /// Another generation begins, with other times.
    pub fn begin(&self) {
        self.lock().recent = Recent::default();
    }

    /// A step took that long here.
    pub fn step(&self, phases: &StepPhases) {
        self.step_seconds.observe(phases.total_ms() / 1e3);
        let mut measured = self.lock();
        measured.recent.add(phases);
        measured.waited += phases.reduce_ms / 1e3;
    }

    /// Where images are counted.
    pub fn images(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.images)
    }

    /// Spans go there.
    pub fn trace(&self, traces: Traces) {
        // Once, when the worker starts.
        let _ = self.traces.set(traces);
    }

    /// Uses of the caches are counted there.
    pub fn show_hits(&self, hits: CacheHits) {
        // As the spans.
        let _ = self.hits.set(hits);
    }

    /// The metrics for Prometheus.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        figures.add_counts(&STEPS, &[], self.step_seconds.counts());
        figures.add(&WAITS, &[], self.lock().waited);
        let images = self.images.load(Ordering::Relaxed);
        figures.add(&IMAGES, &[], images as f64);
        let CacheHits { activations, packs } = self.hits.get().cloned().unwrap_or_default();
        for (metric, count) in [
            (&ACTIVATION_HITS, activations.hits()),
            (&ACTIVATION_MISSES, activations.misses()),
            (&PACK_HITS, packs.hits()),
            (&PACK_MISSES, packs.misses()),
        ] {
            figures.add(metric, &[], count as f64);
        }
        let dropped = self.traces.get().map_or(0, Traces::dropped);
        figures.add(&TRACES_DROPPED, &[], dropped as f64);
        figures
    }

    /// How this worker fares. An idle one has no step times.
    pub fn load(&self, busy: bool) -> pb::Load {
        let measured = self.lock();
        let recent = busy.then_some(&measured.recent);
        pb::Load {
            step_ms: recent.and_then(Recent::step_ms),
            wait_ratio: recent.and_then(Recent::wait_ratio),
            gpu_used_bytes: measured.gpu.map(|gpu| gpu.total.saturating_sub(gpu.free)),
            resident_bytes: measured.resident,
        }
    }

    fn remember(&self, resident: Option<u64>, gpu: Option<Gpu>) {
        let mut measured = self.lock();
        measured.resident = resident;
        measured.gpu = gpu;
    }

    fn lock(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().expect("no holder of this lock panics")
    }
}

/// Measures the memory of this process, and of its GPU if `place` is one, as long as somebody else holds `meter`. On a
/// thread of its own, which a driver that hangs may keep: nobody waits for it.
pub fn watch_memory(meter: &Arc<Meter>, place: tch::Device) {
    let meter = Arc::downgrade(meter);
    let watch = move || {
        while let Some(meter) = meter.upgrade() {
            let gpu = gpu::memory(place).unwrap_or_else(|error| {
                debug!("gpu.memory_unknown: {error}");
                None
            });
            meter.remember(resident(), gpu);
            drop(meter);
            thread::sleep(MEASURE_AGAIN);
        }
    };
    let thread = thread::Builder::new().name("memory".into());
    if let Err(error) = thread.spawn(watch) {
        debug!("memory.unknown: no thread to measure it: {error}");
    }
}

/// Resident memory of this process, bytes.
fn resident() -> Option<u64> {
    let memory = Process::myself().and_then(|process| process.statm()).ok()?;
    Some(memory.resident * procfs::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(reduce_ms: f64) -> StepPhases {
        StepPhases {
            load_ms: 10.0,
            forward_ms: 40.0,
            backward_ms: 45.0,
            reduce_ms,
            optimizer_ms: 5.0,
        }
    }

    #[test]
    fn step_times_are_those_of_the_last_steps_of_this_generation() {
        let meter = Meter::default();
        assert_eq!(meter.load(true), pb::Load::default());
        meter.step(&step(100.0));
        let load = meter.load(true);
        assert_eq!((load.step_ms, load.wait_ratio), (Some(200.0), Some(0.5)));
        // A peer became faster: soon that shows.
        for _ in 0..100 {
            meter.step(&step(0.0));
        }
        let load = meter.load(true);
        assert!((load.step_ms.unwrap() - 100.0).abs() < 0.1, "{load:?}");
        assert!(load.wait_ratio.unwrap() < 0.001, "{load:?}");
        // Who is idle has none, and another generation begins without.
        assert_eq!(meter.load(false).step_ms, None);
        meter.begin();
        assert_eq!(meter.load(true).step_ms, None);
        assert_eq!(meter.load(true).wait_ratio, None);
    }

    #[test]
    fn the_reference_lists_every_metric_of_a_worker() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let text = std::fs::read_to_string(path).expect("docs/metrics.md");
        let table = fovea_service::ops::reference(&METRICS.map(|metric| *metric));
        assert!(
            text.contains(&table),
            "docs/metrics.md is not current; the table of the worker is\n\n{table}"
        );
    }

    #[test]
    fn memory_in_use_is_that_of_all_processes_on_the_gpu() {
        let meter = Meter::default();
        let gpu = Gpu {
            total: 80,
            free: 20,
        };
        meter.remember(resident(), Some(gpu));
        let load = meter.load(false);
        assert_eq!(load.gpu_used_bytes, Some(60));
        assert!(load.resident_bytes.unwrap() > 1 << 20, "{load:?}");
    }
}
