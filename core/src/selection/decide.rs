//! What becomes of the runs that wait at a rung.

use super::hold::DROPPED;
use super::{Halving, PauseReason, Selection};
use crate::run::{Phase, Run};
use crate::spec::BestBy;

/// Why a run does not go on that its group has not stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gone {
    Failed,
    Cancelled,
    Removed,
}

impl Gone {
    /// As a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Removed => "removed",
        }
    }
}

/// That a run was dropped, as it is journalled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The rung.
    pub rung: u32,
    /// For people.
    pub reason: String,
}

/// A run of a group as far as a decision needs it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contender {
    /// Its variant, from 0.
    pub variant: usize,
    /// Its metric after each epoch, higher is better; None where it is not defined.
    pub merits: Vec<Option<f64>>,
    /// It has failed, was cancelled or removed: its variant goes no further.
    pub gone: Option<Gone>,
    /// It was stopped early, and counts with its last result.
    pub stopped: bool,
    /// The rung at which it waits.
    pub waits: Option<u32>,
    /// The last rung after which its group let it go on, as it is journalled; 0: none. None: the journal is not known, and what was
    /// decided follows from the results.
    pub went_on: Option<u32>,
    /// The rung at which it is known to have been dropped. It stays so when the run is cancelled.
    pub dropped: Option<Dropped>,
    /// A person has paused it.
    pub held: bool,
}

impl Contender {
    /// Of a run of this variant; None: it was removed.
    pub fn of(selection: &Selection, variant: u32, run: Option<&Run>) -> Self {
        let variant = variant as usize;
        let Some(run) = run else {
            return Self {
                variant,
                gone: Some(Gone::Removed),
                went_on: Some(0),
                ..Self::default()
            };
        };
        let gone = match run.phase {
            Phase::Failed { .. } => Some(Gone::Failed),
            Phase::Cancelled => Some(Gone::Cancelled),
            Phase::Queued { .. }
            | Phase::Forming { .. }
            | Phase::Running { .. }
            | Phase::Finishing { .. }
            | Phase::Paused
            | Phase::Completed => None,
        };
        let pause = run.group_pause.as_ref().filter(|held| held.rung.is_none());
        let by = selection.by;
        let results = &run.epochs[..run.next_epoch() as usize];
        Self {
            variant,
            merits: results.iter().map(|e| by.merit(&e.validation)).collect(),
            gone,
            waits: run.waits_at(),
            went_on: Some(selection.went_on(run)),
            held: run.phase == Phase::Paused && run.group_pause.is_none(),
            ..Self::default()
        }
        .paused(pause.map_or("", |pause| &pause.reason))
    }

    /// With what the reason of its group's pause tells, if that is for good.
    pub fn paused(mut self, reason: &str) -> Self {
        match PauseReason::read(reason) {
            Some(PauseReason::Dropped(rung)) => {
                let reason = reason.to_owned();
                self.dropped = Some(Dropped { rung, reason });
            }
            Some(PauseReason::Stopped(_)) => self.stopped = true,
            Some(PauseReason::Waits(_)) | None => {}
        }
        self
    }

    /// Whether it is on its way to a rung.
    pub(super) fn comes_to(&self, rung: u32) -> bool {
        self.gone.is_none() && !self.stopped && self.merits.len() < rung as usize
    }

    /// Its merit at a rung; None: it has not come so far. `decided`: the rung is known to be decided.
    fn at(&self, rung: u32, decided: bool) -> Option<f64> {
        let merit = |at: usize| self.merits.get(at).copied().flatten();
        let worst = f64::NEG_INFINITY;
        let arrived = self.merits.len() >= rung as usize;
        match () {
            () if self.is_out_at(rung, decided) => Some(worst),
            () if arrived => Some(merit(rung as usize - 1).unwrap_or(worst)),
            () if self.stopped => {
                let last = self.merits.len().checked_sub(1).and_then(merit);
                Some(last.unwrap_or(worst))
            }
            // Somebody has taken it back to an older checkpoint.
            () if decided => Some(worst),
            () => None,
        }
    }

    /// Whether it takes its variant out at a rung. What ended after the decision does not change it.
    fn is_out_at(&self, rung: u32, decided: bool) -> bool {
        let counted = self.merits.len() >= rung as usize || self.stopped;
        self.gone.is_some() && !(decided && counted)
    }

    /// Whether it shows that the rung is decided.
    fn knows(&self, rung: u32) -> bool {
        self.went_on.is_some_and(|on| on >= rung) || self.was_dropped_from(rung)
    }

    fn was_dropped_from(&self, rung: u32) -> bool {
        self.dropped.as_ref().is_some_and(|d| d.rung >= rung)
    }

