//! `fovea priority` and `fovea group priority`.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use fovea_core::count::count;
use fovea_core::priority::Priority;

use super::output::Output;
use super::record::Record;
use crate::client::Client;
use crate::error::Error;
use crate::view::{Phase, RunInfo};

/// A priority on the command line.
pub fn value() -> impl TypedValueParser<Value = Priority> {
    let names = Priority::ALL.map(|priority| {
        let what = match priority {
            Priority::Low => "may wait, and gives its workers to all others",
            Priority::Normal => "what a run has that names none",
            Priority::High => "cannot wait",
        };
        PossibleValue::new(priority.as_str()).help(what)
    });
    PossibleValuesParser::new(names).map(|name| {
        let known = Priority::ALL.into_iter().find(|p| p.as_str() == name);
        // There is no other name.
        known.unwrap_or_default()
    })
}

/// Sets the priority of a run.
pub async fn run(
    client: &Client,
    run_id: &str,
    priority: Priority,
    output: &Output,
) -> Result<(), Error> {
    let run = client.set_priority(run_id, priority).await?;
    output.record(&Record::Run(&run));
    output.lines(next_steps(&run));
    Ok(())
}

/// The new priority, and what can be done next in the phase of the run.
fn next_steps(run: &RunInfo) -> Vec<String> {
    let RunInfo { id, priority, .. } = run;
    let now = format!("run {id} has {priority} priority from now on");
    match run.phase {
        Phase::Queued => vec![now, "see who comes first with: fovea queue".into()],
        Phase::Paused => vec![now, format!("continue it with: fovea resume {id}")],
        _ => vec![now],
    }
}

/// Sets the priority of the runs of a group.
pub async fn group(
    client: &Client,
    group_id: &str,
    priority: Priority,
    output: &Output,
) -> Result<(), Error> {
    let group = client.set_group_priority(group_id, priority).await?;
    output.record(&Record::Group(&group));
    let changed = group
        .there()
        .filter(|(_, phase)| !phase.has_ended())
        .count();
    let have = if changed == 1 { "has" } else { "have" };
    output.line(format!(
        "{} of group {group_id} {have} {priority} priority from now on",
        count(changed, "run", "runs")
    ));
    output.line("see who comes first with: fovea queue");
    Ok(())
}
