//! The command line: commands, options and their help.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Command as ClapCommand, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::access_args::{Login, TokenCommand, WorkerCommand};
use super::advise::Advise;
use super::baseline_args::Baseline;
use super::certs_args::CertsCommand;
use super::evaluate_args::{Evaluate, Report};
use super::export_args::Export;
use super::group_args::GroupCommand;
use super::help::{EXAMPLES, JSON_HELP};
use super::predict_args::Predict;
use super::priority::value;
use super::sweep::SweepArgs;
use super::tensorboard::Tensorboard;
use crate::VERSION;
use crate::error::{EXIT_CODES, Error};
use fovea_core::priority::Priority;
use fovea_dataset::labels::{ColumnNames, Importer};
use fovea_dataset::patient::PatientPattern;
use fovea_dataset::{MaxBad, Preprocessing};

pub use super::run_args::{Resume, RunsCommand, Submit};
pub use super::step::Step;
pub use super::store_args::{AdminCommand, CheckpointCommand, DatasetCommand, WeightsCommand};

/// The coordinator on this machine, as it listens by default.
const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:7070";

/// The heading of the options that all commands have.
const GLOBAL: &str = "Global options";

/// Fine-tune GoogLeNet on diabetic-retinopathy images over a cluster of workers.
#[derive(Debug, Parser)]
#[command(name = "fovea", version = VERSION, after_help = EXAMPLES)]
#[command(after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}\n\n{JSON_HELP}"))]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    /// Address of the coordinator
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        env = "FOVEA_COORDINATOR",
        value_name = "URL",
        default_value = DEFAULT_COORDINATOR
    )]
    pub coordinator: String,

    #[command(flatten)]
    pub tls: TlsArgs,

    /// Print one JSON object per line, for scripts (`fovea --help` lists their fields)
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,

    #[command(subcommand)]
    pub command: Command,
}

/// The files of a person who talks to a coordinator with TLS.
#[derive(Debug, Default, clap::Args)]
pub struct TlsArgs {
    /// Your certificate (PEM), for a coordinator with TLS
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        env = "FOVEA_TLS_CERTIFICATE",
        value_name = "FILE",
        value_parser = path()
    )]
    pub tls_certificate: Option<PathBuf>,
    /// The private key of your certificate (PEM, mode 0600)
    #[arg(long, global = true, help_heading = GLOBAL, env = "FOVEA_TLS_KEY", value_name = "FILE", value_parser = path())]
    pub tls_key: Option<PathBuf>,
    /// The cluster's CA (PEM): the coordinator's certificate must be signed by it
    #[arg(long, global = true, help_heading = GLOBAL, env = "FOVEA_TLS_CA", value_name = "FILE", value_parser = path())]
    pub tls_ca: Option<PathBuf>,
    /// A file with your token (mode 0600), instead of a certificate and of what you have logged in with
    #[arg(long, global = true, help_heading = GLOBAL, env = "FOVEA_TOKEN_FILE", value_name = "FILE", value_parser = path())]
    pub token_file: Option<PathBuf>,
}

/// A path that may be empty: an empty variable names no file.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Commands that talk to no coordinator: its options are not in their help. They are taken all the same, so that an alias
/// with them can be used for every command.
const WITHOUT_COORDINATOR: [&str; 4] = ["prepare", "synthetic", "certs", "local"];
/// Commands for people alone, which refuse --json.
const WITHOUT_JSON: [&str; 1] = ["top"];
/// Commands that need the coordinator's address and no certificate.
const WITHOUT_CERTIFICATE: [&str; 2] = ["login", "logout"];

