//! Groups of runs as pages show them: what is known of each variant and run, in the order of a ranking.

use fovea_core::group::{Differs, Group, Member};
use fovea_core::metrics::Evaluation;
use fovea_core::ranking::{Counted, Ranked, RankedRun, rank, rank_counted};
use fovea_core::run::{EpochResult, Run};
use fovea_core::selection::{Contender, Left, Selection, Standing, held_up, left, standings};
use fovea_core::spec::{BestBy, FoldSpec};
use fovea_core::spread::Spread;

use super::{Phase, RunRow};

/// Where a group is, as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    /// A run of it has workers.
    UnderWay,
    /// Runs wait for workers, and none has any.
    Queued,
    /// All wait for what its selection decides.
    Deciding,
    /// A run waits for a person who resumes it.
    Paused,
    /// All are completed, but for those that its selection has stopped.
    Completed,
    /// No run goes on, and some failed or were cancelled.
    Ended,
}

impl GroupState {
    /// Its name, and the phase of a run whose colour it has.
    pub fn name(self) -> (&'static str, Phase) {
        match self {
            Self::UnderWay => ("under way", Phase::Running),
            Self::Queued => ("queued", Phase::Queued),
            Self::Deciding => ("deciding", Phase::Forming),
            Self::Paused => ("paused", Phase::Paused),
            Self::Completed => ("completed", Phase::Completed),
            Self::Ended => ("ended", Phase::Cancelled),
        }
    }
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupRow {
    pub id: String,
    pub differs: Differs,
    /// Each once.
    pub datasets: Vec<String>,
    /// How many of its runs are in which phase; None: removed.
    pub phases: Vec<(Option<Phase>, usize)>,
    pub state: GroupState,
    pub owner: Option<String>,
    pub submitted_at_ms: u64,
    /// The validation metric that it is judged by.
    pub by: BestBy,
    /// What is known of the variant that leads. Without variants: of the runs that have completed, if there are any, else of all.
    pub best: Ranked,
    /// What the variant that leads sets; empty where there are no variants.
    pub best_label: String,
}

/// A page of the list of groups.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GroupList {
    pub groups: Vec<GroupRow>,
    /// Where the page of older ones begins; None on the last page.
    pub older: Option<u64>,
    /// Whether this is not the first page.
    pub is_later: bool,
}

/// A variant, in the order of the ranking.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantRow {
    /// From 0, in the order of submission.
    pub variant: usize,
    pub label: String,
    /// Its values of the keys in [`GroupPage::keys`]; empty where its label does not tell them.
    pub settings: Vec<String>,
    /// Epochs that each of its runs has done.
    pub epochs: usize,
    /// The metric after these, over its runs.
    pub spread: Option<Spread>,
    /// How many of its runs these are.
    pub counted: Counted,
    /// Why it goes no further, by its selection.
    pub dropped: Option<String>,
    /// Its runs: places in [`GroupPage::members`].
    pub runs: Vec<usize>,
}

/// A run of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberRow {
    pub id: String,
    pub variant: usize,
    pub fold: Option<FoldSpec>,
    pub seed: u64,
    /// None: it was removed.
    pub row: Option<RunRow>,
    /// Its selection has ended it, unless a person resumes it.
    pub is_dropped: bool,
    /// Results of the epochs that it has done.
    pub epochs: Vec<EpochResult>,
}

/// A group's page.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupPage {
    pub row: GroupRow,
    pub selection: Option<Selection>,
    /// How many variants its selection has left; None without a selection.
    pub left: Option<Left>,
    /// Who holds up its selection, and what to do.
    pub held_up: Option<String>,
    /// The keys that its variants set, if their labels tell.
    pub keys: Vec<String>,
    /// The best first. Without variants there is one.
    pub variants: Vec<VariantRow>,
    /// In the order of submission.
    pub members: Vec<MemberRow>,
    /// Epochs of its longest run.
    pub epochs: u32,
    /// Whether all its runs have ended.
    pub has_ended: bool,
    /// Whether the viewer may cancel it.
    pub may_cancel: bool,
    /// Why the viewer may not change it, if that is so.
    pub may_not: Option<String>,
}

