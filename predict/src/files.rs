//! Files that appear complete or not at all.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};

use fovea_dataset::leftovers::{self, Names, Readers, TemporaryFile};
use fovea_dataset::without_ending;
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
    /// It is a folder.
    #[error("{}: it is a folder; name a file in it", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// It would lie in a folder that is not there.
    #[error("{}: its folder is not there; make it first", path.display())]
    NoFolder {
        /// The file.
        path: PathBuf,
    },
    /// It is what is read.
    #[error("{}: it is what is read: the model, the weights or a photograph; give the output another name", path.display())]
    Input {
        /// The file.
        path: PathBuf,
    },
    /// Photographs that are read lie in the folder of maps.
    #[error(
        "{}: {} lies in it, which is read, and a map could replace it; give the maps a folder of their own",
        path.display(), photograph.display()
    )]
    MapsAmongInputs {
        /// The folder.
        path: PathBuf,
        /// One of them.
        photograph: PathBuf,
    },
    /// The maps would lie in a folder that is searched for photographs.
    #[error(
        "{}: it lies in {}, where photographs are searched for, and the next prediction would take the maps for some; put \
         the maps elsewhere",
        path.display(), folder.display()
    )]
    MapsInside {
        /// The folder of maps.
        path: PathBuf,
        /// The one that is searched.
        folder: PathBuf,
    },
    /// The table and the folder of maps would be one.
    #[error("{}: it is the folder of the maps, too; give the table another name", path.display())]
    Same {
        /// The path.
        path: PathBuf,
    },
    /// A file is where the folder of maps would be.
    #[error("{}: it is a file; name a folder for the maps", path.display())]
    NoSuchFolder {
        /// The file.
        path: PathBuf,
    },
    /// No eye can be told from others.
    #[error(transparent)]
    NoPatients(#[from] crate::patients::NoPatients),
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

/// Refuses targets that are there already, or cannot be made, before any work is done.
///
/// # Errors
/// Names the file or folder.
pub fn check(out: Option<&Path>, maps: Option<&Path>, overwrite: bool) -> Result<(), FileError> {
    if let Some(path) = out {
        let there = path.symlink_metadata().is_ok();
        let path = path.to_owned();
        if path.is_dir() {
            return Err(FileError::Folder { path });
        }
        if there && !overwrite {
            return Err(FileError::Exists { path });
        }
        if maps.is_some_and(|maps| maps == path) {
            return Err(FileError::Same { path });
        }
        let folder = folder_of(&path);
        if !folder.is_dir() {
            return Err(FileError::NoFolder { path });
        }
        // It is removed at once.
        TemporaryFile::create(folder, &names(), Readers::Owner).map_err(failed(folder))?;
    }
    let Some(folder) = maps else {
        return Ok(());
    };
    if folder.is_file() {
        let path = folder.to_owned();
        return Err(FileError::NoSuchFolder { path });
    }
    if !folder.exists() {
        return try_folder(folder).map_err(failed(folder));
    }
    let mut inside = fs::read_dir(folder).map_err(failed(folder))?;
    if !overwrite && inside.next().is_some() {
        return Err(FileError::NotEmpty {
            path: folder.to_owned(),
        });
    }
    // It is removed at once.
    TemporaryFile::create(folder, &names(), Readers::Owner).map_err(failed(folder))?;
    Ok(())
}

/// Makes a folder that is not there, and removes it again: an interrupted command leaves no empty folder.
fn try_folder(folder: &Path) -> io::Result<()> {
    let missing = (folder.ancestors())
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
        .map(Path::to_owned)
        .collect::<Vec<_>>();
    let made = fs::create_dir_all(folder);
    for made in missing {
        // One that was not made, or that something was put into at this moment, is left as it is.
        let _ = fs::remove_dir(made);
    }
    made
}

/// Refuses a table in the place of something that is read, maps in a folder with photographs that are read, and maps in one of the
/// `folders` that are searched for photographs (files among them do not matter).
///
/// # Errors
/// Names the file, or the folder.
pub fn check_inputs<'a>(
    out: Option<&Path>,
    maps: Option<&Path>,
    folders: &[PathBuf],
    mut inputs: impl Iterator<Item = &'a Path> + Clone,
) -> Result<(), FileError> {
    if let Some(folder) = maps.filter(|maps| maps.exists()) {
        let real = folder.canonicalize().map_err(failed(folder))?;
        let is_inside = |input: &&Path| input.canonicalize().is_ok_and(|i| i.starts_with(&real));
        if let Some(photograph) = inputs.clone().find(is_inside) {
            return Err(FileError::MapsAmongInputs {
                path: folder.to_owned(),
                photograph: photograph.to_owned(),
            });
        }
    }
    if let Some(maps) = maps {
        let above = (maps.ancestors())
            .map(|path| match path.as_os_str().is_empty() {
                true => Path::new("."),
                false => path,
            })
            .find_map(|path| path.canonicalize().ok());
        let is_around = |folder: &&PathBuf| {
            let real = folder.canonicalize().ok().filter(|real| real.is_dir());
            (above.as_ref().zip(real)).is_some_and(|(above, real)| above.starts_with(real))
        };
        if let Some(folder) = folders.iter().find(is_around) {
            return Err(FileError::MapsInside {
                path: maps.to_owned(),
                folder: folder.clone(),
            });
        }
    }
    let Some(path) = out.filter(|path| path.exists()) else {
        return Ok(());
    };
    let real = path.canonicalize().map_err(failed(path))?;
    match inputs.any(|input| input.canonicalize().is_ok_and(|input| input == real)) {
        true => Err(FileError::Input {
            path: path.to_owned(),
        }),
        false => Ok(()),
    }
}

fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Names of files that are being written.
fn names() -> Names {
    Names::new(".fovea-", ".part")
}

/// Writes a whole file, for those to read whom the umask allows.
pub fn write_whole(target: &Path, overwrite: bool, bytes: &[u8]) -> Result<(), FileError> {
    // Housekeeping: a folder that cannot be listed does not prevent the file.
    let _ = leftovers::sweep(folder_of(target), &names());
    write_into_swept(target, overwrite, bytes)
}

fn write_into_swept(target: &Path, overwrite: bool, bytes: &[u8]) -> Result<(), FileError> {
    let folder = folder_of(target);
    let file = TemporaryFile::create(folder, &names(), Readers::ByUmask);
    let mut file = file.map_err(failed(folder))?;
    let io = failed(target);
    file.file().write_all(bytes).map_err(&io)?;
    file.file().sync_all().map_err(&io)?;
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
    /// Sub-folders without what killed processes have left: to list one for every picture would take long.
    swept: HashSet<String>,
}

impl Maps {
    /// Pictures go into `folder`.
    pub fn new(folder: PathBuf, overwrite: bool) -> Self {
        Self {
            folder,
            overwrite,
            used: HashSet::new(),
            swept: HashSet::new(),
        }
    }

    /// A name that no other picture has, for the photograph `shown`: its own with the ending `.png`, in the same sub-folder.
    pub fn name(&mut self, shown: &str) -> String {
        let (folder, file) = shown
            .rsplit_once('/')
            .map_or(("", shown), |(folder, file)| (folder, file));
        if self.swept.insert(folder.to_owned()) {
            // Housekeeping: a folder that is not there or cannot be listed prevents nothing.
            let _ = leftovers::sweep(&self.folder.join(folder), &names());
        }
        let stem = without_ending(file);
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
        write_into_swept(&path, self.overwrite, &bytes.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_folder_of_maps_is_tried_and_not_left_behind() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("new/maps");
        check(None, Some(&folder), false).unwrap();
        assert!(!above.path().join("new").exists());
        // Under a file there can be none.
        fs::write(above.path().join("file"), "").unwrap();
        let impossible = above.path().join("file/maps");
        let error = check(None, Some(&impossible), false).unwrap_err();
        assert!(
            error.to_string().contains("file/maps: Not a directory"),
            "{error}"
        );
        let error = check(None, Some(&above.path().join("file")), true).unwrap_err();
        assert!(matches!(error, FileError::NoSuchFolder { .. }), "{error}");
        let error = check(Some(&folder), Some(&folder), true).unwrap_err();
        assert!(matches!(error, FileError::Same { .. }), "{error}");
        // What was there before stays.
        fs::create_dir_all(&folder).unwrap();
        check(None, Some(&folder), false).unwrap();
        assert!(folder.is_dir());
        fs::write(folder.join("1.png"), "").unwrap();
        let error = check(None, Some(&folder), false).unwrap_err();
        assert!(matches!(error, FileError::NotEmpty { .. }), "{error}");
        check(None, Some(&folder), true).unwrap();
    }

    #[test]
    fn nothing_that_is_read_is_replaced() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("eyes");
        fs::create_dir_all(folder.join("deep")).unwrap();
        let photograph = folder.join("deep/1_left.png");
        fs::write(&photograph, "").unwrap();
        let read = || [photograph.as_path()].into_iter();
        let error = check_inputs(None, Some(&folder), &[], read()).unwrap_err();
        assert!(
            error.to_string().contains("deep/1_left.png lies in it"),
            "{error}"
        );
        let error = check_inputs(Some(&photograph), None, &[], read()).unwrap_err();
        assert!(matches!(error, FileError::Input { .. }), "{error}");
        let apart = above.path().join("maps");
        let table = folder.join("scores.csv");
        let searched = [folder.clone(), photograph.clone()];
        check_inputs(Some(&table), Some(&apart), &searched, read()).unwrap();
        // Maps there would be photographs the next time, whether the folder is there by now or not.
        for inside in ["deep/maps", "none/maps", "deep"] {
            let inside = folder.join(inside);
            let error = check_inputs(None, Some(&inside), &searched, [].into_iter()).unwrap_err();
            assert!(matches!(error, FileError::MapsInside { .. }), "{error}");
        }
    }

