//! One checkpoint being gathered: slices are written at their place into a temporary file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fovea_core::checkpoint::{CheckpointInfo, Fingerprint};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use tempfile::TempPath;
use xxhash_rust::xxh3::Xxh3;

use super::path_for;
use crate::data_dir::{TEMPORARY, sync_folder, write_atomically};

/// The temporary file of one checkpoint. Dropping it removes the file, unless it was stored.
#[derive(Debug)]
pub(crate) struct AssemblyFile {
    folder: PathBuf,
    /// Removes the file when dropped; after the rename there is nothing to remove.
    path: TempPath,
    file: File,
    step: u64,
    generation: u64,
    header_bytes: u64,
    elements: u64,
}

/// Why a gathered file does not become a checkpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FinishError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the gathered file is not whole: {0}")]
    NotWhole(String),
}

impl AssemblyFile {
    /// Makes the file in the run's `folder` (made where it is missing) with its header and its full
    /// size.
    pub(crate) fn create(
        folder: &Path,
        step: u64,
        generation: u64,
        header: &[u8],
        elements: u64,
    ) -> io::Result<Self> {
        if !folder.is_dir() {
            fs::create_dir_all(folder)?;
            folder.parent().map_or(Ok(()), sync_folder)?;
        }
        let (file, path) = tempfile::Builder::new()
            .prefix(&format!("{TEMPORARY}{generation}-{step:010}-"))
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(folder)?
            .into_parts();
        let header_bytes = header.len() as u64;
        let assembly = Self {
            folder: folder.to_owned(),
            path,
            file,
            step,
            generation,
            header_bytes,
            elements,
        };
        assembly.file.write_all_at(header, 0)?;
        assembly.file.set_len(header_bytes + elements * 4)?;
        Ok(assembly)
    }

    /// Writes bytes of the state, `byte` bytes into it.
    pub(crate) fn write_at(&self, bytes: &[u8], byte: u64) -> io::Result<()> {
        let fits = byte
            .checked_add(bytes.len() as u64)
            .is_some_and(|end| end <= self.elements * 4);
        if !fits {
            return Err(io::Error::other("a slice reaches beyond the state"));
        }
        self.file.write_all_at(bytes, self.header_bytes + byte)
    }

    /// Makes the bytes written so far last.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Verifies the whole file and stores it under its name: file first, manifest last. `state_digest` is
    /// what the workers say that the state's XXH3-128 is.
    pub(crate) fn finish(
        &self,
        state_digest: &str,
        fingerprint: Fingerprint,
        now_ms: u64,
    ) -> Result<CheckpointInfo, FinishError> {
        let io = |source| FinishError::Io {
            path: self.path.to_path_buf(),
            source,
        };
        let sha256 = self.verify(state_digest)?;
        self.file.sync_all().map_err(io)?;
        let info = CheckpointInfo {
            step: self.step,
            generation: self.generation,
            bytes: self.header_bytes + self.elements * 4,
            sha256,
            lineage: 0,
            stored_at_ms: now_ms,
            fingerprint,
        };
        let path = path_for(&self.folder, self.step, self.generation);
        fs::rename(&self.path, &path).map_err(io)?;
        sync_folder(&self.folder).map_err(io)?;
        let manifest = serde_json::to_vec_pretty(&info)
            .map_err(|e| FinishError::NotWhole(format!("its manifest: {e}")))?;
        write_atomically(&path.with_extension("json"), &manifest).map_err(io)?;
        Ok(info)
    }

    /// Reads the file back as its readers will: the library must accept it, and the state must be the
    /// workers'. Gives the file's SHA-256.
    fn verify(&self, state_digest: &str) -> Result<String, FinishError> {
        // A state is some 50 MB; one buffer of that size for a moment is no burden.
        let bytes = fs::read(&self.path).map_err(|source| FinishError::Io {
            path: self.path.to_path_buf(),
            source,
        })?;
        SafeTensors::deserialize(&bytes).map_err(|e| FinishError::NotWhole(e.to_string()))?;
        let (header, state) = bytes.split_at(self.header_bytes as usize);
        let (mut file, mut digest) = (Sha256::new_with_prefix(header), Xxh3::new());
        // Few enough at a time to stay in the processor's cache from one digest to the other.
        for piece in state.chunks(256 << 10) {
            file.update(piece);
            digest.update(piece);
        }
        let found = format!("{:032x}", digest.digest128());
        if found != state_digest {
            return Err(FinishError::NotWhole(format!(
                "its state has digest {found}, but the workers hold {state_digest}"
            )));
        }
        Ok(hex::encode(file.finalize()))
    }
}
