//! Mean and spread of a figure over several runs. Pure.

use serde::Serialize;

/// A figure over several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Number of runs in which it is defined.
    pub runs: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, with runs - 1 in the denominator. None for one run.
    pub sd: Option<f64>,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of the values that are there. None if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        let (min, max) = values
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), v| {
                (min.min(*v), max.max(*v))
            });
        let runs = values.len();
        let mean = values.iter().sum::<f64>() / runs as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        (runs > 0).then(|| Self {
            runs,
            // Of equal values rounding must not make another one.
            mean: mean.clamp(min, max),
            sd: (runs > 1).then(|| (squares / (runs - 1) as f64).sqrt()),
            min,
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against numpy: `np.mean`, `np.std(ddof=1)`.
    #[test]
    fn mean_and_deviation_are_those_of_a_sample() {
        let spread = Spread::of([0.889, 0.891, 0.883]).unwrap();
        assert!((spread.mean - 0.887_666_666_666_667).abs() < 1e-12);
        assert!((spread.sd.unwrap() - 0.004_163_331_998_932_25).abs() < 1e-12);
        assert_eq!((spread.runs, spread.min, spread.max), (3, 0.883, 0.891));
        let one = Spread::of([0.7]).unwrap();
        assert_eq!((one.mean, one.sd), (0.7, None));
        assert_eq!(Spread::of([]), None);
        // Three times 0.1 add up to more than 0.3.
        assert_eq!(Spread::of([0.1; 3]).unwrap().mean, 0.1);
    }
}
