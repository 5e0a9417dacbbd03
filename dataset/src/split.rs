//! Who is held out, for what, and in which order samples stand: pure functions of grades and a seed.
//!
//! Both work on patients, never on images: the two eyes of a patient have the same grade in about
//! seven of eight patients, so a split by image would let a model that memorises score well.

use fovea_core::random;

use crate::{GRADES, Split};

/// What the split has to know about a patient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patient {
    /// Unique name. It breaks ties, so that the order of the input does not matter.
    pub name: String,
    /// Highest grade of the patient's images, 0 to 4: the stratum.
    pub highest_grade: u8,
}

/// Parts in a million, the unit in which fractions are kept: sums of it are exact.
pub(crate) const MILLION: u64 = 1_000_000;

/// Shares of the patients that are held out, in parts in a million. Together they are less than a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// For validation.
    pub validation_ppm: u32,
    /// For the test; 0 for no test part.
    pub test_ppm: u32,
}

/// Chooses each patient's side.
///
/// Stratified by highest grade: each group gives its share of its patients, rounded up or down so
/// that the total comes nearest (largest remainder), but of every group of two or more patients at
/// least one goes to training and one to validation, and of three or more one to the test, too, where
/// those shares are not 0. A patient alone in a group is trained on.
///
/// The test part is chosen first, from all patients: another share for validation leaves it as it is.
pub fn choose(patients: &[Patient], shares: Shares, seed: u64) -> Vec<Split> {
    let validation = u64::from(shares.validation_ppm).min(MILLION);
    let test = u64::from(shares.test_ppm).min(MILLION - validation);
    let groups = by_grade(patients);
    let mut sides = vec![Split::Train; patients.len()];
    let mut hold_out = |groups: &[Vec<usize>; GRADES], split, part: Part, purpose: &str| {
        let quota = part.quota(groups);
        let mut rest = groups.clone();
        for (g, rest) in rest.iter_mut().enumerate() {
            let mut members = rest.clone();
            random::shuffle(
                &mut random::stream(purpose, &[seed, g as u64]),
                &mut members,
            );
            for &p in members.iter().take(quota[g] as usize) {
                sides[p] = split;
            }
            rest.retain(|&p| sides[p] != split);
        }
        rest
    };
    let of_all = Part {
        share: test,
        whole: MILLION,
        others: 2,
    };
    let rest = hold_out(&groups, Split::Test, of_all, "split-test");
    let of_rest = Part {
        share: validation,
        whole: MILLION - test,
        others: 1,
    };
    hold_out(&rest, Split::Validation, of_rest, "split");
    sides
}

/// A part of some patients.
#[derive(Clone, Copy)]
struct Part {
    /// It is `share` of `whole` of them.
    share: u64,
    whole: u64,
    /// How many other sides must get a patient of each group first.
    others: u64,
}

impl Part {
    /// How many patients of each group.
    fn quota(self, groups: &[Vec<usize>; GRADES]) -> [u64; GRADES] {
        let Part { share, whole, .. } = self;
        let of_group = |g: usize| groups[g].len() as u64 * share;
        let mut quota: [u64; GRADES] = std::array::from_fn(|g| of_group(g) / whole);
        let all: u64 = groups.iter().map(|group| group.len() as u64).sum();
        let target = (all * share + whole / 2) / whole;
        let mut by_remainder: Vec<usize> = (0..GRADES).collect();
        by_remainder.sort_by_key(|&g| (std::cmp::Reverse(of_group(g) % whole), g));
        for g in by_remainder {
            if quota.iter().sum::<u64>() < target && of_group(g) % whole > 0 {
                quota[g] += 1;
            }
        }
        if 0 < share && share < whole {
            for (g, quota) in quota.iter_mut().enumerate() {
                let most = (groups[g].len() as u64).saturating_sub(self.others);
                *quota = if most > 0 { (*quota).clamp(1, most) } else { 0 };
            }
        }
        quota
    }
}

