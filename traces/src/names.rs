//! Every span and every attribute. docs/traces.md explains them, and a test compares it with this table.

/// What a span or an attribute is called, and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

macro_rules! table {
    ($all:ident, $what:literal: $($ident:ident = $name:literal, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $ident: &str = $name;)*
        #[doc = $what]
        pub const $all: &[Named] = &[$(Named { name: $name, meaning: $meaning }),*];
    };
}

table! {
    SPANS, "All spans.":
    RECOVERY = "run.recovery", "Coordinator: from the loss of a worker to the next committed step";
    FORMATION = "run.formation", "Coordinator: a generation of workers is assembled, from the decision until all are ready";
    WORKER_FORMATION = "worker.formation", "Worker: from its assignment until it is ready, with what it fetches and the connections to its peers";
    CHECKPOINT = "run.checkpoint", "Coordinator: from the first slice that comes until the checkpoint is stored";
    WORKER_SLICE = "worker.slice", "Worker: one attempt to upload its slice of a checkpoint";
    SLICE = "run.slice", "Coordinator: taking that slice in, until it is on disk";
    MIRROR = "checkpoint.upload", "Coordinator: one attempt to upload the checkpoint to the object store";
    EVALUATION = "run.evaluation", "Coordinator: from the last step of an epoch until its scores are complete";
    WORKER_EVALUATION = "worker.evaluation", "Worker: scoring its part of the validation split, and gathering the scores of all";
}

table! {
    ATTRIBUTES, "All attributes of spans.":
    RUN = "fovea.run.id", "The run's id; every span has it";
    GENERATION = "fovea.generation", "Number of the generation";
    REASON = "fovea.reason", "Why the generation forms, as in `fovea_generations_total`";
    CAUSE = "fovea.cause", "The same as a sentence";
    WORKERS = "fovea.workers", "Number of workers of the generation";
    WORKER = "fovea.worker.id", "The worker's id";
    STEP = "fovea.step", "Committed steps: of the checkpoint, at the evaluation, or at the end of a formation or recovery";
    EPOCH = "fovea.epoch", "The epoch, from 0";
    BEFORE_MS = "fovea.before_ms", "Of `worker.formation`: until its device begins, with what it fetches and the end of the generation before, milliseconds";
    CONNECT_MS = "fovea.connect_ms", "Of it: connecting to the peers";
    NCCL_MS = "fovea.nccl_ms", "Of it: making NCCL's communicator";
    STATE_MS = "fovea.state_ms", "Of it: agreeing on the state to start from, with reading or receiving it and its digest";
    SAMPLES = "fovea.samples", "Samples that were scored";
    AUC = "fovea.auc", "Area under the ROC curve on the validation split";
    BYTES = "fovea.bytes", "Size of the checkpoint or slice";
}
