//! `fovea top`: runs, queue, workers and disk on one screen.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use console::Term;

use super::format::{bytes, clock, one_line, rate, share};
use super::output::Output;
use super::table::{self, Table};
use crate::client::Client;
use crate::error::Error;
use crate::local::Signals;
use crate::view::{Phase, QueuedInfo, RunInfo, StatusInfo, WorkerInfo, WorkerState};

/// Ended runs that are shown, at most.
const ENDED: usize = 3;

/// What one screen shows.
struct Shot {
    status: StatusInfo,
    runs: Vec<RunInfo>,
    queue: Vec<QueuedInfo>,
    workers: Vec<WorkerInfo>,
}

/// Shows the cluster until it is interrupted; once where there is no terminal, or with `once`.
pub async fn run(client: &Client, every_s: u64, once: bool, output: &Output) -> Result<(), Error> {
    if output.is_json() {
        return Err(Error::Usage(
            "`fovea top` is for people: use `fovea --json runs`, workers or queue".into(),
        ));
    }
    let terminal = Term::stdout();
    if once || !std::io::stdout().is_terminal() || fovea_predict::is_dumb() {
        output.lines(lines(&shot(client).await?, client.address(), None));
        return Ok(());
    }
    let mut signals = Signals::listen()?;
    let mut tick = tokio::time::interval(Duration::from_secs(every_s));
    let gone = |error| Error::io("standard output", error);
    terminal.hide_cursor().map_err(gone)?;
    let ended = loop {
        let looked = tokio::select! {
            looked = async { tick.tick().await; shot(client).await } => looked,
            () = signals.next() => break Ok(()),
        };
        let (height, width) = terminal.size();
        let text = match looked {
            Ok(shot) => lines(&shot, client.address(), Some(width)),
            // It may be restarted: it is looked for again.
            Err(
                error @ (Error::Lost { .. } | Error::Unanswered { .. } | Error::Unavailable { .. }),
            ) => vec![error.to_string()],
            Err(error) => break Err(error),
        };
        if let Err(error) = draw(&terminal, &text, height) {
            break Err(gone(error));
        }
    };
    let _ = terminal.show_cursor();
    ended
}

async fn shot(client: &Client) -> Result<Shot, Error> {
    let (status, runs, queue, workers) = tokio::try_join!(
        client.status(),
        client.runs(),
        client.queue(),
        client.workers()
    )?;
    Ok(Shot {
        status,
        runs,
        queue,
        workers,
    })
}

/// As many lines as fit, over what was there: without a flash of an empty screen.
fn draw(terminal: &Term, text: &[String], height: u16) -> std::io::Result<()> {
    let mut screen = String::from("\x1b[H");
    for line in text.iter().take(usize::from(height).saturating_sub(1)) {
        // Writing into a text cannot fail.
        let _ = write!(screen, "{line}\x1b[K\r\n");
    }
    screen.push_str("\x1b[J");
    let mut out = terminal;
    out.write_all(screen.as_bytes())?;
    out.flush()
}

/// The screen, of at most `width` columns (None: any number).
fn lines(shot: &Shot, address: &str, width: Option<u16>) -> Vec<String> {
    let under_way = |run: &&RunInfo| {
        let Phase::Queued = run.phase else {
            return !run.phase.is_terminal();
        };
        false
    };
    let active: Vec<&RunInfo> = shot.runs.iter().filter(under_way).collect();
    let ended: Vec<&RunInfo> = shot
        .runs
        .iter()
        .filter(|run| run.phase.is_terminal())
        .take(ENDED)
        .collect();
    let idle = |worker: &&WorkerInfo| worker.state == WorkerState::Idle;
    let mut lines = flow(
        &[
            address.to_owned(),
            shot.status.version.clone(),
            format!("up {}", clock(Duration::from_millis(shot.status.up_ms))),
        ],
        width,
    );
    lines.extend(flow(
        &[
            format!(
                "runs: {} under way, {} waiting",
                active.len(),
                shot.queue.len()
            ),
            format!(
                "workers: {}, {} idle",
                shot.workers.len(),
                shot.workers.iter().filter(idle).count()
            ),
            format!("disk: {}", disk(&shot.status)),
        ],
        width,
    ));
    lines.push(String::new());
    if active.is_empty() && ended.is_empty() {
        lines.push("no run is under way".into());
    } else {
        lines.extend(runs(&active, &ended, width));
    }
    if !shot.queue.is_empty() {
        lines.push(String::new());
        lines.push("waiting, in this order:".into());
        let waiting = shot.queue.iter().map(|run| {
            let why = one_line(&run.waiting);
            cut(
                &format!("  {} ({}): {why}", run.run, run.priority_in_words()),
                width,
            )
        });
        lines.extend(waiting);
    }
    lines.push(String::new());
    if shot.workers.is_empty() {
        lines.push("no worker is connected".into());
    } else {
        lines.extend(workers(&shot.workers, width));
    }
    lines
}

