//! Several classes by pairs of them.

use libsvm_rs::probability::multiclass_probability;

/// All pairs of classes, in the order of LIBSVM.
pub(super) fn pairs(classes: usize) -> Vec<(usize, usize)> {
    (0..classes)
        .flat_map(|first| (first + 1..classes).map(move |second| (first, second)))
        .collect()
}

/// The probability of each class from P(first | first or second) of each pair (Wu, Lin and Weng, 2004, second method).
pub(super) fn coupled(classes: usize, of_pairs: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut r = vec![vec![0.0; classes]; classes];
    for ((first, second), p) in pairs(classes).into_iter().zip(of_pairs) {
        r[first][second] = p;
        r[second][first] = 1.0 - p;
    }
    if classes == 2 {
        return vec![r[0][1], r[1][0]];
    }
    let mut p = vec![0.0; classes];
    multiclass_probability(classes, &r, &mut p);
    let sum: f64 = p.iter().sum();
    p.iter().map(|p| p / sum).collect()
}
