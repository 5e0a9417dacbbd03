//! `fovea workers`.

use std::time::Duration;

use super::format::one_line;
use super::output::Output;
use super::record::Record;
use super::table::{Table, terminal_width};
use crate::client::Client;
use crate::error::Error;
use crate::view::{LeftOutInfo, WorkerInfo, WorkerState};

/// Lists the connected workers.
pub async fn list(client: &Client, output: &Output) -> Result<(), Error> {
    let workers = client.workers().await?;
    for worker in &workers {
        output.record(&Record::Worker(worker));
    }
    if workers.is_empty() {
        output.line(format!(
            "no worker is connected; `fovea-worker --coordinator {}` starts one",
            client.address()
        ));
    } else {
        output.lines(lines(&workers, terminal_width()));
    }
    Ok(())
}

/// A column of the table: its heading, and its cell for a worker.
type Column = (&'static str, fn(&WorkerInfo) -> String);

/// Always shown.
const FIRST: [Column; 5] = [
    ("worker", |worker| worker.id.clone()),
    ("state", |worker| worker.state.as_str().to_owned()),
    ("run", |worker| or_dash(run(worker))),
    (">ranks", ranks),
    (">memory", memory),
];
/// Shown as far as there is room for them, the first of them first. The token only where there are tokens.
const MORE: [Column; 5] = [
    (">step", |worker| worker.step_ms.map_or("-".into(), step)),
    (">waiting", |worker| {
        worker.wait_ratio.map_or("-".into(), percent)
    }),
    ("device", |worker| worker.device.clone()),
    ("address", |worker| worker.address.clone()),
    ("token", |worker| or_dash(&worker.token_id)),
];
/// Always shown, before the texts.
const SEEN: Column = (">seen", |worker| seen(worker.last_seen_ms));

/// The workers as a table of at most `width` columns (None: any number), then a line for each that has a reason not to work.
fn lines(workers: &[WorkerInfo], width: Option<u16>) -> Vec<String> {
    let columns = columns(workers, width);
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    let mut table = Table::with_width(&headings, width);
    for worker in workers {
        table.row(columns.iter().map(|(_, cell)| cell(worker)));
    }
    let mut lines = table.lines();
    let reasons: Vec<String> = workers
        .iter()
        .filter(|worker| !worker.reason.is_empty())
        .map(|worker| {
            let state = worker.state.as_str();
            format!("{} is {state} {}", worker.id, one_line(&worker.reason))
        })
        .collect();
    if !reasons.is_empty() {
        lines.push(String::new());
        lines.extend(reasons);
    }
    lines
}

/// The columns that fit into `width`.
fn columns(workers: &[WorkerInfo], width: Option<u16>) -> Vec<Column> {
    let broad = |(heading, cell): &Column| {
        let cells = workers.iter().map(|worker| cell(worker).chars().count());
        let heading = heading.trim_start_matches('>').len();
        cells.fold(heading, usize::max)
    };
    // Between two columns are two blanks.
    let mut used: usize = FIRST.iter().map(|column| broad(column) + 2).sum();
    used += broad(&SEEN);
    let by_token = workers.iter().any(|worker| !worker.token_id.is_empty());
    let mut more = Vec::new();
    for column in MORE {
        used += 2 + broad(&column);
        if width.is_some_and(|width| used > usize::from(width)) {
            break;
        }
        if column.0 != "token" || by_token {
            more.push(column);
        }
    }
    // Numbers stand together, and texts come last.
    let texts = more.split_off(more.iter().take_while(|c| c.0.starts_with('>')).count());
    [&FIRST[..], &more, &[SEEN], &texts].concat()
}

/// The run that a worker serves, or the first that it is left out of: the lines below the table name all.
fn run(worker: &WorkerInfo) -> &str {
    match worker.state {
        WorkerState::LeftOut => worker.left_out.first().map_or("", |left_out| &left_out.run),
        _ => &worker.run,
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// The time of a step: `931 ms`, `12.4 s`.
fn step(ms: f64) -> String {
    match ms {
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 9_950.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}

fn percent(ratio: f64) -> String {
    format!("{:.0} %", ratio * 100.0)
}

/// A worker that is left out of a run, for people.
pub fn left_out_line(left_out: &LeftOutInfo) -> String {
    let LeftOutInfo {
        worker,
        run: _,
        trouble,
        reason,
        for_ms: _,
        again_in_ms,
    } = left_out;
    let again = match again_in_ms.div_ceil(1000) {
        0 => "offered again at the next opportunity".to_owned(),
        seconds => format!("offered again in {seconds} s"),
    };
    format!("{worker} ({trouble}): {}; {again}", one_line(reason))
}

/// The virtual ranks that a worker hosts: `0-3`.
fn ranks(worker: &WorkerInfo) -> String {
    let first = worker.first_virtual_rank;
    match worker.virtual_ranks {
        0 => "-".into(),
        1 => first.to_string(),
        count => format!("{first}-{}", first + count - 1),
    }
}

/// The memory that a worker uses and could use, or that of its GPU if it has one: `0.9/23.5 GiB`.
fn memory(worker: &WorkerInfo) -> String {
    let gib = |bytes: u64| format!("{:.1}", bytes as f64 / (1u64 << 30) as f64);
    let of = |used: Option<u64>, all: u64| match used {
        Some(used) => format!("{}/{} GiB", gib(used), gib(all)),
        None => format!("{} GiB", gib(all)),
    };
    match (worker.gpu_bytes, worker.host_bytes) {
        (0, 0) => "-".into(),
        (0, host) => of(worker.resident_bytes, host),
        (gpu, _) => format!("{} GPU", of(worker.gpu_used_bytes, gpu)),
    }
}

/// How long ago a worker was heard: `0.2 s ago`.
fn seen(ms: u64) -> String {
    let age = Duration::from_millis(ms);
    match age.as_secs() {
        0..=9 => format!("{:.1} s ago", age.as_secs_f64()),
        seconds => format!("{seconds} s ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn worker(id: &str, state: WorkerState) -> WorkerInfo {
        WorkerInfo {
            id: id.into(),
            state,
            reason: String::new(),
            host: "node-3".into(),
            address: "10.20.30.41:7071".into(),
            device: "cpu".into(),
            version: "0.1.0".into(),
            host_bytes: 23 * GIB + GIB / 2,
            gpu_bytes: 0,
            gpu_free_bytes: 0,
            run: String::new(),
            first_virtual_rank: 0,
            virtual_ranks: 0,
            last_seen_ms: 230,
            connected_ms: 1000,
            left_out: Vec::new(),
            token_id: String::new(),
            step_ms: None,
            wait_ratio: None,
            gpu_used_bytes: None,
            resident_bytes: None,
        }
    }

    fn cluster() -> Vec<WorkerInfo> {
        let disk = "writing the dataset's index: /var/lib/fovea/datasets: No space left on device";
        vec![
            WorkerInfo {
                run: "retina-12".into(),
                virtual_ranks: 4,
                device: "NVIDIA H100 80GB HBM3".into(),
                gpu_bytes: 80 * GIB,
                gpu_free_bytes: 78 * GIB,
                gpu_used_bytes: Some(61 * GIB),
                step_ms: Some(930.6),
                wait_ratio: Some(0.034),
                ..worker("gpu-node-1-31245-a3f2", WorkerState::Training)
            },
            WorkerInfo {
                run: "retina-12".into(),
                first_virtual_rank: 4,
                virtual_ranks: 1,
                resident_bytes: Some(GIB),
                ..worker("gpu-node-2-31245-a3f2", WorkerState::Preparing)
            },
            WorkerInfo {
                reason: format!("of retina-12 (disk): {disk} (offered again in 12 s)"),
                left_out: vec![LeftOutInfo {
                    worker: "cpu-node-3-11-a3f2".into(),
                    run: "retina-12".into(),
                    trouble: "disk",
                    reason: disk.into(),
                    for_ms: 5,
                    again_in_ms: 12_000,
                }],
                last_seen_ms: 42_000,
                host_bytes: 0,
                ..worker("cpu-node-3-11-a3f2", WorkerState::LeftOut)
            },
            worker("cpu-node-4-12-0001", WorkerState::Idle),
        ]
    }

    #[test]
    fn columns_are_shown_as_far_as_there_is_room() {
        let narrow = lines(&cluster(), Some(80));
        assert_eq!(
            narrow,
            [
                "worker                 state      run        ranks             memory       seen",
                "gpu-node-1-31245-a3f2  training   retina-12    0-3  61.0/80.0 GiB GPU  0.2 s ago",
                "gpu-node-2-31245-a3f2  preparing  retina-12      4       1.0/23.5 GiB  0.2 s ago",
                "cpu-node-3-11-a3f2     left out   retina-12      -                  -   42 s ago",
                "cpu-node-4-12-0001     idle       -              -           23.5 GiB  0.2 s ago",
                "",
                "cpu-node-3-11-a3f2 is left out of retina-12 (disk): writing the dataset's index: /var/lib/fovea/datasets: \
                 No space left on device (offered again in 12 s)",
            ]
        );
        let wide = lines(&cluster(), Some(100));
        for (line, expected) in wide.iter().zip([
            "worker                 state      run        ranks             memory    step  waiting       seen",
            "gpu-node-1-31245-a3f2  training   retina-12    0-3  61.0/80.0 GiB GPU  931 ms      3 %  0.2 s ago",
            "gpu-node-2-31245-a3f2  preparing  retina-12      4       1.0/23.5 GiB       -        -  0.2 s ago",
        ]) {
            assert_eq!(line, expected);
        }
        for width in 80..160 {
            let shown = lines(&cluster(), Some(width));
            let fits = |line: &String| line.chars().count() <= usize::from(width);
            assert!(shown[..5].iter().all(fits), "{width}: {shown:?}");
        }
        // Who joined with a token is shown with it.
        let mut joined = cluster();
        joined[3].token_id = "0a1b2c3d4e5f".into();
        let shown = lines(&joined, None);
        for (line, end) in shown.iter().zip([
            "      seen  device                 address           token",
            " 0.2 s ago  NVIDIA H100 80GB HBM3  10.20.30.41:7071  -",
            " 0.2 s ago  cpu                    10.20.30.41:7071  -",
            "  42 s ago  cpu                    10.20.30.41:7071  -",
            " 0.2 s ago  cpu                    10.20.30.41:7071  0a1b2c3d4e5f",
        ]) {
            assert!(line.ends_with(end), "{line}");
        }
        assert!(!lines(&cluster(), None)[0].contains("token"));
        // Elsewhere one row is one line.
        assert_eq!(lines(&cluster(), None).len(), 7);
        assert_eq!([step(4.04), step(12_345.0)], ["4.0 ms", "12.3 s"]);
    }
}
