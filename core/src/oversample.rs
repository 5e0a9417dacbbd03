//! Oversampling: in each epoch every class of a shard is used equally often.

use crate::random;

/// A use of a sample in an epoch: which, and how often it was used in this epoch before, from 0.
pub(crate) type Use = (u32, u32);

/// By class: the samples of a shard, in its order.
fn by_class(shard: &[u32], class_of: impl Fn(u32) -> u8) -> Vec<Vec<u32>> {
    let mut classes: Vec<Vec<u32>> = Vec::new();
    for &sample in shard {
        let class = usize::from(class_of(sample));
        if classes.len() <= class {
            classes.resize_with(class + 1, Vec::new);
        }
        classes[class].push(sample);
    }
    classes.retain(|samples| !samples.is_empty());
    classes
}

/// Number of uses in an epoch of a shard: those of its largest class, for each class in it.
pub(crate) fn len(shard: &[u32], class_of: impl Fn(u32) -> u8) -> usize {
    let classes = by_class(shard, class_of);
    let most = classes.iter().map(Vec::len).max().unwrap_or(0);
    most * classes.len()
}

/// The uses in an epoch of a shard, not shuffled. Each sample of a class of n samples, where the largest class has m, is used m / n
/// times, rounded down; the rest of the m uses are of samples that `key` draws, each once more.
pub(crate) fn uses(shard: &[u32], class_of: impl Fn(u32) -> u8, key: &[u64]) -> Vec<Use> {
    let classes = by_class(shard, class_of);
    let most = classes.iter().map(Vec::len).max().unwrap_or(0);
    let mut uses = Vec::with_capacity(most * classes.len());
    for (number, samples) in classes.iter().enumerate() {
        let times = most / samples.len();
        for copy in 0..times as u32 {
            uses.extend(samples.iter().map(|&sample| (sample, copy)));
        }
        let mut drawn = samples.clone();
        let key: Vec<u64> = key.iter().copied().chain([number as u64]).collect();
        random::shuffle(&mut random::stream("oversample", &key), &mut drawn);
        drawn.truncate(most % samples.len());
        uses.extend(drawn.into_iter().map(|sample| (sample, times as u32)));
    }
    uses
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_class_is_used_equally_often_and_no_sample_is_left_out(
            classes in prop::collection::vec(0u8..5, 1..60), seed: u64,
        ) {
            let shard: Vec<u32> = (0..classes.len() as u32).collect();
            let class_of = |sample: u32| classes[sample as usize];
            let uses = uses(&shard, class_of, &[seed]);
            prop_assert_eq!(uses.len(), len(&shard, class_of));
            let mut of_class: BTreeMap<u8, usize> = BTreeMap::new();
            let mut of_sample: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
            for (sample, copy) in uses {
                *of_class.entry(class_of(sample)).or_default() += 1;
                of_sample.entry(sample).or_default().push(copy);
            }
            let counts: Vec<usize> = of_class.values().copied().collect();
            prop_assert!(counts.iter().all(|n| *n == counts[0]), "{counts:?}");
            prop_assert_eq!(of_sample.len(), shard.len());
            for (class, uses) in of_class {
                let all = of_sample.iter().filter(|(s, _)| class_of(**s) == class);
                let times: Vec<usize> = all.map(|(_, copies)| copies.len()).collect();
                let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
                prop_assert!(most - least <= 1, "{uses}: {times:?}");
            }
            for copies in of_sample.values_mut() {
                copies.sort_unstable();
                prop_assert!(copies.iter().enumerate().all(|(i, copy)| i as u32 == *copy));
            }
        }
    }

    #[test]
    fn who_is_used_once_more_changes_with_the_key() {
        let class_of = |sample: u32| u8::from(sample >= 20);
        let shard: Vec<u32> = (0..33).collect();
        assert_ne!(
            uses(&shard, class_of, &[1, 0, 0]),
            uses(&shard, class_of, &[1, 1, 0])
        );
    }
}
