//! Removing what lies in a run's folder and is no checkpoint of the run.
//!
//! A file is stored before the journal lists it, and removed after the journal has let go of it. A
//! coordinator that dies in between leaves a file that nobody will ever ask for.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fovea_core::checkpoint::CheckpointInfo;

use super::path_for;
use crate::data_dir::TEMPORARY;

/// Removes from the run's `folder` the files of checkpoints that are not `listed`, with their
/// manifests, and temporary files. Returns what was removed.
///
/// `*.damaged` files are kept for people to look at, and so is whatever the store never writes.
/// Nothing may be gathered for the run meanwhile.
///
/// # Errors
/// What the system says; what was removed until then stays removed.
pub(crate) fn sweep(folder: &Path, listed: &[CheckpointInfo]) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let keep: BTreeSet<PathBuf> = listed
        .iter()
        .map(|info| path_for(folder, info.step, info.generation))
        .flat_map(|path| [path.with_extension("json"), path])
        .collect();
    let mut unlisted = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.starts_with("step-") || name.starts_with(TEMPORARY);
        if ours
            && !name.ends_with(".damaged")
            && !keep.contains(&entry.path())
            && !entry.file_type()?.is_dir()
        {
            unlisted.push(entry.path());
        }
    }
    // A manifest (.json) comes before its file (.safetensors), as in `remove`: at no moment does one
    // describe a file that is not there.
    unlisted.sort();
    for path in &unlisted {
        fs::remove_file(path)?;
    }
    Ok(unlisted)
}

#[cfg(test)]
mod tests {
    use fovea_core::checkpoint::Fingerprint;

    use super::*;

    fn info(step: u64, generation: u64) -> CheckpointInfo {
        CheckpointInfo {
            step,
            generation,
            bytes: 1,
            sha256: String::new(),
            lineage: 0,
            stored_at_ms: 0,
            fingerprint: Fingerprint {
                device: String::new(),
                cpu: String::new(),
                libtorch: String::new(),
                threads: 1,
                precision: String::new(),
                fovea: String::new(),
            },
        }
    }

    #[test]
    fn only_what_is_no_listed_checkpoint_goes() {
        let folder = tempfile::tempdir().unwrap();
        let kept = [
            "step-0000000010.g1.json",
            "step-0000000010.g1.safetensors",
            "step-0000000020.g2.json",
            "step-0000000020.g2.safetensors",
            "step-0000000030.g1.safetensors.damaged",
            "step-0000000040.g1.json.damaged",
            "notes.txt",
        ];
        let gone = [
            // Replaced, but not removed.
            "step-0000000020.g1.json",
            "step-0000000020.g1.safetensors",
            // Removed by half.
            "step-0000000030.g1.safetensors",
            // Stored, but not journalled.
            "step-0000000040.g3.json",
            "step-0000000040.g3.safetensors",
            "tmp-3-0000000050-x",
        ];
        for name in kept.iter().chain(&gone) {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        fs::create_dir(folder.path().join("step-by-step")).unwrap();

        let listed = [info(10, 1), info(20, 2)];
        let removed = sweep(folder.path(), &listed).unwrap();
        let expected: Vec<PathBuf> = gone.iter().map(|name| folder.path().join(name)).collect();
        assert_eq!(removed, expected);
        for name in kept {
            assert!(folder.path().join(name).exists(), "{name}");
        }
        assert!(folder.path().join("step-by-step").is_dir());
        assert!(sweep(folder.path(), &listed).unwrap().is_empty());
    }

    #[test]
    fn a_run_without_a_folder_has_nothing_to_sweep() {
        let root = tempfile::tempdir().unwrap();
        assert!(sweep(&root.path().join("r-1"), &[]).unwrap().is_empty());
    }
}
