//! Each kind of fault once against real processes, with TLS: the bits, the ledger, the checkpoints, and nothing left over.
//!
//! `make soak FAULTS=n` does the same for longer, at random.

use fovea_tests::chaos::{ChaosOptions, Kind, run_chaos};

fn injects(kinds: Vec<Kind>, secure: bool) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    // As with SOAK_DIR, the folder need not be there.
    std::fs::remove_dir(dir.path()).expect("it is empty");
    let options = ChaosOptions {
        faults: kinds.len() as u32,
        seed: 5,
        kinds,
        workers: 4,
        epochs: 12,
        secure,
    };
    let report = run_chaos(dir.path(), &options);
    let json = serde_json::to_string(&report).expect("a report is JSON");
    println!("{json}");
    assert!(report.failures.is_empty(), "{json}");
    // What these rest on is tested beside `Report`.
    assert!(report.bit_identical && report.audit == "clean");
    assert!(report.checkpoints_verified > 0 && report.missing.is_empty());
    assert_eq!(report.faults.len(), options.kinds.len());
}

#[cfg_attr(
    not(all(has_netns, has_mount, has_root)),
    ignore = "needs root, iproute2 and util-linux; the other kinds are injected as any user"
)]
#[test]
fn every_kind_of_fault_leaves_the_bits_as_they_are() {
    injects(Kind::ALL.to_vec(), true);
}

#[cfg_attr(
    all(has_netns, has_mount, has_root),
    ignore = "every_kind_of_fault_leaves_the_bits_as_they_are injects these kinds, too"
)]
#[test]
fn every_kind_that_needs_no_rights_leaves_the_bits_as_they_are() {
    injects(Kind::unprivileged(), false);
}
