//! A GPU of software, with which the worker's code for CUDA and NCCL is tested where there is no GPU.
//!
//! The worker loads it as it loads the real one: it is installed with its own folder of libraries, in which those of CUDA are
//! the ones that `build.rs` made of `soft_gpu/`. Nothing in the worker knows of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::process::binary;

/// A worker with a folder of libraries of its own, as a deployment has it.
pub struct SoftGpu {
    dir: PathBuf,
}

impl SoftGpu {
    /// Installs it in `dir`, which should be on the file system that the libraries are on: they are linked, not copied.
    ///
    /// # Panics
    /// If it cannot be installed.
    pub fn install(dir: &Path) -> Self {
        let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.libtorch/site");
        let fovea = dir.join("lib/fovea");
        for folder in ["torch/lib", "nvidia/cu13/lib"] {
            link_files(&site.join(folder), &fovea.join(folder)).unwrap_or_else(|e| {
                panic!("{folder} cannot be installed in {}: {e}", dir.display())
            });
        }
        let soft = Path::new(env!("FOVEA_SOFT_GPU"));
        for (library, folder) in [
            ("libtorch_cuda.so", "torch/lib"),
            ("libcuda.so.1", "torch/lib"),
            ("libnccl.so.2", "nvidia/nccl/lib"),
            ("libnvrtc.so.13", "nvidia/cu13/lib"),
        ] {
            let folder = fovea.join(folder);
            fs::create_dir_all(&folder).expect("a folder can be made");
            replace(&soft.join(library), &folder.join(library));
        }
        fs::create_dir_all(dir.join("bin")).expect("a folder can be made");
        let gpu = Self {
            dir: dir.to_owned(),
        };
        replace(&binary("fovea-worker"), &gpu.worker());
        gpu
    }

    /// The worker that finds it.
    pub fn worker(&self) -> PathBuf {
        self.dir.join("bin/fovea-worker")
    }
}

/// Links or copies the files right in `from` into `to`.
fn link_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let file = entry?.path();
        if file.is_file() {
            link(
                &file,
                &to.join(file.file_name().expect("a file has a name")),
            )?;
        }
    }
    Ok(())
}

fn replace(from: &Path, to: &Path) {
    // It may be a link to the real one.
    let _ = fs::remove_file(to);
    link(from, to).unwrap_or_else(|e| panic!("{} to {}: {e}", from.display(), to.display()));
}

/// Not symbolic: a library finds the others beside where it really lies. And rather not a copy: a program that was
/// being written when another process was started cannot be run for a moment.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}
