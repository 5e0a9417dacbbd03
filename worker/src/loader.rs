//! Prepares batches ahead of the device, on a thread of its own.
//!
//! The sequence is fixed by the plan: for every step one training batch for each hosted virtual rank,
//! and after the last step of an epoch the validation batches of each hosted virtual rank, then
//! [`Item::EpochEnd`]. It can begin with validation batches, too. A bounded channel holds a few batches,
//! so memory stays flat.
//!
//! A read may hang in the kernel. The thread that waits for a batch checks for an abort meanwhile, and a loader thread that
//! does not end soon after the loader was dropped is abandoned (`threads`).

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::time::Duration;

use fovea_core::dropout;
use fovea_core::googlenet::Network;
use fovea_core::plan::{Draw, ShardPlan};
use fovea_core::roster::Member;
use fovea_core::spec::RunSpec;
use fovea_dataset::rotate90;
use tokio_util::sync::CancellationToken;

use crate::data::{DataError, LocalData, hosted};
use crate::device::{Batch, HeldImages, Pixels, Split};
use crate::threads::Abandoned;
use crate::training::control::Control;

/// An output of the loader.
#[derive(Debug)]
pub enum Item {
    /// One virtual rank's batch of a step; empty when its shard is used up in this epoch.
    Train(Batch),
    /// Some validation images.
    Validation(Batch),
    /// All validation images of the epoch have been given out.
    EpochEnd,
}

/// Batches ahead of the device for each hosted virtual rank.
const AHEAD: usize = 2;

/// How often the thread that waits for a batch checks for an abort.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long the thread may take to end when the loader is dropped.
const ENDING: Duration = Duration::from_millis(700);

/// A running loader. Dropping it ends its thread.
pub struct Loader {
    items: Option<Receiver<Result<Item, DataError>>>,
    control: Control,
    cancel: CancellationToken,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    thread: Option<Abandoned>,
}

/// What a device does itself.
#[derive(Debug, Clone, Default)]
pub struct OnDevice {
    /// It holds images: they are given upright, and only those that it does not hold.
    pub held: Option<Arc<HeldImages>>,
    /// It draws the dropout multipliers: their seeds are given.
    pub draws_dropout: bool,
}

impl Loader {
    /// Starts to prepare the batches of `steps` for the virtual ranks of `member`; before them those of
    /// the validation split if `evaluate`. `device` says what the device does itself.
    ///
    /// # Panics
    /// If the spec makes no network, which whoever has its layout knows.
    pub fn start(
        data: LocalData,
        plan: ShardPlan,
        spec: RunSpec,
        member: &Member,
        steps: Range<u64>,
        evaluate: bool,
        device: OnDevice,
    ) -> std::io::Result<Self> {
        let cancel = data.canceller();
        let (send, items) = sync_channel(AHEAD * member.virtual_ranks as usize);
        let class_weights = spec.class_weights(data.train_grades()).into();
        let network = spec.model.network();
        let producer = Producer {
            network: network.expect("the spec makes a network"),
            class_weights,
            data,
            plan,
            spec,
            ranks: hosted(member).collect(),
            device,
            send,
        };
        let (thread, working) = Abandoned::new("reading a pack");
        let (end, ended) = channel();
        std::thread::Builder::new()
            .name("loader".into())
            .spawn(move || {
                producer.run(steps, evaluate);
                drop(working);
                drop::<std::sync::mpsc::Sender<()>>(end);
            })?;
        Ok(Self {
            items: Some(items),
            control: Control::default(),
            cancel,
            ended,
            thread: Some(thread),
        })
    }

    /// An abort by `control` ends a wait for an item.
    #[must_use]
    pub fn abortable_by(self, control: &Control) -> Self {
        let mut loader = self;
        loader.control = control.clone();
        loader
    }

