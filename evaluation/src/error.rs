//! Errors of a set of samples.

/// Why samples cannot be evaluated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplesError {
    /// There is nothing to evaluate.
    #[error("there are no samples to evaluate")]
    Empty,
    /// A model has at least two classes.
    #[error("a model of {classes} class cannot be evaluated; it needs 2 at least")]
    Classes {
        /// The number given.
        classes: usize,
    },
    /// No class, or every class, would be positive.
    #[error("class {positive_class} of {classes} cannot be the first positive one; give 1 to {}", classes - 1)]
    Positive {
        /// The first positive class given.
        positive_class: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A label that is no class.
    #[error("sample {sample}: its label is {label}, and there are {classes} classes")]
    Label {
        /// Which sample, from 0.
        sample: usize,
        /// Its label.
        label: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A grade outside the scale.
    #[error("sample {sample}: its grade is {grade}, outside 0 to 4")]
    Grade {
        /// Which sample, from 0.
        sample: usize,
        /// Its grade.
        grade: u8,
    },
    /// Not one probability for each class.
    #[error("sample {sample}: it has {found} probabilities for {classes} classes")]
    Count {
        /// Which sample, from 0.
        sample: usize,
        /// How many it has.
        found: usize,
        /// Number of classes.
        classes: usize,
    },
    /// No probabilities.
    #[error(
        "sample {sample}: its probabilities {probabilities:?} are not numbers from 0 to 1 that add up to 1"
    )]
    Probabilities {
        /// Which sample, from 0.
        sample: usize,
        /// As given.
        probabilities: Vec<f32>,
    },
}
