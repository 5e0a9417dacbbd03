//! Selection: which runs of a sweep are trained to the end. Pure.
//!
//! With successive halving (Jamieson and Talwalkar 2016) every run of a group pauses after the same epoch, a *rung*. When all have,
//! their variants are ranked by the validation metric, one of so many goes on, and the others stay paused, with their
//! checkpoints. What is decided depends on the runs' results alone, and these do not depend on the workers: a sweep that is
//! disturbed keeps the variants that an undisturbed one keeps.
//!
//! [`Hold`] is what one run knows of this: after which epoch it pauses. [`decide`] ranks.

use serde::{Deserialize, Serialize};

use crate::count::count;
use crate::metrics::Evaluation;
use crate::run::EpochResult;
use crate::spec::BestBy;

/// The most rungs of a sweep.
pub const MAX_RUNGS: usize = 16;
/// The most that the variants of a rung can be divided by.
pub const MAX_KEEP: u32 = 100;

/// How a group's runs are selected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// The validation metric.
    pub by: BestBy,
    /// Variants are dropped at rungs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halving: Option<Halving>,
    /// A run pauses when its metric has not improved for so many epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
}

/// Successive halving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halving {
    /// The rungs: after so many epochs, in rising order.
    pub after: Vec<u32>,
    /// One variant of so many goes on at each, but at least one.
    pub keep_one_of: u32,
}

/// Why a selection is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// No metric.
    #[error("selection.metric: name auc, kappa or loss")]
    Metric,
    /// Neither halving nor patience.
    #[error("selection: give rungs (such as halving = [2, 5]), patience, or both")]
    Nothing,
    /// Rungs that are not epochs of the run in rising order.
    #[error(
        "selection.halving: {given:?} are not 1 to {MAX_RUNGS} rising numbers of epochs from 1 to {}, one less than train.epochs",
        epochs - 1
    )]
    Rungs {
        /// As they were given.
        given: Vec<u32>,
        /// Epochs of the shortest run.
        epochs: u32,
    },
    /// A divisor that drops nothing, or nearly everything.
    #[error("selection.keep_one_of: {0} is not 2 to {MAX_KEEP}")]
    Keep(u32),
    /// A patience that is none.
    #[error("selection.patience: 0 epochs are no patience; give 1 or more, or leave it out")]
    Patience,
    /// One variant cannot be compared.
    #[error("selection.halving: there is one variant; halving needs two or more to compare")]
    OneVariant,
}

impl Selection {
    /// Checks a selection among `variants` of runs that have `epochs` or more.
    ///
    /// # Errors
    /// It is not possible.
    pub fn check(&self, variants: usize, epochs: u32) -> Result<(), SelectionError> {
        let Self {
            by,
            halving,
            patience,
        } = self;
        if *by == BestBy::None {
            return Err(SelectionError::Metric);
        }
        if halving.is_none() && patience.is_none() {
            return Err(SelectionError::Nothing);
        }
        if *patience == Some(0) {
            return Err(SelectionError::Patience);
        }
        let Some(Halving { after, keep_one_of }) = halving else {
            return Ok(());
        };
        let rising = after.is_sorted_by(|a, b| a < b);
        let within = after.iter().all(|rung| (1..epochs).contains(rung));
        if after.is_empty() || after.len() > MAX_RUNGS || !rising || !within {
            let given = after.clone();
            return Err(SelectionError::Rungs { given, epochs });
        }
        if !(2..=MAX_KEEP).contains(keep_one_of) {
            return Err(SelectionError::Keep(*keep_one_of));
        }
        match variants {
            0 | 1 => Err(SelectionError::OneVariant),
            _ => Ok(()),
        }
    }

    /// How the runs are selected, as a part of a sentence.
    pub fn in_words(&self) -> String {
        let metric = self.by.title();
        let halving = self.halving.as_ref().map(|Halving { after, keep_one_of }| {
            let rungs: Vec<String> = after.iter().map(ToString::to_string).collect();
            let rungs = match rungs.split_last() {
                Some((last, before @ [_, ..])) => {
                    format!("epochs {} and {last}", before.join(", "))
                }
                _ => format!("epoch {}", rungs.concat()),
            };
            format!(
                "after {rungs} the variants are ranked by {metric} and one of {keep_one_of} goes on"
            )
        });
        let patience = self.patience.map(|patience| {
            format!(
                "a run stops when its {metric} has not improved for {}",
                count(patience, "epoch", "epochs")
            )
        });
        let parts: Vec<String> = halving.into_iter().chain(patience).collect();
        parts.join("; ")
    }

