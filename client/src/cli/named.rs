//! Which kind of thing a name is of: ids of runs and groups differ, so a mix-up is told before anything is asked.

use fovea_core::group::number_of;
use fovea_core::ids::GroupId;

use super::args::{Command, RunsCommand};
use crate::error::Error;

/// Refuses the id of a group where a run's is wanted.
pub fn check(command: &Command) -> Result<(), Error> {
    let (name, of_group) = match command {
        Command::Watch { run, .. } => (run, Some("watch")),
        Command::Run { run }
        | Command::Runs {
            command: Some(RunsCommand::Show { run }),
        } => (run, Some("show")),
        Command::Cancel { run } => (run, Some("cancel")),
        Command::Priority { run, .. } => (run, Some("priority")),
        Command::Evaluate(command) => (&command.run, Some("evaluate")),
        Command::Report(command) => (&command.run, Some("report")),
        Command::Pause { run } | Command::Checkpoints { run } => (run, None),
        Command::Resume(command) => (&command.run, None),
        Command::Export(command) => (&command.model, None),
        Command::Predict(command) => (&command.run, None),
        _ => return Ok(()),
    };
    // What the command for a group wants beside its name.
    let then = match command {
        Command::Priority { priority, .. } => format!(" {priority}"),
        _ => String::new(),
    };
    if let Command::Predict(_) = command
        && name.ends_with(".safetensors")
    {
        return Err(Error::Usage(format!(
            "{name} is a checkpoint's file, and `fovea predict` takes the id of a run: `fovea-worker predict {name} PHOTOGRAPHS` scores with a file"
        )));
    }
    let is_group = GroupId::new(name.as_str()).is_ok_and(|id| number_of(&id).is_some());
    match (is_group, of_group) {
        (false, _) => Ok(()),
        (true, Some(verb)) => Err(Error::Usage(format!(
            "{name} is a group: `fovea group {verb} {name}{then}`"
        ))),
        (true, None) => Err(Error::Usage(format!(
            "{name} is a group; give one of its runs, which `fovea group show {name}` lists"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photographs_are_scored_by_a_run() {
        use clap::Parser;
        let message = |model: &str| {
            let given = ["fovea", "predict", model, "photographs"];
            let command = super::super::args::Args::try_parse_from(given)
                .unwrap()
                .command;
            check(&command).unwrap_err().to_string()
        };
        let group = message("dr-g1");
        assert!(group.contains("give one of its runs"), "{group}");
        let file = message("models/dr-1.safetensors");
        assert!(
            file.contains("`fovea-worker predict models/dr-1.safetensors PHOTOGRAPHS`"),
            "{file}"
        );
    }

    #[test]
    fn a_group_is_no_run() {
        let watch = |run: &str| Command::Watch {
            run: run.into(),
            patience: 1,
        };
        assert!(check(&watch("dr-1")).is_ok());
        let said = check(&watch("dr-g1")).unwrap_err().to_string();
        assert_eq!(said, "dr-g1 is a group: `fovea group watch dr-g1`");
        let run = "dr-g1".to_owned();
        let said = check(&Command::Pause { run }).unwrap_err().to_string();
        assert!(
            said.contains("one of its runs, which `fovea group show dr-g1` lists"),
            "{said}"
        );
    }
}
