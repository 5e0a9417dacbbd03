//! Each kind of fault once against real processes: the bits, the ledger, and nothing left over.
//!
//! `make soak FAULTS=n` does the same for longer, at random.

use fovea_tests::chaos::{Kind, Rampage, on_a_network};

#[test]
fn every_kind_of_fault_leaves_the_bits_as_they_are() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let wanted = Rampage {
        faults: Kind::ALL.len() as u32,
        seed: 5,
        kinds: Kind::ALL.to_vec(),
        workers: 4,
        epochs: 12,
    };
    let report = on_a_network(dir.path(), wanted);
    println!(
        "{}",
        serde_json::to_string(&report).expect("a report is JSON")
    );
    assert!(report.bit_identical && report.runs >= 1);
    // Whoever is not root lacks two of them.
    let made = report.faults.len();
    assert!(made + 4 >= Kind::ALL.len(), "{:?}", report.skipped);
}
