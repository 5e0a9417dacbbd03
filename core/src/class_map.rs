//! Class activation maps: where in a photograph the evidence for "positive" lies.
//!
//! The network averages the outputs `x_k` of its last module, or of the layer that a linear probe reads, over all places and
//! ends with a linear layer `W, b`. So output `c` is the mean over all places `i` of the map `m_c(i) = sum_k W[c, k] x_k(i) +
//! b[c]` (Zhou, Khosla, Lapedriza, Oliva and Torralba 2016, arXiv 1512.04150): an identity and no approximation.
//!
//! What people ask for is one map for "positive", in log-odds: `L = ln(P(positive) / (1 - P(positive)))`, of outputs `z`.
//! It is `M(i) = L + sum_c a_c (m_c(i) - z_c)` with `a_c = dL / dz_c`. Its mean is `L` whatever the head is.
//!
//! - Two classes: `a = (-1, 1)` and `L = z_1 - z_0`, so `M = m_1 - m_0`.
//! - A softmax of more: the positive classes with their shares of `P(positive)`, minus the others with their shares of the
//!   rest.
//! - An ordinal head (CORN), where `P(positive)` is the product of `sigmoid(z_k)` over the outputs below the first positive
//!   class: each of them counts by `sigmoid(-z_k) / (1 - P(positive))`, so most the step that the eye is least likely to
//!   take. The outputs above count nothing.
//!
//! For more than two classes `a` depends on the photograph; the map is then `L` and its first-order change around it.

use serde::{Deserialize, Serialize};

use crate::googlenet::{Network, output_shapes};
use crate::spec::{Head, Scheme};

/// Most bytes of all maps of an evaluation. They travel and are stored with its scores.
pub const MOST_BYTES: u64 = 64 << 20;

/// Rows and columns of the maps of images of `size` pixels a side; None if the network cannot take them.
pub fn places(network: Network, size: u32) -> Option<(usize, usize)> {
    let shapes = output_shapes(network, size as usize, size as usize).ok()?;
    let averaged = network.tap.layer();
    let (_, [_, height, width]) = shapes.into_iter().find(|(name, _)| name == averaged)?;
    Some((height, width))
}

/// Bytes of the maps of so many images of `size` pixels a side.
pub fn bytes(network: Network, images: u64, size: u32) -> u64 {
    let (height, width) = places(network, size).unwrap_or_default();
    images.saturating_mul((height * width * size_of::<f32>()) as u64)
}

/// A value for each place of the network's last module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassMap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Row by row, `height x width`.
    pub values: Vec<f32>,
}

impl ClassMap {
    /// The map for "positive", in log-odds.
    ///
    /// `outputs` has the classifier's outputs, `maps` their maps: for each place, row by row, a value of each output.
    ///
    /// # Panics
    /// If there are not `height x width x outputs` values, or fewer outputs than `scheme` needs.
    pub fn positive(
        scheme: Scheme,
        outputs: &[f32],
        maps: &[f32],
        (height, width): (usize, usize),
    ) -> Self {
        assert_eq!(maps.len(), height * width * outputs.len(), "values of maps");
        let (log_odds, shares) = log_odds(scheme, outputs);
        let value = |place: &[f32]| {
            let change: f64 = place
                .iter()
                .zip(outputs)
                .zip(&shares)
                .map(|((m, z), a)| a * (f64::from(*m) - f64::from(*z)))
                .sum();
            (log_odds + change) as f32
        };
        Self {
            height,
            width,
            values: maps.chunks_exact(outputs.len()).map(value).collect(),
        }
    }

    /// Its mean: the log-odds of "positive".
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.values.iter().map(|v| f64::from(*v)).sum();
        sum / self.values.len() as f64
    }

    /// The mean of maps of one size, place by place; None of none, or of other sizes.
    pub fn mean_of(maps: &[ClassMap]) -> Option<Self> {
        let (first, rest) = maps.split_first()?;
        let mut sums: Vec<f64> = first.values.iter().map(|v| f64::from(*v)).collect();
        for map in rest {
            if (map.height, map.width) != (first.height, first.width) {
                return None;
            }
            for (sum, value) in sums.iter_mut().zip(&map.values) {
                *sum += f64::from(*value);
            }
        }
        let count = maps.len() as f64;
        Some(Self {
            values: sums.into_iter().map(|sum| (sum / count) as f32).collect(),
            ..*first
        })
    }

    /// The map of the upright photograph, of one that was turned by so many quarter turns counter-clockwise.
    pub fn upright(&self, quarter_turns: u8) -> Self {
        let mut map = self.clone();
        for _ in 0..quarter_turns % 4 {
            map = map.turned_clockwise();
        }
        map
    }

    fn turned_clockwise(&self) -> Self {
        let (height, width) = (self.width, self.height);
        let mut values = Vec::with_capacity(self.values.len());
        for row in 0..height {
            for column in 0..width {
                values.push(self.values[(self.height - 1 - column) * self.width + row]);
            }
        }
        Self {
            height,
            width,
            values,
        }
    }

    /// The value at a place of the photograph, in parts of its width and height, bilinear between the places' middles and
    /// constant beyond the outermost.
    pub fn at(&self, x: f64, y: f64) -> f64 {
        let along = |part: f64, count: usize| {
            let place = (part * count as f64 - 0.5).clamp(0.0, count as f64 - 1.0);
            let low = (place.floor() as usize).min(count - 1);
            (low, (low + 1).min(count - 1), place - low as f64)
        };
        let (left, right, across) = along(x, self.width);
        let (top, bottom, down) = along(y, self.height);
        let value = |row: usize, column: usize| f64::from(self.values[row * self.width + column]);
        let between = |a: f64, b: f64, part: f64| a + (b - a) * part;
        between(
            between(value(top, left), value(top, right), across),
            between(value(bottom, left), value(bottom, right), across),
            down,
        )
    }
}

