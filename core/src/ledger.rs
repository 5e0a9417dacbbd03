//! The ledger: which training samples each committed step used, and its audit.
//!
//! Workers report the entries. The ordinals of a step's samples are part of the same reduction as the step's gradient, so
//! an entry lists exactly the samples whose gradients were added. Ordinals are packed with as many bits as the size of
//! the split needs: two bytes each for a split of the size of EyePACS.

use crate::count::count;
use crate::plan::ShardPlan;

/// A committed step in the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Number of the step, from 1: committed steps after it.
    pub step: u64,
    /// Mean training loss in nats.
    pub loss: f64,
    /// Samples that it used: ordinals in the training split from 0, virtual rank by virtual rank.
    pub samples: Vec<u32>,
}

/// Number of bits for an ordinal below `train_samples`.
fn width(train_samples: u64) -> u32 {
    (64 - train_samples.saturating_sub(1).leading_zeros()).max(1)
}

/// Packs `samples`, each below `train_samples`, into consecutive bits, low bits first.
pub fn pack(samples: &[u32], train_samples: u64) -> Vec<u8> {
    let width = width(train_samples);
    let mut bytes = Vec::with_capacity((samples.len() * width as usize).div_ceil(8));
    let (mut pending, mut bits) = (0u64, 0);
    for &sample in samples {
        pending |= u64::from(sample) << bits;
        bits += width;
        while bits >= 8 {
            bytes.push(pending as u8);
            pending >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        bytes.push(pending as u8);
    }
    bytes
}

/// Unpacks `count` samples, the inverse of [`pack`]. None if there are too few bytes.
pub fn unpack(bytes: &[u8], count: usize, train_samples: u64) -> Option<Vec<u32>> {
    let width = width(train_samples);
    if bytes.len() < (count * width as usize).div_ceil(8) {
        return None;
    }
    let mut bytes = bytes.iter();
    let (mut pending, mut bits) = (0u64, 0);
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        while bits < width {
            pending |= u64::from(*bytes.next()?) << bits;
            bits += 8;
        }
        samples.push((pending & ((1u64 << width) - 1)) as u32);
        pending >>= width;
        bits -= width;
    }
    Some(samples)
}

/// Largest number of problems in a report.
const PROBLEMS: usize = 100;

/// The result of an audit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audit {
    /// Number of steps in the ledger.
    pub steps: u64,
    /// Number of complete epochs that used every sample of the training split exactly once.
    pub clean_epochs: u32,
    /// Number of samples used, repetitions included.
    pub samples_used: u64,
    /// Problems in order of steps, at most 100.
    pub problems: Vec<String>,
}

/// Compares a ledger with the plan, entry by entry, in memory that does not depend on the number of steps. It checks that
/// no step is missing or repeated, that each complete epoch used every sample of the training split as often as the plan says,
/// which is once unless smaller classes are oversampled, that an epoch under way used none more often, and that each step used the samples that the plan gives it.
#[derive(Debug, Clone)]
pub struct Auditor {
    plan: ShardPlan,
    audit: Audit,
    /// How often the epoch under way has used each sample.
    uses: Vec<u32>,
    /// The epoch whose orders are in `orders`: the samples of each virtual rank.
    epoch: Option<u32>,
    orders: Vec<Vec<u32>>,
    /// How often each sample is to be used in it.
    planned: Vec<u32>,
    /// The step expected next.
    next: u64,
    /// Whether a step of the epoch under way is missing or repeated.
    broken: bool,
}

impl Auditor {
    /// An auditor that expects step 1 first.
    pub fn new(plan: ShardPlan) -> Self {
        Self {
            uses: vec![0; plan.train_samples() as usize],
            planned: vec![1; plan.train_samples() as usize],
            plan,
            audit: Audit::default(),
            epoch: None,
            orders: Vec::new(),
            next: 1,
            broken: false,
        }
    }

    /// Takes the next entry, in order of steps.
    pub fn push(&mut self, entry: Entry) {
        let Entry { step, samples, .. } = entry;
        self.audit.steps += 1;
        self.audit.samples_used += samples.len() as u64;
        if step != self.next {
            let what = if step < self.next {
                format!("step {step} is there twice")
            } else {
                format!("steps {} to {} are missing", self.next, step - 1)
            };
            self.audit.problem(what);
            self.broken = true;
        }
        self.next = step + 1;
        let position = self.plan.position(step.saturating_sub(1));
        if self.epoch != Some(position.epoch) {
            let order = |rank| self.plan.epoch_order(rank, position.epoch).into_samples();
            self.orders = (0..self.plan.virtual_ranks()).map(order).collect();
            self.epoch = Some(position.epoch);
            self.planned.fill(0);
            for &sample in self.orders.iter().flatten() {
                self.planned[sample as usize] += 1;
            }
        }
        let planned = self.orders.iter().flat_map(|order| {
            let range = self.plan.range(order.len(), position.step_in_epoch);
            &order[range]
        });
        if !planned.eq(&samples) {
            self.audit.problem(format!(
                "step {step} did not use the samples that were planned"
            ));
        }
        for sample in samples {
            match self.uses.get_mut(sample as usize) {
                Some(count) => *count += 1,
                None => self.audit.problem(format!(
                    "step {step} used sample {sample}, which is not there"
                )),
            }
        }
        if step.is_multiple_of(self.plan.steps_per_epoch().max(1)) {
            if self
                .audit
                .epoch_is_clean(position.epoch, &self.uses, &self.planned)
                && !self.broken
            {
                self.audit.clean_epochs += 1;
            }
            self.uses.fill(0);
            self.broken = false;
        }
    }

