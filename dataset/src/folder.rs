//! Photographs in a folder and its sub-folders, found by name.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::decode::is_picture;
use crate::names::{READ_ENDINGS, composed, is_picture_ending, is_read_ending, key};

/// Why there is no photograph of a name in the images folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FindError {
    /// There is no such file.
    #[error(
        "missing: there is no {name}.{{{}}} in the images folder or below it", READ_ENDINGS.join(",")
    )]
    Missing {
        /// The image.
        name: String,
    },
    /// There is a file of that name that is no photograph by its ending.
    #[error(
        "not read: the images folder has {}, but only {} are read; convert it to PNG",
        files.join(", "), READ_ENDINGS.join(", ")
    )]
    OtherFormat {
        /// Its files.
        files: Vec<String>,
    },
    /// There are several.
    #[error("ambiguous: the images folder has {}; keep one", files.join(", "))]
    Ambiguous {
        /// The files.
        files: Vec<String>,
    },
}

/// A folder, or a link in it, cannot be looked at now.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(crate) struct ListError {
    /// The folder, or the link.
    pub path: PathBuf,
    /// What the system says.
    pub source: io::Error,
}

/// Whether `path` is a folder or leads to one. A link to nothing does not, nor does one in a circle.
///
/// # Errors
/// That cannot be known now: a folder must not be passed over with all that is in it.
pub(crate) fn leads_to_folder(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(target) => Ok(target.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The photographs of a folder, by name.
///
/// Hidden files and folders, and those that macOS adds to archives (`._a.jpeg`, `.DS_Store`, `__MACOSX`), are no
/// photographs.
pub(crate) struct ImageFolder {
    files: HashMap<String, Vec<File>>,
}

/// A file in the folder.
struct File {
    at: PathBuf,
    /// Its path in the folder, for people: where a name is not UTF-8, with a sign in the place of what is not.
    path: String,
    /// Its name before the ending, composed.
    stem: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It has a photograph's ending.
    Photograph,
    /// It has none, as exported DICOM files often have: what it is shows when it is read.
    Bare,
    /// It has another ending.
    Other,
}

impl ImageFolder {
    /// Lists `dir` and its sub-folders.
    pub(crate) fn list(dir: &Path) -> Result<Self, ListError> {
        let mut files: HashMap<String, Vec<File>> = HashMap::new();
        let mut folders = vec![(dir.to_owned(), String::new())];
        // Links may lead in circles.
        let mut visited = HashSet::new();
        while let Some((folder, prefix)) = folders.pop() {
            let at = |source| ListError {
                path: folder.clone(),
                source,
            };
            let identity = fs::metadata(&folder).map_err(at)?;
            if !visited.insert((identity.dev(), identity.ino())) {
                continue;
            }
            let entries = fs::read_dir(&folder).and_then(Iterator::collect);
            let mut entries: Vec<fs::DirEntry> = entries.map_err(at)?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with('.') || name == "__MACOSX" {
                    continue;
                }
                let path = format!("{prefix}{name}");
                let kind = entry.file_type().map_err(at)?;
                let of_link = |source| ListError {
                    path: entry.path(),
                    source,
                };
                if kind.is_dir()
                    || kind.is_symlink() && leads_to_folder(&entry.path()).map_err(of_link)?
                {
                    folders.push((entry.path(), format!("{path}/")));
                    continue;
                }
                let (stem, kind) = match name.rsplit_once('.') {
                    Some((stem, ending)) if is_read_ending(ending) => (stem, Kind::Photograph),
                    // Dots are common in DICOM's identifiers: what follows the last one may be no ending.
                    Some((_, last)) if last.bytes().all(|b| b.is_ascii_digit()) => {
                        (name.as_str(), Kind::Bare)
                    }
                    Some((stem, _)) => (stem, Kind::Other),
                    None => (name.as_str(), Kind::Bare),
                };
                let stem = composed(stem.trim());
                files.entry(key(&stem)).or_default().push(File {
                    at: entry.path(),
                    path,
                    stem,
                    kind,
                });
            }
        }
        // The order in which a folder is listed must not matter.
        for same in files.values_mut() {
            same.sort_by(|a, b| a.path.cmp(&b.path));
        }
        Ok(Self { files })
    }

    /// The file of the image `name`: an exact match if there is one, else one that differs in case. Names are
    /// compared in Unicode's composed form (NFC).
    pub(crate) fn find(&self, name: &str) -> Result<PathBuf, FindError> {
        let name = composed(name);
        let all = self.files.get(&key(&name));
        let of = |kind: Kind| {
            let same = all.into_iter().flatten().filter(move |f| f.kind == kind);
            same.collect::<Vec<&File>>()
        };
        let paths = |files: &[&File]| files.iter().map(|f| f.path.clone()).collect();
        for kind in [Kind::Photograph, Kind::Bare] {
            let all = of(kind);
            let exact: Vec<&File> = all.iter().copied().filter(|f| f.stem == name).collect();
            match (exact.as_slice(), all.as_slice()) {
                ([file], _) | ([], [file]) => return Ok(file.at.clone()),
                ([], []) => {}
                ([], several) | (several, _) => {
                    return Err(FindError::Ambiguous {
                        files: paths(several),
                    });
                }
            }
        }
        Err(match of(Kind::Other).as_slice() {
            [] => FindError::Missing { name },
            others => FindError::OtherFormat {
                files: paths(others),
            },
        })
    }

    /// Every photograph, by its path in the folder: the file, and that path. What has no ending is one if it begins as a picture
    /// does, or if that cannot be read now. Pictures in formats that are not read are among them: whoever reads them says so.
    pub(crate) fn photographs(&self) -> Vec<(PathBuf, String)> {
        let mut all: Vec<(PathBuf, String)> = self
            .files
            .values()
            .flatten()
            .filter(|file| match file.kind {
                Kind::Photograph => true,
                // Whoever reads it says why it cannot be read.
                Kind::Bare => is_picture(&file.at).unwrap_or(true),
                Kind::Other => is_picture_ending(file.path.rsplit('.').next().unwrap_or_default()),
            })
            .map(|file| (file.at.clone(), file.path.clone()))
            .collect();
        all.sort_by(|(_, a), (_, b)| a.cmp(b));
        all
    }

    /// How many photographs `used` does not name, and the first few of them.
    pub(crate) fn unused<'a>(&self, used: impl Iterator<Item = &'a str>) -> (usize, Vec<String>) {
        let used: HashSet<String> = used.map(key).collect();
        let mut unused: Vec<&String> = self
            .files
            .iter()
            .filter(|(stem, _)| !used.contains(*stem))
            .flat_map(|(_, files)| files)
            .filter(|file| file.kind == Kind::Photograph)
            .map(|file| &file.path)
            .collect();
        unused.sort();
        (unused.len(), unused.into_iter().take(5).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> (tempfile::TempDir, ImageFolder) {
        let dir = tempfile::tempdir().expect("dir");
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            fs::write(path, b"x").expect("write");
        }
        let folder = ImageFolder::list(dir.path()).expect("list");
        (dir, folder)
    }

    /// The path in the folder.
    fn found(folder: &ImageFolder, name: &str) -> Result<String, String> {
        let path = folder.find(name).map_err(|e| e.to_string())?;
        let mut all = folder.files.values().flatten();
        let file = all.find(|file| file.at == path).expect("it is listed");
        Ok(file.path.clone())
    }

    #[test]
    fn files_are_found_by_name_whatever_the_case_of_the_ending() {
        let (_dir, folder) = folder(&[
            "a.JPEG", "B.png", "c.jpg", "c.png", "d.txt", "e.tiff", "E.tif", "f.jfif", "g.BMP",
            "h.dcm", "i.webp",
        ]);
        let found = |name| found(&folder, name);
        for (name, file) in [
            ("a", "a.JPEG"),
            ("b", "B.png"),
            ("e", "e.tiff"),
            ("E", "E.tif"),
            ("f", "f.jfif"),
            ("g", "g.BMP"),
            ("h", "h.dcm"),
            ("i", "i.webp"),
        ] {
            assert_eq!(found(name).as_deref(), Ok(file));
        }
        assert!(found("c").expect_err("two").contains("c.jpg, c.png"));
        assert!(found("x").expect_err("none").starts_with("missing"));
        let (count, names) = folder.unused(["a", "b", "e", "f", "g", "h", "i"].into_iter());
        assert_eq!(
            (count, names),
            (2, vec!["c.jpg".to_owned(), "c.png".to_owned()])
        );
    }

    #[test]
    fn no_photograph_is_passed_over() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().expect("dir");
        let jpeg = [0xff, 0xd8, 0xff, 0xe0];
        let write = |name: &[u8], bytes: &[u8]| {
            let path = dir.path().join(std::ffi::OsStr::from_bytes(name));
            fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            fs::write(path, bytes).expect("write");
        };
        for name in [&b"a.heic"[..], b"b.GIF", b"c.avif", b"d.txt", b"e.jpg"] {
            write(name, b"x");
        }
        // Latin-1, in the name of a folder and of a file.
        write(b"M\xfcller/1_left.jpg", b"x");
        write(b"M\xfcller.jpg", b"x");
        write(b"no_ending", &jpeg);
        write(b"README", b"text");
        let folder = ImageFolder::list(dir.path()).expect("list");
        let (files, shown): (Vec<_>, Vec<_>) = folder.photographs().into_iter().unzip();
        assert!(files.iter().all(|file| file.is_file()), "{files:?}");
        let expected = [
            "M\u{fffd}ller.jpg",
            "M\u{fffd}ller/1_left.jpg",
            "a.heic",
            "b.GIF",
            "c.avif",
            "e.jpg",
            "no_ending",
        ];
        assert_eq!(shown, expected);
        assert!(folder.find("1_left").is_ok_and(|file| file.is_file()));
    }

    #[test]
    fn a_file_that_is_there_but_not_read_is_named() {
        let (_dir, folder) = folder(&["a.gif", "b.heic", "b.jpeg", "c.txt"]);
        let message = found(&folder, "a").expect_err("a gif");
        assert!(message.contains("has a.gif"), "{message}");
        assert!(message.contains("convert it to PNG"), "{message}");
        assert_eq!(found(&folder, "b").as_deref(), Ok("b.jpeg"));
        assert_eq!(folder.unused(["b"].into_iter()), (0, vec![]));
    }

    #[test]
    fn sub_folders_are_searched_and_a_name_in_two_of_them_is_ambiguous() {
        let (_dir, folder) =
            folder(&["10/10_left.jpeg", "11/x/11_left.jpeg", "a/1.png", "b/1.png"]);
        assert_eq!(found(&folder, "10_left").as_deref(), Ok("10/10_left.jpeg"));
        assert_eq!(
            found(&folder, "11_left").as_deref(),
            Ok("11/x/11_left.jpeg")
        );
        let message = found(&folder, "1").expect_err("two");
        assert!(message.contains("a/1.png, b/1.png"), "{message}");
    }

    #[test]
    fn a_link_in_a_circle_ends() {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join("a.png"), b"x").expect("write");
        std::os::unix::fs::symlink(".", dir.path().join("again")).expect("link");
        let folder = ImageFolder::list(dir.path()).expect("list");
        assert_eq!(found(&folder, "a").as_deref(), Ok("a.png"));
    }

    #[test]
    fn a_link_that_cannot_be_followed_is_not_passed_over() {
        let dir = tempfile::tempdir().expect("dir");
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(to, dir.path().join(name)).expect("link");
        };
        // They lead to no folder.
        link("gone", "to nothing");
        link("circle", "circle");
        assert!(ImageFolder::list(dir.path()).is_ok());
        // No name is that long.
        link(&"x".repeat(300), "more");
        let error = ImageFolder::list(dir.path()).err().expect("an error");
        assert_eq!(error.path, dir.path().join("more"));
    }

    #[test]
    fn hidden_files_of_macos_are_no_photographs() {
        let (_dir, folder) = folder(&[
            "a.jpeg",
            "._a.jpeg",
            ".DS_Store",
            "__MACOSX/a.jpeg",
            "__MACOSX/._a.jpeg",
            ".cache/a.jpeg",
        ]);
        assert_eq!(found(&folder, "a").as_deref(), Ok("a.jpeg"));
        assert_eq!(folder.unused(["a"].into_iter()), (0, vec![]));
    }

    #[test]
    fn decomposed_names_are_found() {
        let (_dir, folder) = folder(&["Mu\u{308}ller_left.jpeg"]);
        let file = found(&folder, "M\u{fc}ller_left").expect("found");
        assert_eq!(file, "Mu\u{308}ller_left.jpeg");
        assert!(found(&folder, "mu\u{308}LLER_left").is_ok());
    }

    #[test]
    fn files_without_an_ending_come_last() {
        let (_dir, folder) = folder(&["IM0001", "b", "b.jpg", "1.2.840.7"]);
        assert_eq!(found(&folder, "IM0001").as_deref(), Ok("IM0001"));
        assert_eq!(found(&folder, "b").as_deref(), Ok("b.jpg"));
        assert_eq!(found(&folder, "1.2.840.7").as_deref(), Ok("1.2.840.7"));
        assert_eq!(folder.unused(["x"].into_iter()).0, 1);
    }
}
