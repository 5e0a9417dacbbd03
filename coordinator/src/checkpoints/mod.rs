//! The checkpoint store: gathering slices into one safetensors file, and finding stored files.
//!
//! A checkpoint exists when the journal says so. Its file was verified, made to last and renamed
//! before, and its manifest (`.json`, for people and other programs) was written after the file.

mod assembly;
mod header;
mod sweep;

use std::path::{Path, PathBuf};

use fovea_core::checkpoint::CheckpointInfo;

pub(crate) use assembly::AssemblyFile;
pub(crate) use header::{Description, header};
pub(crate) use sweep::sweep;

/// Where the checkpoint of `step`, taken by `generation`, lies in the run's `folder`:
/// `step-<10 digits>.g<generation>.safetensors`.
///
/// The generation is part of the name because a step can be taken again, after a resume from an
/// older checkpoint; the first file must stay whole until the journal has the second.
pub(crate) fn path_for(folder: &Path, step: u64, generation: u64) -> PathBuf {
    folder.join(format!("step-{step:010}.g{generation}.safetensors"))
}

/// Removes a checkpoint that the journal lists no more.
pub(crate) fn remove(folder: &Path, step: u64, generation: u64) -> std::io::Result<()> {
    let path = path_for(folder, step, generation);
    std::fs::remove_file(path.with_extension("json"))?;
    std::fs::remove_file(path)
}

/// Puts the file of a damaged checkpoint aside, for people to look at: `.damaged` is added to its name. Of
/// several in a folder the last is kept: they must not fill the disk.
pub(crate) fn quarantine(folder: &Path, step: u64, generation: u64) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_name().to_string_lossy().ends_with(".damaged") {
            std::fs::remove_file(entry.path())?;
        }
    }
    let path = path_for(folder, step, generation);
    let aside = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".damaged");
        std::fs::rename(path, name)
    };
    // The file is what matters; a manifest that is missing, too, is no reason to leave it.
    let file = aside(&path);
    let manifest = aside(&path.with_extension("json"));
    file.and(manifest)
}

/// Reads a stored file again: what is wrong with it, if anything is.
pub(crate) fn verify(path: &Path, info: &CheckpointInfo) -> Option<String> {
    use sha2::{Digest, Sha256};
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) => return Some(format!("its file cannot be opened: {error}")),
    };
    let mut hash = Sha256::new();
    match std::io::copy(&mut file, &mut hash) {
        Err(error) => return Some(format!("its file cannot be read: {error}")),
        Ok(bytes) if bytes != info.bytes => {
            return Some(format!(
                "its file has {bytes} bytes instead of {}",
                info.bytes
            ));
        }
        Ok(_) => {}
    }
    let found = hex::encode(hash.finalize());
    (found != info.sha256).then(|| {
        format!(
            "its file has SHA-256 {found}, but was stored with {}",
            info.sha256
        )
    })
}

#[cfg(test)]
mod tests {
    use fovea_core::checkpoint::Fingerprint;
    use fovea_core::googlenet::FlatLayout;
    use fovea_core::ids::RunId;
    use fovea_core::roster::slice_of;
    use fovea_core::run::{Extent, Run};
    use safetensors::SafeTensors;

    use super::*;

    fn run() -> Run {
        let extent = Extent {
            steps_per_epoch: 5,
            total_steps: 10,
            train_samples: 40,
            validation_samples: 2,
        };
        let spec = toml::from_str("name='t'\ndataset='d'").unwrap();
        Run::new(
            RunId::new("t-1").unwrap(),
            1,
            spec,
            "d".repeat(64),
            extent,
            0,
        )
    }

    fn fingerprint() -> Fingerprint {
        Fingerprint {
            device: "cpu".into(),
            cpu: "x".into(),
            libtorch: "2.11.0".into(),
            threads: 1,
            precision: "float32".into(),
            fovea: "test".into(),
        }
    }

    /// A state in which every float is its own position, as little-endian bytes.
    fn state(elements: u64) -> Vec<u8> {
        (0..elements)
            .flat_map(|i| (i as f32).to_le_bytes())
            .collect()
    }

    fn begin(folder: &Path) -> (AssemblyFile, u64) {
        let run = run();
        let layout = FlatLayout::new(2, &run.spec.model.frozen).unwrap();
        let about = Description {
            run: &run,
            generation: 3,
            step: 5,
            fingerprint: &fingerprint(),
        };
        let elements = layout.state_len() as u64;
        let header = header(&layout, &about).unwrap();
        (
            AssemblyFile::create(folder, 5, 3, &header, elements).unwrap(),
            elements,
        )
    }

    #[test]
    fn slices_in_any_order_become_a_file_that_safetensors_reads() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("t-1");
        let (assembly, elements) = begin(&folder);
        let bytes = state(elements);
        for rank in [2, 0, 1] {
            let slice = slice_of(elements, 3, rank);
            let range = slice.start as usize * 4..slice.end as usize * 4;
            assembly
                .write_at(&bytes[range.clone()], slice.start * 4)
                .unwrap();
        }
        assembly.sync().unwrap();
        let digest = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&bytes));
        let wrong = assembly.finish(&"0".repeat(32), fingerprint(), 9);
        assert!(wrong.is_err(), "another state than the workers'");
        let info = assembly.finish(&digest, fingerprint(), 9).unwrap();
        drop(assembly);

        let path = path_for(&folder, 5, 3);
        let file = std::fs::read(&path).unwrap();
        assert_eq!(info.bytes, file.len() as u64);
        let (start, metadata) = SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(file[8 + start..], bytes[..], "the data is the state");
        let about = metadata.metadata().clone().unwrap();
        assert_eq!(about["format"], header::FORMAT);
        assert_eq!(
            (&*about["run_id"], &*about["step"], &*about["epoch"]),
            ("t-1", "5", "1")
        );
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let layout = FlatLayout::new(2, &run().spec.model.frozen).unwrap();
        assert_eq!(tensors.len(), layout.state_entries().len());
        for entry in layout.state_entries() {
            let tensor = tensors.tensor(&entry.name).unwrap();
            assert_eq!(tensor.shape(), entry.shape, "{}", entry.name);
            let first = (entry.offset as f32).to_le_bytes();
            assert_eq!(tensor.data()[..4], first, "{}", entry.name);
        }
        let manifest = std::fs::read(path.with_extension("json")).unwrap();
        let manifest: fovea_core::checkpoint::CheckpointInfo =
            serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest, info);
        let names: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn an_unfinished_file_leaves_nothing_and_no_slice_leaves_its_bounds() {
        let root = tempfile::tempdir().unwrap();
        let (assembly, elements) = begin(root.path());
        assert!(assembly.write_at(&[0; 8], elements * 4 - 4).is_err());
        assert!(assembly.write_at(&[0; 8], u64::MAX - 2).is_err());
        drop(assembly);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_header_is_not_stored() {
        let root = tempfile::tempdir().unwrap();
        let header = {
            let mut bytes = 16u64.to_le_bytes().to_vec();
            bytes.extend_from_slice(b"{\"x\":not json}  ");
            bytes
        };
        let assembly = AssemblyFile::create(root.path(), 1, 1, &header, 4).unwrap();
        assert!(assembly.finish("", fingerprint(), 0).is_err());
        drop(assembly);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
