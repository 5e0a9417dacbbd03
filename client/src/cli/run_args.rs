//! The arguments of commands about runs: submitting, listing, resuming.

use std::path::PathBuf;

use clap::Subcommand;

use super::group_args::GroupArgs;
use super::step::Step;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea submit run.toml --watch
  fovea submit run.toml --set train.epochs=20 --set name=long
  fovea submit run.toml --folds 5               5-fold cross-validation, as a group of 5 runs
  fovea submit run.toml --seeds 0,1,2           the same run with three seeds
  fovea submit run.toml --folds 5 --seeds 0-2   each fold with each seed: 15 runs

With --folds the training and validation split together are dealt to K folds, patient by patient and
evenly by grade; each run validates on one fold and trains on the others. The test part is in no fold.
Either all runs of a group are accepted or none; they queue like others. `fovea group` shows them.

model.weights is the name of weights that the coordinator has, sha256:DIGEST, or a file here, which
is sent unless the coordinator has it. A relative path starts from the folder of run.toml, or from
here if it is given with --set.")]
pub struct Submit {
    /// The run file; deploy/run.toml is an example
    #[arg(value_name = "RUN.TOML")]
    pub file: PathBuf,
    /// Override a key of the run file
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    #[command(flatten)]
    pub group: GroupArgs,
    /// Follow the run until it ends, or all runs of the group
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// Show one run, as `fovea run` does
    #[command(visible_alias = "get")]
    Show {
        /// The run's id, such as dr-1
        run: String,
    },
    /// Remove ended runs from the list, and their checkpoints with --with-checkpoints
    #[command(after_help = "\
Examples:
  fovea runs rm dr-1                             a run without checkpoints
  fovea runs rm dr-1 dr-2 --with-checkpoints     and all checkpoints of these runs
  fovea runs rm dr-1 --with-checkpoints --yes    in a script

A run that has not ended is refused; so is one that has checkpoints, without --with-checkpoints.
After a failure the other runs are still removed, and the exit code is that of the first failure.")]
    Rm {
        /// Ids of runs, such as dr-1
        #[arg(required = true, value_name = "RUN")]
        runs: Vec<String>,
        /// Remove their checkpoints, too
        #[arg(long)]
        with_checkpoints: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Check that each epoch of a run used every training image, once
    #[command(after_help = "\
Example:
  fovea runs audit dr-1

The coordinator keeps a ledger of the training images that each committed step used. The audit
compares it with the plan: no step missing, none taken twice, no image left out or used twice in an
epoch, whatever workers came and went. Exit code 0 if there are no problems, 7 if there are.")]
    Audit {
        /// The run's id, such as dr-1
        run: String,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea resume dr-1 --watch            from the newest checkpoint
  fovea resume dr-1 --checkpoint 240   from an older one; the steps after it are repeated")]
pub struct Resume {
    /// The run's id, such as dr-1
    pub run: String,
    /// Continue from the checkpoint of this step, or `newest` [default: newest]
    #[arg(long, value_name = "STEP")]
    pub checkpoint: Option<Step>,
    /// Follow the run until it ends
    #[arg(long)]
    pub watch: bool,
}
