//! The pictures of an archive, as files that are read like photographs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::labels::npz::Archive;

use super::PrepareError;
use super::report::io_error;
use super::split_file::SplitFile;

/// A folder with the pictures, removed when dropped.
pub(super) struct Unpacked {
    dir: PathBuf,
    archive: Archive,
    /// Width and height of the pictures, if they were enlarged.
    pub enlarged: Option<[u32; 2]>,
}

/// What went wrong, and where.
enum Failed {
    Archive(io::Error),
    Picture(PathBuf, io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::Archive(error)
    }
}

impl Unpacked {
    /// Writes the pictures of the archive at `path` to the new folder `dir`.
    pub fn from(path: &Path, dir: PathBuf) -> Result<Self, PrepareError> {
        let unreadable = |source| io_error("read", path, source);
        fs::create_dir(&dir).map_err(|source| io_error("create", &dir, source))?;
        let archive = Archive::open(path).map_err(unreadable)?;
        let mut unpacked = Self {
            dir,
            archive,
            enlarged: None,
        };
        let dir = &unpacked.dir;
        let written = unpacked.archive.pictures(|name, picture| {
            let file = dir.join(format!("{name}.bmp"));
            let saved = picture.save(&file);
            saved.map_err(|error| Failed::Picture(file, io::Error::other(error)))
        });
        match written {
            Ok(enlarged) => {
                unpacked.enlarged = enlarged;
                Ok(unpacked)
            }
            Err(Failed::Archive(source)) => Err(unreadable(source)),
            Err(Failed::Picture(file, source)) => Err(io_error("write", &file, source)),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The split by the archive's parts.
    pub fn split(&self, path: &Path) -> Result<SplitFile, PrepareError> {
        let bytes = fs::read(path).map_err(|source| io_error("read", path, source))?;
        let images = self.archive.images.iter();
        let sides = images.map(|(image, _, split)| (image.as_str(), *split));
        Ok(SplitFile::of_archive(path, &bytes, sides))
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // On failure it only takes space in a folder that is removed later.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
