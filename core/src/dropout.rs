//! The dropout multipliers of all classifiers of a network.

use crate::googlenet::{AUXILIARY_DROPOUT, AUXILIARY_UNITS, AuxiliaryHead, Network};
use crate::random::{DROPOUT, dropout_mask, seed_of, use_key};

/// Whether a training of `network` drops anything, with this `ratio` for the classifier's inputs.
pub fn drops(network: &Network, ratio: f64) -> bool {
    ratio > 0.0 || network.auxiliary
}

/// The multipliers of one use of a sample: of the classifier's inputs, of which the share `ratio` is dropped, then of those of
/// each auxiliary classifier ([`AUXILIARY_DROPOUT`]). Keyed as [`dropout_mask`]; each place has a stream of its own.
///
/// # Panics
/// If `out` has not [`Network::dropout_units`] places.
pub fn multipliers(
    network: &Network,
    ratio: f64,
    seed: u64,
    epoch: u32,
    used: (u32, u32),
    out: &mut [f32],
) {
    assert_eq!(out.len(), network.dropout_units());
    let (head, rest) = out.split_at_mut(network.head_input());
    match ratio > 0.0 {
        true => dropout_mask(DROPOUT, seed, epoch, used, ratio, head),
        false => head.fill(1.0),
    }
    let masks = rest.chunks_exact_mut(AUXILIARY_UNITS);
    for (head, mask) in AuxiliaryHead::ALL.into_iter().zip(masks) {
        let purpose = format!("{DROPOUT}/{}", head.name());
        dropout_mask(&purpose, seed, epoch, used, AUXILIARY_DROPOUT, mask);
    }
}

/// The seed of the ChaCha8 stream from which [`multipliers`] draws those of the classifier's inputs, for a device that draws them
/// itself.
pub fn classifier_seed(seed: u64, epoch: u32, (sample, copy): (u32, u32)) -> [u8; 32] {
    seed_of(DROPOUT, &use_key(seed, epoch, sample, copy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(auxiliary: bool, ratio: f64) -> Vec<f32> {
        let network = Network {
            auxiliary,
            ..Network::trunk(2)
        };
        let mut out = vec![f32::NAN; network.dropout_units()];
        multipliers(&network, ratio, 7, 1, (5, 0), &mut out);
        out
    }

    #[test]
    fn each_place_has_its_own_mask_and_the_classifiers_is_as_ever() {
        let mut alone = vec![0.0; 1024];
        dropout_mask(DROPOUT, 7, 1, (5, 0), 0.4, &mut alone);
        assert_eq!(drawn(false, 0.4), alone);
        let all = drawn(true, 0.4);
        let [head, first, second] = [0, 1, 2].map(|i| &all[1024 * i..1024 * (i + 1)]);
        assert_eq!(head, alone);
        assert_ne!(first, second);
        let dropped = |mask: &[f32]| mask.iter().filter(|m| **m == 0.0).count();
        for mask in [first, second] {
            assert!((650..780).contains(&dropped(mask)), "{}", dropped(mask));
            assert!(
                mask.iter()
                    .all(|m| *m == 0.0 || (*m - 1.0 / 0.3).abs() < 1e-5)
            );
        }
        // Without dropout before the classifier the heads still have theirs.
        let only_heads = drawn(true, 0.0);
        assert_eq!(only_heads[..1024], [1.0; 1024]);
        assert_eq!(only_heads[1024..], all[1024..]);
        assert!(!drops(&Network::trunk(2), 0.0) && drops(&Network::trunk(2), 0.1));
    }
}
