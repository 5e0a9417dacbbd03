//! The `fovea` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    fovea_client::cli::main()
}
