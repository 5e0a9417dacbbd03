//! Photographs by their paths, without a table of labels.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::Eye;
use crate::decode::identity;
use crate::folder::ImageFolder;
use crate::identify::{Known, identify};
use crate::names::image_name;
use crate::patient::{PatientPattern, eye_of, patient_and_eye};

/// A photograph's file, and what its name or its DICOM tags tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// What tells it from the others for people: the path in the folder that was searched, or the file's name.
    pub shown: String,
    /// The image's name, without folder and ending.
    pub image: String,
    /// Whose eye it is; empty if nothing tells.
    pub patient: String,
    /// Which eye.
    pub eye: Eye,
    /// Why the file could not be read when its tags were. Whose eye it is may stand there, so it is not to be scored.
    pub problem: Option<String>,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum PhotographsError {
    /// There is no such file or folder.
    #[error("{}: there is no such file or folder", path.display())]
    Missing {
        /// What was asked for.
        path: PathBuf,
    },
    /// A folder cannot be searched.
    #[error("{}: cannot be searched for photographs: {source}", path.display())]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder is one that `fovea prepare` made.
    #[error(
        "{}: this is a prepared dataset, whose photographs are packed: give the folder of the photographs themselves, or `fovea evaluate` the \
         dataset",
        path.display()
    )]
    Dataset {
        /// The folder.
        path: PathBuf,
    },
    /// A folder has none.
    #[error(
        "{}: there is no photograph in this folder or below it; known by their endings are {}, and DICOM files without one",
        path.display(), crate::names::READ_ENDINGS.join(", ")
    )]
    None {
        /// The folder.
        path: PathBuf,
    },
}

/// The photographs that `paths` name, in this order: files whatever they are called, and those of folders and their
/// sub-folders by path. One that is named twice, by whatever path, is there once. `pattern` tells the patient from a name or else from a path,
/// else the usual forms do ([`patient_and_eye`]), else the tags of a DICOM file, whose patients are numbered. The eye is told by the
/// same, or else by the name alone.
///
/// # Errors
/// A path leads nowhere, or a folder has no photographs.
pub fn photographs(
    paths: &[PathBuf],
    pattern: Option<&PatientPattern>,
) -> Result<Vec<Found>, PhotographsError> {
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    for path in paths {
        if path.is_dir() {
            if path.join("manifest.json").is_file() && path.join("packs").is_dir() {
                return Err(PhotographsError::Dataset { path: path.clone() });
            }
            let folder = ImageFolder::list(path);
            let folder = folder.map_err(|e| PhotographsError::Unreadable {
                path: e.path,
                source: e.source,
            })?;
            let inside = folder.photographs();
            if inside.is_empty() {
                return Err(PhotographsError::None { path: path.clone() });
            }
            files.extend(inside);
        } else if path.exists() {
            let name = path.file_name().unwrap_or_default();
            files.push((path.clone(), name.to_string_lossy().into_owned()));
        } else {
            return Err(PhotographsError::Missing { path: path.clone() });
        }
    }
    let mut seen = HashSet::new();
    let mut folders = HashMap::new();
    files.retain(|(path, _)| seen.insert(place(path, &mut folders)));
    let mut found: Vec<Found> = files
        .into_iter()
        .map(|(path, shown)| named(path, shown, pattern))
        .collect();
    let mut told: Vec<bool> = found.iter().map(|one| !one.patient.is_empty()).collect();
    let paths: Vec<PathBuf> = found.iter().map(|one| one.path.clone()).collect();
    let known = found.iter_mut().zip(&mut told).map(|(one, told)| Known {
        patient: &mut one.patient,
        told,
        eye: &mut one.eye,
    });
    let problems = Mutex::new(BTreeMap::new());
    let tags = |at: usize| {
        let tags = identity(&paths[at]).unwrap_or_else(|error| {
            let mut problems = problems.lock().unwrap_or_else(PoisonError::into_inner);
            problems.insert(at, format!("cannot be read: {error}"));
            None
        });
        Ok::<_, Infallible>(tags)
    };
    let Ok(()) = identify(known.collect(), tags);
    for (at, problem) in problems
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        found[at].problem = Some(problem);
    }
    for one in &mut found {
        if one.eye == Eye::Unknown {
            one.eye = eye_of(&one.image);
        }
    }
    Ok(found)
}

/// A file's name in its folder by its real path. A link to a photograph is a photograph of its own: its name may tell the patient.
fn place(path: &Path, real: &mut HashMap<PathBuf, PathBuf>) -> PathBuf {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = match real.get(folder) {
        Some(real) => real.clone(),
        None => {
            let found = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
            real.insert(folder.to_owned(), found.clone());
            found
        }
    };
    folder.join(path.file_name().unwrap_or_default())
}

