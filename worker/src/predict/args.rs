//! The arguments of `fovea-worker predict`.

use std::path::PathBuf;

use fovea_predict::args::{HELP, Wanted};

const EXAMPLES: &str = "\
Examples:
  fovea-worker predict dr-1.safetensors photographs/ -o scores.csv
  fovea-worker predict dr-1.safetensors 10_left.jpeg 10_right.jpeg --rotations --fuse-eyes
  fovea-worker predict dr-1.safetensors photographs/ -o scores.csv --maps maps --threads 8

MODEL is a checkpoint (`fovea checkpoint get`) or a file of `fovea export` that ends in .safetensors. No
coordinator is asked. On one machine the scores have the bits of `fovea evaluate` where the batches hold as
many photographs and libtorch has as many threads; the run's numbers are the default for both.

";

/// What to predict with which model, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = format!("{EXAMPLES}{HELP}"))]
pub struct Predict {
    /// The model's file: a checkpoint, or an exported .safetensors
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    #[command(flatten)]
    pub wanted: Wanted,
    /// Photographs that are scored at once [default: the run's batch]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: Option<u32>,
    /// auto, cpu or cuda:N [default: auto]
    #[arg(long)]
    pub device: Option<String>,
    /// Threads that libtorch computes with on a CPU; photographs are read by all cores [default: the run's threads]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Width and height of the images in pixels, where the model's file does not say how they were prepared
    #[arg(long, value_name = "PIXELS", requires = "preprocess")]
    pub size: Option<u32>,
}
