//! The commands about what the coordinator stores: datasets, weights, checkpoints, and the store as a whole.

use std::path::PathBuf;

use clap::Subcommand;

use super::step::Step;

#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Send a prepared dataset; verifies and repairs one that the coordinator has
    #[command(after_help = "\
Example:
  fovea dataset add eyepacs-224

A dataset that the coordinator has already is compared with its digests on the coordinator's disk,
and packs that are missing or corrupt are replaced: this is the cure for a damaged dataset.")]
    Add {
        /// The folder that `fovea prepare` made
        dir: PathBuf,
    },
    /// List the coordinator's datasets, and known problems with their files
    List {
        /// Also those without grades, which `fovea predict` sent
        #[arg(long)]
        all: bool,
    },
    /// Remove datasets from the coordinator; refused while a run needs one
    Rm {
        /// Names of datasets
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum WeightsCommand {
    /// Send a file of BVLC's GoogLeNet; verifies and repairs one that the coordinator has
    #[command(after_help = "\
Examples:
  fovea weights add bvlc_googlenet.caffemodel
  fovea weights add dr-1-step-240.safetensors --name dr-best

The coordinator checks that the file (.caffemodel or .safetensors) holds every layer of GoogLeNet but
the classifier, which each run trains anew, and stores it by its SHA-256. A run names it in
model.weights, by its name or as sha256:DIGEST. A file that the coordinator has already is compared
with its digest on the coordinator's disk, and replaced if it is missing or corrupt.")]
    Add {
        /// The file
        file: PathBuf,
        /// What to call the weights [default: the file's name without its end]
        #[arg(long)]
        name: Option<String>,
    },
    /// List the coordinator's weights, who uses them, and known problems with their files
    List,
    /// Remove weights from the coordinator; refused while a run uses them
    Rm {
        /// Names or digests of weights
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// Fetch a checkpoint to a safetensors file and verify its SHA-256
    Get {
        /// The run's id, such as dr-1
        run: String,
        /// The checkpoint's step, or `newest`
        #[arg(default_value = "newest")]
        step: Step,
        /// The file to write [default: RUN-step-STEP.safetensors]
        #[arg(short, long = "output", value_name = "FILE")]
        out: Option<PathBuf>,
        /// Replace the file if it exists already
        #[arg(long)]
        overwrite: bool,
    },
    /// Read stored checkpoints again and compare their SHA-256
    #[command(after_help = "\
Examples:
  fovea checkpoint verify dr-1          all of the run
  fovea checkpoint verify dr-1 newest   only that

The coordinator reads its files. The state of each is ok, missing (its store is there, the file is
not), unreadable (it cannot be read now, which says nothing about its content) or corrupt (read to the
end, and size or digest differ). A corrupt file is put aside and no longer listed; nothing else is
changed. The manifest of each is looked at, too: without it a checkpoint is as good as before, but a
journal that is restored from an older backup cannot adopt it. Exit code 0 if all are ok, 7 if one is corrupt or missing, 8 if some are only unreadable.")]
    Verify {
        /// The run's id, such as dr-1
        run: String,
        /// The checkpoint's step, or `newest` [default: all]
        step: Option<Step>,
    },
    /// Remove checkpoints; refused for one that a run under way would resume from
    #[command(after_help = "\
Example:
  fovea checkpoint rm dr-1 120 240")]
    Rm {
        /// The run's id, such as dr-1
        run: String,
        /// Steps of checkpoints, or `newest`
        #[arg(required = true, value_name = "STEP")]
        steps: Vec<Step>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Read every pack, checkpoint, manifest and weights file of the coordinator and compare digests
    #[command(after_help = "\
Example:
  fovea admin verify

Each problem is printed with its state (missing, unreadable, corrupt, unlisted) and what to do about
it. Unlisted are checkpoints of a run that the journal does not know. Corrupt checkpoints are put
aside; nothing else is changed. Exit code 0 if there are no problems, 7 if a file is corrupt, missing
or unlisted, 8 if some merely cannot be read now.")]
    Verify {
        /// Leave out the checkpoints
        #[arg(long)]
        skip_checkpoints: bool,
        /// Leave out the datasets
        #[arg(long)]
        skip_datasets: bool,
        /// Leave out the weights
        #[arg(long)]
        skip_weights: bool,
    },
    /// Fetch a consistent copy of the coordinator's journal while runs go on
    #[command(after_help = "\
Example:
  fovea admin backup fovea-$(date +%F).tar

The backup holds all runs, ledgers, names of datasets and digests of tokens, and the coordinator's
certificate, key and CAs (with the CA's key, if tls_ca_key is set: who has that can be anybody in the
cluster), but no checkpoints and no photographs. It is a tar archive, readable by its owner only; keep it
as you keep keys. To restore it into a data folder without a journal:
  fovea-coordinator --data-dir DIR restore FILE
A restored journal adopts checkpoints in the store that are newer than itself.")]
    Backup {
        /// File to write
        file: PathBuf,
        /// Replace the file if it is there
        #[arg(long)]
        overwrite: bool,
    },
}
