//! Prepared datasets.

use std::path::Path;

/// A small prepared dataset of drawings, in `dir/set`.
pub fn prepared(dir: &Path) -> std::path::PathBuf {
    prepared_of(dir, 12, 32)
}

/// The same with so many patients and images of so many pixels.
pub fn prepared_of(dir: &Path, patients: u32, image_size: u32) -> std::path::PathBuf {
    use fovea_dataset::synthetic::{SyntheticOptions, generate};
    let drawings = dir.join("drawings");
    let options = SyntheticOptions {
        patients,
        size: 64,
        ..SyntheticOptions::default()
    };
    generate(&drawings, &options, &|_| {}).unwrap();
    let out = dir.join("set");
    let mut options = fovea_dataset::PrepareOptions::new(
        drawings.join("trainLabels.csv"),
        drawings.join("images"),
        out.clone(),
        fovea_core::ids::DatasetName::new("set").unwrap(),
    );
    options.image_size = image_size;
    options.pack_records = 4;
    fovea_dataset::prepare(&options, &()).unwrap();
    out
}