impl GroupRow {
    /// Of a group and its runs as they are now, in its order; None: it was removed. `deciding`: its selection is at work.
    pub fn of(group: &Group, runs: &[Option<&Run>], deciding: bool) -> Self {
        let there = || runs.iter().flatten();
        let mut datasets: Vec<String> = there().map(|run| run.spec.dataset.to_string()).collect();
        datasets.sort_unstable();
        datasets.dedup();
        let phase = |run: &Option<&Run>| run.map(Phase::of);
        let counted = Phase::ALL.into_iter().map(Some).chain([None]).map(|of| {
            let n = runs.iter().filter(|run| phase(run) == of).count();
            (of, n)
        });
        let phases: Vec<_> = counted.filter(|(_, n)| *n > 0).collect();
        let any = |is: fn(Phase) -> bool| phases.iter().any(|(of, _)| of.is_some_and(is));
        let by = metric(group);
        let best =
            completed(group, runs, by).unwrap_or_else(|| ranked(group, runs, by).swap_remove(0).0);
        Self {
            id: group.id.to_string(),
            differs: Differs::of(group),
            datasets,
            state: match () {
                () if any(Phase::is_under_way) => GroupState::UnderWay,
                () if any(|phase| phase == Phase::Queued) => GroupState::Queued,
                () if deciding => GroupState::Deciding,
                () if there()
                    .any(|run| Phase::of(run) == Phase::Paused && !run.stopped_early()) =>
                {
                    GroupState::Paused
                }
                () if there()
                    .all(|run| run.stopped_early() || Phase::of(run) == Phase::Completed) =>
                {
                    GroupState::Completed
                }
                () => GroupState::Ended,
            },
            phases,
            owner: group.submitted_by.clone(),
            submitted_at_ms: group.submitted_at_ms,
            by,
            best,
            best_label: group
                .variants
                .get(best.variant)
                .cloned()
                .unwrap_or_default(),
        }
    }

    /// Number of its runs, with those that were removed.
    pub fn runs(&self) -> usize {
        self.phases.iter().map(|(_, n)| n).sum()
    }

    /// Such as `2 running, 3 queued`.
    pub fn phases_in_words(&self) -> String {
        in_words(&self.phases)
    }

    /// What kind of group it is, such as `sweep: 6 variants, each: 3 folds`.
    pub fn kind_in_words(&self) -> String {
        let differs = self.differs;
        match (differs.variants, differs.folds) {
            (0, None) => differs.to_string(),
            (0, Some(_)) => format!("cross-validation: {differs}"),
            _ => format!("sweep: {differs}"),
        }
    }
}

