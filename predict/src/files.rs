//! Files that appear complete or not at all.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::io::{self, Cursor, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fovea_dataset::leftovers::{self, Names, TemporaryFile};
use image::{ImageFormat, RgbImage};

/// A file or folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is there.
    #[error("{}: the file is there; give another name, or --overwrite", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The folder of maps has something in it.
    #[error("{}: the folder is not empty; give another one for the maps, or --overwrite", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// The system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

fn failed(path: &Path) -> impl Fn(io::Error) -> FileError {
    |source| FileError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Refuses targets that are there already, before any work is done. Makes the folder of maps.
pub fn check(out: Option<&Path>, maps: Option<&Path>, overwrite: bool) -> Result<(), FileError> {
    if let Some(path) = out.filter(|path| !overwrite && path.symlink_metadata().is_ok()) {
        return Err(FileError::Exists {
            path: path.to_owned(),
        });
    }
    let Some(folder) = maps else {
        return Ok(());
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let mut inside = fs::read_dir(folder).map_err(failed(folder))?;
    match !overwrite && inside.next().is_some() {
        true => Err(FileError::NotEmpty {
            path: folder.to_owned(),
        }),
        false => Ok(()),
    }
}

/// Writes a whole file, readable by its owner's group and others as the umask of photographs usually has it.
pub fn write_whole(target: &Path, overwrite: bool, bytes: &[u8]) -> Result<(), FileError> {
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let names = Names::new(".fovea-", ".part");
    // Housekeeping: a folder that cannot be listed does not prevent the file.
    let _ = leftovers::sweep(folder, &names);
    let mut file = TemporaryFile::create(folder, &names).map_err(failed(folder))?;
    let io = failed(target);
    file.file().write_all(bytes).map_err(&io)?;
    file.file().sync_all().map_err(&io)?;
    let mode = Permissions::from_mode(0o644);
    file.file().set_permissions(mode).map_err(&io)?;
    file.persist(target, overwrite).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists if !overwrite => FileError::Exists {
            path: target.to_owned(),
        },
        _ => io(e),
    })
}

/// The folder of maps: names for pictures, and the pictures.
#[derive(Debug)]
pub struct Maps {
    folder: PathBuf,
    overwrite: bool,
    used: HashSet<String>,
}

impl Maps {
    /// Pictures go into `folder`.
    pub fn new(folder: PathBuf, overwrite: bool) -> Self {
        Self {
            folder,
            overwrite,
            used: HashSet::new(),
        }
    }

    /// A name that no other picture has, for the photograph `shown`: its own with the ending `.png`, in the same sub-folder.
    pub fn name(&mut self, shown: &str) -> String {
        let (folder, file) = shown
            .rsplit_once('/')
            .map_or(("", shown), |(folder, file)| (folder, file));
        let stem = match file.rsplit_once('.') {
            Some((stem, _)) if !stem.is_empty() => stem,
            _ => file,
        };
        let folder = match folder {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let numbered = |number: usize| match number {
            1 => format!("{folder}{stem}.png"),
            n => format!("{folder}{stem}-{n}.png"),
        };
        let free = (1..).map(numbered).find(|name| !self.used.contains(name));
        let name = free.expect("there are more numbers than pictures");
        self.used.insert(name.clone());
        name
    }

    /// Writes a picture under a name that [`Self::name`] gave.
    pub fn write(&self, name: &str, picture: &RgbImage) -> Result<(), FileError> {
        let path = self.folder.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        let mut bytes = Cursor::new(Vec::new());
        let encoded = picture.write_to(&mut bytes, ImageFormat::Png);
        encoded.map_err(|e| failed(&path)(io::Error::other(e)))?;
        write_whole(&path, self.overwrite, &bytes.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_picture_has_a_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut maps = Maps::new(folder.path().join("maps"), false);
        let names: Vec<String> = ["1_left.jpeg", "1_left.png", "a/1_left.jpeg", ".x", "IM1.2"]
            .iter()
            .map(|shown| maps.name(shown))
            .collect();
        assert_eq!(
            names,
            [
                "1_left.png",
                "1_left-2.png",
                "a/1_left.png",
                ".x.png",
                "IM1.png"
            ]
        );
        maps.write(&names[2], &RgbImage::new(3, 2)).unwrap();
        let back = image::open(folder.path().join("maps/a/1_left.png")).unwrap();
        assert_eq!((back.width(), back.height()), (3, 2));
    }

    #[test]
    fn what_is_there_is_kept_unless_it_may_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scores.csv");
        check(Some(&file), None, false).unwrap();
        write_whole(&file, false, b"one").unwrap();
        let there = check(Some(&file), None, false).unwrap_err().to_string();
        assert!(there.contains("--overwrite"), "{there}");
        assert!(write_whole(&file, false, b"two").is_err());
        assert_eq!(fs::read(&file).unwrap(), b"one");
        check(Some(&file), None, true).unwrap();
        write_whole(&file, true, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        let full = check(None, Some(folder.path()), false)
            .unwrap_err()
            .to_string();
        assert!(full.contains("not empty"), "{full}");
        check(None, Some(folder.path()), true).unwrap();
        check(None, Some(&folder.path().join("new")), false).unwrap();
    }
}
