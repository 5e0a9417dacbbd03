//! Groups: runs of one submission that differ in their fold, their seed, or both.

use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, IdError, RunId};
use crate::spec::{FoldSpec, LONGEST_NAME, MAX_FOLDS, RunSpec, SpecError};

/// The most runs of a group.
pub const MAX_RUNS: usize = 100;

/// A group and its runs, as they were submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Order of submission, among the numbers of runs.
    pub number: u64,
    /// Name of the spec from which its runs were made.
    pub name: String,
    /// Milliseconds since the Unix epoch.
    pub submitted_at_ms: u64,
    /// Name of the person who submitted it; None without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_by: Option<String>,
    /// Its runs in the order of their numbers. Some of them may have been removed.
    pub runs: Vec<Member>,
}

/// A run of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub run: RunId,
    /// The fold that it holds out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fold: Option<FoldSpec>,
    /// Its seed.
    pub seed: u64,
}

/// The id of the group with this name and number: `<name>-g<number>`.
///
/// # Errors
/// The name has letters that no id has.
pub fn group_id(name: &str, number: u64) -> Result<GroupId, IdError> {
    GroupId::new(format!("{name}-g{number}"))
}

/// The number of the group with this id. None: it is not the id of a group.
pub fn number_of(id: &GroupId) -> Option<u64> {
    let (_, number) = id.as_str().rsplit_once("-g")?;
    number.parse().ok()
}

/// What differs between the runs of a group. With folds and seeds there is a run for each pair.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupPlan {
    /// Number of folds; 0: none.
    pub folds: u32,
    /// The seeds; none: that of the spec.
    pub seeds: Vec<u64>,
}

/// Why no group can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Neither folds nor several seeds.
    #[error("a group has 2 runs or more: ask for 2 folds or more, or for several seeds")]
    TooFew,
    /// Too many runs.
    #[error(
        "{runs} runs are more than the {MAX_RUNS} that a group can have: ask for fewer folds or seeds"
    )]
    TooMany { runs: u64 },
    /// A number of folds that is not possible.
    #[error("{0} folds are not possible: ask for 2 to {MAX_FOLDS}")]
    Folds(u32),
    /// A seed is there twice.
    #[error("the seed {0} is named twice: two runs of one seed would be the same run")]
    SeedTwice(u64),
    /// The spec is of one fold already.
    #[error("the spec holds out fold {0}; a group of folds fills it in, so leave it out")]
    FoldInSpec(FoldSpec),
    /// What tells the runs apart does not fit in their names.
    #[error(
        "the name {base:?} is too long for a group: its runs are called {base}{added} and so on, and a run's name has at most \
         {LONGEST_NAME} letters"
    )]
    LongName {
        /// Name of the spec.
        base: String,
        /// What is added to it.
        added: String,
    },
    /// A run of the group has no valid spec.
    #[error("run {name}: {source}")]
    Spec {
        /// Name of the run.
        name: String,
        /// What is wrong with it.
        source: SpecError,
    },
}

