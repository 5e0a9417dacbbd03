//! Groups: runs of one submission that differ in their fold, their seed, in what a sweep varies, or in several of these.

mod differs;

use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, IdError, RunId};
use crate::selection::{Selection, SelectionError};
use crate::spec::{FoldSpec, LONGEST_NAME, MAX_FOLDS, RunSpec, SpecError};

pub use differs::Differs;

/// The most runs of a group.
pub const MAX_RUNS: usize = 100;
/// The longest label of a variant, in bytes.
pub const LONGEST_LABEL: usize = 300;

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
    /// Labels of its variants: what each sets. Empty: there is one, the spec as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<String>,
    /// How its runs are selected; None: all are trained to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// Its runs in the order of their numbers. Some of them may have been removed.
    pub runs: Vec<Member>,
}

/// A run of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub run: RunId,
    /// Its variant, from 0.
    #[serde(default, skip_serializing_if = "is_first")]
    pub variant: u32,
    /// The fold that it holds out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fold: Option<FoldSpec>,
    /// Its seed.
    pub seed: u64,
}

fn is_first(variant: &u32) -> bool {
    *variant == 0
}

/// One way to set what a sweep varies.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// What it sets, such as `train.learning_rate=0.003 train.batch=8`.
    pub label: String,
    /// The spec with these settings.
    pub spec: RunSpec,
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

/// What differs between the runs of a group. With variants, folds and seeds there is a run for each triple.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupPlan {
    /// The variants of a sweep; none: the spec as it is.
    pub variants: Vec<Variant>,
    /// How the runs are selected; None: all are trained to the end.
    pub selection: Option<Selection>,
    /// Number of folds; 0: none.
    pub folds: u32,
    /// The seeds; none: that of the spec.
    pub seeds: Vec<u64>,
}

/// Why no group can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Neither folds nor several seeds.
    #[error(
        "a group has 2 runs or more: ask for 2 folds or more, for several seeds, or for a sweep of several values"
    )]
    TooFew,
    /// Too many runs.
    #[error(
        "{runs} runs are more than the {MAX_RUNS} that a group can have: ask for fewer folds, seeds or variants"
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
    /// A variant is there twice.
    #[error("the variant {0} is there twice: two runs of one spec would be the same run")]
    VariantTwice(String),
    /// A label that cannot be shown.
    #[error(
        "the label {0:?} of a variant: use 1 to {LONGEST_LABEL} letters without control characters"
    )]
    Label(String),
    /// The selection is not possible.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// A run of the group has no valid spec.
    #[error("run {name}: {source}")]
    Spec {
        /// Name of the run.
        name: String,
        /// What is wrong with it.
        source: SpecError,
    },
}

/// A run of a planned group.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Its variant, from 0.
    pub variant: u32,
    /// Its spec.
    pub spec: RunSpec,
}

impl GroupPlan {
    /// The runs of the group, made from its variants, or from `base` if it has none: variant by variant, of each seed by seed, and
    /// of each seed fold by fold.
    ///
    /// # Errors
    /// There would be none, too many or equal ones, or one that is not valid.
    pub fn runs(&self, base: &RunSpec) -> Result<Vec<Planned>, GroupError> {
        let Self {
            variants,
            selection,
            folds,
            seeds,
        } = self;
        if *folds == 1 || *folds > MAX_FOLDS {
            return Err(GroupError::Folds(*folds));
        }
        let number = u64::from((*folds).max(1)) * seeds.len().max(1) as u64;
        let number = number * variants.len().max(1) as u64;
        if number < 2 {
            return Err(GroupError::TooFew);
        }
        if number > MAX_RUNS as u64 {
            return Err(GroupError::TooMany { runs: number });
        }
        for (at, seed) in seeds.iter().enumerate() {
            if seeds[..at].contains(seed) {
                return Err(GroupError::SeedTwice(*seed));
            }
        }
        for (at, Variant { label, spec }) in variants.iter().enumerate() {
            let plain = !label.is_empty() && !label.chars().any(char::is_control);
            if !plain || label.len() > LONGEST_LABEL {
                return Err(GroupError::Label(label.clone()));
            }
            if variants[..at].iter().any(|other| other.spec == *spec) {
                return Err(GroupError::VariantTwice(label.clone()));
            }
        }
        let bases: Vec<&RunSpec> = match &variants[..] {
            [] => vec![base],
            variants => variants.iter().map(|variant| &variant.spec).collect(),
        };
        if let Some(selection) = selection {
            let epochs = bases.iter().map(|spec| spec.train.epochs).min();
            selection.check(bases.len(), epochs.unwrap_or(0))?;
        }
        let mut runs = Vec::new();
        for (at, of_variant) in bases.into_iter().enumerate() {
            let added = match variants.len() {
                0 => String::new(),
                _ => format!(".v{}", at + 1),
            };
            for spec in self.of_variant(of_variant, &base.name, &added)? {
                let variant = at as u32;
                runs.push(Planned { variant, spec });
            }
        }
        Ok(runs)
    }