impl Args {
    /// The command line, with the help of each command reduced to what it needs.
    pub fn command_line() -> ClapCommand {
        let root = Self::command();
        let hidden = |and_coordinator: bool| {
            let options = root.get_arguments().filter(|option| {
                let is_coordinator = option.get_id() == "coordinator";
                option.get_env().is_some() && (and_coordinator || !is_coordinator)
            });
            options
                .cloned()
                .map(|option| option.hide(true))
                .collect::<Vec<_>>()
        };
        let (all, files) = (hidden(true), hidden(false));
        let json = root
            .get_arguments()
            .filter(|option| option.get_id() == "json");
        let json = json.cloned().map(|option| option.hide(true)).collect();
        let mut root = root.clone();
        for (names, options) in [
            (&WITHOUT_COORDINATOR[..], all),
            (&WITHOUT_CERTIFICATE, files),
            (&WITHOUT_JSON, json),
        ] {
            for name in names {
                // What a command has itself is not inherited.
                root = root.mut_subcommand(name, |command| command.args(options.clone()));
            }
        }
        root
    }

    /// Reads the command line; ends the program if it cannot be, or if help is asked for.
    pub fn read() -> Self {
        let matches = Self::command_line().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// The coordinator's address. An empty variable is one that is not set.
    ///
    /// # Errors
    /// The flag is empty.
    pub fn address(&self, variable_is_empty: bool) -> Result<String, Error> {
        match self.coordinator.trim() {
            "" if variable_is_empty => Ok(DEFAULT_COORDINATOR.into()),
            "" => Err(Error::Usage(
                "--coordinator is empty; write https://HOST:PORT (http:// without TLS), or leave it out".into(),
            )),
            address => Ok(address.to_owned()),
        }
    }

    /// The variables of the environment that have an effect, without FOVEA_, in lower case.
    pub fn variables() -> Vec<String> {
        let root = Self::command();
        let variables = root.get_arguments().filter_map(|option| option.get_env());
        let key =
            |name: &std::ffi::OsStr| Some(name.to_str()?.strip_prefix("FOVEA_")?.to_lowercase());
        variables.filter_map(key).collect()
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a dataset from photographs and their labels
    Prepare(Prepare),
    /// Draw SYNTHETIC photographs to try Fovea with; they show no patient
    Synthetic(Synthetic),
    /// Add, repair, list and remove the coordinator's datasets
    #[command(subcommand)]
    Dataset(DatasetCommand),
    /// Add, repair, list and remove the weights that runs start from
    #[command(subcommand)]
    Weights(WeightsCommand),
    /// Say which transfer strategy suits a dataset, and why
    Advise(Advise),
    /// Submit a run, or a group of runs
    Submit(Submit),
    /// List all runs, newest first; show, audit or remove some
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
        /// Give up when nothing was received from the coordinator for so many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        patience: u64,
    },
    /// Submit a sweep: runs with different settings, as a group
    Sweep(SweepArgs),
    /// List, show, follow, evaluate and cancel groups: runs that were submitted together
    #[command(subcommand)]
    Group(GroupCommand),
    /// Evaluate a run's model, with intervals over patients
    Evaluate(Evaluate),
    /// Fit classical classifiers to explicit features, to compare a network with
    Baseline(Box<Baseline>),
    /// Score photographs with a run's model, on the cluster
    Predict(Box<Predict>),
    /// Write a run's report, one HTML file
    Report(Report),
    /// Write a run's model as ONNX or safetensors, for other programs
    Export(Export),
    /// Write runs as event files, for TensorBoard
    Tensorboard(Tensorboard),
    /// List the connected workers: what each does, or why it does nothing
    #[command(after_help = "\
The states are idle, preparing (for a run), training, waiting (a run wants workers and cannot have this
one now), barred (it failed a run and is not asked for a while), left out (of a run, because of trouble
of its own: memory, disk, data, content, device or system) and leaving (it shuts down). A line below
the table says why. memory is what the worker uses and could use (of its GPU: what all processes use,
and its size), step is the time of its last steps, waiting the part of them in which it waits for others,
seen is when the coordinator last heard it, and token is the id of the token with which it joined
(`fovea token list`), where some have. Columns that do not fit are left out; --json has everything.")]
    Workers,
    /// List the queued runs in the order in which they get workers, and why each waits
    #[command(after_help = "\
A run of higher priority (`priority` in run.toml: low, normal or high) comes first, then the earlier one. Waiting raises
the place of a run by one priority an hour (priority_age_s at the coordinator). A run that has too few workers takes them
from runs of lower priority: what they have beyond workers.min, or else all, with a checkpoint; they go on later, with the
same result to the bit. `fovea priority` changes the priority of a run.")]
    Queue,
    /// Runs, queue, workers and disk on one screen, until Ctrl-C
    Top {
        /// Seconds between two updates
        #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
        every: u64,
        /// Print one screen and exit, as without a terminal
        #[arg(long)]
        once: bool,
    },
    /// Set the priority of a run that has not ended, at once
    #[command(after_help = "\
Examples:
  fovea priority dr-1 high      a queued run goes ahead, and takes workers from lower runs if it has too few
  fovea priority dr-1 low       a run that trains gives its workers up if a higher one has too few

The result of a run does not depend on it, to the bit. A run that has just got workers back keeps them for min_hold_s
(at the coordinator), whatever its priority. `fovea queue` shows the order; `fovea group priority` sets that of a group.")]
    Priority {
        /// The run's id, such as dr-1
        run: String,
        /// Its priority from now on
        #[arg(value_parser = value())]
        priority: Priority,
    },
    /// Stop a run at its next step, with a checkpoint
    Cancel {
        /// The run's id, such as dr-1
        run: String,
    },
    /// Stop a run at its next step, with a checkpoint, to continue later with `fovea resume`
    Pause {
        /// The run's id, such as dr-1
        run: String,
    },
    /// Continue a paused, failed or cancelled run from a checkpoint
    Resume(Resume),
    /// List the checkpoints of a run
    Checkpoints {
        /// The run's id, such as dr-1
        run: String,
    },
    /// Fetch, verify and remove checkpoints
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Look after the coordinator's store
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Make, show and renew the certificates of a cluster with TLS
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Keep a token for a coordinator with TLS, instead of a certificate
    Login(Login),
    /// Forget the token for a coordinator
    Logout,
    /// Say who the coordinator takes you for
    Whoami,
    /// Make, list and revoke tokens, for people and for workers that join
    #[command(subcommand)]
    Token(TokenCommand),
    /// Shut out a worker, or let it in again
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Print completions for a shell: `source <(fovea completions bash)`
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages of all commands into a folder
    Man {
        /// The folder
        folder: PathBuf,
    },
    /// Train on this machine: starts a coordinator and workers, runs, and stops them
    Local(Local),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea prepare eyepacs --out eyepacs-224              a folder with trainLabels.csv and images/
  fovea prepare --labels train.csv --images train_images --out aptos --size 299
  fovea prepare eyepacs --out eyepacs-224 --max-bad 1% leave out up to 1 % unusable images
  fovea prepare brset --from brset --out brset-512 --size 512
  fovea prepare --labels l.csv --images photos --columns image=file,grade=dr,patient=mrn --out own

The label file is a table with a header, separated by commas, semicolons, tabs or bars: image,level (EyePACS),
id_code,diagnosis (APTOS), Image name,Retinopathy grade (IDRiD), or as --from or --columns says. All
images of a patient stay on one side of the split. The patient is a column such as patient_id, subject
or case, else taken from names such as 10_left, P003-OD-1 or 12_l2. If more than 5 % of the images tell
no patient, nothing is made unless --each-image-a-patient is given.")]
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
    /// What is done with the photographs: crop, none, ben-graham or clahe
    ///
    /// crop cuts out the square around the fundus; none keeps the whole photograph, in a black square;
    /// ben-graham shows each photograph relative to its local mean (gain=4, kept=0.9,
    /// radius_per_sigma=30), grey beyond 0.9 of the radius; clahe equalizes the lightness tile by tile
    /// (clip=2, tiles=8). Others than these values: clahe:clip=3,tiles=4. A run's model is only given
    /// images that were made the same way.
    #[arg(long, value_name = "NAME", default_value = "crop")]
    pub preprocess: Preprocessing,
    /// Share of the patients to hold out for validation
    #[arg(long, value_name = "SHARE", default_value_t = 0.25)]
    pub validation: f64,
    /// Share of the patients to keep for a test at the end: neither training nor validation reads them
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub test: f64,
    /// Seed of the split
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The data set that it is: eyepacs, aptos, idrid, messidor, messidor2, deepdrid, ddr, brset, retinamnist (FOLDER is the
    /// .npz file), or folders (FOLDER holds a folder for each grade)
    ///
    /// Fovea then knows its columns, its scale, who the patient is and how many images it has. Without
    /// --labels and --images they are looked for in FOLDER where the data set has them.
    #[arg(long, value_name = "DATA SET")]
    pub from: Option<Importer>,
    /// The label file's columns: image=NAME,grade=NAME,patient=NAME,eye=NAME, those that are needed
    ///
    /// patient=none says that no column is the patient.
    #[arg(long, value_name = "COLUMNS")]
    pub columns: Option<ColumnNames>,
    /// A regular expression on images' names whose first group, or group `patient`, is the patient
    #[arg(long, value_name = "REGEX")]
    pub patient_pattern: Option<PatientPattern>,
    /// Count each image whose patient is not told as a patient of its own, however many they are
    #[arg(long)]
    pub each_image_a_patient: bool,
    /// A table image,split (train, validation or test) with the split to use
    #[arg(long, value_name = "FILE", conflicts_with_all = ["validation", "test"])]
    pub split: Option<PathBuf>,
    /// Leave out at most so many unusable images: a number, or a share such as 1%
    #[arg(long, value_name = "N|x%", default_value = "0")]
    pub max_bad: MaxBad,
    /// Do not count images without a label as bad; otherwise they are when more than 1 % have none
    #[arg(long)]
    pub allow_unlabelled: bool,
    /// Keep photographs that are there several times, under names of different patients
    #[arg(long)]
    pub allow_duplicates: bool,
    /// Threads [default: one per core]
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

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea local -n 2 --dataset eyepacs-224 run.toml
  fovea local --dataset eyepacs-224 --set train.epochs=2 run.toml
  fovea local --data-dir fovea-local                list the runs there
  fovea local --data-dir fovea-local --resume dr-1  continue a run that was stopped

Ctrl-C, TERM, HUP, USR1 or USR2 stops the run with a checkpoint; a second signal stops at once. A HUP
that is ignored at the start (nohup) stays ignored. All files are in --data-dir: logs/*.log,
coordinator/ with the central checkpoints, and for each run RUN/model.safetensors and RUN/report.html. workers.min and
workers.max become the number of workers, and train.threads the cores for each, unless run.toml or
--set gives them.

Of the FOVEA_* variables, coordinator and workers see only FOVEA_CACHE_DISK_MIB, FOVEA_CACHE_MIB,
FOVEA_GPU_KERNELS, FOVEA_IMAGES_MIB, FOVEA_LOG_FORMAT, FOVEA_LOG_LEVEL, FOVEA_MIN_FREE_MIB, FOVEA_PREFETCH,
FOVEA_PROFILE, FOVEA_PROFILE_AFTER and FOVEA_PROFILE_STEPS: the others may be meant for another cluster.")]
pub struct Local {
    /// The run file; deploy/run.toml is an example
    #[arg(value_name = "RUN.TOML", conflicts_with = "resume")]
    pub file: Option<PathBuf>,
    /// Workers to start [default: 2; with --resume the run's workers.min]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: Option<u32>,
    /// The prepared dataset to train on [default: the one that run.toml names and --data-dir holds]
    #[arg(long, value_name = "DIR")]
    pub dataset: Option<PathBuf>,
    /// The folder for all files
    #[arg(long, value_name = "DIR", default_value = "fovea-local")]
    pub data_dir: PathBuf,
    /// Override a key of the run file
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Continue a run of --data-dir
    #[arg(long, value_name = "RUN")]
    pub resume: Option<String>,
    /// With --resume: from the checkpoint of this step, or `newest` [default: newest]
    #[arg(long, value_name = "STEP", conflicts_with = "file")]
    pub checkpoint: Option<Step>,
    /// Device of the workers, as in `fovea-worker --device` [default: the worker's choice]
    #[arg(long)]
    pub device: Option<String>,
    /// Folder with fovea-coordinator and fovea-worker [default: beside fovea, then PATH]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests;
