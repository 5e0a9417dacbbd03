//! Thinning of curves.

/// The most points of a drawn curve.
pub const MOST_POINTS: usize = 500;

/// At most `most` of `points`, in their order: the first, the last, and of each of equal parts between them the point that forms
/// the largest triangle with the point kept before and the mean of the part that follows (largest triangle three buckets;
/// Steinarsson, 2013). Peaks stay where they are, which means over parts would flatten. Of fewer than three points only the
/// ends are kept.
pub fn thin(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    let all = points.len();
    if all <= most.max(2) {
        return points.to_vec();
    }
    if most < 3 {
        return vec![points[0], points[all - 1]];
    }
    let parts = most - 2;
    // Between the first and the last.
    let bound = |part: usize| 1 + part * (all - 2) / parts;
    let mut kept = Vec::with_capacity(most);
    let mut before = points[0];
    kept.push(before);
    for part in 0..parts {
        let here = &points[bound(part)..bound(part + 1)];
        let next = match part + 1 < parts {
            true => mean(&points[bound(part + 1)..bound(part + 2)]),
            false => points[all - 1],
        };
        // Twice the area; a value that is no number forms no triangle.
        let area = |at: &(f64, f64)| {
            let area =
                (before.0 - next.0) * (at.1 - before.1) - (before.0 - at.0) * (next.1 - before.1);
            if area.is_nan() { -1.0 } else { area.abs() }
        };
        let mut best = here[0];
        for at in &here[1..] {
            if area(at) > area(&best) {
                best = *at;
            }
        }
        kept.push(best);
        before = best;
    }
    kept.push(points[all - 1]);
    kept
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    let sum = points
        .iter()
        .fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
    (sum.0 / n, sum.1 / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_peaks_stay_and_few_points_are_untouched() {
        let noise = |x: usize| f64::from(((x * 7919) % 101) as u32) / 1000.0;
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|x| (x as f64, noise(x))).collect();
        points[4321].1 = 9.0;
        points[9999].1 = -3.0;
        let thinned = thin(&points, MOST_POINTS);
        assert_eq!(thinned.len(), MOST_POINTS);
        assert_eq!(thinned[0], points[0]);
        assert_eq!(thinned[MOST_POINTS - 1], points[9999]);
        assert!(thinned.contains(&(4321.0, 9.0)), "the peak is gone");
        assert!(thinned.is_sorted_by(|a, b| a.0 < b.0));
        assert!(thinned.iter().all(|p| points.contains(p)));
        assert_eq!(thin(&points[..500], 500), points[..500]);
        assert_eq!(thin(&points[..501], 500).len(), 500);
        assert_eq!(thin(&[], 500), []);
        assert_eq!(thin(&points, 2), [points[0], points[9999]]);
        assert_eq!(thin(&points, 3).len(), 3);
    }

    #[test]
    fn a_value_that_is_no_number_does_not_displace_others() {
        let points: Vec<(f64, f64)> = (0..100)
            .map(|x| (f64::from(x), if x % 2 == 0 { f64::NAN } else { 1.0 }))
            .collect();
        let thinned = thin(&points, 10);
        assert_eq!(thinned.len(), 10);
        assert!(thinned[1..9].iter().filter(|p| p.1.is_nan()).count() <= 8);
    }
}
