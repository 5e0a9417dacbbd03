//! `make bench-coordinator`: what the coordinator costs, and how fast it answers. Prints one JSON object a line.
//!
//! The workers are simulated; the coordinator is the real program. `--help` lists the sizes.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use fovea_tests::coordinator_bench::cluster::{self, ClusterOptions};
use fovea_tests::coordinator_bench::stored::{self, StoredOptions};
use fovea_tests::synthetic_dataset;
use serde::Serialize;

/// Patients of two images each, most of which are trained on.
const PATIENTS: u32 = 320;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Many workers and runs
    Cluster,
    /// Long ledgers
    Stored,
    /// Both, one after the other
    All,
}

/// Measures a coordinator with simulated workers
#[derive(Debug, Parser)]
struct Args {
    /// What to measure
    #[arg(long, value_enum, default_value = "all")]
    part: Part,
    /// Workers without a run
    #[arg(long, default_value_t = 1000)]
    idle: usize,
    /// Running runs
    #[arg(long, default_value_t = 100)]
    runs: usize,
    /// Workers of each run
    #[arg(long, default_value_t = 10)]
    workers_per_run: usize,
    /// How long to measure them
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Runs in the journal
    #[arg(long, default_value_t = 200)]
    stored_runs: u64,
    /// Steps in the ledger of each
    #[arg(long, default_value_t = 100_000)]
    stored_steps: u64,
    /// Steps in the ledger of the run that is audited
    #[arg(long, default_value_t = 1_000_000)]
    audit_steps: u64,
    /// Keep data and logs in this folder
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn main() {
    let args = Args::parse();
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let dir = args.dir.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(dir).expect("the folder can be made");
    let prepared = synthetic_dataset(dir, PATIENTS, 32);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if args.part != Part::Stored {
        let options = ClusterOptions {
            idle_workers: args.idle,
            runs: args.runs,
            workers_per_run: args.workers_per_run,
            seconds: args.seconds,
        };
        let folder = dir.join("cluster");
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        print(&runtime.block_on(cluster::measure(&folder, &prepared, options)));
    }
    if args.part != Part::Cluster {
        let options = StoredOptions {
            stored_runs: args.stored_runs,
            stored_steps: args.stored_steps,
            audit_steps: args.audit_steps,
        };
        let folder = dir.join("stored");
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        print(&runtime.block_on(stored::measure(&folder, &prepared, options)));
    }
}

fn print(figures: &impl Serialize) {
    println!(
        "{}",
        serde_json::to_string(figures).expect("figures are JSON")
    );
}
