//! `fovea runs audit`: whether each epoch used every training image exactly once.

use super::format::bytes;
use super::output::Output;
use super::record::Record;
use crate::client::Client;
use crate::error::Error;
use crate::view::{AuditInfo, RunInfo};
use fovea_core::count::count;

/// Audits a run, and fails if there are problems.
pub async fn run(client: &Client, run_id: &str, output: &Output) -> Result<(), Error> {
    let audit = client.audit(run_id).await?;
    // The report lacks the number of steps in an epoch.
    let run = client.run(run_id).await?;
    let clean = audit.problems.is_empty();
    output.record(&Record::Audit {
        audit: &audit,
        clean,
        begun_epochs: begun_epochs(&audit, &run),
        epochs: run.spec.train.epochs,
    });
    output.lines(report(&audit, &run));
    if clean {
        return Ok(());
    }
    Err(Error::Audit {
        run: run_id.to_owned(),
        problems: problems(&audit),
    })
}

fn begun_epochs(audit: &AuditInfo, run: &RunInfo) -> u64 {
    audit.steps.div_ceil(run.steps_per_epoch.max(1))
}

/// Their number; the coordinator stops counting at [`AuditInfo::PROBLEMS`].
fn problems(audit: &AuditInfo) -> String {
    let n = audit.problems.len();
    let text = count(n, "problem", "problems");
    if n < AuditInfo::PROBLEMS {
        text
    } else {
        format!("at least {text}")
    }
}

fn report(audit: &AuditInfo, run: &RunInfo) -> Vec<String> {
    let mut lines = Vec::new();
    let mut field = |what: &str, text: String| lines.push(format!("{what:<12}{text}"));
    field("run", audit.run.clone());
    let begun = begun_epochs(audit, run);
    let under_way = !audit.steps.is_multiple_of(run.steps_per_epoch.max(1));
    field(
        "epochs",
        format!(
            "{} clean of {begun} begun{}, {} in the whole run",
            audit.clean_epochs,
            if under_way {
                ", the last of them incomplete"
            } else {
                ""
            },
            run.spec.train.epochs,
        ),
    );
    field("steps", format!("{}/{}", audit.steps, audit.total_steps));
    field(
        "samples",
        format!(
            "{} used; {} in the training split",
            audit.samples_used, audit.train_samples
        ),
    );
    field("ledger", bytes(audit.ledger_bytes));
    if audit.problems.is_empty() {
        field("problems", "none".into());
    } else {
        field("problems", problems(audit));
        lines.extend(audit.problems.iter().map(|p| format!("  {p}")));
    }
    lines
}
