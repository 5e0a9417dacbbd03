//! `make soak FAULTS=n`: disturbs runs at random, with TLS unless `plain` is given, and prints one JSON line.
//!
//! Needs root, iproute2 and util-linux: no kind of fault is left out. The exit code is 1 if a run's bits or ledger differ, a
//! checkpoint is lost, a kind of fault could not be injected, or something is left over.

use std::path::PathBuf;

use fovea_tests::chaos::{ChaosOptions, Kind, run_chaos};

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let secure = arguments.pop_if(|last| last == "plain").is_none();
    let numbers: Result<Vec<u64>, _> = arguments.iter().map(|text| text.parse()).collect();
    let (faults, seed) = match numbers.as_deref() {
        Ok([]) => (200, 1),
        Ok([faults]) => (*faults, 1),
        Ok([faults, seed]) => (*faults, *seed),
        Ok(_) | Err(_) => {
            eprintln!("usage: fovea-soak [FAULTS [SEED]] [plain]");
            std::process::exit(2)
        }
    };
    // With SOAK_DIR the logs are kept.
    let kept = std::env::var_os("SOAK_DIR").map(PathBuf::from);
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let dir = kept.as_deref().unwrap_or(temporary.path());
    let options = ChaosOptions {
        faults: faults as u32,
        seed,
        kinds: Kind::ALL.to_vec(),
        workers: 4,
        epochs: 30,
        secure,
    };
    let report = run_chaos(dir, &options);
    println!(
        "{}",
        serde_json::to_string(&report).expect("a report is JSON")
    );
    for failure in &report.failures {
        eprintln!("fovea-soak: seed {seed}: {failure}");
    }
    if !report.failures.is_empty() {
        std::process::exit(1);
    }
}
