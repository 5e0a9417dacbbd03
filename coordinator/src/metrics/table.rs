//! The metrics of the coordinator. docs/metrics.md explains them, and a test compares it with this table.

use fovea_service::ops::Kind::{self, Counter, Gauge, Histogram};
use fovea_service::ops::Metric;

/// Upper bounds for the time of a step, seconds.
pub(crate) const STEP_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Upper bounds for the time of a recovery, seconds.
pub(crate) const RECOVERY_BOUNDS: &[f64] = &[
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        labels,
        help,
    }
}

macro_rules! metrics {
    ($($ident:ident = $name:literal, $kind:ident, $labels:expr, $help:literal;)*) => {
        $(pub(super) static $ident: Metric = metric($name, $kind, $labels, $help);)*
        /// All of them, in the order of the reference.
        #[cfg(test)]
        pub(super) static ALL: &[&Metric] = &[$(&$ident),*];
    };
}

const RUN: &[&str] = &["run"];
const WORKER: &[&str] = &["worker"];

metrics! {
    QUEUE_RUNS = "fovea_queue_runs", Gauge, &["priority"], "Runs that wait for workers, a store or disk space, by their priority: low, normal, high";
    WORKERS = "fovea_workers", Gauge, &["state"], "Connected workers, by what they do";
    RUN_PHASE = "fovea_run_phase", Gauge, &["run", "phase"], "1 for the phase that the run is in, 0 for the others";
    RUN_WAITING = "fovea_run_waiting", Gauge, RUN, "1 while something keeps the run from training: `fovea runs` says what";
    RUN_WORKERS = "fovea_run_workers", Gauge, RUN, "Workers of the run's generation";
    RUN_STEP = "fovea_run_step", Gauge, RUN, "The run's newest committed step; it goes back when the run is rewound";
    RUN_PLANNED_STEPS = "fovea_run_planned_steps", Gauge, RUN, "Steps of the whole run";
    STEPS = "fovea_steps", Counter, RUN, "Steps that were ever committed to the journal, those included that a rewind made void";
    IMAGES = "fovea_images", Counter, RUN, "Images that these steps used";
    GENERATIONS = "fovea_generations", Counter, &["run", "reason"], "Generations of the run, one more with every change of its workers, by why they formed";
    RUN_STEP_SECONDS = "fovea_run_step_seconds", Histogram, RUN, "Time of a step, by the worker that reports it; of live runs";
    IMAGES_PER_SECOND = "fovea_run_images_per_second", Gauge, RUN, "Speed over all workers, while the run trains";
    TRAIN_LOSS = "fovea_train_loss", Gauge, RUN, "Mean training loss of the newest step, nats";
    LEARNING_RATE = "fovea_learning_rate", Gauge, RUN, "Learning rate of the newest step";
    VALIDATION = "fovea_validation", Gauge, &["run", "metric"], "auc, kappa, loss, accuracy, sensitivity and specificity on the validation split after the newest epoch";
    CHECKPOINT_STEP = "fovea_checkpoint_step", Gauge, RUN, "Step of the newest stored checkpoint, 0 without one";
    CHECKPOINT_INTERVAL = "fovea_checkpoint_interval_steps", Gauge, RUN, "Steps between two checkpoints of the run, if it takes them regularly";
    CHECKPOINT_STORED = "fovea_checkpoint_stored_timestamp_seconds", Gauge, RUN, "When that checkpoint was stored, seconds since the Unix epoch";
    CHECKPOINT_BYTES = "fovea_checkpoint_bytes", Gauge, RUN, "Size of that checkpoint";
    CHECKPOINT_FAILURES = "fovea_checkpoint_failures", Counter, RUN, "Checkpoints of the run that were begun and given up; not those that wait for a store";
    AUDITED_STEP = "fovea_audited_step", Gauge, RUN, "Steps up to this one were audited, of runs that are live or were since the coordinator's start";
    AUDIT_PROBLEMS = "fovea_audit_problems", Gauge, RUN, "Problems that the audit of these steps found, 100 at most";
    RECOVERY_SECONDS = "fovea_recovery_seconds", Histogram, &[], "Time from the end of a generation that ran to the next one's first step";
    WORKER_STEP_SECONDS = "fovea_worker_step_seconds", Gauge, WORKER, "Mean time of the worker's last steps, while it trains";
    WORKER_WAIT_RATIO = "fovea_worker_wait_ratio", Gauge, WORKER, "The part of a step, 0 to 1, in which the worker waits for other workers or the network";
    WORKER_RESIDENT = "fovea_worker_resident_bytes", Gauge, WORKER, "Resident memory of the worker's process";
    WORKER_GPU_USED = "fovea_worker_gpu_used_bytes", Gauge, WORKER, "Memory of the worker's GPU in use, by whatever process";
    WORKER_GPU = "fovea_worker_gpu_bytes", Gauge, WORKER, "Memory of the worker's GPU";
    WORKER_CONNECTED = "fovea_worker_connected_seconds", Gauge, WORKER, "For how long the worker's session has been open";
    WORKER_SILENT = "fovea_worker_silent_seconds", Gauge, WORKER, "How long ago the worker was last heard";
    JOURNAL_COMMITS = "fovea_journal_commits", Counter, &[], "Transactions of the journal";
    JOURNAL_WRITES = "fovea_journal_writes", Counter, &[], "Writes in them";
    JOURNAL_COMMIT_SECONDS = "fovea_journal_commit_seconds", Counter, &[], "Time that they took, fsync included";
    JOURNAL_BLOCKED = "fovea_journal_blocked", Gauge, &[], "1 while the journal cannot be written, so that every run waits";
    STORE_FREE = "fovea_store_free_bytes", Gauge, &[], "Bytes that can still be written on the disk of the checkpoint store";
    STORE_RESERVE = "fovea_store_reserve_bytes", Gauge, &[], "With less room than this no new run starts (min_free_mib)";
    TRACES_DROPPED = "fovea_traces_dropped", Counter, &[], "Spans that were given up, because the collector is away, slow or refuses them";
    CERTIFICATE_EXPIRY = "fovea_certificate_expiry_timestamp_seconds", Gauge, &[], "End of the coordinator's certificate, seconds since the Unix epoch";
}
