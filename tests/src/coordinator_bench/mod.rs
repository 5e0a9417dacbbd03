//! How much the coordinator costs, and how fast it answers: `make bench-coordinator`.
//!
//! Two parts, each with a real coordinator process:
//!
//! - [`cluster`]: many simulated workers ([`worker`]), idle ones and those of running runs, over real gRPC connections.
//! - [`stored`]: a data folder with long ledgers, written as 976f9b6 wrote it ([`ledgers`]), opened and audited.

pub mod cluster;
mod ledgers;
pub mod stored;
mod worker;

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use fovea_core::plan::ShardPlan;
use fovea_dataset::Dataset;
use serde::Serialize;

/// The recipe's seed: every run of the benchmark has the same plan.
const SEED: u64 = 0;

/// A prepared dataset and what a plan needs to know of it.
struct Samples {
    dataset: Dataset,
    patients: Vec<u32>,
    validation: u32,
}

impl Samples {
    fn open(prepared: &Path) -> Self {
        let dataset = Dataset::open(prepared).expect("a prepared dataset");
        let index = dataset.index();
        let patients = index.train().iter().map(|s| s.patient).collect();
        let validation = index.validation().len() as u32;
        Self {
            dataset,
            patients,
            validation,
        }
    }

    /// One sample a step for each virtual rank.
    fn plan(&self, virtual_ranks: u32) -> ShardPlan {
        let plan = ShardPlan::new(
            &self.patients,
            self.validation,
            virtual_ranks,
            1,
            SEED,
            true,
        );
        plan.expect("there are enough patients")
    }
}

/// The ordinals that each step of an epoch uses, virtual rank by virtual rank.
fn epoch_samples(plan: &ShardPlan, epoch: u32) -> Vec<Vec<u32>> {
    let ranks = 0..plan.virtual_ranks();
    let orders: Vec<_> = ranks.map(|rank| plan.epoch_order(rank, epoch)).collect();
    (0..plan.steps_per_epoch())
        .map(|step| {
            let draws = orders.iter().flat_map(|order| order.batch(step));
            draws.map(|draw| draw.sample).collect()
        })
        .collect()
}

/// Quantiles of durations, in milliseconds.
#[derive(Debug, Serialize)]
struct Latency {
    n: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Latency {
    fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let at = |share: f64| {
            let index = (durations.len() as f64 * share).ceil() as usize;
            let duration = durations.get(index.saturating_sub(1));
            duration.map_or(0.0, |d| (d.as_secs_f64() * 1e5).round() / 1e2)
        };
        Self {
            n: durations.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
        }
    }
}

/// Processor time that a process has used so far, user and system.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name before stands in parentheses and may hold spaces and parentheses itself.
    let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks: u64 = rest
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .map(|word| word.parse::<u64>().expect("a number"))
        .sum();
    // Safety: a plain system call.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Duration::from_secs_f64(ticks as f64 / per_second)
}

/// A figure of /proc/PID/status in kB, such as `VmRSS` or its peak, `VmHWM`.
fn memory_kb(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let row = status.lines().find_map(|line| line.strip_prefix(name));
    let row = row.unwrap_or_else(|| panic!("/proc/{pid}/status has no {name}"));
    let words = row.trim_start_matches(':').split_ascii_whitespace().next();
    words.and_then(|word| word.parse().ok()).expect("a number")
}

/// Raises the limit of open file descriptors of this process, which the coordinator inherits, to at least `needed`.
fn raise_open_files(needed: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // Safety: `limit` is a valid place for the result, and valid as input.
    let result = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    assert_eq!(result, 0, "setrlimit: {}", io::Error::last_os_error());
    assert!(
        limit.rlim_cur >= needed,
        "{needed} open files are needed and {} are allowed: raise the hard limit (ulimit -Hn), or use fewer workers",
        limit.rlim_cur
    );
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
