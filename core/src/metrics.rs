//! Metrics of an evaluation, computed from the scores of its samples.

mod ranking;

pub use ranking::{CurvePoint, Ranking};

use serde::{Deserialize, Serialize};

use crate::class_map::ClassMap;
use crate::spec::{Scheme, p_at_least};

/// The model's output for one validation sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Ordinal in the validation split, from 0.
    pub sample: u32,
    /// Class index of the sample's label.
    pub label: u32,
    /// Probability of each class.
    pub probabilities: Vec<f32>,
    /// Cross-entropy, -ln p(label), in nats.
    pub loss: f32,
    /// Where the evidence for "positive" lies, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<ClassMap>,
}

impl Score {
    /// The score of a sample from those of several views of it, each with the quarter turns counter-clockwise that it was
    /// shown with: the mean of the probabilities, the loss of that, and the mean of the maps, turned back. One view is
    /// returned as it is.
    ///
    /// # Panics
    /// If there are no views, or they have different classes.
    pub fn of_views(views: Vec<(u8, Score)>) -> Self {
        if let [(0, _)] = &views[..] {
            return views
                .into_iter()
                .map(|(_, score)| score)
                .next()
                .expect("one");
        }
        let (_, first) = &views[0];
        let (sample, label) = (first.sample, first.label);
        let probability = |class: usize| {
            let all = views
                .iter()
                .map(|(_, score)| f64::from(score.probabilities[class]));
            (all.sum::<f64>() / views.len() as f64) as f32
        };
        let probabilities: Vec<f32> = (0..first.probabilities.len()).map(probability).collect();
        // As small as a probability can be, so that the loss is a number.
        let loss = -probabilities[label as usize].max(f32::MIN_POSITIVE).ln();
        let maps: Vec<ClassMap> = views
            .into_iter()
            .filter_map(|(turns, score)| Some(score.map?.upright(turns)))
            .collect();
        Self {
            sample,
            label,
            probabilities,
            loss,
            map: ClassMap::mean_of(&maps),
        }
    }
}

/// Metrics of an epoch on the validation split.
///
/// With more than two classes a sample is positive if its class index is at least that of `positive_from`, and P(positive)
/// is the sum of the probabilities of those classes. Which class a model names for a sample is [`Head::predicted`].
///
/// [`Head::predicted`]: crate::spec::Head::predicted
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Number of samples scored.
    pub samples: u64,
    /// Number of samples whose label is positive.
    pub positives: u64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Share of samples whose label the model names, 0 to 1.
    pub accuracy: f64,
    /// Area under the ROC curve, 0 to 1, ties counted half; None if all labels are positive or all are negative.
    pub auc: Option<f64>,
    /// Share of positive samples with P(positive) > 0.5, 0 to 1; None without positive samples.
    pub sensitivity: Option<f64>,
    /// Share of negative samples with P(positive) <= 0.5, 0 to 1; None without negative samples.
    pub specificity: Option<f64>,
    /// Cohen's kappa of label and named class with quadratic weights, -1 to 1; None where it is undefined.
    pub quadratic_kappa: Option<f64>,
    /// Numbers of samples: `confusion[label][prediction]`.
    pub confusion: Vec<Vec<u64>>,
}

/// Computes the metrics of probabilities that `scheme` says how to read.
pub fn evaluate(scores: &[Score], scheme: Scheme) -> Evaluation {
    let Scheme {
        classes,
        positive_class,
        head,
    } = scheme;
    let mut confusion = vec![vec![0u64; classes]; classes];
    let mut loss = 0.0;
    let mut ranked = Vec::with_capacity(scores.len());
    let (mut hits_pos, mut hits_neg) = (0u64, 0u64);
    for score in scores {
        let predicted = head.predicted(&score.probabilities);
        confusion[score.label as usize][predicted] += 1;
        loss += f64::from(score.loss);
        let p = p_at_least(&score.probabilities, positive_class);
        let positive = score.label as usize >= positive_class;
        match (positive, p > 0.5) {
            (true, true) => hits_pos += 1,
            (false, false) => hits_neg += 1,
            (true, false) | (false, true) => {}
        }
        ranked.push((p, positive));
    }
    let samples = scores.len() as u64;
    let positives = ranked.iter().filter(|r| r.1).count() as u64;
    let negatives = samples - positives;
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let correct: u64 = (0..classes).map(|c| confusion[c][c]).sum();
    Evaluation {
        samples,
        positives,
        loss: loss / samples.max(1) as f64,
        accuracy: share(correct, samples).unwrap_or(0.0),
        auc: Ranking::new(ranked.into_iter()).auc(|_| 1),
        sensitivity: share(hits_pos, positives),
        specificity: share(hits_neg, negatives),
        quadratic_kappa: quadratic_kappa(&confusion),
        confusion,
    }
}

