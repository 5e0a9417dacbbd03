//! Figures over the runs of a group: mean and spread. Pure.

use fovea_core::metrics::Evaluation;
pub use fovea_core::spread::Spread;
use fovea_evaluation::{Choice, Estimate, Evaluated, PointResult};
use serde::Serialize;

/// What the mean over the classes of the AUC of one class against all others is called.
pub const MACRO_AUC: &str = "mean AUC of class against others";

/// Figures of one run; None where one is not defined. None of them depends on a threshold that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RunFigures {
    pub auc: Option<f64>,
    pub macro_auc: Option<f64>,
    pub kappa: Option<f64>,
    pub accuracy: Option<f64>,
    pub brier: Option<f64>,
    pub calibration_error: Option<f64>,
    /// At 0.5.
    pub sensitivity: Option<f64>,
    /// At 0.5.
    pub specificity: Option<f64>,
}

impl From<&Evaluation> for RunFigures {
    fn from(evaluation: &Evaluation) -> Self {
        Self {
            auc: evaluation.auc,
            macro_auc: None,
            kappa: evaluation.quadratic_kappa,
            accuracy: Some(evaluation.accuracy),
            brier: None,
            calibration_error: None,
            sensitivity: evaluation.sensitivity,
            specificity: evaluation.specificity,
        }
    }
}

impl From<&Evaluated> for RunFigures {
    fn from(evaluated: &Evaluated) -> Self {
        let value = |figure: &Option<Estimate>| figure.as_ref().map(|f| f.value);
        let half = half(evaluated);
        Self {
            auc: value(&evaluated.auc),
            macro_auc: value(&evaluated.macro_auc),
            kappa: value(&evaluated.kappa),
            accuracy: value(&evaluated.accuracy),
            brier: value(&evaluated.brier),
            calibration_error: value(&evaluated.calibration_error),
            sensitivity: half.and_then(|p| value(&p.sensitivity)),
            specificity: half.and_then(|p| value(&p.specificity)),
        }
    }
}

/// What the threshold 0.5 gives, which nobody chose.
pub fn half(evaluated: &Evaluated) -> Option<&PointResult> {
    let mut points = evaluated.points.iter();
    points.find(|p| p.point.choice == Choice::Half)
}

/// All figures over several runs.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Spreads {
    pub auc: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macro_auc: Option<Spread>,
    pub kappa: Option<Spread>,
    pub accuracy: Option<Spread>,
    pub brier: Option<Spread>,
    pub calibration_error: Option<Spread>,
    pub sensitivity: Option<Spread>,
    pub specificity: Option<Spread>,
}

impl Spreads {
    /// Over these runs.
    pub fn of(runs: &[RunFigures]) -> Self {
        let over =
            |figure: fn(&RunFigures) -> Option<f64>| Spread::of(runs.iter().filter_map(figure));
        Self {
            auc: over(|r| r.auc),
            macro_auc: over(|r| r.macro_auc),
            kappa: over(|r| r.kappa),
            accuracy: over(|r| r.accuracy),
            brier: over(|r| r.brier),
            calibration_error: over(|r| r.calibration_error),
            sensitivity: over(|r| r.sensitivity),
            specificity: over(|r| r.specificity),
        }
    }

    /// Each with its name for people, where it is defined.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, Spread)> {
        let all = [
            ("AUC", self.auc),
            (MACRO_AUC, self.macro_auc),
            ("quadratic weighted kappa", self.kappa),
            ("accuracy", self.accuracy),
            ("sensitivity at 0.5", self.sensitivity),
            ("specificity at 0.5", self.specificity),
            ("Brier score (0 is best)", self.brier),
            ("calibration error (0 is best)", self.calibration_error),
        ];
        all.into_iter().filter_map(|(name, s)| Some((name, s?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_counts_only_where_it_is_defined() {
        let run = |auc: Option<f64>| RunFigures {
            auc,
            accuracy: Some(0.5),
            ..RunFigures::default()
        };
        let spreads = Spreads::of(&[run(Some(0.8)), run(None), run(Some(0.9))]);
        assert_eq!(spreads.auc.unwrap().runs, 2);
        assert_eq!(spreads.accuracy.unwrap().runs, 3);
        assert_eq!(spreads.kappa, None);
        let names: Vec<&str> = spreads.named().map(|(name, _)| name).collect();
        assert_eq!(names, ["AUC", "accuracy"]);
    }
}
