//! The `fovea` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    fovea_client::cli::main()
}

#[cfg(test)]
#[path = "../../tests/reference.rs"]
mod reference;

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_is_current() {
        let page = super::reference::commands(fovea_client::cli::definition(), "client/src/cli");
        super::reference::check("fovea.md", &page);
    }
}
