//! What can be written after `fovea`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand};

use super::help::{EXAMPLES, JSON_HELP};
use crate::VERSION;
use crate::error::EXIT_CODES;
use fovea_dataset::MaxBad;

/// Fine-tune GoogLeNet on diabetic-retinopathy images over a cluster of workers.
#[derive(Debug, Parser)]
#[command(name = "fovea", version = VERSION, about, after_help = EXAMPLES)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}\n\n{JSON_HELP}"))]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    /// Address of the coordinator
    #[arg(
        long,
        global = true,
        env = "FOVEA_COORDINATOR",
        value_name = "URL",
        default_value = "http://127.0.0.1:7070"
    )]
    pub coordinator: String,

    /// Print one JSON object a line, for scripts (`fovea --help` lists their fields)
    #[arg(long, global = true)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a dataset from photographs and their labels
    Prepare(Prepare),
    /// Draw SYNTHETIC photographs to try things with; they show no patient
    Synthetic(Synthetic),
    /// Give datasets to the coordinator, and see which it holds
    #[command(subcommand)]
    Dataset(DatasetCommand),
    /// Submit a run
    Submit(Submit),
    /// List all runs, newest first; `fovea runs audit` checks one
    Runs {
        #[command(subcommand)]
        command: Option<RunsCommand>,
    },
    /// Show one run: its settings, results and checkpoints
    Run {
        /// The run's id, such as dr-1
        run: String,
    },
    /// Follow a run until it ends or is paused; reconnects by itself
    Watch {
        /// The run's id, such as dr-1
        run: String,
        /// Give up when the coordinator was silent for so many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        patience: u64,
    },
    /// Stop a run at its next step, with a checkpoint
    Cancel {
        /// The run's id, such as dr-1
        run: String,
    },
    /// Stop a run at its next step, with a checkpoint, to go on later with `fovea resume`
    Pause {
        /// The run's id, such as dr-1
        run: String,
    },
    /// Go on with a paused, failed or cancelled run from a checkpoint
    Resume(Resume),
    /// List the checkpoints of a run
    Checkpoints {
        /// The run's id, such as dr-1
        run: String,
    },
    /// Fetch a checkpoint, or check those that are stored
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Train on this machine: starts a coordinator and workers, runs, and stops them
    Local(Local),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea prepare eyepacs --out eyepacs-224              a folder with trainLabels.csv and images/
  fovea prepare --labels train.csv --images train_images --out aptos --size 299
  fovea prepare eyepacs --out eyepacs-224 --max-bad 1% leave out up to 1 % unusable images

