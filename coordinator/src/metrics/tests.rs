//! The reference is current.

use std::fs;
use std::path::Path;

use fovea_service::ops::{Metric, reference};

use super::table::ALL;

#[test]
fn the_reference_lists_every_metric_of_the_coordinator() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = fs::read_to_string(path).expect("docs/metrics.md");
    let all: Vec<Metric> = ALL.iter().map(|metric| **metric).collect();
    let table = reference(&all);
    assert!(
        text.contains(&table),
        "docs/metrics.md is not current; the table of the coordinator is\n\n{table}"
    );
}