    fn was_dropped_by(&self, rung: u32) -> bool {
        self.dropped.as_ref().is_some_and(|d| d.rung <= rung)
    }
}

impl Selection {
    /// The last rung after which a run was let go on; 0: none, or a person has resumed it, and it has no rungs any more.
    fn went_on(&self, run: &Run) -> u32 {
        let (Some(Halving { after, .. }), Some(hold)) = (&self.halving, run.hold) else {
            return 0;
        };
        let passed = |rung: &&u32| hold.until.is_none_or(|until| **rung < until);
        after.iter().rfind(passed).copied().unwrap_or(0)
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
    let mut decisions = Vec::new();
    for rung in rungs(selection, contenders).decided {
        for (at, contender) in contenders.iter().enumerate() {
            if contender.waits != Some(rung.after) {
                continue;
            }
            let verdict = match rung.going_on.contains(&contender.variant) {
                true => Verdict::GoOn { until: rung.next },
                false => Verdict::Drop {
                    reason: rung.dropped(selection.by, contender.variant),
                },
            };
            let rung = rung.after;
            decisions.push(Decision { at, rung, verdict });
        }
    }
    decisions
}

/// The rungs of a group as far as they can be decided.
pub(super) struct Rungs {
    /// Those that are decided, whether or not it is carried out.
    pub decided: Vec<Rung>,
    /// The first that is not, and the variants that come to it. None: all are.
    pub open: Option<(u32, Vec<usize>)>,
}

/// A rung that is decided.
pub(super) struct Rung {
    /// After so many epochs.
    pub after: u32,
    /// The next one.
    next: Option<u32>,
    /// The variants that came to it, the best first, with their means; None: a run of it was out.
    pub ranked: Vec<(usize, Option<f64>)>,
    /// The variants that go on.
    pub going_on: Vec<usize>,
}

pub(super) fn rungs(selection: &Selection, contenders: &[Contender]) -> Rungs {
    let mut decided = Vec::new();
    let Some(Halving { after, keep_one_of }) = &selection.halving else {
        let open = None;
        return Rungs { decided, open };
    };
    let variants = contenders.iter().map(|c| c.variant + 1).max().unwrap_or(0);
    let mut left: Vec<usize> = (0..variants).collect();
    let is_inferred = contenders.iter().any(|c| c.went_on.is_none())
        && contenders.iter().any(|c| c.gone.is_some());
    for (step, &rung) in after.iter().enumerate() {
        let keep = (left.len() / *keep_one_of as usize).max(1);
        let of = |variant: usize| contenders.iter().filter(move |c| c.variant == variant);
        // Variants of which every run has results after the rung, where the journal is not known and the results alone leave open
        // whether a run was gone before the decision or after it.
        let has_gone_on = |variant: usize| of(variant).all(|c| c.merits.len() > rung as usize);
        let gone_on: Vec<usize> = left
            .iter()
            .copied()
            .filter(|variant| is_inferred && has_gone_on(*variant))
            .collect();
        let is_known = !gone_on.is_empty() || contenders.iter().any(|c| c.knows(rung));
        let Some(ranked) = ranked(&left, contenders, rung, is_known) else {
            let open = Some((rung, left));
            return Rungs { decided, open };
        };
        // What was carried out stands, whatever has ended since. More than may go on have results if a person has resumed some.
        let goes_on = |(place, (variant, mean)): (usize, &(usize, Option<f64>))| {
            let is_dropped = of(*variant).any(|c| c.was_dropped_by(rung));
            let ranks = match gone_on.len() == keep {
                true => gone_on.contains(variant),
                false => place < keep && mean.is_some(),
            };
            let went_on = || of(*variant).any(|c| c.went_on.is_some_and(|on| on >= rung));
            (!is_dropped && (ranks || went_on())).then_some(*variant)
        };
        let going_on: Vec<usize> = ranked.iter().enumerate().filter_map(goes_on).collect();
        left.clone_from(&going_on);
        decided.push(Rung {
            after: rung,
            next: after.get(step + 1).copied(),
            ranked,
            going_on,
        });
    }
    let open = None;
    Rungs { decided, open }
}

/// The variants in the order of their means at a rung, the best first, of equals the earlier; a variant that is out has no mean.
/// None: a run has not come so far.
fn ranked(
    left: &[usize],
    contenders: &[Contender],
    rung: u32,
    decided: bool,
) -> Option<Vec<(usize, Option<f64>)>> {
    let mut ranked = Vec::new();
    for &variant in left {
        let of_variant = || contenders.iter().filter(|c| c.variant == variant);
        let (mut sum, mut runs) = (0.0, 0u32);
        for contender in of_variant() {
            sum += contender.at(rung, decided)?;
            runs += 1;
        }
        let out = runs == 0 || of_variant().any(|c| c.is_out_at(rung, decided));
        ranked.push((variant, (!out).then(|| sum / f64::from(runs))));
    }
    let merit = |one: &(usize, Option<f64>)| one.1.unwrap_or(f64::NEG_INFINITY);
    // One that is out comes after one whose metric is not defined. Those that are left come in the order of the rung before, which does
    // not matter.
    ranked.sort_by(|a, b| {
        let by_merit = merit(b).total_cmp(&merit(a));
        let by_any = b.1.is_some().cmp(&a.1.is_some());
        by_merit.then(by_any).then(a.0.cmp(&b.0))
    });
    Some(ranked)
}

impl Rung {
    /// Why a variant goes no further.
    pub(super) fn dropped(&self, by: BestBy, variant: usize) -> String {
        let (rung, ranked, on) = (self.after, &self.ranked, self.going_on.len());
        let place = ranked.iter().position(|(of, _)| *of == variant);
        match place {
            Some(place) => {
                let value = ranked[place].1.filter(|merit| merit.is_finite());
                let value = value.map_or("not defined".into(), |merit| {
                    format!("{:.3}", by.shown(merit))
                });
                format!(
                    "{DROPPED}{rung}: place {} of {} by {} ({value}), of which {on} went on; `fovea resume` trains it on",
                    place + 1,
                    ranked.len(),
                    by.title()
                )
            }
            // Resumed by a person after it was dropped, it cannot wait again; kept for a state that should not be.
            None => format!("dropped before epoch {rung}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RunId;
    use crate::run::{Event, Extent};
    use crate::selection::{GroupPause, Hold};

    fn run(hold: Option<Hold>, pause: Option<(Option<u32>, &str)>) -> Run {
        let spec = toml::from_str("name='t'\ndataset='d'").unwrap();
        let extent = Extent {
            steps_per_epoch: 5,
            total_steps: 10,
            train_samples: 100,
            validation_samples: 40,
        };
        let id = RunId::new("t-1").unwrap();
        let mut run = Run::new(id, 1, spec, "00".into(), extent, 1);
        (run.hold, run.phase) = (hold, Phase::Paused);
        run.group_pause = pause.map(|(rung, reason)| GroupPause {
            rung,
            reason: reason.into(),
        });
        run
    }

    #[test]
    fn what_is_journalled_of_a_run_is_known_after_it_is_cancelled() {
        let selection = Selection {
            by: BestBy::Auc,
            halving: Some(Halving {
                after: vec![2, 4],
                keep_one_of: 2,
            }),
            patience: None,
        };
        let hold = |until| {
            Some(Hold {
                until,
                ..selection.hold()
            })
        };
        let of = |run: &Run| Contender::of(&selection, 3, Some(run));
        let dropped = "dropped after epoch 4: place 2 of 2 by AUC (0.600), of which 1 went on";
        let waits = (
            Some(2),
            "waits after epoch 2 for the other runs of its group",
        );
        let stopped = (
            None,
            "stopped early after epoch 1: AUC was best after epoch 1 (0.600)",
        );
        let expected = |pause: Option<(Option<u32>, &str)>, went_on| Contender {
            variant: 3,
            went_on: Some(went_on),
            dropped: pause.filter(|p| p.1 == dropped).map(|_| Dropped {
                rung: 4,
                reason: dropped.into(),
            }),
            stopped: pause == Some(stopped),
            ..Contender::default()
        };
        for (until, pause, went_on) in [
            (Some(2), Some(waits), 0),
            (Some(4), None, 2),
            (Some(4), Some((None, dropped)), 2),
            (None, Some(stopped), 4),
        ] {
            let mut run = run(hold(until), pause);
            let paused = of(&run);
            let rung = pause.and_then(|(rung, _)| rung);
            let known = expected(pause, went_on);
            let expected = Contender {
                waits: rung,
                held: pause.is_none(),
                ..known.clone()
            };
            assert_eq!(paused, expected);
            run.apply(0, Event::Cancel);
            let gone = Some(Gone::Cancelled);
            assert_eq!(of(&run), Contender { gone, ..known });
        }
        // A person has resumed it: nothing holds it any more.
        let mut resumed = run(hold(Some(4)), Some((None, dropped)));
        resumed.apply(0, Event::Resume { checkpoint: None });
        assert_eq!(of(&resumed), expected(None, 0));
        let removed = Contender::of(&selection, 3, None);
        assert_eq!((removed.gone, removed.variant), (Some(Gone::Removed), 3));
    }
}