/// The order in which patients stand: indices into `patients`.
///
/// Each group (patients of one highest grade) is shuffled by the seed, its i-th of n gets the
/// position (i + 0.5) / n, and all are sorted by position, ties by grade. So any contiguous range
/// has about the grades of the whole, which is what lets a run shard by contiguous ranges.
///
/// `purpose` keeps the streams of two orders with one seed apart.
pub fn interleave(patients: &[Patient], purpose: &str, seed: u64) -> Vec<usize> {
    struct Place {
        /// Position (2i + 1) / 2n, kept as a fraction so that no rounding decides an order.
        numerator: u64,
        denominator: u64,
        group: usize,
        patient: usize,
    }
    let purpose = format!("order-{purpose}");
    let mut places = Vec::with_capacity(patients.len());
    for (group, mut members) in by_grade(patients).into_iter().enumerate() {
        random::shuffle(
            &mut random::stream(&purpose, &[seed, group as u64]),
            &mut members,
        );
        let n = members.len() as u64;
        places.extend(members.iter().enumerate().map(|(i, &patient)| Place {
            numerator: 2 * i as u64 + 1,
            denominator: 2 * n,
            group,
            patient,
        }));
    }
    places.sort_by(|a, b| {
        let left = u128::from(a.numerator) * u128::from(b.denominator);
        let right = u128::from(b.numerator) * u128::from(a.denominator);
        left.cmp(&right).then(a.group.cmp(&b.group))
    });
    places.into_iter().map(|place| place.patient).collect()
}