    /// Ends the audit. `committed` is the run's newest committed step: steps up to it must be in the ledger.
    pub fn finish(mut self, committed: u64) -> Audit {
        let mut both = self.uses.iter().zip(&self.planned);
        if let Some(sample) = both.position(|(count, planned)| count > planned) {
            let (times, planned) = (self.uses[sample], self.planned[sample]);
            self.audit.problem(format!(
                "the begun epoch used sample {sample} {times} times, and {planned} were planned"
            ));
        }
        if self.next <= committed {
            self.audit
                .problem(format!("steps {} to {committed} are missing", self.next));
        }
        self.audit
    }
}

/// Audits a whole ledger that is in memory.
pub fn audit(entries: impl IntoIterator<Item = Entry>, plan: &ShardPlan, committed: u64) -> Audit {
    let mut auditor = Auditor::new(plan.clone());
    entries.into_iter().for_each(|entry| auditor.push(entry));
    auditor.finish(committed)
}

impl Audit {
    fn problem(&mut self, what: String) {
        if self.problems.len() < PROBLEMS {
            self.problems.push(what);
        }
    }

    fn epoch_is_clean(&mut self, epoch: u32, uses: &[u32], planned: &[u32]) -> bool {
        let both = || uses.iter().zip(planned);
        let never = both().filter(|(count, planned)| count < planned).count();
        let repeated = both().filter(|(count, planned)| count > planned).count();
        if never + repeated > 0 {
            self.problem(format!(
                "epoch {} left out {} and used {repeated} more often than planned",
                epoch + 1,
                count(never, "sample", "samples")
            ));
        }
        never + repeated == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packing_loses_nothing(
            total in 1u64..200_000, seeds in prop::collection::vec(any::<u32>(), 0..200),
        ) {
            let samples: Vec<u32> = seeds.iter().map(|s| (u64::from(*s) % total) as u32).collect();
            let bytes = pack(&samples, total);
            prop_assert_eq!(unpack(&bytes, samples.len(), total), Some(samples.clone()));
            if bytes.len() > 1 {
                prop_assert_eq!(unpack(&bytes[1..], samples.len(), total), None);
            }
        }
    }

    #[test]
    fn a_split_like_eyepacs_takes_two_bytes_a_sample() {
        assert_eq!(pack(&[35_125; 100], 35_126).len(), 200);
        assert_eq!(pack(&[u32::MAX; 2], u64::from(u32::MAX) + 1).len(), 8);
    }

    fn plan() -> ShardPlan {
        let patients: Vec<u32> = (0..30).collect();
        ShardPlan::new(&patients, 0, 3, 4, 5, true).unwrap()
    }

    fn true_ledger(steps: u64) -> Vec<Entry> {
        let plan = plan();
        (1..=steps)
            .map(|step| {
                let at = plan.position(step - 1);
                let samples = (0..3)
                    .flat_map(|rank| plan.epoch_order(rank, at.epoch).batch(at.step_in_epoch))
                    .map(|draw| draw.sample)
                    .collect();
                Entry {
                    step,
                    loss: 0.5,
                    samples,
                }
            })
            .collect()
    }

    #[test]
    fn a_true_ledger_is_clean() {
        let steps = plan().steps_per_epoch() * 2 + 1;
        let audit = audit(true_ledger(steps), &plan(), steps);
        assert_eq!(audit.problems, Vec::<String>::new());
        assert_eq!((audit.steps, audit.clean_epochs), (steps, 2));
        assert!(audit.samples_used > 60);
    }

    #[test]
    fn every_kind_of_fault_is_found() {
        let steps = plan().steps_per_epoch() * 2;
        type Spoil = fn(&mut Vec<Entry>);
        let table: [(Spoil, &str, u32); 6] = [
            (|l| drop(l.remove(1)), "steps 2 to 2 are missing", 1),
            (|l| l.insert(1, l[0].clone()), "step 1 is there twice", 1),
            (
                |l| l[0].samples[0] = l[0].samples[1],
                "left out 1 sample and",
                1,
            ),
            (|l| l[0].samples[0] = 99, "sample 99, which is not there", 1),
            (
                |l| l[0].samples.swap(0, 1),
                "step 1 did not use the samples",
                2,
            ),
            (|l| drop(l.pop()), "are missing", 1),
        ];
        for (spoil, expected, clean) in table {
            let mut ledger = true_ledger(steps);
            spoil(&mut ledger);
            let audit = audit(ledger, &plan(), steps);
            let text = audit.problems.join("; ");
            assert!(text.contains(expected), "{expected}: {text}");
            assert_eq!(audit.clean_epochs, clean, "{expected}");
        }
    }
}
