//! Random numbers of a run, which do not depend on the machine that draws them.
//!
//! Everything random is drawn from a stream that is keyed by its purpose and by numbers such as the seed, the epoch and
//! the sample, and never by a worker, a thread or a clock. The output of ChaCha8 is part of its definition, so a stream is
//! the same on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// The stream of random numbers for one `purpose` and `key`. The same arguments always give the same stream.
pub fn stream(purpose: &str, key: &[u64]) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(seed_of(purpose, key))
}

/// The seed of [`stream`], for whoever draws it elsewhere.
pub(crate) fn seed_of(purpose: &str, key: &[u64]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((purpose.len() as u64).to_le_bytes());
    hash.update(purpose.as_bytes());
    for part in key {
        hash.update(part.to_le_bytes());
    }
    hash.finalize().into()
}

/// A uniform number in `0..n`, without modulo bias.
///
/// # Panics
/// If `n` is 0.
pub fn below(rng: &mut impl RngCore, n: u64) -> u64 {
    assert!(n > 0, "below(0) has no answer");
    // Numbers beyond the last multiple of n are rejected: they would make small results more likely.
    let zone = u64::MAX - u64::MAX % n;
    loop {
        let x = rng.next_u64();
        if x < zone {
            return x % n;
        }
    }
}

/// Shuffles `items` (Fisher–Yates). It is written here because a library's shuffle may change between versions, and with
/// it the order of every run.
pub fn shuffle<T>(rng: &mut impl RngCore, items: &mut [T]) {
    for i in (1..items.len()).rev() {
        let j = below(rng, i as u64 + 1) as usize;
        items.swap(i, j);
    }
}

/// The key of what is random about a use of `sample` in `epoch`: of its first use the three numbers, as it was before there were
/// others; of the use `copy` four.
pub(crate) fn use_key(seed: u64, epoch: u32, sample: u32, copy: u32) -> Vec<u64> {
    let mut key = vec![seed, u64::from(epoch), u64::from(sample)];
    if copy > 0 {
        key.push(u64::from(copy));
    }
    key
}

/// The purpose of the stream of the dropout before the network's classifier.
pub const DROPOUT: &str = "dropout";

/// The inverted-dropout multipliers of one use of a sample: 0 with probability `ratio`, else
/// 1/(1 - ratio). `out` holds one multiplier for each unit.
///
/// Keyed by (seed, epoch, sample, copy), so it does not matter which worker trains the sample. `copy`: how often it was used in
/// this epoch before. `purpose` tells the places of a network apart; that of the classifier is [`DROPOUT`].
pub fn dropout_mask(
    purpose: &str,
    seed: u64,
    epoch: u32,
    (sample, copy): (u32, u32),
    ratio: f64,
    out: &mut [f32],
) {
    let mut rng = stream(purpose, &use_key(seed, epoch, sample, copy));
    let keep = (1.0 / (1.0 - ratio)) as f32;
    // Compared as integers, so that no rounding of the random number matters.
    let threshold = (ratio * 4_294_967_296.0) as u64;
    for unit in out {
        *unit = if u64::from(rng.next_u32()) < threshold {
            0.0
        } else {
            keep
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_purpose_and_key_and_repeat() {
        let first = |p: &str, k: &[u64]| stream(p, k).next_u64();
        assert_eq!(first("order", &[1, 2]), first("order", &[1, 2]));
        assert_ne!(first("order", &[1, 2]), first("order", &[2, 1]));
        assert_ne!(first("order", &[1, 2]), first("dropout", &[1, 2]));
    }

    /// The stream must stay as it is: if a dependency changed it, every old run would change.
    #[test]
    fn the_stream_is_pinned() {
        let mut items: Vec<u32> = (0..8).collect();
        shuffle(&mut stream("test", &[0]), &mut items);
        assert_eq!(items, [2, 1, 3, 4, 6, 5, 7, 0]);
        assert_eq!(stream("test", &[0]).next_u64(), 12_427_532_479_933_381_680);
    }

    #[test]
    fn dropout_keeps_the_expectation() {
        let mut mask = vec![0.0; 100_000];
        dropout_mask(DROPOUT, 7, 1, (2, 0), 0.4, &mut mask);
        let mean = mask.iter().map(|&x| f64::from(x)).sum::<f64>() / mask.len() as f64;
        assert!((mean - 1.0).abs() < 0.02, "mean {mean}");
        let zeros = mask.iter().filter(|&&x| x == 0.0).count();
        assert!((39_000..41_000).contains(&zeros), "{zeros} zeros");
    }
}