/// Cohen's kappa with quadratic weights (Cohen, 1968): 1 - sum(w O) / sum(w E), w = (i-j)^2, of `confusion[label][prediction]`.
/// None if only one class is in it.
pub fn quadratic_kappa(confusion: &[Vec<u64>]) -> Option<f64> {
    let n = confusion.len();
    let total: u64 = confusion.iter().flatten().sum();
    let row = |i: usize| confusion[i].iter().sum::<u64>() as f64;
    let column = |j: usize| confusion.iter().map(|r| r[j]).sum::<u64>() as f64;
    let (mut observed, mut expected) = (0.0, 0.0);
    for (i, counts) in confusion.iter().enumerate() {
        for (j, &count) in counts.iter().enumerate() {
            let weight = (i as f64 - j as f64).powi(2);
            observed += weight * count as f64;
            expected += weight * row(i) * column(j) / total.max(1) as f64;
        }
    }
    (n > 1 && expected > 0.0).then(|| 1.0 - observed / expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(p: f32, label: u32) -> Score {
        let right = if label == 1 { p } else { 1.0 - p };
        Score {
            sample: 0,
            label,
            probabilities: vec![1.0 - p, p],
            loss: -right.ln(),
            map: None,
        }
    }

    /// The example of scikit-learn's roc_auc_score: y = 0,0,1,1 and scores .1,.4,.35,.8 give 0.75.
    #[test]
    fn auc_of_a_known_example() {
        let s = [
            binary(0.1, 0),
            binary(0.4, 0),
            binary(0.35, 1),
            binary(0.8, 1),
        ];
        let e = evaluate(&s, Scheme::softmax(2, 1));
        assert_eq!(e.auc, Some(0.75));
        assert_eq!(e.sensitivity, Some(0.5));
        assert_eq!(e.specificity, Some(1.0));
        assert_eq!(e.accuracy, 0.75);
        assert_eq!(e.confusion, [[2, 0], [1, 1]]);
        let loss = -(0.9f64.ln() + 0.6f64.ln() + 0.35f64.ln() + 0.8f64.ln()) / 4.0;
        assert!((e.loss - loss).abs() < 1e-6);
    }

    #[test]
    fn views_are_averaged_and_their_maps_turned_back() {
        let map = ClassMap {
            height: 2,
            width: 2,
            values: vec![1.0, 2.0, 3.0, 4.0],
        };
        // Turned counter-clockwise once, the right column is the top row.
        let turned = ClassMap {
            values: vec![2.0, 4.0, 1.0, 3.0],
            ..map.clone()
        };
        let view = |p, map| Score {
            map: Some(map),
            ..binary(p, 1)
        };
        let one = view(0.75, map.clone());
        let turned = view(0.25, turned);
        let score = Score::of_views(vec![(0, one.clone()), (1, turned)]);
        assert_eq!(score.probabilities, [0.5, 0.5]);
        assert_eq!(score.loss, -(0.5f32.ln()));
        assert_eq!(score.map, Some(map));
        // To the bit.
        assert_eq!(Score::of_views(vec![(0, one.clone())]), one);
    }

    #[test]
    fn ties_count_half_and_one_kind_of_label_has_no_auc() {
        let tied = [binary(0.5, 0), binary(0.5, 1), binary(0.5, 1)];
        assert_eq!(evaluate(&tied, Scheme::softmax(2, 1)).auc, Some(0.5));
        let e = evaluate(&[binary(0.9, 1)], Scheme::softmax(2, 1));
        assert_eq!((e.auc, e.specificity), (None, None));
        assert_eq!(evaluate(&[], Scheme::softmax(2, 1)).sensitivity, None);
    }

    /// Five grades: positive is grade >= 2. The expected kappa was computed by hand:
    /// O = [[1,0,0],[0,0,1],[0,0,1]] over grades 0, 2, 4 gives sum(wO) = 4 and, with marginals
    /// 1,1,1 and 1,0,2, sum(wE) = (4*0 + 16*2 + 4*1 + 4*2 + 16*1)/3 = 60/3.
    #[test]
    fn five_grades() {
        let sure = |label: u32, said: usize| {
            let mut probabilities = vec![0.0; 5];
            probabilities[said] = 1.0;
            Score {
                sample: 0,
                label,
                probabilities,
                loss: 0.0,
                map: None,
            }
        };
        let e = evaluate(&[sure(0, 0), sure(2, 4), sure(4, 4)], Scheme::softmax(5, 2));
        assert_eq!(e.positives, 2);
        assert_eq!(e.auc, Some(1.0));
        let kappa = e.quadratic_kappa.unwrap();
        assert!((kappa - (1.0 - 4.0 / 20.0)).abs() < 1e-12, "{kappa}");
    }
}