/// Indices of the patients of each highest grade, by name.
fn by_grade(patients: &[Patient]) -> [Vec<usize>; GRADES] {
    let mut groups: [Vec<usize>; GRADES] = Default::default();
    for (i, patient) in patients.iter().enumerate() {
        groups[usize::from(patient.highest_grade).min(GRADES - 1)].push(i);
    }
    for group in &mut groups {
        group.sort_by(|&a, &b| patients[a].name.cmp(&patients[b].name));
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn patients(grades: &[u8]) -> Vec<Patient> {
        grades
            .iter()
            .enumerate()
            .map(|(i, &highest_grade)| Patient {
                name: format!("p{i:05}"),
                highest_grade,
            })
            .collect()
    }

    fn any_patients(max: usize) -> impl Strategy<Value = Vec<Patient>> {
        proptest::collection::vec(0u8..5, 1..max).prop_map(|g| patients(&g))
    }

    fn names(patients: &[Patient], chosen: impl Iterator<Item = usize>) -> Vec<String> {
        chosen.map(|i| patients[i].name.clone()).collect()
    }

    /// Who is held out for validation where there is no test part.
    fn held_out(patients: &[Patient], validation_ppm: u32, seed: u64) -> Vec<bool> {
        let shares = Shares {
            validation_ppm,
            test_ppm: 0,
        };
        let sides = choose(patients, shares, seed);
        assert!(!sides.contains(&Split::Test));
        sides.iter().map(|s| *s == Split::Validation).collect()
    }

    proptest! {
        #[test]
        fn of_three_sides_every_group_has_its_share_of_each(
            patients in any_patients(300), seed in any::<u64>(),
            validation_ppm in 1u32..500_000, test_ppm in 1u32..500_000
        ) {
            let shares = Shares { validation_ppm, test_ppm };
            let sides = choose(&patients, shares, seed);
            for grade in 0..5u8 {
                let of = |wanted: Split| patients.iter().zip(&sides)
                    .filter(|(p, s)| p.highest_grade == grade && **s == wanted).count() as i64;
                let counts = Split::ALL.map(of);
                let n: i64 = counts.iter().sum();
                for (count, ppm) in counts[1..].iter().zip([validation_ppm, test_ppm]) {
                    // Who is missing in one part is missing in the rest of which the other is cut.
                    let off = count * 1_000_000 - n * i64::from(ppm);
                    prop_assert!(off.abs() <= 2_000_000, "grade {grade}: {counts:?}");
                }
                prop_assert!(n < 3 || counts.iter().all(|c| *c > 0), "grade {grade}: {counts:?}");
                prop_assert!(n < 2 || counts[0] > 0 && counts[1] > 0, "grade {grade}: {counts:?}");
                prop_assert!(n != 1 || counts[0] == 1);
            }
            // Whoever wants more to validate with must not change what is tested with.
            let other = Shares { validation_ppm: 500_000 - validation_ppm / 2, test_ppm };
            let again = choose(&patients, other, seed);
            for (before, after) in sides.iter().zip(again) {
                prop_assert_eq!(*before == Split::Test, after == Split::Test);
            }
        }

        #[test]
        fn every_group_is_within_one_patient_of_its_share(
            patients in any_patients(300), ppm in 1u32..1_000_000, seed in any::<u64>()
        ) {
            let held_out = held_out(&patients, ppm, seed);
            for grade in 0..5u8 {
                let of_grade: Vec<bool> = patients.iter().zip(&held_out)
                    .filter(|(p, _)| p.highest_grade == grade).map(|(_, &h)| h).collect();
                let n = of_grade.len() as i64;
                let out = of_grade.iter().filter(|&&h| h).count() as i64;
                let off = out * 1_000_000 - n * i64::from(ppm);
                prop_assert!(off.abs() <= 1_000_000, "grade {}: {} of {} held out", grade, out, n);
                if n >= 2 {
                    prop_assert!(out >= 1 && out < n, "grade {}: {} of {} held out", grade, out, n);
                }
            }
        }

        #[test]
        fn neither_function_depends_on_the_order_of_its_input(
            patients in any_patients(120), seed in any::<u64>(), by in 0usize..120
        ) {
            let mut turned = patients.clone();
            turned.rotate_left(by % patients.len());
            turned.reverse();
            let held = |patients: &[Patient]| -> BTreeSet<String> {
                let held_out = held_out(patients, 250_000, seed);
                names(patients, (0..patients.len()).filter(|&i| held_out[i])).into_iter().collect()
            };
            prop_assert_eq!(held(&patients), held(&turned));
            let order = |patients: &[Patient]|
                names(patients, interleave(patients, "train", seed).into_iter());
            prop_assert_eq!(order(&patients), order(&turned));
        }

        #[test]
        fn any_range_of_the_order_is_about_stratified(
            patients in any_patients(300), seed in any::<u64>(),
            a in 0.0f64..1.0, b in 0.0f64..1.0
        ) {
            let order = interleave(&patients, "train", seed);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..patients.len()).collect::<Vec<_>>());
            let n = patients.len() as f64;
            let (from, to) = ((a.min(b) * n) as usize, (a.max(b) * n) as usize);
            for grade in 0..5u8 {
                let count = |range: &[usize]|
                    range.iter().filter(|&&i| patients[i].highest_grade == grade).count() as f64;
                let expected = count(&order) * (to - from) as f64 / n;
                // Each end of the range is off by at most a few places: one for each group.
                prop_assert!((count(&order[from..to]) - expected).abs() <= 5.0);
            }
        }
    }

    #[test]
    fn the_seed_matters_and_the_purposes_differ() {
        let patients = patients(&[0; 60]);
        assert_ne!(
            held_out(&patients, 250_000, 1),
            held_out(&patients, 250_000, 2)
        );
        assert_ne!(
            interleave(&patients, "train", 1),
            interleave(&patients, "validation", 1)
        );
    }

    #[test]
    fn the_total_is_the_nearest_when_no_group_is_tiny() {
        // 10 x 0.25 = 2.5 in each of four groups: two of them round up.
        let grades: Vec<u8> = (0..40).map(|i| (i % 4) as u8).collect();
        let held_out = held_out(&patients(&grades), 250_000, 7);
        assert_eq!(held_out.iter().filter(|&&h| h).count(), 10);
    }

    /// Pins the choice itself: another one would be another dataset under the same options.
    #[test]
    fn the_choice_is_pinned() {
        let patients = patients(&[0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 4]);
        let held_out = held_out(&patients, 250_000, 0);
        let who = names(&patients, (0..patients.len()).filter(|&i| held_out[i]));
        let order = interleave(&patients, "train", 0);
        assert_eq!(who, ["p00000", "p00004", "p00006", "p00008"]);
        assert_eq!(order, [2, 9, 0, 6, 1, 8, 11, 3, 4, 7, 10, 5]);
    }
}
