//! The `fovea` command line.
//!
//! Results go to standard output, bars and complaints to standard error. With `--json`, standard
//! output carries one JSON object a line and nothing else; see [`output::Record`].

mod args;
mod audit;
mod checkpoints;
mod datasets;
mod follow;
mod format;
mod help;
mod local;
mod narrate;
mod output;
mod prepare;
mod runs;
mod synthetic;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::client::Client;
use crate::error::Error;
use args::{Args, CheckpointCommand, Command, DatasetCommand, RunsCommand};
use output::Output;

/// How long the first attempt to reach the coordinator may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Reads the command line, does what it asks, and says how it went.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let output = Output::new(args.json);
    // The runtime's worker threads only move bytes; the command itself runs on this thread, which
    // also is the one that starts child processes (they are told to die with their parent *thread*).
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
    // A blocking read of a dying disk must not keep the program.
    runtime.shutdown_timeout(Duration::from_millis(200));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(args: Args, output: &Output) -> Result<(), Error> {
    let address = args.coordinator.clone();
    let connect = || Client::connect(&address, CONNECT);
    match args.command {
        Command::Prepare(command) => prepare::run(command, output).await,
        Command::Synthetic(command) => synthetic::run(command, output),
        Command::Local(command) => local::run(command, output).await,
        Command::Dataset(DatasetCommand::Add { dir }) => {
            datasets::add(&connect().await?, &dir, output).await
        }
        Command::Dataset(DatasetCommand::List) => datasets::list(&connect().await?, output).await,
        Command::Submit(command) => {
            // A file that is no run is told before a coordinator that is not there.
            let spec = runs::read_spec(&command, output)?;
            runs::submit(&connect().await?, &command, spec, output).await
        }
        Command::Runs { command: None } => runs::list(&connect().await?, output).await,
        Command::Runs {
            command: Some(RunsCommand::Audit { run }),
        } => audit::run(&connect().await?, &run, output).await,
        Command::Run { run } => runs::show(&connect().await?, &run, output).await,
        Command::Watch { run, patience } => {
            follow::follow(&connect().await?, &run, patience, output).await
        }
        Command::Cancel { run } => runs::cancel(&connect().await?, &run, output).await,
        Command::Pause { run } => runs::pause(&connect().await?, &run, output).await,
        Command::Resume(command) => runs::resume(&connect().await?, &command, output).await,
        Command::Checkpoints { run } => checkpoints::list(&connect().await?, &run, output).await,
        Command::Checkpoint(CheckpointCommand::Get { run, step, out }) => {
            checkpoints::get(&connect().await?, &run, step, out, output).await
        }
        Command::Checkpoint(CheckpointCommand::Verify { run, step }) => {
            checkpoints::verify(&connect().await?, &run, step, output).await
        }
    }
}
