//! Label schemes: which classes the ICDR grades 0 to 4 are, and what the classifier puts out for them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Imbalance, ModelSpec, Problems, RunSpec};

/// The label schemes that have a name. Each stands for a number of classes and, with two classes, for the first positive
/// grade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Labels {
    /// Whether there is any retinopathy: grade 1 and above.
    AnyDr,
    /// Whether it is referable: grade 2 and above.
    Referable,
    /// None, mild, moderate, severe or proliferative: grades 3 and 4 are one class. Both are referred at once, and either
    /// is rare: 2.5 and 2.0 % of EyePACS.
    FourClasses,
    /// The five grades.
    Grades,
}

impl Labels {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::AnyDr,
        Self::Referable,
        Self::FourClasses,
        Self::Grades,
    ];

    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AnyDr => "any_dr",
            Self::Referable => "referable",
            Self::FourClasses => "four_classes",
            Self::Grades => "grades",
        }
    }

    /// The number of classes.
    pub fn classes(self) -> u32 {
        match self {
            Self::AnyDr | Self::Referable => 2,
            Self::FourClasses => 4,
            Self::Grades => 5,
        }
    }

    /// The first positive grade, if the scheme says it.
    pub fn positive_from(self) -> Option<u32> {
        match self {
            Self::AnyDr => Some(1),
            Self::Referable => Some(2),
            Self::FourClasses | Self::Grades => None,
        }
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the classifier puts out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// A number for each class, of which the softmax is taken. It knows nothing of an order of the classes.
    #[default]
    Softmax,
    /// For each class but the last a number whose sigmoid is the probability that a sample which reaches this class goes
    /// beyond it: CORN (Shi, Cao and Raschka, 2021, arXiv 2111.08851), also known as the continuation-ratio model.
    Ordinal,
}

impl Head {
    /// Whether it is what a spec means that says nothing.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The class that a model with these probabilities names.
    ///
    /// Softmax: the most probable class, of equal ones the first. Ordinal: the highest class that is reached with a
    /// probability above 1/2, which is the median; a model that hesitates between 0 and 4 is not sure of either end.
    pub fn predicted(self, probabilities: &[f32]) -> usize {
        match self {
            Self::Softmax => {
                let mut best = 0;
                for (class, p) in probabilities.iter().enumerate() {
                    if *p > probabilities[best] {
                        best = class;
                    }
                }
                best
            }
            Self::Ordinal => {
                let reaches = |class: &usize| p_at_least(probabilities, *class) > 0.5;
                (1..probabilities.len())
                    .take_while(reaches)
                    .last()
                    .unwrap_or(0)
            }
        }
    }
}

/// The probability of the classes from `class` on.
pub fn p_at_least(probabilities: &[f32], class: usize) -> f64 {
    probabilities[class..].iter().map(|&p| f64::from(p)).sum()
}

/// How a model's probabilities are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheme {
    /// Number of classes.
    pub classes: usize,
    /// The first class that counts as positive.
    pub positive_class: usize,
    /// It decides which class the model names.
    pub head: Head,
}

impl Scheme {
    /// The probability of all positive classes.
    pub fn p_positive(&self, probabilities: &[f32]) -> f64 {
        p_at_least(probabilities, self.positive_class)
    }

    /// Of a model with a softmax.
    pub fn softmax(classes: usize, positive_class: usize) -> Self {
        Self {
            classes,
            positive_class,
            head: Head::Softmax,
        }
    }
}

impl ModelSpec {
    /// Number of the classifier's outputs.
    pub fn outputs(&self) -> u32 {
        match self.head {
            Head::Softmax => self.classes,
            Head::Ordinal => self.classes.saturating_sub(1),
        }
    }

    /// A class by its grades, for people.
    pub fn class_name(&self, class: u32) -> String {
        let from = self.positive_from;
        match (self.classes, class) {
            (2, 0) => format!("below grade {from}"),
            (2, _) => format!("grade {from} and above"),
            (4, 3) => "grades 3 and 4".into(),
            (_, class) => format!("grade {class}"),
        }
    }