impl GroupPage {
    /// Of a group and its runs as they are now, in its order, with the rows that show them; None: it was removed.
    pub fn of(
        group: &Group,
        runs: &[Option<(&Run, RunRow)>],
        deciding: bool,
        may: Result<(), String>,
    ) -> Self {
        let only: Vec<Option<&Run>> = runs
            .iter()
            .map(|run| run.as_ref().map(|(run, _)| *run))
            .collect();
        let row = GroupRow::of(group, &only, deciding);
        let (keys, mut settings) = settings(&group.variants);
        let contenders: Vec<Contender> = match &group.selection {
            Some(selection) => {
                let members = group.runs.iter().zip(&only);
                members
                    .map(|(member, run)| Contender::of(selection, member.variant, *run))
                    .collect()
            }
            None => Vec::new(),
        };
        let selection = group.selection.as_ref();
        let standings = standings(selection, group.variants.len(), &contenders);
        let dropped = |variant: usize| match standings.get(variant) {
            Some(Standing::Dropped { reason }) => Some(reason.clone()),
            _ => None,
        };
        let held_up = selection.and_then(|selection| held_up(selection, &contenders));
        let held_up = held_up.map(|held| held.in_words(|at| group.runs[at].run.as_str()));
        let variants = ranked(group, &only, row.by).into_iter().map(|ranked| {
            let (
                Ranked {
                    variant,
                    epochs,
                    spread,
                },
                counted,
            ) = ranked;
            let of = |(_, member): &(usize, &Member)| member.variant as usize == variant;
            let members = group.runs.iter().enumerate().filter(of);
            let runs: Vec<usize> = members.map(|(at, _)| at).collect();
            let stopped = runs.iter().filter_map(|at| only[*at]);
            let mut stopped = stopped.filter(|run| run.stopped_early());
            let early = stopped
                .next()
                .and_then(|run| Some(run.group_pause.as_ref()?.reason.clone()));
            VariantRow {
                variant,
                label: group.variants.get(variant).cloned().unwrap_or_default(),
                settings: settings
                    .get_mut(variant)
                    .map(std::mem::take)
                    .unwrap_or_default(),
                epochs,
                spread,
                counted,
                dropped: dropped(variant).or(early),
                runs,
            }
        });
        let members = group.runs.iter().zip(runs).map(|(member, run)| MemberRow {
            id: member.run.to_string(),
            variant: member.variant as usize,
            fold: member.fold,
            seed: member.seed,
            row: run.as_ref().map(|(_, row)| row.clone()),
            is_dropped: dropped(member.variant as usize).is_some()
                || run.as_ref().is_some_and(|(run, _)| run.stopped_early()),
            epochs: run.as_ref().map_or_else(Vec::new, |(run, _)| {
                run.epochs[..run.next_epoch() as usize].to_vec()
            }),
        });
        let ended = row
            .phases
            .iter()
            .all(|(phase, _)| phase.is_none_or(Phase::has_ended));
        Self {
            keys,
            variants: variants.collect(),
            members: members.collect(),
            selection: group.selection.clone(),
            left: selection.map(|_| left(&standings)),
            held_up,
            epochs: only
                .iter()
                .flatten()
                .map(|run| run.spec.train.epochs)
                .max()
                .unwrap_or(0),
            has_ended: ended,
            may_cancel: may.is_ok() && !ended,
            may_not: may.err(),
            row,
        }
    }

    /// Its variants in the order of submission.
    pub fn in_order(&self) -> Vec<&VariantRow> {
        let mut rows: Vec<&VariantRow> = self.variants.iter().collect();
        rows.sort_by_key(|row| row.variant);
        rows
    }

    /// Whether its runs have several variants.
    pub fn is_sweep(&self) -> bool {
        self.row.differs.variants > 0
    }
}

impl MemberRow {
    /// The result of the last epoch that it has done.
    pub fn last(&self) -> Option<&Evaluation> {
        self.epochs.last().map(|epoch| &epoch.validation)
    }

    /// What tells it from the other runs of its variant: `fold 2`, `seed 1`, both, or nothing.
    pub fn short(&self, differs: Differs) -> String {
        let fold = self.fold.filter(|_| differs.folds.is_some());
        let fold = fold.map(|fold| format!("fold {}", fold.index));
        let seed = (differs.seeds > 1).then(|| format!("seed {}", self.seed));
        let parts: Vec<String> = fold.into_iter().chain(seed).collect();
        parts.join(", ")
    }

    /// How the figure of an epoch went on.
    pub fn curve(&self, by: BestBy) -> Vec<(f64, f64)> {
        let point = |epoch: &EpochResult| {
            let merit = by.merit(&epoch.validation)?;
            Some((f64::from(epoch.epoch) + 1.0, by.shown(merit)))
        };
        self.epochs.iter().filter_map(point).collect()
    }
}

/// Such as `2 running, 3 queued`.
pub fn in_words(phases: &[(Option<Phase>, usize)]) -> String {
    let one = |(phase, n): &(Option<Phase>, usize)| {
        format!("{n} {}", phase.map_or("removed", Phase::name))
    };
    let all: Vec<String> = phases.iter().map(one).collect();
    all.join(", ")
}

/// The mean of several curves, as far as all of them go.
pub fn mean_curve(curves: &[Vec<(f64, f64)>]) -> Vec<(f64, f64)> {
    let Some((first, others)) = curves.split_first() else {
        return Vec::new();
    };
    let at = |curve: &Vec<(f64, f64)>, x: f64| {
        let found = curve.binary_search_by(|point| point.0.total_cmp(&x)).ok()?;
        Some(curve[found].1)
    };
    let mean = |(x, y): &(f64, f64)| {
        let sum = others
            .iter()
            .try_fold(*y, |sum, curve| Some(sum + at(curve, *x)?))?;
        Some((*x, sum / curves.len() as f64))
    };
    first.iter().filter_map(mean).collect()
}

