//! Operating points: above which P(positive) a photograph is called positive.

use serde::{Deserialize, Serialize};

use crate::samples::Samples;

/// How a threshold was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// 0.5, which needs no choosing.
    Half,
    /// The highest threshold whose sensitivity is at least what was wanted.
    HighSensitivity,
    /// The lowest threshold whose specificity is at least what was wanted.
    HighSpecificity,
    /// The threshold with the largest sensitivity + specificity (Youden, 1950); of equal ones the highest.
    Youden,
}

/// A threshold. A sample is called positive if its P(positive) is at least that.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// How it was chosen.
    pub choice: Choice,
    /// 0 to 1, or a little more where nothing is to be called positive.
    pub threshold: f64,
}

/// What high-sensitivity and high-specificity points must reach, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    pub sensitivity: f64,
    pub specificity: f64,
}

impl Default for Wanted {
    /// 0.95 each.
    fn default() -> Self {
        Self {
            sensitivity: 0.95,
            specificity: 0.95,
        }
    }
}

/// Chooses operating points on `samples`, to be used on others. With one kind of label only, there is nothing to choose by,
/// and 0.5 is the only point.
pub fn choose(samples: &Samples, wanted: Wanted) -> Vec<Point> {
    let half = Point {
        choice: Choice::Half,
        threshold: 0.5,
    };
    let curve = samples.ranking.curve();
    let last = curve[curve.len() - 1];
    let (positives, negatives) = (last.true_positives, last.false_positives);
    if positives == 0 || negatives == 0 {
        return vec![half];
    }
    let sensitivity = |at: usize| curve[at].true_positives as f64 / positives as f64;
    let specificity = |at: usize| 1.0 - curve[at].false_positives as f64 / negatives as f64;
    // From the highest threshold, at which nothing is positive, to the lowest, at which everything is.
    let sensitive = (0..curve.len()).find(|&at| sensitivity(at) >= wanted.sensitivity);
    let specific = (0..curve.len()).rfind(|&at| specificity(at) >= wanted.specificity);
    let youden = |at: usize| sensitivity(at) + specificity(at);
    let best = (0..curve.len()).fold(0, |best, at| match youden(at) > youden(best) {
        true => at,
        false => best,
    });
    let point = |choice, at: usize| Point {
        choice,
        threshold: curve[at].threshold,
    };
    let chosen = [
        sensitive.map(|at| point(Choice::HighSensitivity, at)),
        specific.map(|at| point(Choice::HighSpecificity, at)),
        Some(point(Choice::Youden, best)),
        Some(half),
    ];
    chosen.into_iter().flatten().collect()
}