    /// How a run of the group begins.
    pub fn hold(&self) -> Hold {
        let rungs = self.halving.as_ref().map_or(&[][..], |h| &h.after);
        Hold {
            by: self.by,
            until: rungs.first().copied(),
            patience: self.patience,
        }
    }
}

/// Until when a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The validation metric of `patience`.
    pub by: BestBy,
    /// It pauses after so many epochs, and its group decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u32>,
    /// It pauses when the metric has not improved for so many epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
}

/// Why a run is paused, if no person asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPause {
    /// The rung at which it waits for its group's decision. None: it is stopped for good, unless a person resumes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<u32>,
    /// For people.
    pub reason: String,
}

impl Hold {
    /// Whether a run of `total` epochs pauses after `epochs`, its results so far from the first one on.
    pub fn after(&self, epochs: &[EpochResult], total: u32) -> Option<GroupPause> {
        let Self {
            by,
            until,
            patience,
        } = *self;
        let done = epochs.len() as u32;
        if done >= total {
            return None;
        }
        if let Some(since) = patience.and_then(|patience| stale(epochs, by, patience)) {
            let (best, at) = since;
            return Some(GroupPause {
                rung: None,
                reason: format!(
                    "stopped early after epoch {done}: {} was best after epoch {at} ({best:.3}); `fovea resume` goes on",
                    by.title()
                ),
            });
        }
        let rung = until.filter(|until| done >= *until)?;
        Some(GroupPause {
            rung: Some(rung),
            reason: format!("waits after epoch {rung} for the other runs of its group"),
        })
    }
}

/// The best value and its epoch, from 1, if `patience` epochs or more have followed it without a better one.
fn stale(epochs: &[EpochResult], by: BestBy, patience: u32) -> Option<(f64, usize)> {
    let mut best: Option<(f64, usize)> = None;
    for (at, result) in epochs.iter().enumerate() {
        if let Some(merit) = by.merit(&result.validation)
            && best.is_none_or(|(most, _)| merit > most)
        {
            best = Some((merit, at + 1));
        }
    }
    // Without any value nothing is known, and nothing is stopped.
    let (merit, at) = best?;
    (epochs.len() - at >= patience as usize).then_some((by.shown(merit), at))
}

/// A run of a group as far as a decision needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Contender {
    /// Its variant, from 0.
    pub variant: usize,
    /// Its metric after each epoch, higher is better; None where it is not defined.
    pub merits: Vec<Option<f64>>,
    /// It has failed, was cancelled or removed: its variant goes no further.
    pub out: bool,
    /// It was stopped early, and counts with its last result.
    pub stopped: bool,
    /// The rung at which it waits.
    pub waits: Option<u32>,
}

impl Contender {
    /// Its merit at a rung; None: it has not come so far.
    fn at(&self, rung: u32) -> Option<f64> {
        let merit = |at: usize| self.merits.get(at).copied().flatten();
        let worst = f64::NEG_INFINITY;
        let arrived = self.merits.len() >= rung as usize;
        match (self.out, arrived) {
            (true, _) => Some(worst),
            (false, true) => Some(merit(rung as usize - 1).unwrap_or(worst)),
            (false, false) if self.stopped => {
                let last = self.merits.len().checked_sub(1).and_then(merit);
                Some(last.unwrap_or(worst))
            }
            (false, false) => None,
        }
    }
}

/// What becomes of a run that waits at a rung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, until the next rung if there is one.
    GoOn { until: Option<u32> },
    /// It stays paused.
    Drop { reason: String },
}

/// A decision about one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Its place among the contenders.
    pub at: usize,
    /// The rung that is decided.
    pub rung: u32,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of the runs that wait. The same results give the same decisions whenever this is asked, so one that was carried