/// The metric that a group is judged by.
fn metric(group: &Group) -> BestBy {
    let selection = group.selection.as_ref();
    selection.map_or(BestBy::Auc, |selection| selection.by)
}

/// Of a group without variants, the runs that have completed; None if there are none.
fn completed(group: &Group, runs: &[Option<&Run>], by: BestBy) -> Option<Ranked> {
    let has = |run: &&&Run| Phase::of(run) == Phase::Completed;
    let completed: Vec<RankedRun> = runs
        .iter()
        .flatten()
        .filter(has)
        .map(|run| RankedRun::of(0, run))
        .collect();
    let any = group.variants.is_empty() && !completed.is_empty();
    any.then(|| rank(1, &completed, by).swap_remove(0))
}

/// Its variants, the best first; at least one.
fn ranked(group: &Group, runs: &[Option<&Run>], by: BestBy) -> Vec<(Ranked, Counted)> {
    let members = group.runs.iter().zip(runs);
    let known: Vec<RankedRun> = members
        .map(|(member, run)| {
            let variant = member.variant as usize;
            run.map_or(RankedRun::removed(variant), |run| {
                RankedRun::of(variant, run)
            })
        })
        .collect();
    rank_counted(group.variants.len().max(1), &known, by)
}

/// The keys that all labels name, and the values of each; none if a label has others, as one that a person has written may.
fn settings(labels: &[String]) -> (Vec<String>, Vec<Vec<String>>) {
    let pairs: Vec<Vec<(&str, String)>> = labels.iter().map(|label| pairs(label)).collect();
    let keys = |pairs: &Vec<(&str, String)>| -> Vec<String> {
        pairs.iter().map(|(key, _)| (*key).to_owned()).collect()
    };
    let Some(first) = pairs.first().map(keys).filter(|keys| !keys.is_empty()) else {
        return Default::default();
    };
    if pairs.iter().any(|pairs| keys(pairs) != first) {
        return Default::default();
    }
    let values = pairs.into_iter().map(|pairs| {
        let values = pairs.into_iter().map(|(_, value)| value);
        values.collect()
    });
    (first, values.collect())
}

/// `train.batch=8 model.weights=a b` as keys and values. What begins with no key of a run file belongs to the value before it; none
/// if there is no value before it.
fn pairs(label: &str) -> Vec<(&str, String)> {
    let is_key = |text: &str| {
        let part = |part: &str| {
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            !part.is_empty() && part.chars().all(letters)
        };
        text.split('.').all(part)
    };
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for word in label.split(' ') {
        match (
            word.split_once('=').filter(|(key, _)| is_key(key)),
            pairs.last_mut(),
        ) {
            (Some((key, value)), _) => pairs.push((key, value.to_owned())),
            (None, Some((_, value))) => {
                value.push(' ');
                value.push_str(word);
            }
            (None, None) => return Vec::new(),
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_tell_the_keys_that_differ_or_are_left_alone() {
        let labels =
            |all: &[&str]| -> Vec<String> { all.iter().map(|s| (*s).to_owned()).collect() };
        let (keys, values) = settings(&labels(&[
            "model.frozen=[\"a\", \"b=c\"] train.batch=8",
            "model.frozen=[] train.batch=16",
        ]));
        assert_eq!(keys, ["model.frozen", "train.batch"]);
        assert_eq!(values[0], ["[\"a\", \"b=c\"]", "8"]);
        assert_eq!(values[1], ["[]", "16"]);
        for other in [
            &["train.batch=8", "train.seed=8"][..],
            &["train.batch=8", "small batch"],
            &["<b>=1", "<b>=2"],
            &[],
        ] {
            assert_eq!(settings(&labels(other)), Default::default(), "{other:?}");
        }
    }

    #[test]
    fn a_mean_curve_ends_with_the_shortest() {
        let curves = [
            vec![(1.0, 0.5), (2.0, 0.7)],
            vec![(1.0, 0.7), (2.0, 0.8), (3.0, 0.9)],
        ];
        assert_eq!(mean_curve(&curves), [(1.0, 0.6), (2.0, 0.75)]);
        assert_eq!(mean_curve(&[]), []);
    }
}