    /// The next item, waiting for it.
    pub fn next_item(&mut self) -> Result<Item, DataError> {
        let items = self.items.as_ref().ok_or(DataError::Ended)?;
        loop {
            match items.recv_timeout(POLL_INTERVAL) {
                Ok(item) => return item,
                Err(RecvTimeoutError::Timeout) if self.control.aborted() => {
                    return Err(DataError::Cancelled);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(DataError::Ended),
            }
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Closing the channel ends the thread at its next send.
        self.items = None;
        self.cancel.cancel();
        // It never sends: this returns when the thread has ended, or when that takes too long.
        let _ = self.ended.recv_timeout(ENDING);
        self.thread = None;
    }
}

/// The receiver is gone: no more items are needed.
struct Unwanted;

struct Producer {
    network: Network,
    class_weights: Arc<[f32]>,
    data: LocalData,
    plan: ShardPlan,
    spec: RunSpec,
    ranks: Vec<u32>,
    device: OnDevice,
    send: SyncSender<Result<Item, DataError>>,
}

impl Producer {
    fn run(self, steps: Range<u64>, evaluate: bool) {
        if evaluate && self.validation().is_err() {
            return;
        }
        let (mut step, to) = (steps.start, steps.end);
        while step < to {
            let epoch = self.plan.position(step).epoch;
            if self.epoch(epoch, &mut step, to).is_err() {
                return;
            }
        }
    }

    fn epoch(&self, epoch: u32, step: &mut u64, to: u64) -> Result<(), Unwanted> {
        let orders: Vec<_> = self
            .ranks
            .iter()
            .map(|&rank| self.plan.epoch_order(rank, epoch))
            .collect();
        let per_epoch = self.plan.steps_per_epoch();
        while *step < to {
            let in_epoch = self.plan.position(*step).step_in_epoch;
            for order in &orders {
                self.send(self.train(epoch, &order.batch(in_epoch)).map(Item::Train))?;
            }
            *step += 1;
            if in_epoch + 1 == per_epoch {
                return self.validation();
            }
        }
        Ok(())
    }

    fn validation(&self) -> Result<(), Unwanted> {
        let batch = self.spec.train.batch;
        for &rank in &self.ranks {
            let mut range = self.plan.validation_shard(rank);
            while !range.is_empty() {
                let part = range.start..range.end.min(range.start + batch);
                range.start = part.end;
                for turns in self.spec.scored_turns() {
                    self.send(self.scored(part.clone(), *turns).map(Item::Validation))?;
                }
            }
        }
        self.send(Ok(Item::EpochEnd))
    }

    fn send(&self, item: Result<Item, DataError>) -> Result<(), Unwanted> {
        let failed = item.is_err();
        self.send.send(item).map_err(|_| Unwanted)?;
        if failed { Err(Unwanted) } else { Ok(()) }
    }

    fn train(&self, epoch: u32, draws: &[Draw]) -> Result<Batch, DataError> {
        let size = self.data.size();
        let images: Vec<(u32, u8)> = draws.iter().map(|d| (d.sample, d.quarter_turns)).collect();
        let mut batch = Batch {
            size,
            class_weights: self.class_weights.clone(),
            pixels: self.pixels(Split::Train, &images)?,
            dropout: match self.device.draws_dropout {
                true => Vec::new(),
                false => self.dropout(epoch, draws),
            },
            dropout_seeds: match self.device.draws_dropout {
                true => self.dropout_seeds(epoch, draws),
                false => Vec::new(),
            },
            ..Batch::default()
        };
        for draw in draws {
            batch.samples.push(draw.sample);
            batch.quarter_turns.push(draw.quarter_turns);
            let sample = self.data.train(draw.sample);
            batch.labels.push(self.spec.class_of(sample.grade));
        }
        Ok(batch)
    }

    /// The dropout multipliers of each sample; empty if nothing is dropped.
    fn dropout(&self, epoch: u32, draws: &[Draw]) -> Vec<f32> {
        let (network, ratio) = (&self.network, self.spec.model.dropout);
        if !dropout::drops(network, ratio) {
            return Vec::new();
        }
        let units = network.dropout_units();
        let mut all = vec![0.0; units * draws.len()];
        for (draw, out) in draws.iter().zip(all.chunks_exact_mut(units)) {
            let used = (draw.sample, draw.copy);
            dropout::multipliers(network, ratio, self.spec.seed, epoch, used, out);
        }
        all
    }

    /// Their seeds; empty if nothing is dropped.
    fn dropout_seeds(&self, epoch: u32, draws: &[Draw]) -> Vec<[u8; 32]> {
        if !dropout::drops(&self.network, self.spec.model.dropout) {
            return Vec::new();
        }
        let seed =
            |draw: &Draw| dropout::classifier_seed(self.spec.seed, epoch, (draw.sample, draw.copy));
        draws.iter().map(seed).collect()
    }

    fn scored(&self, ordinals: Range<u32>, turns: u8) -> Result<Batch, DataError> {
        let images: Vec<(u32, u8)> = ordinals.clone().map(|ordinal| (ordinal, turns)).collect();
        let mut batch = Batch {
            size: self.data.size(),
            pixels: self.pixels(Split::Validation, &images)?,
            ..Batch::default()
        };
        for ordinal in ordinals {
            let sample = self.data.scored(ordinal);
            batch.samples.push(ordinal);
            batch.quarter_turns.push(turns);
            batch.labels.push(self.spec.class_of(sample.grade));
        }
        Ok(batch)
    }

    /// The pixels of samples with their quarter turns, in the form that the device takes.
    fn pixels(&self, split: Split, images: &[(u32, u8)]) -> Result<Pixels, DataError> {
        let size = self.data.size();
        let record = size * size * 3;
        let sample = |ordinal| match split {
            Split::Train => self.data.train(ordinal),
            Split::Validation => self.data.scored(ordinal),
        };
        if let Some(held) = &self.device.held {
            let given: Vec<bool> = images.iter().map(|(s, _)| !held.holds(split, *s)).collect();
            let missing = images.iter().zip(&given).filter(|(_, given)| **given);
            let count = given.iter().filter(|given| **given).count();
            let mut bytes = vec![0; record * count];
            for (((ordinal, _), _), upright) in missing.zip(bytes.chunks_exact_mut(record)) {
                self.data.read(sample(*ordinal), upright)?;
            }
            return Ok(Pixels::Upright { given, bytes });
        }
        let mut bytes = vec![0; record * images.len()];
        let mut upright = vec![0; record];
        for (&(ordinal, turns), turned) in images.iter().zip(bytes.chunks_exact_mut(record)) {
            if turns == 0 {
                self.data.read(sample(ordinal), turned)?;
            } else {
                self.data.read(sample(ordinal), &mut upright)?;
                rotate90(&upright, size, turns, turned);
            }
        }
        Ok(Pixels::Turned(bytes))
    }
}
