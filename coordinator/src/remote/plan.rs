//! What the mirror does next: pure, on times that it is given.
//!
//! ```text
//!   want ──> wanted ──upload──> stored ──remove──> to be removed ──> gone
//!               │ ^ fails: again after a growing pause
//!               └─┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fovea_core::checkpoint::CheckpointInfo;

use super::item::Item;

/// Pauses after failures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    pub first_ms: u64,
    pub longest_ms: u64,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            first_ms: 1_000,
            longest_ms: 60_000,
        }
    }
}

impl Pauses {
    /// The pause after so many failures in a row, milliseconds.
    pub(super) fn after(self, failures: u32) -> u64 {
        (self.first_ms << failures.saturating_sub(1).min(10)).min(self.longest_ms)
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    Upload(Item),
    Remove(Item),
    /// Nothing before that time, if ever.
    Wait(Option<u64>),
}

#[derive(Debug, Clone)]
struct Wanted {
    /// The order in which they came.
    turn: u64,
    info: Option<CheckpointInfo>,
}

#[derive(Debug, Clone)]
struct Failure {
    count: u32,
    due: u64,
    problem: String,
}

/// What should be in the bucket, and what is.
#[derive(Debug, Default)]
pub(super) struct Plan {
    wanted: BTreeMap<Item, Wanted>,
    stored: Arc<BTreeSet<Item>>,
    removals: BTreeSet<Item>,
    failures: BTreeMap<Item, Failure>,
    /// No upload before that time: the store is full.
    uploads_due: u64,
    full: u32,
    turns: u64,
    pauses: Pauses,
}

impl Plan {
    pub(super) fn new(pauses: Pauses) -> Self {
        Self {
            pauses,
            ..Self::default()
        }
    }

    /// `item` is to be in the bucket. `fresh`: it was made a moment ago, so that what is there is not it.
    pub(super) fn want(&mut self, item: Item, info: Option<CheckpointInfo>, fresh: bool) {
        if fresh {
            Arc::make_mut(&mut self.stored).remove(&item);
            self.failures.remove(&item);
        }
        self.removals
            .retain(|gone| *gone != item && !is_of(&item, gone));
        self.turns += 1;
        let turn = self.turns;
        self.wanted.insert(item, Wanted { turn, info });
    }

    /// `item` is not to be in the bucket any more.
    pub(super) fn remove(&mut self, item: Item) {
        let gone = |other: &Item| *other == item || is_of(other, &item);
        self.wanted.retain(|other, _| !gone(other));
        self.failures.retain(|other, _| !gone(other));
        Arc::make_mut(&mut self.stored).retain(|other| !gone(other));
        self.removals.insert(item);
    }

    /// What is to be removed and is not listed any more: of an older list.
    pub(super) fn removals(&self) -> &BTreeSet<Item> {
        &self.removals
    }

    /// These are in the bucket.
    pub(super) fn found(&mut self, complete: BTreeSet<Item>) {
        let removals = &self.removals;
        let kept = |item: &Item| {
            !removals
                .iter()
                .any(|gone| gone == item || is_of(item, gone))
        };
        self.stored = Arc::new(complete.into_iter().filter(kept).collect());
    }

    pub(super) fn uploaded(&mut self, item: &Item) {
        self.failures.remove(item);
        self.full = 0;
        if self.wanted.contains_key(item) {
            Arc::make_mut(&mut self.stored).insert(item.clone());
        }
    }

    /// There is nothing to upload of it.
    pub(super) fn forget(&mut self, item: &Item) {
        self.wanted.remove(item);
        self.failures.remove(item);
    }

    /// The store is not known to be full.
    pub(super) fn may_upload(&self, now: u64) -> bool {
        self.uploads_due <= now
    }

    pub(super) fn removed(&mut self, item: &Item) {
        self.failures.remove(item);
        self.removals.remove(item);
        // There may be room now.
        self.uploads_due = 0;
    }

    /// Something about this item failed. Gives whether that is news.
    pub(super) fn failed(&mut self, item: &Item, problem: String, now: u64) -> bool {
        let before = self.failures.get(item);
        let count = before.map_or(0, |failure| failure.count) + 1;
        let news = before.is_none_or(|failure| failure.problem != problem);
        let due = now + self.pauses.after(count);
        let failure = Failure {
            count,
            due,
            problem,
        };
        self.failures.insert(item.clone(), failure);
        news
    }

    /// The store is full: nothing is uploaded for a while.
    pub(super) fn full(&mut self, now: u64) {
        self.full += 1;
        self.uploads_due = now + self.pauses.after(self.full);
    }

    pub(super) fn info(&self, item: &Item) -> Option<CheckpointInfo> {
        self.wanted.get(item)?.info.clone()
    }

    /// What is in the bucket.
    pub(super) fn stored(&self) -> Arc<BTreeSet<Item>> {
        Arc::clone(&self.stored)
    }

    /// How many are wanted and not there.
    pub(super) fn waiting(&self) -> usize {
        self.lacking().count()
    }

    /// One of the problems, if there are any.
    pub(super) fn problem(&self) -> Option<&str> {
        self.failures
            .values()
            .next()
            .map(|failure| &*failure.problem)
    }

    /// The object of this key belongs to something that is still to be uploaded.
    pub(super) fn lacks(&self, key: &str) -> bool {
        self.lacking().any(|(item, _)| item.owns(key))
    }

    fn lacking(&self) -> impl Iterator<Item = (&Item, &Wanted)> {
        self.wanted
            .iter()
            .filter(|(item, _)| !self.stored.contains(*item))
    }

