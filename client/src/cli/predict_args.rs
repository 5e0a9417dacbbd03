//! The arguments of `fovea predict`.

use fovea_predict::args::{HELP, Wanted};

use super::evaluate_args::WhichCheckpoint;

const EXAMPLES: &str = "\
Examples:
  fovea predict dr-1 photographs/ -o scores.csv
  fovea predict dr-1 photographs/ -o scores.csv --rotations --fuse-eyes --maps maps

The photographs are prepared here, sent to the coordinator without their names, and scored by the workers
(`fovea-worker predict` does the same on one machine, without a cluster). Afterwards they and their scores
are removed there, unless --keep is given.

";

/// What to predict with which run's model.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}{HELP}"))]
pub struct Predict {
    /// The run's id, such as dr-1
    pub run: String,
    #[command(flatten)]
    pub wanted: Wanted,
    /// The checkpoint: best, newest, or a step, as in `fovea evaluate`
    #[arg(long, value_name = "STEP", default_value = "best")]
    pub checkpoint: WhichCheckpoint,
    /// Leave the photographs and their scores at the coordinator
    #[arg(long)]
    pub keep: bool,
}
