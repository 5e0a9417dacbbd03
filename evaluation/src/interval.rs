//! Figures with 95 % intervals.

use serde::{Deserialize, Serialize};

/// A figure and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub value: f64,
    /// Ends of the interval; equal to `value` if there is no interval.
    pub low: f64,
    pub high: f64,
    /// How the interval was found.
    pub method: Method,
    /// Draws of the bootstrap in which the figure was not defined, such as an AUC without positive samples.
    pub undefined: u32,
}

/// How an interval was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Percentiles 2.5 and 97.5 of a bootstrap over patients (Efron and Tibshirani, 1993, chapter 13).
    Bootstrap,
    /// Wilson's score interval (Wilson, 1927), with the number of patients for n: at 0 and 1 every draw of a bootstrap is
    /// the same, and its interval would have no width.
    Wilson,
    /// None: too few draws in which the figure was defined.
    None,
    /// None: all draws gave the same, which says that they cannot tell, not that the value is certain.
    Same,
}

/// The standard normal's quantile at 0.975.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's score interval of `value`, a share of `n`.
pub(crate) fn wilson(value: f64, n: u64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let n = n as f64;
    let z2 = Z * Z;
    let centre = value + z2 / (2.0 * n);
    let half = Z * (value * (1.0 - value) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    // Exactly, where rounding would not give it.
    let low = if value == 0.0 {
        0.0
    } else {
        (centre - half) / scale
    };
    let high = if value == 1.0 {
        1.0
    } else {
        (centre + half) / scale
    };
    (low, high)
}

/// The estimate of a figure from its values in the draws; `n` is the number of patients that Wilson's interval goes by, None
/// for a figure that is no share.
pub(crate) fn estimate(
    value: f64,
    draws: impl Iterator<Item = Option<f64>>,
    n: Option<u64>,
) -> Estimate {
    let mut undefined = 0;
    let mut values = Vec::new();
    for draw in draws {
        match draw {
            Some(value) => values.push(value),
            None => undefined += 1,
        }
    }
    let (low, high, method) = if let Some(n) = n.filter(|_| value == 0.0 || value == 1.0) {
        let (low, high) = wilson(value, n);
        (low, high, Method::Wilson)
    } else if values.len() < 100 || undefined as usize > values.len() {
        (value, value, Method::None)
    } else {
        values.sort_by(f64::total_cmp);
        match (quantile(&values, 0.025), quantile(&values, 0.975)) {
            (low, high) if low == high => (value, value, Method::Same),
            (low, high) => (low, high, Method::Bootstrap),
        }
    };
    Estimate {
        value,
        low,
        high,
        method,
        undefined,
    }
}

/// The quantile `q` of sorted values, between neighbours by their distance.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let below = at as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (at - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10 of 10 gives 0.722 to 1, and 81 of 263 gives 0.2553 to 0.3662 (Newcombe, 1998, table I).
    #[test]
    fn wilson_of_published_examples() {
        let (low, high) = wilson(81.0 / 263.0, 263);
        assert!(
            (low - 0.2553).abs() < 5e-5 && (high - 0.3662).abs() < 5e-5,
            "{low} {high}"
        );
        let (low, high) = wilson(1.0, 10);
        assert!((low - 0.7225).abs() < 5e-5 && high == 1.0, "{low} {high}");
        assert_eq!(wilson(1.0, 0), (0.0, 1.0));
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let values: Vec<f64> = (0..=40).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.025), 1.0);
        assert_eq!(quantile(&values, 0.5), 20.0);
        assert!((quantile(&values, 0.99) - 39.6).abs() < 1e-12);
        assert_eq!(quantile(&[3.0], 0.975), 3.0);
    }

    #[test]
    fn an_interval_without_width_is_none() {
        let same = estimate(0.0, (0..300).map(|_| Some(0.0)), None);
        assert_eq!((same.method, same.low, same.high), (Method::Same, 0.0, 0.0));
    }

    #[test]
    fn a_figure_that_is_seldom_defined_has_no_interval() {
        let draws = (0..300).map(|i| (i % 3 == 0).then_some(0.5));
        let e = estimate(0.5, draws, Some(10));
        assert_eq!(
            (e.method, e.undefined, e.low, e.high),
            (Method::None, 200, 0.5, 0.5)
        );
    }
}
