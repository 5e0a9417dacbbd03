//! The `fovea` command line.
//!
//! Results go to standard output; bars, remarks and errors to standard error. With `--json`, standard
//! output carries one JSON object per line and nothing else; see [`output::Record`].

mod access;
mod access_args;
mod admin;
mod advise;
mod args;
mod audit;
mod baseline;
mod baseline_args;
mod baseline_masks;
mod baseline_models;
mod baseline_table;
mod certs;
mod certs_args;
mod checkpoints;
mod datasets;
mod evaluate;
mod evaluate_args;
mod export;
mod export_args;
mod figures;
mod follow;
mod format;
mod group_args;
mod group_figures;
mod group_judge;
mod group_report;
mod groups;
mod heat_maps;
mod help;
mod local;
mod named;
mod narrate;
mod output;
mod predict;
mod predict_args;
mod prepare;
mod priority;
mod queue;
mod record;
mod remove;
mod report;
mod run_args;
mod runs;
mod sent;
mod shell;
mod step;
mod stoppable;
mod store_args;
mod sweep;
mod synthetic;
mod table;
mod tensorboard;
mod tls;
mod top;
mod weights;
mod workers;

use std::process::ExitCode;
use std::time::Duration;

use fovea_service::misspelt;

use crate::client::{Client, SkipVerify};
use crate::error::Error;
use crate::local::PASSED_ON;
use args::{
    AdminCommand, Args, CheckpointCommand, Command, DatasetCommand, RunsCommand, WeightsCommand,
};
use group_args::GroupCommand;
use output::Output;

/// Longest time for connecting to the coordinator.
const CONNECT: Duration = Duration::from_secs(5);

/// The definition of the command line, from which its reference is made.
#[must_use]
pub fn definition() -> clap::Command {
    Args::command_line()
}

/// Runs the command line and returns its exit code.
pub fn main() -> ExitCode {
    fovea_security::install_provider();
    let args = Args::read();
    warn_misspelt(&args.command);
    let output = Output::new(args.json);
    // The runtime's worker threads only move bytes. The command itself runs on this thread, which
    // must be the one that starts child processes: they die with the *thread* that started them.
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("fovea: cannot start: {e}");
            return ExitCode::from(1);
        }
    };
    let outcome = runtime.block_on(run(args, &output));
    // A blocking read of a failing disk must not delay the exit.
    runtime.shutdown_timeout(Duration::from_millis(200));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Names the variables of the environment that are probably misspelt, and so have no effect.
