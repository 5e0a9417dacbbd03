//! Prepares batches ahead of the device, on a thread of its own.
//!
//! The sequence is fixed by the plan: for every step one training batch for each hosted virtual rank,
//! and after the last step of an epoch the validation batches of each hosted virtual rank, then
//! [`Item::EpochEnd`]. It can begin with validation batches, too. A bounded channel holds a few batches,
//! so memory stays flat.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use fovea_core::googlenet::HEAD_INPUT;
use fovea_core::plan::{Draw, ShardPlan};
use fovea_core::random::dropout_mask;
use fovea_core::roster::Member;
use fovea_core::spec::RunSpec;
use fovea_dataset::rotate90;

use crate::data::{DataError, LocalData, hosted};
use crate::device::Batch;

/// What comes out of the loader.
#[derive(Debug)]
pub enum Item {
    /// One virtual rank's batch of a step; empty when its shard is used up in this epoch.
    Train(Batch),
    /// Some validation images.
    Validation(Batch),
    /// The epoch's validation images are all through.
    EpochEnd,
}

/// Batches ahead of the device for each hosted virtual rank.
const AHEAD: usize = 2;

/// A running loader. Dropping it ends its thread.
pub struct Loader {
    items: Option<Receiver<Result<Item, DataError>>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts to prepare the batches of `steps` for the virtual ranks of `member`; before them those of
    /// the validation split if `evaluate`.
    pub fn start(
        data: LocalData,
        plan: ShardPlan,
        spec: RunSpec,
        member: &Member,
        steps: Range<u64>,
        evaluate: bool,
    ) -> std::io::Result<Self> {
        let (send, items) = sync_channel(AHEAD * member.virtual_ranks as usize);
        let producer = Producer {
            data,
            plan,
            spec,
            ranks: hosted(member).collect(),
            send,
        };
        let thread = std::thread::Builder::new()
            .name("loader".into())
            .spawn(move || producer.run(steps, evaluate))?;
        Ok(Self {
            items: Some(items),
            thread: Some(thread),
        })
    }

    /// The next item, waiting for it.
    pub fn next_item(&mut self) -> Result<Item, DataError> {
        let items = self.items.as_ref().ok_or(DataError::Ended)?;
        items.recv().unwrap_or(Err(DataError::Ended))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Closing the channel ends the thread at its next send.
        self.items = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The receiver is gone: nothing more is wanted.
struct Unwanted;

struct Producer {
    data: LocalData,
    plan: ShardPlan,
    spec: RunSpec,
    ranks: Vec<u32>,
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
                self.send(self.scored(part).map(Item::Validation))?;
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
        let record = size * size * 3;
        let ratio = self.spec.model.dropout;
        let mut batch = Batch {
            size,
            pixels: vec![0; record * draws.len()],
            dropout: vec![
                0.0;
                if ratio > 0.0 {
                    HEAD_INPUT * draws.len()
                } else {
                    0
                }
            ],
            ..Batch::default()
        };
        let mut upright = vec![0; record];
        for (draw, turned) in draws.iter().zip(batch.pixels.chunks_exact_mut(record)) {
            let sample = self.data.train(draw.sample);
            if draw.quarter_turns == 0 {
                self.data.read(sample, turned)?;
            } else {
                self.data.read(sample, &mut upright)?;
                rotate90(&upright, size, draw.quarter_turns, turned);
            }
            batch.samples.push(draw.sample);
            batch.quarter_turns.push(draw.quarter_turns);
            batch.labels.push(self.spec.class_of(sample.grade));
        }
        if ratio > 0.0 {
            for (draw, mask) in draws.iter().zip(batch.dropout.chunks_exact_mut(HEAD_INPUT)) {
                dropout_mask(self.spec.seed, epoch, draw.sample, ratio, mask);
            }
        }
        Ok(batch)
    }

    fn scored(&self, ordinals: Range<u32>) -> Result<Batch, DataError> {
        let size = self.data.size();
        let record = size * size * 3;
        let mut batch = Batch {
            size,
            pixels: vec![0; record * ordinals.len()],
            ..Batch::default()
        };
        for (ordinal, pixels) in ordinals.zip(batch.pixels.chunks_exact_mut(record)) {
            let sample = self.data.validation(ordinal);
            self.data.read(sample, pixels)?;
            batch.samples.push(ordinal);
            batch.quarter_turns.push(0);
            batch.labels.push(self.spec.class_of(sample.grade));
        }
        Ok(batch)
    }
}
