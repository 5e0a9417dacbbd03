//! The arguments of `fovea group`, and those of `fovea submit` that make one.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Subcommand;

use super::evaluate_args::{PartName, WhichCheckpoint};
use super::priority::value;
use fovea_core::group::{GroupPlan, MAX_RUNS};
use fovea_core::priority::Priority;

/// What makes a group of a submission.
#[derive(Debug, Default, clap::Args)]
pub struct GroupArgs {
    /// Cross-validate: a run for each of K folds of the training and validation split together
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(2..=100))]
    pub folds: Option<u32>,
    /// A run for each of these seeds, such as 0,1,2 or 0-4; with --folds for each fold and seed
    #[arg(long, value_name = "SEEDS")]
    pub seeds: Option<Seeds>,
}

impl GroupArgs {
    /// The group that is asked for; None for one run.
    pub fn plan(&self) -> Option<GroupPlan> {
        if self.folds.is_none() && self.seeds.is_none() {
            return None;
        }
        Some(GroupPlan {
            folds: self.folds.unwrap_or(0),
            seeds: self.seeds.clone().map_or(Vec::new(), |seeds| seeds.0),
            ..GroupPlan::default()
        })
    }
}

/// Seeds on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(pub Vec<u64>);

/// Not a list of seeds.
#[derive(Debug, thiserror::Error)]
pub enum SeedsError {
    #[error("{0:?} is neither a number nor a range such as 0-4")]
    Part(String),
    #[error("the range {0:?} ends before it begins: write the lower seed first")]
    Backwards(String),
    #[error("the range {0:?} has more seeds than the {MAX_RUNS} runs that a group can have")]
    Range(String),
}

impl FromStr for Seeds {
    type Err = SeedsError;

    fn from_str(text: &str) -> Result<Self, SeedsError> {
        let mut seeds = Vec::new();
        for part in text.split(',') {
            let number = |text: &str| {
                let number = text.trim().parse::<u64>();
                number.map_err(|_| SeedsError::Part(part.to_owned()))
            };
            match part.split_once('-') {
                None => seeds.push(number(part)?),
                Some((from, to)) => {
                    let (from, to) = (number(from)?, number(to)?);
                    if to < from {
                        return Err(SeedsError::Backwards(part.to_owned()));
                    }
                    if to - from >= MAX_RUNS as u64 {
                        return Err(SeedsError::Range(part.to_owned()));
                    }
                    seeds.extend(from..=to);
                }
            }
        }
        Ok(Self(seeds))
    }
}

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List all groups, newest first
    List,
    /// Show a group's runs, and mean and spread of their figures
    #[command(visible_alias = "get")]
    Show {
        /// The group's id, such as dr-g7
        group: String,
    },
    /// Follow a group until all its runs have ended or are paused
    Watch {
        /// The group's id, such as dr-g7
        group: String,
        /// Give up when the coordinator could not be reached for so many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        patience: u64,
    },
    /// Stop all runs of a group at their next step, with a checkpoint
    Cancel {
        /// The group's id, such as dr-g7
        group: String,
    },
    /// Set the priority of all runs of a group that have not ended, at once
    Priority {
        /// The group's id, such as dr-g7
        group: String,
        /// Their priority from now on
        #[arg(value_parser = value())]
        priority: Priority,
    },
    /// Remove a group: all its runs, which must have ended, and their checkpoints with --with-checkpoints
    #[command(after_help = "\
Examples:
  fovea group rm dr-g7 --with-checkpoints          all runs of the group, and all their checkpoints
  fovea group rm dr-g7 --with-checkpoints --yes    in a script

Nothing is removed if one of the runs has not ended (`fovea group cancel` ends them), or if one has
checkpoints and --with-checkpoints is not given. Evaluations of the runs on other photographs are runs of
their own, and stay.")]
    Rm {
        /// The group's id, such as dr-g7
        group: String,
        /// Remove the runs' checkpoints, too
        #[arg(long)]
        with_checkpoints: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Evaluate a group: each completed run, mean and spread, and for folds all held-out photographs together
    Evaluate(EvaluateGroup),
    /// Write a group's report, one HTML file
    Report(ReportGroup),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea group report dr-g7                             writes dr-g7.html: what each run held out
  fovea group report dr-g7 --split test -o final.html  the test part, by each run's model: once, at the end

The report is one HTML file that loads nothing: mean and spread, the runs beside each other, and for folds
all held-out photographs together. The figures are those of `fovea group evaluate`, whose help says what
they mean; what was not scored yet is scored first.")]
pub struct ReportGroup {
    #[command(flatten)]
    pub what: EvaluateGroup,
    /// The file to write [default: GROUP.html]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub overwrite: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea group evaluate dr-g7                     what each run held out, from the scores that are kept
  fovea group evaluate dr-g7 --split test        the test part, by each run's model: once, at the end
  fovea group evaluate dr-g7 --dataset messidor2
  fovea group evaluate dr-g7 --variant 3         of a sweep: one variant in full; without it all in one table

All figures are of the newest checkpoint and of the threshold 0.5: nothing was chosen on what is judged.
With --checkpoint best each run's checkpoint is the best on its own held-out photographs, whose figures
then look better than they are.

The spread over seeds is what chance in training changes, with the same photographs. The spread over
folds is that and which patients are held out. Neither says how the mean would differ with other
patients: the training sets of folds overlap, so that their figures are not independent, and no interval
is given for the mean. Each run's interval, and that of all held-out photographs together, is over the
patients that are judged, for models as they are.")]
pub struct EvaluateGroup {
    /// The group's id, such as dr-g7
    pub group: String,
    /// Of a sweep: the runs of this variant alone, from 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub variant: Option<u32>,
    /// The part to evaluate on: validation (what each run held out), test, train or all [default: validation; with --dataset
    /// all]
    #[arg(long, value_name = "PART", hide_possible_values = true)]
    pub split: Option<PartName>,
    /// Another dataset of the coordinator
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// The checkpoint of each run: newest, best (by the validation metric that it keeps checkpoints by), or a step
    #[arg(long, value_name = "STEP", default_value = "newest")]
    pub checkpoint: WhichCheckpoint,
    /// Score each photograph as the mean over its four rotations by a quarter turn: four times the work
    #[arg(long)]
    pub rotations: bool,
    /// Draws of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub draws: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_list_of_numbers_and_ranges() {
        let read = |text: &str| {
            text.parse::<Seeds>()
                .map(|s| s.0)
                .map_err(|e| e.to_string())
        };
        assert_eq!(read("3"), Ok(vec![3]));
        assert_eq!(read("0,1,7"), Ok(vec![0, 1, 7]));
        assert_eq!(read("0-2, 9"), Ok(vec![0, 1, 2, 9]));
        for bad in ["", "a", "1,", "-1", "1-", "3-2", "0-100", "0-99999999999"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("5-3").unwrap_err().contains("ends before it begins"));
        assert!(
            read("0-100")
                .unwrap_err()
                .contains("more seeds than the 100 runs")
        );
        assert!(read("2-x").unwrap_err().contains("\"2-x\""));
    }
}
