//! Selection: which runs of a sweep are trained to the end. Pure.
//!
//! With successive halving (Jamieson and Talwalkar 2016) every run of a group pauses after the same epoch, a *rung*. When all have,
//! their variants are ranked by the validation metric, one of so many goes on, and the others stay paused, with their
//! checkpoints. What is decided depends on the runs' results alone, and these do not depend on the workers: a sweep that is
//! disturbed keeps the variants that an undisturbed one keeps.
//!
//! [`Hold`] is what one run knows of this: after which epoch it pauses. [`decide`] ranks. [`standings`] tells what was decided.

mod decide;
mod hold;
mod standing;

use serde::{Deserialize, Serialize};

use crate::count::count;
use crate::metrics::Evaluation;
use crate::spec::BestBy;

pub use decide::{Contender, Decision, Dropped, Gone, Verdict, decide};
pub use hold::{GroupPause, Hold, PauseReason};
pub use standing::{HeldUp, Left, Standing, held_up, left, standings};

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
