//! Data for end-to-end tests.

use std::path::{Path, PathBuf};

use fovea_core::googlenet::weight_layer_names;
use fovea_proto::pb;

/// The folder of real photographs and weights beside the repository. Tests that need it are ignored where it is absent
/// (`requires.rs`).
///
/// # Panics
/// If it is absent.
pub fn shared() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    assert!(path.is_dir(), "{} is not a folder", path.display());
    path
}

/// Draws and prepares a small synthetic dataset below `dir`: `patients` patients, two eyes each,
/// `size` pixels. Returns the prepared folder.
pub fn synthetic_dataset(dir: &Path, patients: u32, size: u32) -> PathBuf {
    let photographs = dir.join("photographs");
    let prepared = dir.join("prepared");
    let fovea = |args: &[&std::ffi::OsStr]| {
        let output = std::process::Command::new(crate::binary("fovea"))
            .args(args)
            .output()
            .expect("fovea starts");
        assert!(
            output.status.success(),
            "{args:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let (patients, size) = (patients.to_string(), size.to_string());
    fovea(&[
        "synthetic".as_ref(),
        "--out".as_ref(),
        photographs.as_ref(),
        "--patients".as_ref(),
        patients.as_ref(),
        "--size".as_ref(),
        "128".as_ref(),
        "--seed".as_ref(),
        "3".as_ref(),
    ]);
    fovea(&[
        "prepare".as_ref(),
        photographs.as_ref(),
        "--out".as_ref(),
        prepared.as_ref(),
        "--name".as_ref(),
        "synthetic".as_ref(),
        "--size".as_ref(),
        size.as_ref(),
    ]);
    prepared
}

/// The layers before the module `inception_5b`, to be frozen by tests in which something else than the training matters. Trained
/// are 1.4 million parameters and the classifier.
pub fn all_before_the_last_module() -> pb::LayerList {
    let names = weight_layer_names().into_iter();
    pb::LayerList {
        names: names
            .take_while(|name| !name.starts_with("inception_5b"))
            .collect(),
    }
}
