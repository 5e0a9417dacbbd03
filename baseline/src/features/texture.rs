//! Texture: grey-level co-occurrence (Haralick, Shanmugam and Dinstein, 1973).

use image::GrayImage;

use super::mask::{Mask, SET};

/// Number of grey levels that are distinguished.
const LEVELS: usize = 32;

/// Features of the co-occurrence matrix.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Texture {
    /// Mean of (i - j)².
    pub contrast: f64,
    /// Mean of 1 / (1 + (i - j)²).
    pub homogeneity: f64,
    /// Square root of the sum of p².
    pub energy: f64,
    /// Correlation of the levels of neighbours; 1 where all are equal.
    pub correlation: f64,
    /// - sum of p log2 p, in bits.
    pub entropy: f64,
}

impl Texture {
    /// Of the neighbours at distance 1 in four directions, both ways, that are both in `field`; [`LEVELS`] equal parts of 0 to
    /// 255. The pairs of all directions are counted together, so that turning by 90 degrees changes nothing.
    pub fn of(channel: &GrayImage, field: &Mask) -> Self {
        let (width, height) = channel.dimensions();
        let mut pairs = vec![0u64; LEVELS * LEVELS];
        let level = |x: u32, y: u32| {
            let inside = x < width && y < height && field.get_pixel(x, y)[0] == SET;
            inside.then(|| usize::from(channel.get_pixel(x, y)[0]) * LEVELS / 256)
        };
        for y in 0..height {
            for x in 0..width {
                let Some(here) = level(x, y) else { continue };
                for (dx, dy) in [(1, 0), (0, 1), (1, 1), (u32::MAX, 1)] {
                    if let Some(there) = level(x.wrapping_add(dx), y + dy) {
                        pairs[here * LEVELS + there] += 1;
                        pairs[there * LEVELS + here] += 1;
                    }
                }
            }
        }
        Self::of_pairs(&pairs)
    }

    fn of_pairs(pairs: &[u64]) -> Self {
        let total: u64 = pairs.iter().sum();
        let each = || {
            pairs.iter().enumerate().map(move |(at, &count)| {
                let share = if total > 0 {
                    count as f64 / total as f64
                } else {
                    0.0
                };
                ((at / LEVELS) as f64, (at % LEVELS) as f64, share)
            })
        };
        let mean: f64 = each().map(|(i, _, p)| i * p).sum();
        let variance: f64 = each().map(|(i, _, p)| (i - mean).powi(2) * p).sum();
        let covariance: f64 = each().map(|(i, j, p)| (i - mean) * (j - mean) * p).sum();
        let information = |p: f64| if p > 0.0 { -p * p.log2() } else { 0.0 };
        Self {
            contrast: each().map(|(i, j, p)| (i - j).powi(2) * p).sum(),
            homogeneity: each().map(|(i, j, p)| p / (1.0 + (i - j).powi(2))).sum(),
            energy: each().map(|(_, _, p)| p * p).sum::<f64>().sqrt(),
            correlation: if variance > 0.0 {
                covariance / variance
            } else {
                1.0
            },
            entropy: each().map(|(_, _, p)| information(p)).sum(),
        }
    }
}