fn warn_misspelt(command: &Command) {
    let mut keys = Args::variables();
    // What its processes are given.
    if matches!(command, Command::Local(_)) {
        keys.extend(PASSED_ON.iter().filter_map(|name| {
            let key = name.strip_prefix("FOVEA_")?;
            Some(key.to_lowercase())
        }));
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let names: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .collect();
    for (variable, key) in misspelt(&keys, names.iter().map(String::as_str)) {
        eprintln!(
            "fovea: the environment variable {variable} has no effect; did you mean FOVEA_{}?",
            key.to_uppercase()
        );
    }
}

async fn run(args: Args, output: &Output) -> Result<(), Error> {
    named::check(&args.command)?;
    let variable = std::env::var_os("FOVEA_COORDINATOR");
    let address = args.address(variable.is_some_and(|value| value.is_empty()))?;
    let tls_args = args.tls;
    let connect = async || {
        let credentials = tls::credentials(&tls_args, &address)?;
        Client::connect_as(&address, &credentials, CONNECT).await
    };
    match args.command {
        Command::Prepare(command) => prepare::run(command, output).await,
        Command::Synthetic(command) => synthetic::run(command, output),
        Command::Certs(command) => certs::run(command, output),
        Command::Login(command) => {
            access::login(&address, &command, &tls_args, CONNECT, output).await
        }
        Command::Logout => access::logout(&address, output),
        Command::Whoami => access::whoami(&connect().await?, output).await,
        Command::Token(command) => access::token(&connect().await?, command, output).await,
        Command::Worker(command) => access::worker(&connect().await?, command, output).await,
        Command::Local(command) => local::run(command, &output.outliving_reader()).await,
        Command::Dataset(DatasetCommand::Add { dir }) => {
            datasets::add(&connect().await?, &dir, output).await
        }
        Command::Dataset(DatasetCommand::Rm { names, yes }) => {
            remove::datasets(&connect().await?, &names, yes, output).await
        }
        Command::Dataset(DatasetCommand::List { all }) => {
            datasets::list(&connect().await?, all, output).await
        }
        Command::Weights(WeightsCommand::Add { file, name }) => {
            let file = weights::read(&file, name.as_deref())?;
            weights::add(&connect().await?, &file, name.as_deref(), output).await
        }
        Command::Weights(WeightsCommand::List) => weights::list(&connect().await?, output).await,
        Command::Weights(WeightsCommand::Rm { names, yes }) => {
            remove::weights(&connect().await?, &names, yes, output).await
        }
        Command::Submit(command) => {
            // Mistakes in the file are reported before an unreachable coordinator.
            let (spec, weights) = runs::read_spec(&command)?;
            match command.group.plan() {
                None => runs::submit(&connect().await?, &command, spec, &weights, output).await,
                Some(plan) => {
                    let client = connect().await?;
                    groups::submit(&client, &plan, spec, &weights, command.watch, output).await
                }
            }
        }
        Command::Sweep(command) => {
            let planning = sweep::plan(&command)?;
            match command.dry_run {
                true => {
                    sweep::show(&planning, output);
                    Ok(())
                }
                false => sweep::submit(&connect().await?, planning, output).await,
            }
        }
        Command::Runs { command: None } => runs::list(&connect().await?, output).await,
        Command::Runs {
            command: Some(RunsCommand::Audit { run }),
        } => audit::run(&connect().await?, &run, output).await,
        Command::Runs {
            command:
                Some(RunsCommand::Rm {
                    runs,
                    with_checkpoints,
                    yes,
                }),
        } => remove::runs(&connect().await?, &runs, with_checkpoints, yes, output).await,
        Command::Run { run }
        | Command::Runs {
            command: Some(RunsCommand::Show { run }),
        } => runs::show(&connect().await?, &run, output).await,
        Command::Watch { run, patience } => {
            follow::follow(&connect().await?, &run, patience, output).await
        }
        Command::Group(command) => group(&connect().await?, command, output).await,
        Command::Evaluate(command) => evaluate::run(&connect().await?, &command, output).await,
        Command::Predict(command) => predict::run(&connect().await?, &command, output).await,
        Command::Report(command) => report::run(&connect().await?, &command, output).await,
        Command::Advise(command) => advise::run(connect, &command, output).await,
        Command::Baseline(command) => baseline::run(connect, &command, output).await,
        Command::Export(command) => export::run(connect, &command, output).await,
        Command::Tensorboard(command) => {
            tensorboard::run(&connect().await?, &command, output).await
        }
        Command::Top { every, once } => top::run(&connect().await?, every, once, output).await,
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { folder } => shell::man(&folder, output),
        Command::Queue => queue::list(&connect().await?, output).await,
        Command::Workers => workers::list(&connect().await?, output).await,
        Command::Cancel { run } => runs::cancel(&connect().await?, &run, output).await,
        Command::Priority { run, priority } => {
            priority::run(&connect().await?, &run, priority, output).await
        }
        Command::Pause { run } => runs::pause(&connect().await?, &run, output).await,
        Command::Resume(command) => runs::resume(&connect().await?, &command, output).await,
        Command::Checkpoints { run } => checkpoints::list(&connect().await?, &run, output).await,
        Command::Checkpoint(CheckpointCommand::Get {
            run,
            step,
            out,
            overwrite,
        }) => checkpoints::get(&connect().await?, &run, step, out, overwrite, output).await,
        Command::Checkpoint(CheckpointCommand::Verify { run, step }) => {
            checkpoints::verify(&connect().await?, &run, step, output).await
        }
        Command::Checkpoint(CheckpointCommand::Rm { run, steps, yes }) => {
            remove::checkpoints(&connect().await?, &run, &steps, yes, output).await
        }
        Command::Admin(AdminCommand::Verify {
            skip_checkpoints,
            skip_datasets,
            skip_weights,
        }) => {
            let skip = SkipVerify {
                checkpoints: skip_checkpoints,
                datasets: skip_datasets,
                weights: skip_weights,
            };
            admin::verify(&connect().await?, skip, output).await
        }
        Command::Admin(AdminCommand::Backup { file, overwrite }) => {
            admin::backup(&connect().await?, &file, overwrite, output).await
        }
    }
}

async fn group(client: &Client, command: GroupCommand, output: &Output) -> Result<(), Error> {
    match command {
        GroupCommand::List => groups::list(client, output).await,
        GroupCommand::Show { group } => groups::show(client, &group, output).await,
        GroupCommand::Watch { group, patience } => {
            groups::follow(client, &group, patience, output).await
        }
        GroupCommand::Cancel { group } => groups::cancel(client, &group, output).await,
        GroupCommand::Priority { group, priority } => {
            priority::group(client, &group, priority, output).await
        }
        GroupCommand::Rm {
            group,
            with_checkpoints,
            yes,
        } => remove::group(client, &group, with_checkpoints, yes, output).await,
        GroupCommand::Evaluate(command) => group_figures::run(client, &command, output).await,
        GroupCommand::Report(command) => group_report::run(client, &command, output).await,
    }
}