    #[test]
    fn each_picture_has_a_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut maps = Maps::new(folder.path().join("maps"), false);
        let names: Vec<String> = [
            "1_left.jpeg",
            "1_left.png",
            "a/1_left.jpeg",
            ".x",
            "1.2.3.1",
            "1.2.3.10",
        ]
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
                "1.2.3.1.png",
                "1.2.3.10.png"
            ]
        );
        maps.write(&names[2], &RgbImage::new(3, 2)).unwrap();
        let back = image::open(folder.path().join("maps/a/1_left.png")).unwrap();
        assert_eq!((back.width(), back.height()), (3, 2));
    }

    #[test]
    fn a_table_that_cannot_be_written_is_refused_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let refused = |path: &Path| check(Some(path), None, true).unwrap_err().to_string();
        assert!(refused(folder.path()).contains("it is a folder"));
        assert!(refused(&at("none/scores.csv")).contains("make it first"));
        check(Some(&at("scores.csv")), None, false).unwrap();
        // Not in the place of what is read, by whatever path.
        fs::write(at("photograph.png"), b"").unwrap();
        let same = at(".").join("photograph.png");
        let inputs = [at("photograph.png")];
        let inputs = || inputs.iter().map(PathBuf::as_path);
        let error = check_inputs(Some(&same), None, &[], inputs()).unwrap_err();
        assert!(matches!(error, FileError::Input { .. }), "{error}");
        check_inputs(Some(&at("scores.csv")), None, &[], inputs()).unwrap();
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

    /// Set where the test runs itself: the folder to write into.
    const FOLDER: &str = "FOVEA_TEST_FOLDER";

    /// The umask is of the whole process, so each has one.
    #[test]
    fn tables_and_pictures_are_for_those_to_read_whom_the_umask_allows() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            let folder = Path::new(&folder);
            write_whole(&folder.join("scores.csv"), false, b"patient").unwrap();
            let maps = Maps::new(folder.join("maps"), false);
            return maps.write("1.png", &RgbImage::new(3, 2)).unwrap();
        }
        for (umask, expected) in [
            ("077", [0o600, 0o600, 0o700]),
            ("022", [0o644, 0o644, 0o755]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let script = format!("umask {umask}; exec \"$0\" tables_and_pictures_are");
            let status = Command::new("sh")
                .args(["-c", &script])
                .arg(std::env::current_exe().unwrap())
                .env(FOLDER, folder.path())
                .stdout(Stdio::null())
                .status();
            assert!(status.unwrap().success());
            let modes = ["scores.csv", "maps/1.png", "maps"].map(|name| {
                let path = folder.path().join(name);
                fs::metadata(path).unwrap().permissions().mode() & 0o777
            });
            assert_eq!(modes, expected, "umask {umask}");
        }
    }
}
