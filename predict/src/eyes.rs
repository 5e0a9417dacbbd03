//! Both eyes of a patient as one score.

use std::collections::BTreeMap;

use fovea_dataset::Eye;

/// The score of each photograph's patient, of photographs as patient (empty if nothing tells), eye and score.
///
/// Of each eye the mean of its photographs, then the mean of the eyes: an eye counts once, however often it was
/// photographed. Photographs of a patient whose eye is not told count as one more eye. None where the patient is not told.
pub(crate) fn fused(photographs: &[(&str, Eye, f64)]) -> Vec<Option<f64>> {
    let mut eyes: BTreeMap<(&str, Eye), (f64, f64)> = BTreeMap::new();
    for (patient, eye, score) in photographs {
        let (sum, count) = eyes.entry((patient, *eye)).or_default();
        (*sum, *count) = (*sum + score, *count + 1.0);
    }
    let mut patients: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for ((patient, _), (sum, count)) in eyes {
        let (all, eyes) = patients.entry(patient).or_default();
        (*all, *eyes) = (*all + sum / count, *eyes + 1.0);
    }
    let of = |(patient, ..): &(&str, Eye, f64)| {
        let (sum, count) = patients.get(patient).filter(|_| !patient.is_empty())?;
        Some(sum / count)
    };
    photographs.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eye_counts_once_however_often_it_was_photographed() {
        let scores = fused(&[
            ("1", Eye::Left, 0.2),
            ("2", Eye::Left, 0.5),
            ("1", Eye::Right, 0.8),
            ("1", Eye::Right, 1.0),
            ("", Eye::Unknown, 0.3),
            ("3", Eye::Unknown, 0.25),
        ]);
        let expected = [
            Some(0.55),
            Some(0.5),
            Some(0.55),
            Some(0.55),
            None,
            Some(0.25),
        ];
        for (found, expected) in scores.into_iter().zip(expected) {
            assert_eq!(found.is_some(), expected.is_some());
            let apart = found.unwrap_or(0.0) - expected.unwrap_or(0.0);
            assert!(apart.abs() < 1e-12, "{found:?} {expected:?}");
        }
    }
}