impl GroupPlan {
    /// The specs of the group's runs, made from `base`: seed by seed, and of each seed fold by fold.
    ///
    /// # Errors
    /// There would be none, too many or equal ones, or one that is not valid.
    pub fn specs(&self, base: &RunSpec) -> Result<Vec<RunSpec>, GroupError> {
        let Self { folds, seeds } = self;
        if *folds == 1 || *folds > MAX_FOLDS {
            return Err(GroupError::Folds(*folds));
        }
        if let Some(fold) = base.fold.filter(|_| *folds > 0) {
            return Err(GroupError::FoldInSpec(fold));
        }
        let runs = u64::from((*folds).max(1)) * seeds.len().max(1) as u64;
        if runs < 2 {
            return Err(GroupError::TooFew);
        }
        if runs > MAX_RUNS as u64 {
            return Err(GroupError::TooMany { runs });
        }
        for (at, seed) in seeds.iter().enumerate() {
            if seeds[..at].contains(seed) {
                return Err(GroupError::SeedTwice(*seed));
            }
        }
        let own = [base.seed];
        let seeds = if seeds.is_empty() { &own[..] } else { seeds };
        let holding_out: Vec<Option<FoldSpec>> = match *folds {
            0 => vec![base.fold],
            of => (1..=of).map(|index| Some(FoldSpec { index, of })).collect(),
        };
        let mut specs = Vec::new();
        for &seed in seeds {
            for &fold in &holding_out {
                let mut spec = base.clone();
                (spec.seed, spec.fold) = (seed, fold);
                if let (Some(fold), 1..) = (fold, *folds) {
                    spec.name += &format!(".f{}", fold.index);
                }
                if seeds.len() > 1 {
                    spec.name += &format!(".s{seed}");
                }
                if base.name.len() <= LONGEST_NAME && spec.name.len() > LONGEST_NAME {
                    return Err(GroupError::LongName {
                        base: base.name.clone(),
                        added: spec.name.split_off(base.name.len()),
                    });
                }
                spec.validate().map_err(|source| GroupError::Spec {
                    name: spec.name.clone(),
                    source,
                })?;
                specs.push(spec);
            }
        }
        Ok(specs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(more: &str) -> RunSpec {
        toml::from_str(&format!("name = 'dr'\ndataset = 'eyes'\nseed = 7\n{more}")).unwrap()
    }

    fn plan(folds: u32, seeds: &[u64]) -> GroupPlan {
        let seeds = seeds.to_vec();
        GroupPlan { folds, seeds }
    }

    #[test]
    fn a_name_that_becomes_too_long_says_what_is_added() {
        let mut long = base("");
        long.name = "x".repeat(46);
        let said = plan(2, &[]).specs(&long).unwrap_err().to_string();
        assert!(
            said.contains("is too long for a group") && said.contains("xx.f1 and so on"),
            "{said}"
        );
        long.name.pop();
        assert!(plan(2, &[]).specs(&long).is_ok());
    }

    #[test]
    fn a_run_for_each_fold_and_seed() {
        let named = |plan: GroupPlan| -> Vec<(String, u64, Option<u32>)> {
            let specs = plan.specs(&base("")).unwrap();
            let what = |s: RunSpec| (s.name, s.seed, s.fold.map(|f| f.index));
            specs.into_iter().map(what).collect()
        };
        let row = |name: &str, seed, fold| (name.to_owned(), seed, fold);
        let folds = [row("dr.f1", 7, Some(1)), row("dr.f2", 7, Some(2))];
        assert_eq!(named(plan(2, &[])), folds);
        // One seed is another seed for all, and needs no place in the names.
        let folds = [row("dr.f1", 9, Some(1)), row("dr.f2", 9, Some(2))];
        assert_eq!(named(plan(2, &[9])), folds);
        let seeds = [row("dr.s0", 0, None), row("dr.s5", 5, None)];
        assert_eq!(named(plan(0, &[0, 5])), seeds);
        let both = [
            row("dr.f1.s0", 0, Some(1)),
            row("dr.f2.s0", 0, Some(2)),
            row("dr.f1.s5", 5, Some(1)),
            row("dr.f2.s5", 5, Some(2)),
        ];
        assert_eq!(named(plan(2, &[0, 5])), both);
        // Several seeds of one fold.
        let specs = plan(0, &[1, 2]).specs(&base("[fold]\nindex = 2\nof = 5"));
        assert!(specs.unwrap().iter().all(|s| s.fold.unwrap().index == 2));
    }

    #[test]
    fn what_is_no_group_is_refused() {
        let refused = |plan: GroupPlan, more: &str| plan.specs(&base(more)).unwrap_err();
        assert_eq!(refused(plan(0, &[]), ""), GroupError::TooFew);
        assert_eq!(refused(plan(0, &[3]), ""), GroupError::TooFew);
        assert_eq!(refused(plan(1, &[3, 4]), ""), GroupError::Folds(1));
        assert_eq!(refused(plan(101, &[]), ""), GroupError::Folds(101));
        assert_eq!(refused(plan(0, &[3, 4, 3]), ""), GroupError::SeedTwice(3));
        let many = plan(26, &[1, 2, 3, 4]);
        assert_eq!(refused(many, ""), GroupError::TooMany { runs: 104 });
        let of_one = "[fold]\nindex = 1\nof = 2";
        assert!(matches!(
            refused(plan(2, &[]), of_one),
            GroupError::FoldInSpec(_)
        ));
        let mut other = base("");
        other.name = "n n".into();
        let error = plan(2, &[]).specs(&other).unwrap_err().to_string();
        assert!(error.contains("n n.f1: name: use 1 to 48"), "{error}");
    }

    #[test]
    fn ids_of_groups_tell_their_numbers() {
        let id = group_id("dr-g1", 12).unwrap();
        assert_eq!((id.as_str(), number_of(&id)), ("dr-g1-g12", Some(12)));
        for other in ["dr-12", "dr-g", "dr-gx", "g12"] {
            assert_eq!(number_of(&GroupId::new(other).unwrap()), None, "{other}");
        }
    }
}