fn runs(active: &[&RunInfo], ended: &[&RunInfo], width: Option<u16>) -> Vec<String> {
    let headings = [
        "run",
        "phase",
        ">step",
        ">epoch",
        ">AUC",
        ">images/s",
        ">left",
        ">workers",
        "priority",
    ];
    // A column for what is not usual.
    let prioritized = active.iter().any(|run| !run.priority.is_default());
    let headings = match prioritized {
        true => &headings[..],
        false => &headings[..headings.len() - 1],
    };
    let mut table = Table::with_width(headings, width);
    for run in active.iter().chain(ended) {
        let auc = run.last_epoch().and_then(|epoch| epoch.validation.auc);
        let trains = run.phase == Phase::Running;
        let speed = run
            .progress
            .as_ref()
            .filter(|_| trains)
            .map(|p| p.images_per_s);
        let mut row = vec![
            run.id.clone(),
            run.phase.as_str().to_owned(),
            format!("{}/{}", run.step(), run.total_steps),
            format!("{}/{}", run.epochs_done(), run.spec.train.epochs),
            share(auc),
            speed.map_or("-".into(), rate),
            left(run).map_or("-".into(), clock),
            run.workers.len().to_string(),
        ];
        if prioritized {
            row.push(match run.phase.has_ended() {
                true => "-".into(),
                false => run.priority.to_string(),
            });
        }
        table.row(row);
    }
    table.fitted(&[
        "workers", "priority", "images/s", "epoch", "AUC", "left", "step", "phase",
    ])
}

/// How long the steps that are left take at the present speed, without validations.
fn left(run: &RunInfo) -> Option<Duration> {
    let progress = run
        .progress
        .as_ref()
        .filter(|_| run.phase == Phase::Running)?;
    run.time_left(progress)
}

fn workers(workers: &[WorkerInfo], width: Option<u16>) -> Vec<String> {
    let mut table = Table::with_width(&["worker", "state", "run", ">seen", "reason"], width);
    for worker in workers {
        let run = if worker.run.is_empty() {
            "-"
        } else {
            &worker.run
        };
        table.row([
            worker.id.clone(),
            worker.state.as_str().to_owned(),
            run.to_owned(),
            format!("{:.1} s ago", worker.last_seen_ms as f64 / 1000.0),
            one_line(&worker.reason),
        ]);
    }
    table.fitted(&["seen", "reason", "run"])
}

fn disk(status: &StatusInfo) -> String {
    let Some(free) = status.disk_free_bytes else {
        return "does not answer".into();
    };
    match free < status.disk_min_free_bytes {
        true => format!("{} free, TOO LITTLE for new runs", bytes(free)),
        false => format!("{} free", bytes(free)),
    }
}

/// Parts of a line on as many lines as they need.
fn flow(parts: &[String], width: Option<u16>) -> Vec<String> {
    const GAP: &str = "   ";
    let width = width.map_or(usize::MAX, usize::from);
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.len() + GAP.len() + part.len() <= width => {
                line.push_str(GAP);
                line.push_str(part);
            }
            _ => lines.push(table::cut(part, width)),
        }
    }
    lines
}

/// The beginning of a line that is too long.
fn cut(line: &str, width: Option<u16>) -> String {
    match width {
        Some(width) => table::cut(line, usize::from(width)),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use fovea_core::priority::Priority;

    use super::*;

    fn shot() -> Shot {
        Shot {
            status: StatusInfo {
                version: "0.1.0".into(),
                up_ms: 61_000,
                disk_free_bytes: Some(5 << 30),
                disk_min_free_bytes: 1 << 30,
            },
            runs: Vec::new(),
            queue: Vec::new(),
            workers: Vec::new(),
        }
    }

    #[test]
    fn an_empty_cluster_says_so() {
        let shown = lines(&shot(), "http://node-0:7070", None);
        assert!(shown[1].contains("0 under way, 0 waiting"), "{shown:?}");
        assert!(shown.iter().any(|line| line == "no run is under way"));
        assert!(shown.iter().any(|line| line == "no worker is connected"));
    }

    #[test]
    fn a_full_disk_is_shown_and_long_reasons_are_cut() {
        let mut shot = shot();
        shot.status.disk_free_bytes = Some(1 << 20);
        shot.queue.push(QueuedInfo {
            run: "dr-2".into(),
            priority: Priority::Low,
            place: Priority::Normal,
            submitted_by: String::new(),
            min_workers: 1,
            max_workers: 1,
            waited_ms: 1,
            waiting: "needs a worker; ".repeat(20),
        });
        let shown = lines(&shot, "http://node-0:7070", Some(60));
        let disk = shown.iter().find(|line| line.contains("TOO LITTLE"));
        assert!(disk.is_some_and(|line| line.len() <= 60), "{shown:?}");
        let waiting = shown.iter().find(|line| line.contains("dr-2")).unwrap();
        assert!(
            waiting.contains("(low, by now normal)") && waiting.len() <= 60,
            "{waiting}"
        );
        shot.status.disk_free_bytes = None;
        assert!(lines(&shot, "x", None)[1].contains("does not answer"));
    }
    #[test]
    fn a_narrow_terminal_shows_a_run_a_line() {
        let mut shot = shot();
        for number in 1..=3 {
            let mut run = crate::cli::narrate::tests::run(Phase::Running);
            run.id = format!("a-rather-long-name.v12-{number}");
            shot.runs.push(run);
        }
        let shown = lines(&shot, "http://node-0:7070", Some(50));
        assert!(
            shown.iter().all(|line| line.chars().count() <= 50),
            "{shown:#?}"
        );
        let heading = shown
            .iter()
            .position(|line| line.starts_with("run "))
            .unwrap();
        assert!(heading <= 5, "{shown:#?}");
        for (at, line) in shown[heading + 1..heading + 4].iter().enumerate() {
            assert!(
                line.starts_with(&format!("a-rather-long-name.v12-{}", at + 1)),
                "{shown:#?}"
            );
        }
        assert!(shown[heading].contains("phase") && !shown[heading].contains("workers"));
        assert!(
            shown.iter().any(|line| line.contains("disk: 5")),
            "{shown:#?}"
        );
        let wide = lines(&shot, "http://node-0:7070", Some(120));
        assert!(
            wide.iter()
                .any(|line| line.contains("workers") && line.contains("images/s"))
        );
    }
}