    /// Ledgers first, which are small, then checkpoints, the newest first: the older ones may not be needed any more when
    /// their turn comes. Then weights and datasets, then removals.
    pub(super) fn next(&self, now: u64) -> Next {
        let due = |item: &Item| self.failures.get(item).map_or(0, |failure| failure.due);
        let rank = |item: &Item, turn: u64| match item {
            Item::Ledger { .. } => (0, turn),
            Item::Checkpoint { .. } => (1, u64::MAX - turn),
            Item::Weights(_) => (2, turn),
            Item::Dataset(_) => (3, turn),
            Item::Run(_) => (4, turn),
        };
        if self.uploads_due <= now {
            let ready = self.lacking().filter(|(item, _)| due(item) <= now);
            if let Some((item, _)) = ready.min_by_key(|(item, wanted)| rank(item, wanted.turn)) {
                return Next::Upload(item.clone());
            }
        }
        if let Some(item) = self.removals.iter().find(|item| due(item) <= now) {
            return Next::Remove(item.clone());
        }
        let uploads = self
            .lacking()
            .map(|(item, _)| due(item).max(self.uploads_due));
        let removals = self.removals.iter().map(due);
        Next::Wait(uploads.chain(removals).min())
    }
}

/// `item` belongs to the run that `of` is.
fn is_of(item: &Item, of: &Item) -> bool {
    matches!(of, Item::Run(run) if item.run() == Some(run))
}

#[cfg(test)]
mod tests {
    use fovea_core::ids::RunId;

    use super::*;

    fn run(name: &str) -> RunId {
        RunId::new(name).unwrap()
    }

    fn checkpoint(name: &str, step: u64) -> Item {
        Item::Checkpoint {
            run: run(name),
            step,
            generation: 1,
        }
    }

    #[test]
    fn the_newest_checkpoint_goes_first_and_datasets_last() {
        let mut plan = Plan::default();
        plan.want(Item::Dataset("d".into()), None, false);
        plan.want(checkpoint("r-2", 10), None, true);
        plan.want(checkpoint("r-1", 10), None, true);
        plan.want(Item::Weights("w".into()), None, false);
        plan.want(
            Item::Ledger {
                run: run("r-1"),
                step: 5,
                generation: 1,
            },
            None,
            true,
        );
        let mut order = Vec::new();
        while let Next::Upload(item) = plan.next(0) {
            plan.uploaded(&item);
            order.push(item.to_string());
        }
        assert_eq!(
            order,
            [
                "ledger of r-1 up to step 5",
                "r-1 step 10",
                "r-2 step 10",
                "weights w",
                "dataset d"
            ]
        );
        assert_eq!(plan.next(0), Next::Wait(None));
    }

    #[test]
    fn failures_pause_longer_and_longer_and_hold_up_no_other() {
        let mut plan = Plan::default();
        plan.want(checkpoint("r-1", 10), None, true);
        plan.want(checkpoint("r-1", 20), None, true);
        assert!(plan.failed(&checkpoint("r-1", 20), "p".into(), 0));
        assert_eq!(plan.next(0), Next::Upload(checkpoint("r-1", 10)));
        plan.uploaded(&checkpoint("r-1", 10));
        assert_eq!(plan.next(0), Next::Wait(Some(1_000)));
        assert!(!plan.failed(&checkpoint("r-1", 20), "p".into(), 1_000));
        assert_eq!(plan.next(1_000), Next::Wait(Some(3_000)));
        assert_eq!(Pauses::default().after(40), 60_000);
        assert_eq!(plan.next(3_000), Next::Upload(checkpoint("r-1", 20)));
    }

    #[test]
    fn a_full_store_takes_removals_only() {
        let mut plan = Plan::default();
        plan.found([checkpoint("r-1", 5)].into());
        plan.want(checkpoint("r-1", 10), None, true);
        plan.full(0);
        assert_eq!(plan.next(0), Next::Wait(Some(1_000)));
        plan.remove(checkpoint("r-1", 5));
        assert_eq!(plan.next(0), Next::Remove(checkpoint("r-1", 5)));
        plan.removed(&checkpoint("r-1", 5));
        assert_eq!(plan.next(0), Next::Upload(checkpoint("r-1", 10)));
    }

    #[test]
    fn what_is_removed_is_neither_uploaded_nor_found_again() {
        let mut plan = Plan::default();
        plan.want(checkpoint("r-1", 10), None, true);
        plan.want(checkpoint("r-2", 10), None, true);
        plan.remove(Item::Run(run("r-1")));
        assert_eq!(plan.next(0), Next::Upload(checkpoint("r-2", 10)));
        plan.found([checkpoint("r-1", 10), checkpoint("r-2", 10)].into());
        assert_eq!(*plan.stored(), [checkpoint("r-2", 10)].into());
        assert_eq!(plan.next(0), Next::Remove(Item::Run(run("r-1"))));
        // What is listed again is not removed.
        plan.remove(checkpoint("r-2", 10));
        plan.want(checkpoint("r-2", 10), None, false);
        assert!(!plan.removals().contains(&checkpoint("r-2", 10)));
    }

    #[test]
    fn what_is_made_anew_is_uploaded_anew() {
        let mut plan = Plan::default();
        plan.found([checkpoint("r-1", 10)].into());
        plan.want(checkpoint("r-1", 10), None, false);
        assert_eq!((plan.next(0), plan.waiting()), (Next::Wait(None), 0));
        plan.want(checkpoint("r-1", 10), None, true);
        assert_eq!(plan.next(0), Next::Upload(checkpoint("r-1", 10)));
    }
}
