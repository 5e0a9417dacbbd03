//! What tells the runs of a group apart, in words.

use std::fmt;

use super::Group;
use crate::count::count;

/// In what the runs of a group differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Differs {
    /// Number of its variants; 0: the spec as it is.
    pub variants: usize,
    /// Number of its folds. None: its runs hold out the validation split, or are all of one fold.
    pub folds: Option<u32>,
    /// Number of its seeds.
    pub seeds: usize,
}

impl Differs {
    /// Of a group.
    pub fn of(group: &Group) -> Self {
        let first = group.runs.first().and_then(|run| run.fold);
        let several = group.runs.iter().any(|run| run.fold != first);
        let mut seeds: Vec<u64> = group.runs.iter().map(|run| run.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        Self {
            variants: group.variants.len(),
            folds: first.filter(|_| several).map(|fold| fold.of),
            seeds: seeds.len(),
        }
    }
}

/// Such as `5 folds`, `3 seeds of each of 5 folds`, or `6 variants, each: 5 folds`.
impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            variants,
            folds,
            seeds,
        } = *self;
        let each = match folds {
            None => count(seeds, "seed", "seeds"),
            Some(folds) if seeds < 2 => count(folds, "fold", "folds"),
            Some(folds) => format!("{} of each of {folds} folds", count(seeds, "seed", "seeds")),
        };
        let of_variants = count(variants, "variant", "variants");
        match (variants, folds.is_some() || seeds > 1) {
            (0, _) => f.write_str(&each),
            (_, false) => f.write_str(&of_variants),
            (_, true) => write!(f, "{of_variants}, each: {each}"),
        }
    }
}