The label file has a header: image,level (EyePACS), id_code,diagnosis (APTOS) or Image name,
Retinopathy grade (IDRiD). All images of a patient stay on one side of the split; patients are
told from names such as 10_left or P003_L, or from a column `patient`.")]
pub struct Prepare {
    /// A folder with trainLabels.csv and images/, instead of --labels and --images
    #[arg(value_name = "FOLDER", required_unless_present_all = ["labels", "images"])]
    pub folder: Option<PathBuf>,
    /// The label file
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// The folder with the photographs
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// The folder to make
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Name of the dataset [default: the name of the folder to make]
    #[arg(long)]
    pub name: Option<String>,
    /// Width and height of the prepared images in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 224)]
    pub size: u32,
    /// Share of the patients that is held out for validation
    #[arg(long, value_name = "SHARE", default_value_t = 0.25)]
    pub validation: f64,
    /// Seed of the split
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// A CSV file image,split (train or validation) that imposes the split
    #[arg(long, value_name = "FILE", conflicts_with = "validation")]
    pub split: Option<PathBuf>,
    /// Leave out so many unusable images at most: a number, or a share such as 1%
    #[arg(long, value_name = "N|x%", default_value = "0")]
    pub max_bad: MaxBad,
    /// Threads [default: one a core]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    /// Replace the dataset that --out holds already
    #[arg(long)]
    pub overwrite: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  fovea synthetic --out drawings && fovea prepare drawings --out drawings-64 --size 64

The photographs are drawn by this program. They show no patient, and a model trained on them knows
nothing about eyes.")]
pub struct Synthetic {
    /// The folder to make: images/, trainLabels.csv and a README
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How many patients, of two photographs each
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub patients: u32,
    /// Width and height of the photographs in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 256)]
    pub size: u32,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Send a prepared dataset; does nothing when the coordinator has it
    Add {
        /// The folder that `fovea prepare` made
        dir: PathBuf,
    },
    /// List the datasets that the coordinator holds
    List,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea submit run.toml --watch
  fovea submit run.toml --set train.epochs=20 --set name=long

A relative model.weights is looked for from the folder of run.toml (or from here, if given with
--set), made absolute, and pinned by its SHA-256 when it can be read here.")]
pub struct Submit {
    /// The run file; deploy/run.toml is an example
    #[arg(value_name = "RUN.TOML")]
    pub file: PathBuf,
    /// Override a key of the run file
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Follow the run until it ends
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// Check that each epoch of a run used every training image, once
    #[command(after_help = "\
Example:
  fovea runs audit dr-1

The coordinator keeps a ledger of the training images that each committed step used. The audit
compares it with the plan: no step missing, none taken twice, no image left out or used twice in an
epoch, whatever workers came and went. Exit code 0 when all is right, 7 when there are problems.")]
    Audit {
        /// The run's id, such as dr-1
        run: String,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea resume dr-1 --watch            from the newest checkpoint
  fovea resume dr-1 --checkpoint 240   from an older one; what came after is taken again")]
pub struct Resume {
    /// The run's id, such as dr-1
    pub run: String,
    /// Go on from the checkpoint of this step [default: the newest]
    #[arg(long, value_name = "STEP")]
    pub checkpoint: Option<u64>,
    /// Follow the run until it ends
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// Fetch a checkpoint to a safetensors file, checked by its SHA-256
    Get {
        /// The run's id, such as dr-1
        run: String,
        /// The checkpoint's step, or `newest`
        #[arg(default_value = "newest")]
        step: Step,
        /// The file to write [default: RUN-step-STEP.safetensors]
        #[arg(short, long = "output", value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Read stored checkpoints again and compare their SHA-256
    #[command(after_help = "\
Examples:
  fovea checkpoint verify dr-1          all of the run
  fovea checkpoint verify dr-1 newest   only that

The files are read where the coordinator keeps them. A damaged one is put aside there and listed no
more. Exit code 0 when all are whole, 7 when one is damaged.")]
    Verify {
        /// The run's id, such as dr-1
        run: String,
        /// The checkpoint's step, or `newest` [default: all]
        step: Option<Step>,
    },
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea local -n 2 --dataset eyepacs-224 run.toml
  fovea local --dataset eyepacs-224 --set train.epochs=2 run.toml
  fovea local --data-dir fovea-local                list what was run there
  fovea local --data-dir fovea-local --resume dr-1  go on with a run that was stopped

Ctrl-C stops the run with a checkpoint; a second one stops at once. Everything lies in --data-dir:
logs/*.log, coordinator/ with the central checkpoints, and for each run RUN/model.safetensors and
RUN/metrics.json. workers.min and workers.max become the number of workers, and train.threads the
cores for each, unless run.toml or --set gives them.")]
pub struct Local {
    /// The run file; deploy/run.toml is an example
    #[arg(value_name = "RUN.TOML", conflicts_with = "resume")]
    pub file: Option<PathBuf>,
    /// Workers to start [default: 2; with --resume as many as the run wants]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: Option<u32>,
    /// The prepared dataset to train on [default: the one that run.toml names and --data-dir holds]
    #[arg(long, value_name = "DIR")]
    pub dataset: Option<PathBuf>,
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "fovea-local")]
    pub data_dir: PathBuf,
    /// Override a key of the run file
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Go on with a run of --data-dir
    #[arg(long, value_name = "RUN")]
    pub resume: Option<String>,
    /// With --resume: from the checkpoint of this step [default: the newest]
    #[arg(long, value_name = "STEP", conflicts_with = "file")]
    pub checkpoint: Option<u64>,
    /// Device of the workers, as fovea-worker knows them [default: its own choice]
    #[arg(long)]
    pub device: Option<String>,
    /// Folder with fovea-coordinator and fovea-worker [default: beside fovea, then PATH]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}

/// Which checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// That of the most steps.
    Newest,
    /// That of so many steps.
    At(u64),
}

impl Step {
    /// As the wire has it: None for the newest.
    pub fn number(self) -> Option<u64> {
        match self {
            Step::Newest => None,
            Step::At(step) => Some(step),
        }
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "newest" => Ok(Step::Newest),
            _ => text
                .parse()
                .map(Step::At)
                .map_err(|_| "give the step as a number, or `newest`".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_is_written_is_understood() {
        let parse = |line: &str| Args::try_parse_from(line.split(' '));
        for good in [
            "fovea prepare folder --out d",
            "fovea prepare --labels l.csv --images i --out d --max-bad 2%",
            "fovea submit run.toml --watch --set a=b --set c=d",
            "fovea --json runs",
            "fovea runs --json --coordinator http://h:1",
            "fovea runs audit dr-1",
            "fovea --json runs audit dr-1",
            "fovea pause dr-1",
            "fovea resume dr-1 --checkpoint 40",
            "fovea checkpoint get dr-1 newest -o f",
            "fovea checkpoint get dr-1 40",
            "fovea checkpoint verify dr-1",
            "fovea checkpoint verify dr-1 40",
            "fovea checkpoint verify dr-1 newest",
            "fovea local -n 2 --dataset d run.toml",
            "fovea local --resume dr-1 --checkpoint 3",
        ] {
            assert!(parse(good).is_ok(), "{good}: {}", parse(good).unwrap_err());
        }
        for bad in [
            "fovea",
            "fovea prepare --out d",
            "fovea prepare --labels l.csv --out d",
            "fovea prepare f --out d --max-bad lots",
            "fovea pause",
            "fovea runs audit",
            "fovea runs dr-1",
            "fovea checkpoint get dr-1 oldest",
            "fovea checkpoint verify",
            "fovea checkpoint verify dr-1 oldest",
            "fovea local -n 0 run.toml",
            "fovea local --resume dr-1 run.toml",
        ] {
            assert_eq!(
                parse(bad).map_err(|e| e.exit_code()).unwrap_err(),
                2,
                "{bad}"
            );
        }
    }
}
