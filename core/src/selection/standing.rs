//! Where the variants of a group stand in its selection, for people.

use std::fmt;

use super::decide::rungs;
use super::{Contender, Gone, Selection};
use crate::count::{count, plural};

/// Where a variant stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is trained, waits for that, or has completed.
    Left,
    /// Its group has dropped it, whatever became of its runs then.
    Dropped {
        /// After which epoch, its place, and how to train it on.
        reason: String,
    },
    /// All of its runs stopped early.
    Stopped,
    /// A run of it is gone, and it goes no further.
    Gone(Gone),
}

impl Standing {
    /// As a word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Dropped { .. } => "dropped",
            Self::Stopped => "stopped early",
            Self::Gone(gone) => gone.as_str(),
        }
    }
}

/// Where each of `variants` stands, by the runs of the group in order of their numbers. It follows from the same as the decisions,
/// so it stays what it was when runs are cancelled later.
pub fn standings(
    selection: Option<&Selection>,
    variants: usize,
    contenders: &[Contender],
) -> Vec<Standing> {
    let mut standings = vec![Standing::Left; variants];
    let rungs = selection.map(|selection| (selection.by, rungs(selection, contenders).decided));
    for (by, rung) in rungs
        .iter()
        .flat_map(|(by, all)| all.iter().map(|r| (*by, r)))
    {
        let lost = |(variant, _): &&(usize, Option<f64>)| !rung.going_on.contains(variant);
        for (variant, mean) in rung.ranked.iter().filter(lost) {
            let of = || contenders.iter().filter(|c| c.variant == *variant);
            let is_due = |c: &Contender| c.waits == Some(rung.after) || c.comes_to(rung.after);
            if mean.is_none() || of().any(is_due) {
                continue;
            }
            let known = of().find_map(|c| c.dropped.as_ref());
            let reason = match known {
                Some(dropped) => dropped.reason.clone(),
                None => rung.dropped(by, *variant),
            };
            standings[*variant] = Standing::Dropped { reason };
        }
    }
    for (variant, standing) in standings.iter_mut().enumerate() {
        let of = || contenders.iter().filter(|c| c.variant == variant);
        if *standing != Standing::Left {
            continue;
        }
        if let Some(dropped) = of().find_map(|c| c.dropped.as_ref()) {
            let reason = dropped.reason.clone();
            *standing = Standing::Dropped { reason };
        } else if let Some(gone) = of().filter_map(|c| c.gone).min() {
            *standing = Standing::Gone(gone);
        } else if of().next().is_some() && of().all(|c| c.stopped) {
            *standing = Standing::Stopped;
        }
    }
    standings
}

/// How many variants are left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// So many.
    pub left: usize,
    /// Of so many.
    pub of: usize,
    /// What became of the others, such as `15 dropped, 1 cancelled`; empty if there are none.
    pub others: String,
}

/// Counts the variants that are left.
pub fn left(standings: &[Standing]) -> Left {
    let counted = |word: &'static str| standings.iter().filter(|s| s.as_str() == word).count();
    let (left, of) = (counted(Standing::Left.as_str()), standings.len());
    let words = [
        "dropped",
        Standing::Stopped.as_str(),
        Gone::Failed.as_str(),
        Gone::Cancelled.as_str(),
        Gone::Removed.as_str(),
    ];
    let others = words.map(|word| (counted(word), word));
    let others = others.iter().filter(|(n, _)| *n > 0);
    let others: Vec<String> = others.map(|(n, word)| format!("{n} {word}")).collect();
    Left {
        left,
        of,
        others: others.join(", "),
    }
}

/// `9 of 24`.
impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.left, self.of)
    }
}

/// Runs that a person has paused before the rung at which the others wait for them, or will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldUp {
    /// The rung.
    pub rung: u32,
    /// Their places among the contenders; at least one.
    pub by: Vec<usize>,
}

impl HeldUp {
    /// What is wrong and what to do, with the names of the runs of the group in its order.
    pub fn in_words<'a>(&self, name: impl Fn(usize) -> &'a str) -> String {
        const NAMED: usize = 3;
        let names: Vec<&str> = self.by.iter().take(NAMED).map(|at| name(*at)).collect();
        let names = match self.by.len().saturating_sub(NAMED) {
            0 => names.join(", "),
            more => format!(
                "{} and {}",
                names.join(", "),
                count(more, "other run", "other runs")
            ),
        };
        let n = self.by.len();
        format!(
            "{names} {} paused by a person and {} up the selection after epoch {}: resume or cancel {}",
            plural(n, "was", "were"),
            plural(n, "holds", "hold"),
            self.rung,
            plural(n, "it", "them"),
        )
    }
}

/// What a person holds up; None: nothing is held up by anybody.
pub fn held_up(selection: &Selection, contenders: &[Contender]) -> Option<HeldUp> {
    let (rung, left) = rungs(selection, contenders).open?;
    let holds = |c: &Contender| {
        let comes_to_it = left.contains(&c.variant) && c.merits.len() < rung as usize;
        c.held && comes_to_it
    };
    let places = contenders.iter().enumerate();
    let by: Vec<usize> = places.filter(|(_, c)| holds(c)).map(|(at, _)| at).collect();
    (!by.is_empty()).then_some(HeldUp { rung, by })
}