/// ln of the odds of "positive", and its derivative by each output.
fn log_odds(scheme: Scheme, outputs: &[f32]) -> (f64, Vec<f64>) {
    let z: Vec<f64> = outputs.iter().map(|z| f64::from(*z)).collect();
    let first = scheme.positive_class;
    match scheme.head {
        Head::Softmax => {
            let (negative, positive) = z.split_at(first);
            let (log_negative, negative) = shares(negative);
            let (log_positive, positive) = shares(positive);
            let negative = negative.into_iter().map(|share| -share);
            (
                log_positive - log_negative,
                negative.chain(positive).collect(),
            )
        }
        Head::Ordinal => {
            // ln sigmoid(z)
            let log_sigmoid = |z: f64| z.min(0.0) - (-z.abs()).exp().ln_1p();
            let log_p: f64 = z[..first].iter().map(|z| log_sigmoid(*z)).sum();
            // ln(1 - P). Where P is 1 in all digits, 1 - P is the sum of the complements, and these are exp(-z).
            let log_rest = match log_p < -1e-12 {
                true => (-log_p.exp_m1()).ln(),
                false => shares(&z[..first].iter().map(|z| -z).collect::<Vec<_>>()).0,
            };
            let share = |(k, z): (usize, &f64)| match k < first {
                true => (log_sigmoid(-z) - log_rest).exp(),
                false => 0.0,
            };
            let shares = z.iter().enumerate().map(share).collect();
            (log_p - log_rest, shares)
        }
    }
}

