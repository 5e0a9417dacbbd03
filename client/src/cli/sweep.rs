//! `fovea sweep`: a group of runs with different settings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fovea_core::group::{GroupPlan, Planned, Variant};
use fovea_core::spec::RunSpec;
use fovea_core::weights::WeightsRef;
use fovea_runfile::sweep::Sweep;

use super::groups::{self, selection_text};
use super::output::Output;
use super::record::Record;
use super::table::Table;
use super::weights::provide;
use crate::client::Client;
use crate::error::Error;
use crate::runfile::{Problem, RunFileError, Weights, resolve_weights};
use fovea_core::count::count;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fovea sweep sweep.toml --dry-run     which runs it would make; needs no coordinator
  fovea sweep sweep.toml --watch
  fovea group show dr-g7               the variants in the order of their metric, with mean and spread
  fovea group evaluate dr-g7           with intervals over patients; of one in full with --variant 3
  fovea group cancel dr-g7

The file names a run file, and which of its keys take which values:

  run = \"run.toml\"
  folds = 3
  [vary]
  train.learning_rate = [0.0005, 0.001, 0.002]
  train.batch = [8, 16]
  [selection]
  halving = [2, 5]

makes 6 variants with 3 runs each. After epoch 2, and after epoch 5, the variants are ranked by the mean of their
validation AUC; one of three goes on, the others pause and can be resumed. Which they are does not
depend on the workers. deploy/sweep.toml shows every key.")]
pub struct SweepArgs {
    /// The sweep's file; deploy/sweep.toml is an example
    #[arg(value_name = "SWEEP.TOML")]
    pub file: PathBuf,
    /// Override a key of the run file
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Show the runs that it would make, and submit none
    #[arg(long)]
    pub dry_run: bool,
    /// Follow the runs until all have ended or are paused
    #[arg(long, conflicts_with = "dry_run")]
    pub watch: bool,
}

/// A sweep that was read and checked.
pub struct Planning {
    base: RunSpec,
    plan: GroupPlan,
    runs: Vec<Planned>,
    /// What `model.weights` of each variant names.
    weights: Vec<Weights>,
    watch: bool,
}

/// Reads a sweep and checks each of its runs as far as that needs no coordinator.
pub fn plan(command: &SweepArgs) -> Result<Planning, Error> {
    let sweep = Sweep::read(&command.file, &command.overrides)?;
    let mut variants = Vec::new();
    let mut weights = Vec::new();
    // A file of weights is read once.
    let mut read: BTreeMap<PathBuf, Weights> = BTreeMap::new();
    for (label, file) in sweep.variants {
        let spec = file.spec()?;
        let path = match WeightsRef::parse(&spec.model.weights) {
            Ok(WeightsRef::Path(text)) => file.absolute("model.weights", &text).ok(),
            _ => None,
        };
        let named = match path.as_ref().and_then(|path| read.get(path)) {
            Some(weights) => weights.clone(),
            None => resolve_weights(&file, &spec)?,
        };
        if let Some(path) = path {
            read.insert(path, named.clone());
        }
        weights.push(named);
        variants.push(Variant { label, spec });
    }
    // The name, and what the file says of itself; what is varied may be missing in it.
    let base = match sweep.base.spec() {
        Ok(spec) => spec,
        Err(_) => RunSpec {
            name: sweep
                .base
                .text("name")
                .map_or_else(|| variants[0].spec.name.clone(), Into::into),
            ..variants[0].spec.clone()
        },
    };
    let plan = GroupPlan {
        variants,
        selection: sweep.selection,
        folds: sweep.folds,
        seeds: sweep.seeds,
    };
    let runs = plan.runs(&base).map_err(|error| {
        RunFileError(vec![Problem {
            place: command.file.display().to_string(),
            message: error.to_string(),
        }])
    })?;
    Ok(Planning {
        base,
        plan,
        runs,
        weights,
        watch: command.watch,
    })
}

/// Shows what would be submitted.
pub fn show(planning: &Planning, output: &Output) {
    let Planning { plan, runs, .. } = planning;
    let each = runs.len() / plan.variants.len();
    for Planned { variant, spec } in runs {
        output.record(&Record::PlannedRun {
            name: &spec.name,
            variant: *variant,
            settings: &plan.variants[*variant as usize].label,
            fold: spec.fold,
            seed: spec.seed,
            epochs: spec.train.epochs,
        });
    }
    let mut table = Table::new(&[">variant", "settings", ">runs", "names"]);
    for (at, (variant, of)) in plan.variants.iter().zip(runs.chunks(each)).enumerate() {
        let names = match of {
            [only] => only.spec.name.clone(),
            [first, .., last] => format!("{} to {}", first.spec.name, last.spec.name),
            [] => String::new(),
        };
        table.row([
            (at + 1).to_string(),
            variant.label.clone(),
            each.to_string(),
            names,
        ]);
    }
    output.lines(table.lines());
    output.line("");
    output.line(format!(
        "{} of {} each: {}",
        count(plan.variants.len(), "variant", "variants"),
        count(each, "run", "runs"),
        count(runs.len(), "run", "runs"),
    ));
    if let Some(selection) = &plan.selection {
        output.line(selection_text(selection));
    }
    output.line("nothing was submitted");
}

/// Submits the sweep, after the files of weights that it names, and follows it if asked.
pub async fn submit(client: &Client, planning: Planning, output: &Output) -> Result<(), Error> {
    let Planning {
        mut base,
        mut plan,
        runs: _,
        weights,
        watch,
    } = planning;
    for (variant, weights) in plan.variants.iter_mut().zip(&weights) {
        provide(client, &mut variant.spec, weights, output).await?;
    }
    // It stands for what is common to all; a path in it means nothing to the coordinator.
    base.model.clone_from(&plan.variants[0].spec.model);
    groups::submit_plan(client, &plan, &base, watch, output).await
}
