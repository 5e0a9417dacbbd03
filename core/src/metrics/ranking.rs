//! Samples in the order of their scores: ROC curve and the area under it.

/// Samples by score, with what is true of each.
#[derive(Debug, Clone)]
pub struct Ranking {
    /// Sample numbers, from the lowest score to the highest.
    order: Vec<u32>,
    /// By sample number.
    positive: Vec<bool>,
    /// Ends, in `order`, of runs of equal scores, with the score.
    runs: Vec<(usize, f64)>,
}

/// A point of the ROC curve: what is called positive at a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// Samples with at least this score are called positive.
    pub threshold: f64,
    /// Positive samples among them.
    pub true_positives: u64,
    /// The others.
    pub false_positives: u64,
}

impl Ranking {
    /// Takes pairs of score and whether the sample is positive. Scores must not be NaN.
    pub fn new(samples: impl Iterator<Item = (f64, bool)>) -> Self {
        let (scores, positive): (Vec<f64>, Vec<bool>) = samples.unzip();
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.sort_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]));
        let score = |at: usize| scores[order[at] as usize];
        let runs = (0..order.len())
            .filter(|&at| at + 1 == order.len() || score(at) != score(at + 1))
            .map(|at| (at + 1, score(at)))
            .collect();
        Self {
            order,
            positive,
            runs,
        }
    }

    /// Area under the ROC curve as the Mann–Whitney statistic: the probability that a positive sample scores above a negative
    /// one, ties counted half. A sample counts `weight` times. None if all samples are positive or all are negative.
    pub fn auc(&self, weight: impl Fn(usize) -> u64) -> Option<f64> {
        let (mut positives, mut negatives) = (0u64, 0u64);
        // Twice the number of pairs in the right order.
        let mut right = 0u128;
        let mut start = 0;
        for &(end, _) in &self.runs {
            let [of_positive, of_negative] = self.count(start..end, &weight);
            right += u128::from(of_positive) * u128::from(2 * negatives + of_negative);
            positives += of_positive;
            negatives += of_negative;
            start = end;
        }
        let pairs = u128::from(positives) * u128::from(negatives);
        (pairs > 0).then(|| right as f64 / (2 * pairs) as f64)
    }

    /// The ROC curve, from the threshold above all scores, at which nothing is called positive, to the lowest score, at which
    /// everything is.
    pub fn curve(&self) -> Vec<CurvePoint> {
        let highest = self.runs.last().map_or(0.0, |run| run.1);
        let mut point = CurvePoint {
            threshold: highest.next_up(),
            true_positives: 0,
            false_positives: 0,
        };
        let mut curve = vec![point];
        for (number, &(end, threshold)) in self.runs.iter().enumerate().rev() {
            let start = number
                .checked_sub(1)
                .map_or(0, |before| self.runs[before].0);
            let [of_positive, of_negative] = self.count(start..end, |_| 1);
            point = CurvePoint {
                threshold,
                true_positives: point.true_positives + of_positive,
                false_positives: point.false_positives + of_negative,
            };
            curve.push(point);
        }
        curve
    }

    fn count(&self, run: std::ops::Range<usize>, weight: impl Fn(usize) -> u64) -> [u64; 2] {
        let mut counts = [0, 0];
        for &sample in &self.order[run] {
            let sample = sample as usize;
            counts[usize::from(!self.positive[sample])] += weight(sample);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(samples: &[(f64, u8)]) -> Ranking {
        Ranking::new(samples.iter().map(|&(score, label)| (score, label == 1)))
    }

    #[test]
    fn a_weight_counts_as_copies() {
        let samples = [(0.1, 0), (0.4, 1), (0.4, 0), (0.6, 1), (0.7, 0), (0.9, 1)];
        let weights = [2, 0, 3, 1, 1, 2];
        let copies: Vec<(f64, u8)> = samples
            .iter()
            .zip(weights)
            .flat_map(|(&sample, weight)| std::iter::repeat_n(sample, weight))
            .collect();
        assert_eq!(
            ranking(&samples).auc(|sample| weights[sample] as u64),
            ranking(&copies).auc(|_| 1)
        );
        assert_eq!(ranking(&samples).auc(|s| u64::from(samples[s].1)), None);
    }

    #[test]
    fn the_curve_goes_from_nothing_to_everything() {
        let curve = ranking(&[(0.8, 1), (0.3, 0), (0.3, 1), (0.5, 0)]).curve();
        let points: Vec<(u64, u64)> = curve
            .iter()
            .map(|p| (p.true_positives, p.false_positives))
            .collect();
        assert_eq!(points, [(0, 0), (1, 0), (1, 1), (2, 2)]);
        assert!(curve[0].threshold > 0.8);
        assert_eq!(curve[3].threshold, 0.3);
    }
}
