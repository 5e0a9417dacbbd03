//! Whether probabilities mean what they say.

use serde::{Deserialize, Serialize};

use crate::interval::Estimate;

/// Bins of equal width of the reliability diagram.
pub(crate) const BINS: usize = 10;

/// The samples whose P(positive) is in one part of 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Lower end, included; the bin reaches to the next one's, and the last to 1.
    pub from: f64,
    /// Number of samples.
    pub samples: u64,
    /// Mean of P(positive); None without samples.
    pub mean: Option<f64>,
    /// Share of samples that are positive; None without samples.
    pub positive: Option<Estimate>,
}

pub(crate) fn bin_of(p: f64) -> usize {
    ((p * BINS as f64) as usize).min(BINS - 1)
}

/// Sums over a bin's samples, each counted with its weight.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BinSums {
    pub weight: u64,
    pub p: f64,
    pub positives: u64,
}

impl BinSums {
    /// Mean of P(positive).
    pub fn mean(&self) -> Option<f64> {
        self.per_sample(self.p)
    }

    /// Share of samples that are positive.
    pub fn positive(&self) -> Option<f64> {
        self.per_sample(self.positives as f64)
    }

    fn per_sample(&self, sum: f64) -> Option<f64> {
        (self.weight > 0).then(|| sum / self.weight as f64)
    }
}

/// Expected calibration error (Naeini, Cooper and Hauskrecht, 2015): the mean over samples of the difference between their
/// bin's mean P(positive) and its share of positives.
pub(crate) fn expected_error(bins: &[BinSums]) -> Option<f64> {
    let total: u64 = bins.iter().map(|b| b.weight).sum();
    let gaps: f64 = bins.iter().map(|b| (b.p - b.positives as f64).abs()).sum();
    (total > 0).then(|| gaps / total as f64)
}