/// ln of the sum of the exponentials, and each one's share of it.
fn shares(z: &[f64]) -> (f64, Vec<f64>) {
    let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = z.iter().map(|z| (z - largest).exp()).sum();
    let shares = z.iter().map(|z| (z - largest).exp() / sum).collect();
    (largest + sum.ln(), shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheme(head: Head, classes: usize, positive_class: usize) -> Scheme {
        Scheme {
            classes,
            positive_class,
            head,
        }
    }

    /// P(positive) of outputs, written down as the heads define it.
    fn p_positive(scheme: Scheme, z: &[f64]) -> f64 {
        match scheme.head {
            Head::Softmax => {
                let all: f64 = z.iter().map(|z| z.exp()).sum();
                z[scheme.positive_class..]
                    .iter()
                    .map(|z| z.exp())
                    .sum::<f64>()
                    / all
            }
            Head::Ordinal => z[..scheme.positive_class]
                .iter()
                .map(|z| 1.0 / (1.0 + (-z).exp()))
                .product(),
        }
    }

    #[test]
    fn maps_have_a_place_for_each_32_pixels() {
        let trunk = Network::trunk(2);
        assert_eq!(places(trunk, 224), Some((7, 7)));
        assert_eq!(places(trunk, 64), Some((2, 2)));
        assert_eq!(bytes(trunk, 1000, 224), 196_000);
        let tap = crate::googlenet::Tap::named("inception_4d/output").unwrap();
        assert_eq!(places(Network { tap, ..trunk }, 224), Some((14, 14)));
    }

    /// A classifier that has diverged has outputs of thousands.
    #[test]
    fn large_outputs_have_the_log_odds_that_they_say() {
        let odds = |head, classes, positive, outputs: &[f32]| {
            log_odds(scheme(head, classes, positive), outputs)
        };
        let (two, shares) = odds(Head::Softmax, 2, 1, &[-3000.0, 4000.0]);
        assert_eq!((two, shares), (7000.0, vec![-1.0, 1.0]));
        let (many, _) = odds(Head::Softmax, 4, 2, &[900.0, -2000.0, 5000.0, 100.0]);
        assert_eq!(many, 4100.0);
        for (outputs, expected, share) in [
            ([4000.0f32, 900.0, -3.0], 900.0, [0.0, 1.0]),
            ([900.0, 900.0, 0.0], 900.0 - 2f64.ln(), [0.5, 0.5]),
            ([-4000.0, 900.0, 0.0], -4000.0, [1.0, 0.0]),
            ([40.0, 700.0, 0.0], 40.0, [1.0, 0.0]),
        ] {
            let (found, shares) = odds(Head::Ordinal, 4, 2, &outputs);
            assert!((found - expected).abs() < 1e-9, "{outputs:?}: {found}");
            for (found, expected) in shares.iter().zip(share) {
                assert!((found - expected).abs() < 1e-9, "{outputs:?}: {shares:?}");
            }
        }
    }

    #[test]
    fn log_odds_and_their_derivatives_are_those_of_finite_differences() {
        let outputs = [0.7f32, -1.2, 2.1, 0.4, -0.3];
        for (scheme, outputs) in [
            (scheme(Head::Softmax, 2, 1), &outputs[..2]),
            (scheme(Head::Softmax, 5, 2), &outputs[..]),
            (scheme(Head::Softmax, 4, 3), &outputs[..4]),
            (scheme(Head::Ordinal, 5, 1), &outputs[..4]),
            (scheme(Head::Ordinal, 5, 2), &outputs[..4]),
            (scheme(Head::Ordinal, 4, 3), &outputs[..3]),
        ] {
            let z: Vec<f64> = outputs.iter().map(|z| f64::from(*z)).collect();
            let logit = |z: &[f64]| {
                let p = p_positive(scheme, z);
                (p / (1.0 - p)).ln()
            };
            let (found, shares) = log_odds(scheme, outputs);
            assert!((found - logit(&z)).abs() < 1e-12, "{scheme:?}");
            for (k, share) in shares.iter().enumerate() {
                let moved = |by: f64| {
                    let mut z = z.clone();
                    z[k] += by;
                    logit(&z)
                };
                let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((share - expected).abs() < 1e-8, "{scheme:?} {k}: {share}");
            }
        }
    }

    #[test]
    fn log_odds_are_numbers_however_sure_the_model_is() {
        for head in [Head::Softmax, Head::Ordinal] {
            for z in [-9000.0f32, -90.0, 90.0, 9000.0] {
                let (found, shares) = log_odds(scheme(head, 5, 2), &[-z, z, z, z, z][..4]);
                assert!(found.is_finite(), "{head:?} {z}");
                assert!(shares.iter().all(|share| share.is_finite()), "{shares:?}");
            }
        }
    }

    /// Of two classes the map is the difference of both maps, and its mean is the log-odds for each head.
    #[test]
    fn the_mean_of_the_map_is_the_log_odds() {
        let maps: Vec<f32> = (0..24)
            .map(|i| ((i * 37) % 17) as f32 / 5.0 - 1.5)
            .collect();
        let mean_of = |outputs: usize| -> Vec<f32> {
            (0..outputs)
                .map(|k| {
                    let values = maps.iter().skip(k).step_by(outputs);
                    values.sum::<f32>() / (maps.len() / outputs) as f32
                })
                .collect()
        };
        let two = ClassMap::positive(scheme(Head::Softmax, 2, 1), &mean_of(2), &maps, (3, 4));
        for (place, value) in maps.chunks_exact(2).zip(&two.values) {
            assert!((place[1] - place[0] - value).abs() < 1e-5);
        }
        for (scheme, outputs) in [
            (scheme(Head::Softmax, 2, 1), 2),
            (scheme(Head::Softmax, 4, 2), 4),
            (scheme(Head::Ordinal, 5, 2), 4),
        ] {
            let z = mean_of(outputs);
            let size = (2, maps.len() / outputs / 2);
            let map = ClassMap::positive(scheme, &z, &maps, size);
            let z: Vec<f64> = z.iter().map(|z| f64::from(*z)).collect();
            let p = p_positive(scheme, &z);
            let expected = (p / (1.0 - p)).ln();
            assert!((map.mean() - expected).abs() < 1e-5, "{scheme:?}");
        }
    }

    #[test]
    fn a_map_is_turned_back_with_its_photograph() {
        let map = ClassMap {
            height: 2,
            width: 3,
            values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        };
        // As numpy's rot90 has it.
        let turned = ClassMap {
            height: 3,
            width: 2,
            values: vec![3.0, 6.0, 2.0, 5.0, 1.0, 4.0],
        };
        assert_eq!(turned.upright(1), map);
        assert_eq!(turned.upright(5), map);
        assert_eq!(map.upright(0), map);
        assert_eq!(map.upright(2).values, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]);
        assert_eq!(map.upright(3), turned);
        assert_eq!(ClassMap::mean_of(&[map.clone(), turned]), None);
        let mean = ClassMap::mean_of(&[map.clone(), map.upright(2)]).unwrap();
        assert_eq!(mean.values, [3.5; 6]);
    }

    #[test]
    fn between_the_places_it_is_bilinear() {
        let map = ClassMap {
            height: 2,
            width: 2,
            values: vec![0.0, 1.0, 2.0, 3.0],
        };
        for (x, y, expected) in [
            (0.0, 0.0, 0.0),
            (0.25, 0.25, 0.0),
            (0.5, 0.25, 0.5),
            (0.5, 0.5, 1.5),
            (1.0, 1.0, 3.0),
            (0.75, 0.5, 2.0),
        ] {
            assert!((map.at(x, y) - expected).abs() < 1e-12, "{x} {y}");
        }
    }
}