    pub(super) fn check_labels(&self, problems: &mut Problems) {
        let Self {
            classes,
            positive_from,
            head,
            ..
        } = *self;
        problems.check("model.classes", matches!(classes, 2 | 4 | 5), || {
            format!(
                "{classes} is neither 2 (binary) nor 5 (the grades) nor 4 (with grades 3 and 4 as one)"
            )
        });
        problems.range("model.positive_from", f64::from(positive_from), 1.0, 4.0);
        problems.check(
            "model.positive_from",
            classes != 4 || positive_from != 4,
            || "4 is not a class of its own with model.classes = 4, where grades 3 and 4 are one: give 1 to 3".into(),
        );
        problems.check("model.head", classes != 2 || head == Head::Softmax, || {
            "two classes have no order: leave it out, or give model.labels = \"grades\" or \"four_classes\"".into()
        });
    }
}

impl RunSpec {
    /// Class index of an ICDR grade (0 to 4).
    pub fn class_of(&self, grade: u8) -> u32 {
        let ModelSpec {
            classes,
            positive_from,
            ..
        } = self.model;
        if classes == 2 {
            u32::from(u32::from(grade) >= positive_from)
        } else {
            u32::from(grade).min(classes.saturating_sub(1))
        }
    }

    /// The first class index that counts as positive.
    pub fn positive_class(&self) -> u32 {
        if self.model.classes == 2 {
            1
        } else {
            self.model.positive_from
        }
    }

    /// How the model's probabilities are read.
    pub fn scheme(&self) -> Scheme {
        Scheme {
            classes: self.model.classes as usize,
            positive_class: self.positive_class() as usize,
            head: self.model.head,
        }
    }

    /// Numbers of samples of each class, from those of each grade.
    pub fn class_counts(&self, by_grade: &[u64; 5]) -> Vec<u64> {
        let mut counts = vec![0; self.model.classes as usize];
        for (grade, number) in (0u8..).zip(by_grade) {
            counts[self.class_of(grade) as usize] += number;
        }
        counts
    }