fn named(path: PathBuf, shown: String, pattern: Option<&PatientPattern>) -> Found {
    let image = image_name(&file_name(&path));
    let told = match pattern {
        Some(pattern) => pattern.apply(&image).or_else(|| pattern.apply(&shown)),
        None => patient_and_eye(&image),
    };
    let (patient, eye) = told.map_or((String::new(), Eye::Unknown), |(patient, eye)| {
        (patient.to_owned(), eye)
    });
    Found {
        path,
        shown,
        image,
        patient,
        eye,
        problem: None,
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn dicom() -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes.extend(b"DICM");
        bytes
    }

    #[test]
    fn files_and_folders_are_searched_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, content) in [
            ("b/2_right.PNG", vec![0]),
            ("b/1_left.jpeg", vec![0]),
            ("b/deep/IM0001", dicom()),
            ("b/README", vec![0; 200]),
            ("b/trainLabels.csv", vec![0]),
            ("b/.hidden.png", vec![0]),
            ("x_OD.picture", vec![0]),
        ] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), content).unwrap();
        }
        let paths = [at("x_OD.picture"), at("b"), at("b/1_left.jpeg")];
        let found = photographs(&paths, None).unwrap();
        let shown: Vec<&str> = found.iter().map(|one| &*one.shown).collect();
        assert_eq!(
            shown,
            ["x_OD.picture", "1_left.jpeg", "2_right.PNG", "deep/IM0001"]
        );
        assert_eq!(
            (&*found[1].image, &*found[1].patient, found[1].eye),
            ("1_left", "1", Eye::Left)
        );
        assert_eq!((&*found[3].patient, found[3].eye), ("", Eye::Unknown));
        let pattern = "^(.)_".parse().unwrap();
        let found = photographs(&paths[..1], Some(&pattern)).unwrap();
        assert_eq!(found[0].patient, "x");
        let pattern = "^(deep)/".parse().unwrap();
        let found = photographs(&paths[1..2], Some(&pattern)).unwrap();
        let patients: Vec<&str> = found.iter().map(|one| &*one.patient).collect();
        assert_eq!(patients, ["", "", "deep"]);
        // One photograph by several paths, also through a link to its folder.
        std::os::unix::fs::symlink(at("b"), at("again")).unwrap();
        let same = [
            "b/1_left.jpeg",
            "b/deep/../1_left.jpeg",
            "again/1_left.jpeg",
        ]
        .map(at);
        assert_eq!(photographs(&same, None).unwrap().len(), 1);
        fs::remove_file(at("again")).unwrap();
        // Not what was made of photographs.
        fs::create_dir(at("b/packs")).unwrap();
        fs::write(at("b/manifest.json"), "{}").unwrap();
        let error = photographs(&paths[1..2], None).unwrap_err().to_string();
        assert!(error.contains("this is a prepared dataset"), "{error}");
    }

    #[test]
    fn the_eye_is_told_where_a_pattern_is_needed_for_the_patient() {
        let folder = tempfile::tempdir().unwrap();
        let eyes = |names: &[&str], pattern: &str| {
            let top = folder.path().join("eyes");
            for name in names {
                let path = top.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, [0]).unwrap();
            }
            let found =
                photographs(std::slice::from_ref(&top), Some(&pattern.parse().unwrap())).unwrap();
            fs::remove_dir_all(top).unwrap();
            let told = found.into_iter().map(|one| (one.patient, one.eye));
            told.collect::<Vec<_>>()
        };
        let of = |patient: &str, eye| (patient.to_owned(), eye);
        assert_eq!(
            eyes(&["12_1_L.jpg", "12_2_L.jpg", "12_3.jpg"], "^([0-9]+)_"),
            [
                of("12", Eye::Left),
                of("12", Eye::Left),
                of("12", Eye::Unknown)
            ]
        );
        assert_eq!(
            eyes(
                &["p1/left.jpg", "p1/left_2.jpg", "p1/right.jpg"],
                "(p[0-9]+)/"
            ),
            [
                of("p1", Eye::Left),
                of("p1", Eye::Left),
                of("p1", Eye::Right)
            ]
        );
        // What the pattern says counts.
        let (names, pattern) = (&["12_L_R.jpg"], "^(?P<patient>[0-9]+)_(?P<eye>.)");
        assert_eq!(eyes(names, pattern), [of("12", Eye::Left)]);
    }

    #[test]
    fn paths_that_lead_nowhere_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        let text = photographs(&[gone], None).unwrap_err().to_string();
        assert!(
            text.ends_with("gone: there is no such file or folder"),
            "{text}"
        );
        let text = photographs(&[folder.path().into()], None).unwrap_err();
        assert!(
            text.to_string().contains("no photograph in this folder"),
            "{text}"
        );
    }
}
