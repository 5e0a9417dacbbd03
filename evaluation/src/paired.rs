//! Two models on the same photographs.

use fovea_core::metrics::Ranking;

use crate::bootstrap::Draws;
use crate::interval::{Estimate, estimate};
use crate::samples::Samples;

/// Two sets of samples that are not of the same photographs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the two models were not scored on the same photographs in the same order: sample {sample} has another patient or label"
)]
pub struct PairError {
    /// The first that differs, from 0.
    pub sample: usize,
}

/// AUC of `a` minus AUC of `b` on the same photographs, in the same order.
///
/// Each draw of patients gives both AUCs, so the interval is that of the difference: two models that see the same photographs
/// mostly err on the same ones, and intervals of their own that overlap do not say that they are equally good. None where the
/// AUC is not defined.
///
/// # Errors
/// They are not of the same photographs.
pub fn auc_difference(
    a: &Samples,
    b: &Samples,
    draws: Draws,
) -> Result<Option<Estimate>, PairError> {
    let same = |(x, y): (&crate::samples::Scored, &crate::samples::Scored)| {
        (x.patient, x.positive) == (y.patient, y.positive)
    };
    let differs = a.all.iter().zip(&b.all).position(|pair| !same(pair));
    let shorter = a.len().min(b.len());
    if let Some(sample) = differs.or((a.len() != b.len()).then_some(shorter)) {
        return Err(PairError { sample });
    }
    let difference = |weight: &dyn Fn(usize) -> u64| {
        let auc = |of: &Ranking| of.auc(|sample| weight(a.all[sample].patient));
        Some(auc(&a.ranking)? - auc(&b.ranking)?)
    };
    let Some(value) = difference(&|_| 1) else {
        return Ok(None);
    };
    let drawn = draws.each(a.patients, |times| {
        difference(&|patient| u64::from(times[patient]))
    });
    Ok(Some(estimate(value, drawn.into_iter(), None)))
}
