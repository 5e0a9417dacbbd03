//! Resizing that commutes with exact rotations, to the bit.
//!
//! Libraries for resizing round between the horizontal and the vertical pass, so that a turned picture gets other values than
//! the picture, turned. Here all sums are of whole numbers and rounded once.

/// Resizes a square picture of one channel by a triangle filter, as wide as an output pixel at least (bilinear where the
/// picture grows, averaging where it shrinks).
///
/// # Panics
/// If `values` does not hold `from` x `from` bytes.
pub(crate) fn resized(values: &[u8], from: u32, to: u32) -> Vec<u8> {
    assert_eq!(values.len() as u64, u64::from(from) * u64::from(from));
    if from == to {
        return values.to_vec();
    }
    let taps: Vec<Taps> = (0..to).map(|at| Taps::new(at, from, to)).collect();
    let (from, to) = (from as usize, to as usize);
    // The horizontal pass keeps its sums whole.
    let mut wide = vec![0u64; from * to];
    for (row, sums) in values.chunks_exact(from).zip(wide.chunks_exact_mut(to)) {
        for (sum, taps) in sums.iter_mut().zip(&taps) {
            let pixels = &row[taps.first..];
            *sum = taps.weighted(pixels.iter().map(|&v| u64::from(v)));
        }
    }
    let mut out = Vec::with_capacity(to * to);
    for rows in &taps {
        for (column, columns) in taps.iter().enumerate() {
            let along = wide[rows.first * to + column..].iter().step_by(to);
            let total = rows.total * columns.total;
            let value = (rows.weighted(along.copied()) + total / 2) / total;
            out.push(value.min(255) as u8);
        }
    }
    out
}

/// The weights of the pixels that make one output pixel.
struct Taps {
    first: usize,
    weights: Vec<u64>,
    total: u64,
}

impl Taps {
    /// Pixel i lies at (i + 1/2); everything is multiplied by twice the output's size, so that all of it is whole.
    fn new(at: u32, from: u32, to: u32) -> Self {
        let (at, from, to) = (i64::from(at), i64::from(from), i64::from(to));
        let centre = (2 * at + 1) * from - to;
        let reach = 2 * from.max(to);
        let weight = |pixel: i64| (reach - (2 * to * pixel - centre).abs()).max(0) as u64;
        let inside: Vec<i64> = (0..from).filter(|&pixel| weight(pixel) > 0).collect();
        let weights: Vec<u64> = inside.iter().map(|&pixel| weight(pixel)).collect();
        Self {
            first: inside.first().map_or(0, |&pixel| pixel as usize),
            total: weights.iter().sum(),
            weights,
        }
    }

    fn weighted(&self, values: impl Iterator<Item = u64>) -> u64 {
        self.weights.iter().zip(values).map(|(w, v)| w * v).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::turned;
    use proptest::prelude::*;

    #[test]
    fn halves_and_doubles() {
        // Weights of the four pixels around each centre: 1 3 3 1 where there are four, 3 3 1 at the edges.
        assert_eq!(resized(&[10; 16], 4, 2), [10; 4]);
        let ramp = [0, 40, 80, 120].repeat(4);
        assert_eq!(resized(&ramp, 4, 2), [29, 91, 29, 91]);
        assert_eq!(resized(&[0, 100, 0, 100], 2, 4)[..4], [0, 25, 75, 100]);
    }

    proptest! {
        #[test]
        fn turning_first_or_last_is_the_same(from in 1u32..20, to in 1u32..20, key in any::<u64>()) {
            let picture: Vec<u8> = (0..u64::from(from * from))
                .map(|i| (i.wrapping_mul(key | 1) >> 17) as u8)
                .collect();
            let turned_last = turned(&resized(&picture, from, to), to as usize);
            prop_assert_eq!(turned_last, resized(&turned(&picture, from as usize), from, to));
        }
    }
}
