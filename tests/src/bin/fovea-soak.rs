//! `make soak FAULTS=n`: disturbs runs at random and prints one JSON line.
//!
//! Ends with an error as soon as a run's bits differ, a sample is lost, or something is left over.

use std::path::PathBuf;

use fovea_tests::chaos::{Kind, Rampage, on_a_network};

fn main() {
    let numbers: Result<Vec<u64>, _> = std::env::args().skip(1).map(|a| a.parse()).collect();
    let (faults, seed) = match numbers.as_deref() {
        Ok([]) => (200, 1),
        Ok([faults]) => (*faults, 1),
        Ok([faults, seed]) => (*faults, *seed),
        Ok(_) | Err(_) => {
            eprintln!("usage: fovea-soak [FAULTS [SEED]]");
            std::process::exit(2)
        }
    };
    // With SOAK_DIR the logs stay for a look at them.
    let kept = std::env::var_os("SOAK_DIR").map(PathBuf::from);
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let dir = kept.as_deref().unwrap_or(temporary.path());
    let wanted = Rampage {
        faults: faults as u32,
        seed,
        kinds: Kind::ALL.to_vec(),
        workers: 4,
        epochs: 30,
    };
    let report = on_a_network(dir, wanted);
    println!(
        "{}",
        serde_json::to_string(&report).expect("a report is JSON")
    );
}
