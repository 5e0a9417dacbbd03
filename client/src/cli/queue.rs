//! `fovea queue`.

use std::time::Duration;

use super::format::{clock, one_line};
use super::output::Output;
use super::record::Record;
use super::table::{Table, terminal_width};
use crate::client::Client;
use crate::error::Error;
use crate::view::QueuedInfo;

/// Lists the queued runs in the order in which they get workers.
pub async fn list(client: &Client, output: &Output) -> Result<(), Error> {
    let queue = client.queue().await?;
    for run in &queue {
        output.record(&Record::Queued(run));
    }
    if queue.is_empty() {
        output.line("no run waits");
    } else {
        output.lines(lines(&queue, terminal_width()));
    }
    Ok(())
}

/// The runs as a table of at most `width` columns (None: any number), then why each waits.
fn lines(queue: &[QueuedInfo], width: Option<u16>) -> Vec<String> {
    // Without TLS nobody has a name.
    let named = queue.iter().any(|run| !run.submitted_by.is_empty());
    let mut headings = vec!["run", "priority", ">workers", ">waits for"];
    if named {
        headings.push("by");
    }
    let mut table = Table::with_width(&headings, width);
    for run in queue {
        let workers = match run.min_workers == run.max_workers {
            true => run.min_workers.to_string(),
            false => format!("{}-{}", run.min_workers, run.max_workers),
        };
        let waited = clock(Duration::from_millis(run.waited_ms));
        let mut row = vec![run.run.clone(), run.priority_in_words(), workers, waited];
        if named {
            row.push(run.submitted_by.clone());
        }
        table.row(row);
    }
    let mut lines = table.lines();
    lines.push(String::new());
    let reasons = queue.iter().filter(|run| !run.waiting.is_empty());
    lines.extend(reasons.map(|run| format!("{}: {}", run.run, one_line(&run.waiting))));
    lines
}

#[cfg(test)]
mod tests {
    use fovea_core::priority::Priority;

    use super::*;

    #[test]
    fn the_order_the_priority_and_the_reason_are_shown() {
        let run = |run: &str, priority, place, by: &str| QueuedInfo {
            run: run.into(),
            priority,
            place,
            submitted_by: by.into(),
            min_workers: 2,
            max_workers: 4,
            waited_ms: 65_000,
            waiting: "needs 2 workers\nidle: 0".into(),
        };
        let mut queue = vec![
            run("dr-2", Priority::High, Priority::High, ""),
            run("dr-1", Priority::Low, Priority::Normal, ""),
        ];
        let shown = lines(&queue, None);
        assert!(!shown[0].contains("by"), "{shown:?}");
        assert!(
            shown[1].starts_with("dr-2") && shown[1].contains("2-4"),
            "{shown:?}"
        );
        assert!(shown[2].contains("low, by now normal"), "{shown:?}");
        assert_eq!(shown.last().unwrap(), "dr-1: needs 2 workers; idle: 0");
        queue[0].submitted_by = "ann".into();
        assert!(lines(&queue, None)[1].ends_with("ann"));
    }
}