    /// The specs of one variant, whose names are `name`, `added`, and what tells them apart.
    fn of_variant(
        &self,
        of: &RunSpec,
        name: &str,
        added: &str,
    ) -> Result<Vec<RunSpec>, GroupError> {
        let folds = self.folds;
        if let Some(fold) = of.fold.filter(|_| folds > 0) {
            return Err(GroupError::FoldInSpec(fold));
        }
        let own = [of.seed];
        let seeds = match &self.seeds[..] {
            [] => &own[..],
            seeds => seeds,
        };
        let holding_out: Vec<Option<FoldSpec>> = match folds {
            0 => vec![of.fold],
            of => (1..=of).map(|index| Some(FoldSpec { index, of })).collect(),
        };
        let mut specs = Vec::new();
        for &seed in seeds {
            for &fold in &holding_out {
                let mut spec = of.clone();
                (spec.seed, spec.fold) = (seed, fold);
                spec.name = format!("{name}{added}");
                if let (Some(fold), 1..) = (fold, folds) {
                    spec.name += &format!(".f{}", fold.index);
                }
                if seeds.len() > 1 {
                    spec.name += &format!(".s{seed}");
                }
                if name.len() <= LONGEST_NAME && spec.name.len() > LONGEST_NAME {
                    return Err(GroupError::LongName {
                        base: name.to_owned(),
                        added: spec.name.split_off(name.len()),
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
        GroupPlan {
            folds,
            seeds,
            ..GroupPlan::default()
        }
    }

    #[test]
    fn a_name_that_becomes_too_long_says_what_is_added() {
        let mut long = base("");
        long.name = "x".repeat(46);
        let said = plan(2, &[]).runs(&long).unwrap_err().to_string();
        assert!(
            said.contains("is too long for a group") && said.contains("xx.f1 and so on"),
            "{said}"
        );
        long.name.pop();
        assert!(plan(2, &[]).runs(&long).is_ok());
    }

    #[test]
    fn a_run_for_each_fold_and_seed() {
        let named = |plan: GroupPlan| -> Vec<(String, u64, Option<u32>)> {
            let runs = plan.runs(&base("")).unwrap();
            assert!(runs.iter().all(|run| run.variant == 0));
            let what = |s: RunSpec| (s.name, s.seed, s.fold.map(|f| f.index));
            runs.into_iter().map(|run| what(run.spec)).collect()
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
        let runs = plan(0, &[1, 2]).runs(&base("[fold]\nindex = 2\nof = 5"));
        assert!(
            runs.unwrap()
                .iter()
                .all(|run| run.spec.fold.unwrap().index == 2)
        );
    }

    #[test]
    fn a_run_for_each_variant_fold_and_seed() {
        let mut plan = plan(2, &[1, 2]);
        for rate in [0.001, 0.003] {
            let mut spec = base("");
            spec.train.learning_rate = rate;
            let label = format!("train.learning_rate={rate}");
            plan.variants.push(Variant { label, spec });
        }
        let runs = plan.runs(&base("")).unwrap();
        let names: Vec<&str> = runs.iter().map(|run| &*run.spec.name).collect();
        assert_eq!(
            names,
            [
                "dr.v1.f1.s1",
                "dr.v1.f2.s1",
                "dr.v1.f1.s2",
                "dr.v1.f2.s2",
                "dr.v2.f1.s1",
                "dr.v2.f2.s1",
                "dr.v2.f1.s2",
                "dr.v2.f2.s2"
            ]
        );
        let rate = |run: &Planned| (run.variant, run.spec.train.learning_rate);
        assert_eq!(rate(&runs[3]), (0, 0.001));
        assert_eq!(rate(&runs[4]), (1, 0.003));
        // Two variants alone are a group.
        (plan.folds, plan.seeds) = (0, Vec::new());
        assert_eq!(plan.runs(&base("")).unwrap().len(), 2);

        let mut twice = plan.clone();
        twice.variants[1].spec.train.learning_rate = 0.001;
        let label = twice.variants[1].label.clone();
        assert_eq!(twice.runs(&base("")), Err(GroupError::VariantTwice(label)));
        let mut hostile = plan.clone();
        hostile.variants[0].label = "a\u{1b}[2J".into();
        assert!(matches!(hostile.runs(&base("")), Err(GroupError::Label(_))));
        let selection = |after: &[u32]| Selection {
            by: crate::spec::BestBy::Auc,
            halving: Some(crate::selection::Halving {
                after: after.to_vec(),
                keep_one_of: 2,
            }),
            patience: None,
        };
        plan.selection = Some(selection(&[2, 10]));
        assert!(matches!(
            plan.runs(&base("")),
            Err(GroupError::Selection(_))
        ));
        plan.selection = Some(selection(&[2, 9]));
        assert!(plan.runs(&base("")).is_ok());
    }

    #[test]
    fn what_is_no_group_is_refused() {
        let refused = |plan: GroupPlan, more: &str| plan.runs(&base(more)).unwrap_err();
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
        let error = plan(2, &[]).runs(&other).unwrap_err().to_string();
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
