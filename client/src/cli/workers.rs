//! `fovea workers`.

use std::time::Duration;

use super::format::one_line;
use super::output::{Output, Record};
use super::table::{Table, terminal_width};
use crate::client::Client;
use crate::error::Error;
use crate::view::{LeftOutInfo, WorkerInfo, WorkerState};

/// Terminals of at least so many columns show the device and the address, too.
const WIDE: u16 = 110;

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

/// The workers as a table of at most `width` columns (None: any number), then a line for each that has a reason not to work.
fn lines(workers: &[WorkerInfo], width: Option<u16>) -> Vec<String> {
    let wide = width.is_none_or(|width| width >= WIDE);
    let mut headings = vec!["worker", "state", "run", ">ranks", ">memory", ">seen"];
    if wide {
        headings.extend(["device", "address"]);
    }
    // Without tokens there is nothing to show.
    let by_token = wide && workers.iter().any(|worker| !worker.token_id.is_empty());
    if by_token {
        headings.push("token");
    }
    let mut table = Table::with_width(&headings, width);
    for worker in workers {
        let run = match worker.state {
            // The first of them; the lines below name all.
            WorkerState::LeftOut => worker.left_out.first().map_or("", |l| &l.run),
            _ => &worker.run,
        };
        let mut row = vec![
            worker.id.clone(),
            worker.state.as_str().to_owned(),
            if run.is_empty() { "-" } else { run }.to_owned(),
            ranks(worker),
            memory(worker),
            seen(worker.last_seen_ms),
        ];
        if wide {
            row.extend([worker.device.clone(), worker.address.clone()]);
        }
        if by_token {
            row.push(match worker.token_id.as_str() {
                "" => "-".into(),
                id => id.to_owned(),
            });
        }
        table.row(row);
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

/// The memory that a worker can use, that of its GPU if it has one.
fn memory(worker: &WorkerInfo) -> String {
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    match (worker.gpu_free_bytes, worker.host_bytes) {
        (0, 0) => "-".into(),
        (0, host) => gib(host),
        (gpu, _) => format!("{} GPU", gib(gpu)),
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
                ..worker("gpu-node-1-31245-a3f2", WorkerState::Training)
            },
            WorkerInfo {
                run: "retina-12".into(),
                first_virtual_rank: 4,
                virtual_ranks: 1,
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
    fn wide_enough_for_a_terminal_of_80_and_of_120_columns() {
        let narrow = lines(&cluster(), Some(80));
        assert_eq!(
            narrow,
            [
                "worker                 state      run        ranks        memory       seen",
                "gpu-node-1-31245-a3f2  training   retina-12    0-3  78.0 GiB GPU  0.2 s ago",
                "gpu-node-2-31245-a3f2  preparing  retina-12      4      23.5 GiB  0.2 s ago",
                "cpu-node-3-11-a3f2     left out   retina-12      -             -   42 s ago",
                "cpu-node-4-12-0001     idle       -              -      23.5 GiB  0.2 s ago",
                "",
                "cpu-node-3-11-a3f2 is left out of retina-12 (disk): writing the dataset's index: /var/lib/fovea/datasets: \
                 No space left on device (offered again in 12 s)",
            ]
        );
        let wide = lines(&cluster(), Some(120));
        for (line, expected) in wide.iter().zip([
            "worker                 state      run        ranks        memory       seen  device                 address",
            "gpu-node-1-31245-a3f2  training   retina-12    0-3  78.0 GiB GPU  0.2 s ago  NVIDIA H100 80GB HBM3  10.20.30.41:7071",
        ]) {
            assert_eq!(line, expected);
        }
        assert!(wide[..5].iter().all(|line| line.chars().count() <= 120));
        // Who joined with a token is shown with it.
        let mut joined = cluster();
        joined[3].token_id = "0a1b2c3d4e5f".into();
        let shown = lines(&joined, None);
        assert!(
            shown[0].ends_with("address           token"),
            "{}",
            shown[0]
        );
        assert!(shown[1].ends_with("10.20.30.41:7071  -"), "{}", shown[1]);
        assert!(
            shown[4].ends_with("10.20.30.41:7071  0a1b2c3d4e5f"),
            "{}",
            shown[4]
        );
        // Elsewhere one row is one line.
        assert_eq!(lines(&cluster(), None).len(), 7);
    }
}