    /// How often the loss of a sample of each class counts, from the training split's grades; empty if each counts once.
    pub fn class_weights(&self, grades: impl IntoIterator<Item = u8>) -> Vec<f32> {
        if self.train.imbalance != Imbalance::ClassWeights {
            return Vec::new();
        }
        let mut by_grade = [0; 5];
        for grade in grades {
            by_grade[usize::from(grade)] += 1;
        }
        let counts = self.class_counts(&by_grade);
        let present = counts.iter().filter(|n| **n > 0).count() as f64;
        let all = counts.iter().sum::<u64>() as f64;
        let weight = |n: u64| match n {
            0 => 1.0,
            n => (all / (present * n as f64)) as f32,
        };
        counts.into_iter().map(weight).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(model: &str) -> RunSpec {
        toml::from_str(&format!("name = 'dr'\ndataset = 'd'\n[model]\n{model}")).unwrap()
    }

    fn classes(spec: &RunSpec) -> Vec<u32> {
        (0..5).map(|grade| spec.class_of(grade)).collect()
    }

    #[test]
    fn each_scheme_maps_the_grades() {
        for (labels, expected) in Labels::ALL.into_iter().zip([
            [0, 1, 1, 1, 1],
            [0, 0, 1, 1, 1],
            [0, 1, 2, 3, 3],
            [0, 1, 2, 3, 4],
        ]) {
            let from = labels.positive_from().unwrap_or(2);
            let spec = of(&format!(
                "classes = {}\npositive_from = {from}",
                labels.classes()
            ));
            spec.validate().unwrap();
            assert_eq!(classes(&spec), expected, "{labels}");
            // Positive is the same by grade and by class.
            for grade in 0..5u8 {
                let positive = spec.class_of(grade) >= spec.positive_class();
                assert_eq!(u32::from(grade) >= from, positive);
            }
            assert_eq!(spec.class_counts(&[1, 2, 4, 8, 16]).iter().sum::<u64>(), 31);
            let json = serde_json::to_string(&labels).unwrap();
            assert_eq!(json, format!("\"{labels}\""));
        }
    }

    #[test]
    fn classes_are_named_by_their_grades() {
        let names = |model: &str| {
            let model = of(model).model;
            (0..model.classes)
                .map(|class| model.class_name(class))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names("positive_from = 3"),
            ["below grade 3", "grade 3 and above"]
        );
        assert_eq!(
            names("classes = 4"),
            ["grade 0", "grade 1", "grade 2", "grades 3 and 4"]
        );
        assert_eq!(names("classes = 5")[3..], ["grade 3", "grade 4"]);
    }

    #[test]
    fn a_spec_without_a_head_is_written_as_before() {
        let spec = of("classes = 5");
        assert_eq!((spec.model.head, spec.model.outputs()), (Head::Softmax, 5));
        assert!(!serde_json::to_string(&spec).unwrap().contains(r#""head":"#));
        let ordinal = of("classes = 5\nhead = 'ordinal'");
        assert_eq!(ordinal.model.outputs(), 4);
        let json = serde_json::to_string(&ordinal).unwrap();
        assert!(json.contains(r#""head":"ordinal""#));
        assert_eq!(serde_json::from_str::<RunSpec>(&json).unwrap(), ordinal);
    }

    #[test]
    fn schemes_that_make_no_sense_are_refused_by_key() {
        for (model, key) in [
            ("classes = 3", "model.classes"),
            ("positive_from = 0", "model.positive_from"),
            ("classes = 4\npositive_from = 4", "model.positive_from"),
            ("head = 'ordinal'", "model.head"),
        ] {
            let error = of(model).validate().unwrap_err();
            assert_eq!(error.0[0].key, key);
            assert_eq!(error.0.len(), 1, "{error}");
        }
    }

    #[test]
    fn class_weights_count_once_on_average() {
        let mut spec = of("");
        assert!(spec.class_weights([0, 2]).is_empty());
        spec.train.imbalance = Imbalance::ClassWeights;
        // Three negative and one positive: 4 / (2 x 3) and 4 / (2 x 1).
        assert_eq!(spec.class_weights([0, 1, 0, 4]), [2.0 / 3.0, 2.0]);
        spec.model.classes = 5;
        let weights = spec.class_weights([0, 0, 0, 2, 4, 4]);
        assert_eq!(weights, [6.0 / 9.0, 1.0, 2.0, 1.0, 1.0]);
        spec.model.classes = 4;
        let weights = spec.class_weights([0, 0, 0, 1, 2, 2, 3, 4]);
        assert_eq!(weights, [8.0 / 12.0, 2.0, 1.0, 1.0]);
    }

    /// Both name the same class where one is more probable than all others together.
    #[test]
    fn an_ordinal_model_names_the_median() {
        let [softmax, ordinal] = [Head::Softmax, Head::Ordinal]
            .map(|head| move |probabilities: &[f32]| head.predicted(probabilities));
        for (probabilities, most_probable, median) in [
            ([0.9, 0.1, 0.0, 0.0], 0, 0),
            ([0.0, 0.0, 0.0, 1.0], 3, 3),
            ([0.4, 0.0, 0.25, 0.35], 0, 2),
            ([0.375, 0.25, 0.25, 0.125], 0, 1),
            // Of equal ones the first, and a half is not more than a half.
            ([0.5, 0.5, 0.0, 0.0], 0, 0),
        ] {
            assert_eq!(softmax(&probabilities), most_probable);
            assert_eq!(ordinal(&probabilities), median, "{probabilities:?}");
        }
    }
}
