//! Damaged files.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Flips one bit in the middle of a file. Its length stays, so that only its content can give it away.
///
/// # Errors
/// If the file is empty, or what the system says.
pub fn corrupt_file(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    if length == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is empty", path.display()),
        ));
    }
    let mut byte = [0];
    file.read_exact_at(&mut byte, length / 2)?;
    byte[0] ^= 1;
    file.write_all_at(&byte, length / 2)
}

/// The packs of all datasets in the data folder of a coordinator or of workers, sorted.
pub fn packs_below(dir: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let datasets = list(&dir.join("datasets"));
    let mut packs: Vec<PathBuf> = datasets
        .iter()
        .flat_map(|dataset| list(&dataset.join("packs")))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "pack")
        })
        .collect();
    packs.sort();
    packs
}