/// out for some runs only is carried out for the others later. `contenders` are the runs of the group in order of their numbers.
pub fn decide(selection: &Selection, contenders: &[Contender]) -> Vec<Decision> {
    let Some(Halving { after, keep_one_of }) = &selection.halving else {
        return Vec::new();
    };
    let variants = contenders.iter().map(|c| c.variant + 1).max().unwrap_or(0);
    let mut left: Vec<usize> = (0..variants).collect();
    let mut decisions = Vec::new();
    for (step, &rung) in after.iter().enumerate() {
        let next = after.get(step + 1).copied();
        let Some(ranked) = ranked(&left, contenders, rung) else {
            break;
        };
        let keep = (ranked.len() / *keep_one_of as usize).max(1);
        let going_on = ranked
            .iter()
            .take(keep)
            .filter(|(_, merit)| merit.is_some());
        let going_on: Vec<usize> = going_on.map(|(variant, _)| *variant).collect();
        for (at, contender) in contenders.iter().enumerate() {
            if contender.waits != Some(rung) {
                continue;
            }
            let verdict = match going_on.contains(&contender.variant) {
                true => Verdict::GoOn { until: next },
                false => Verdict::Drop {
                    reason: dropped(
                        selection.by,
                        rung,
                        contender.variant,
                        &ranked,
                        going_on.len(),
                    ),
                },
            };
            decisions.push(Decision { at, rung, verdict });
        }
        left = going_on;
    }
    decisions
}

/// The variants in the order of their means at a rung, the best first, of equals the earlier; a variant that is out has no mean.
/// None: a run has not come so far.
fn ranked(
    left: &[usize],
    contenders: &[Contender],
    rung: u32,
) -> Option<Vec<(usize, Option<f64>)>> {
    let mut ranked = Vec::new();
    for &variant in left {
        let mut of_variant = contenders
            .iter()
            .filter(|c| c.variant == variant)
            .peekable();
        let (mut sum, mut runs) = (0.0, 0u32);
        let out = of_variant.peek().is_none();
        for contender in of_variant {
            sum += contender.at(rung)?;
            runs += 1;
        }
        let out = out || contenders.iter().any(|c| c.variant == variant && c.out);
        ranked.push((variant, (!out).then(|| sum / f64::from(runs))));
    }
    let merit = |one: &(usize, Option<f64>)| one.1.unwrap_or(f64::NEG_INFINITY);
    // Stable: of equals the earlier variant comes first, and one that is out after one whose metric is not defined.
    ranked.sort_by(|a, b| {
        let by_merit = merit(b).total_cmp(&merit(a));
        by_merit.then(b.1.is_some().cmp(&a.1.is_some()))
    });
    Some(ranked)
}

fn dropped(
    by: BestBy,
    rung: u32,
    variant: usize,
    ranked: &[(usize, Option<f64>)],
    on: usize,
) -> String {
    let place = ranked.iter().position(|(of, _)| *of == variant);
    match place {
        Some(place) => {
            let value = ranked[place].1.filter(|merit| merit.is_finite());
            let value = value.map_or("not defined".into(), |merit| {
                format!("{:.3}", by.shown(merit))
            });
            format!(
                "dropped after epoch {rung}: place {} of {} by {} ({value}), of which {on} went on; `fovea resume` trains it on",
                place + 1,
                ranked.len(),
                by.title()
            )
        }
        // Resumed by a person after it was dropped, it cannot wait again; kept for a state that should not be.
        None => format!("dropped before epoch {rung}"),
    }
}

impl BestBy {
    /// The metric of an evaluation, where higher is better; None where it is not defined.
    pub fn merit(self, evaluation: &Evaluation) -> Option<f64> {
        match self {
            Self::None => None,
            Self::Auc => evaluation.auc,
            Self::Loss => Some(-evaluation.loss),
            Self::Kappa => evaluation.quadratic_kappa,
        }
    }

    /// A merit as the metric's own value.
    pub fn shown(self, merit: f64) -> f64 {
        match self {
            Self::Loss => -merit,
            Self::None | Self::Auc | Self::Kappa => merit,
        }
    }

    /// Its name in a sentence.
    pub fn title(self) -> &'static str {
        match self {
            Self::None => "no metric",
            Self::Auc => "AUC",
            Self::Loss => "validation loss",
            Self::Kappa => "kappa",
        }
    }
}

#[cfg(test)]
mod tests;
