//! Which grades are called positive.

use fovea_evaluation::{Point, Sample};

/// How the photographs of one grade are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GradeCalls {
    /// 0 to 4.
    pub grade: u8,
    /// Number of photographs of that grade.
    pub samples: u64,
    /// How many of them are called positive at each operating point, in the order of the points.
    pub positive: Vec<u64>,
}

/// Counts for each grade that occurs what each of `points` calls positive. `samples` are those that were evaluated, and classes
/// from `positive_class` on are positive.
pub fn by_grade(samples: &[Sample], positive_class: usize, points: &[Point]) -> Vec<GradeCalls> {
    let mut all: Vec<GradeCalls> = Vec::new();
    for sample in samples {
        let at = match all.binary_search_by_key(&sample.grade, |calls| calls.grade) {
            Ok(at) => at,
            Err(at) => {
                let new = GradeCalls {
                    grade: sample.grade,
                    samples: 0,
                    positive: vec![0; points.len()],
                };
                all.insert(at, new);
                at
            }
        };
        let calls = &mut all[at];
        calls.samples += 1;
        let p = sample.p_positive(positive_class);
        for (count, point) in calls.positive.iter_mut().zip(points) {
            *count += u64::from(p >= point.threshold);
        }
    }
    all
}
