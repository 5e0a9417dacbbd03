//! Completions for shells, and man pages, from the definition of the command line.

use std::io::Write;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Args;
use super::output::Output;
use crate::error::Error;

/// Writes the completions for a shell to standard output.
pub fn completions(shell: Shell) -> Result<(), Error> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "fovea", &mut text);
    std::io::stdout()
        .write_all(&text)
        .map_err(|error| Error::io("standard output", error))
}

/// Writes a man page for `fovea` and for each of its commands into a folder, which is made if it is not there.
pub fn man(folder: &Path, output: &Output) -> Result<(), Error> {
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Args::command(), folder))
        .map_err(|error| Error::io(folder, error))?;
    output.line(format!(
        "the pages are in {}: `man -l {}` shows the first",
        folder.display(),
        folder.join("fovea.1").display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        man(folder.path(), &Output::new(true)).unwrap();
        for page in [
            "fovea.1",
            "fovea-submit.1",
            "fovea-checkpoint-get.1",
            "fovea-queue.1",
        ] {
            let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}");
        }
    }

    #[test]
    fn every_shell_gets_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "fovea", &mut text);
            let text = String::from_utf8(text).unwrap();
            for command in ["submit", "queue", "checkpoint", "predict"] {
                assert!(text.contains(command), "{shell}: {command}");
            }
        }
    }
}
