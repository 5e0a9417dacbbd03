//! The gradients of the hosted virtual ranks, kept so that an interrupted step's are not computed again.
//!
//! A virtual rank's gradient is a function of the state and the samples alone. When a generation is interrupted in a
//! step, the next one takes the same step from the same state, so its gradients are still valid.
//!
//! In a `fast` reduction there is one buffer for all of them, under the first one's number.

use std::ops::Range;

use crate::device::Flat;

/// Buffers of the hosted virtual ranks and which step each was computed for.
#[derive(Debug, Default)]
pub struct Parts {
    /// First virtual rank.
    first: u32,
    /// For each buffer the committed steps of the state that it was computed with.
    computed: Vec<Option<u64>>,
    buffers: Vec<Flat>,
}

impl Parts {
    /// Makes a buffer by `make` for each of `ranks`, and keeps those that are there.
    pub fn arrange(&mut self, ranks: Range<u32>, make: &dyn Fn() -> Flat) {
        let before = std::mem::take(self);
        let mut kept: Vec<Option<(Option<u64>, Flat)>> = before
            .computed
            .into_iter()
            .zip(before.buffers)
            .map(Some)
            .collect();
        self.first = ranks.start;
        for rank in ranks {
            let place = rank.checked_sub(before.first).map(|i| i as usize);
            let there = place.and_then(|i| kept.get_mut(i)).and_then(Option::take);
            let (computed, buffer) = there.unwrap_or_else(|| (None, make()));
            self.computed.push(computed);
            self.buffers.push(buffer);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Virtual rank of the `slot`-th buffer.
    pub fn rank(&self, slot: usize) -> u32 {
        self.first + slot as u32
    }

    /// Whether the `slot`-th buffer holds what the step after `committed` needs.
    pub fn holds(&self, slot: usize, committed: u64) -> bool {
        self.computed[slot] == Some(committed)
    }

    /// The `slot`-th buffer, to be overwritten; [`Parts::computed`] makes it valid.
    pub fn begin(&mut self, slot: usize) -> &mut Flat {
        self.computed[slot] = None;
        &mut self.buffers[slot]
    }

    /// The `slot`-th buffer was computed for the step after `committed`.
    pub fn computed(&mut self, slot: usize, committed: u64) {
        self.computed[slot] = Some(committed);
    }

    /// All buffers, in the order of virtual ranks.
    pub fn buffers(&mut self) -> &mut [Flat] {
        &mut self.buffers
    }

    /// The state was replaced: gradients of the old one are invalid.
    pub fn forget(&mut self) {
        self.computed.fill(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zero() -> Flat {
        let mut flat = Flat::default();
        flat.buckets_mut().push(vec![0.0].into());
        flat
    }

    #[test]
    fn what_was_computed_stays_with_its_virtual_rank() {
        let mut parts = Parts::default();
        parts.arrange(2..4, &zero);
        for slot in 0..2 {
            let rank = parts.rank(slot) as f32;
            parts.begin(slot).write(0, &[rank]);
            parts.computed(slot, 7);
        }
        parts.arrange(1..4, &zero);
        let held: Vec<bool> = (0..3).map(|slot| parts.holds(slot, 7)).collect();
        assert_eq!(held, [false, true, true]);
        let values: Vec<f32> = parts.buffers().iter().flat_map(|b| b.read(0..1)).collect();
        assert_eq!(values[1..], [2.0, 3.0]);
        assert!(!parts.holds(1, 8));
        parts.begin(1);
        assert!(!parts.holds(1, 7), "half written");
        parts.arrange(3..5, &zero);
        assert!(parts.holds(0, 7) && !parts.holds(1, 7));
        parts.forget();
        assert!(!parts.holds(0, 7));
    }
}
