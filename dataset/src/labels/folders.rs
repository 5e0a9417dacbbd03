//! A folder for each grade, with the photographs in it: the folders' names are the labels.

use std::fs;
use std::io;
use std::path::Path;

use crate::folder::leads_to_folder;

/// An image of a folder, by its path from the root, and its grade.
pub(super) type Labelled = (String, u8);

/// Why the folders are no labels.
#[derive(Debug, thiserror::Error)]
pub enum FoldersError {
    /// A folder cannot be listed.
    #[error("cannot list it: {0}")]
    Io(#[from] io::Error),
    /// A folder's name is no grade.
    #[error(
        "the folder {name:?} is no grade; call the folders 0 to 4, or no_dr, mild, moderate, severe and \
         proliferative{hint}"
    )]
    Name {
        /// Its name.
        name: String,
        /// What else to do.
        hint: &'static str,
    },
    /// Two folders stand for one grade.
    #[error("the folders {:?} and {:?} both stand for grade {grade}", names[0], names[1])]
    Twice {
        /// Their names.
        names: [String; 2],
        /// The grade.
        grade: u8,
    },
    /// There is no folder.
    #[error("it holds no folders; expected one for each grade, called 0 to 4")]
    None,
}

/// All files with a picture's ending, in the order of their paths.
pub(super) fn list(root: &Path) -> Result<Vec<Labelled>, FoldersError> {
    let mut grades: [Option<String>; 5] = Default::default();
    let mut images = Vec::new();
    for name in names(root)? {
        if !leads_to_folder(&root.join(&name))? {
            continue;
        }
        let Some(grade) = grade(&name) else {
            let parts = ["train", "val", "valid", "validation", "test"];
            let hint = if parts.contains(&name.to_lowercase().as_str()) {
                ". It looks like a part of the data set: prepare each part by itself"
            } else {
                ""
            };
            return Err(FoldersError::Name { name, hint });
        };
        if let Some(other) = grades[usize::from(grade)].replace(name.clone()) {
            let names = [other, name];
            return Err(FoldersError::Twice { names, grade });
        }
        for file in names_below(&root.join(&name), &name)? {
            images.push((file, grade));
        }
    }
    if grades.iter().all(Option::is_none) {
        return Err(FoldersError::None);
    }
    Ok(images)
}

/// Names in a folder, without hidden ones, sorted.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        // A name that is not UTF-8 cannot be an image's.
        if let Ok(name) = entry?.file_name().into_string()
            && !name.starts_with('.')
            && name != "__MACOSX"
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Paths of the pictures in a folder and below it.
fn names_below(dir: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut all = Vec::new();
    for name in names(dir)? {
        let (path, shown) = (dir.join(&name), format!("{prefix}/{name}"));
        if path.symlink_metadata()?.is_dir() {
            all.extend(names_below(&path, &shown)?);
        } else if is_picture(&name) {
            all.push(shown);
        }
    }
    Ok(all)
}

fn is_picture(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, ending)| crate::names::is_picture_ending(ending))
}

/// The grade that a folder's name means.
fn grade(name: &str) -> Option<u8> {
    let word: String = name
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric())
        .collect();
    let digits: String = word.chars().filter(char::is_ascii_digit).collect();
    let rest = word.trim_end_matches(|c: char| c.is_ascii_digit());
    if !digits.is_empty() {
        let known = [
            "", "grade", "class", "level", "dr", "drgrade", "label", "g", "r", "c",
        ]
        .contains(&rest);
        return digits
            .parse()
            .ok()
            .filter(|grade| known && *grade <= 4 && digits.len() == 1);
    }
    // "Severe" is also a word for the proliferative stage, and "nonproliferative" for those before.
    let has = |part: &str| word.contains(part);
    let proliferative = (has("proliferat") && !has("nonproliferat"))
        || word.ends_with("pdr") && !word.ends_with("npdr");
    let before = [("mild", 1), ("moderate", 2), ("severe", 3)]
        .into_iter()
        .filter(|(part, _)| has(part));
    let before: Vec<u8> = before.map(|(_, grade)| grade).collect();
    match (before.as_slice(), proliferative) {
        ([grade], false) => Some(*grade),
        ([], true) => Some(4),
        ([], false) => [
            "nodr",
            "anodr",
            "normal",
            "healthy",
            "none",
            "nodrsigns",
            "noapparentretinopathy",
        ]
        .contains(&word.as_str())
        .then_some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_are_grades() {
        for (name, expected) in [
            ("0", Some(0)),
            ("4", Some(4)),
            ("grade_3", Some(3)),
            ("R2", Some(2)),
            ("No_DR", Some(0)),
            ("Mild", Some(1)),
            ("Moderate NPDR", Some(2)),
            ("Severe_NonProliferative", Some(3)),
            ("Proliferate_DR", Some(4)),
            ("PDR", Some(4)),
            ("bmilddr", Some(1)),
            ("eproliferativedr", Some(4)),
            ("Normal", Some(0)),
            ("severe proliferative", None),
            ("5", None),
            ("10", None),
            ("train", None),
            ("batch2", None),
            ("NPDR", None),
        ] {
            assert_eq!(grade(name), expected, "{name}");
        }
    }

    #[test]
    fn folders_that_are_no_grades_are_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let refused = |name: &str| {
            fs::create_dir_all(dir.path().join(name)).expect("create");
            let message = list(dir.path()).expect_err(name).to_string();
            fs::remove_dir(dir.path().join(name)).expect("remove");
            message
        };
        assert!(
            list(dir.path())
                .expect_err("empty")
                .to_string()
                .contains("no folders")
        );
        fs::create_dir(dir.path().join("0")).expect("create");
        fs::create_dir(dir.path().join(".cache")).expect("create");
        fs::write(dir.path().join("0/b_left.jpeg"), b"x").expect("write");
        fs::write(dir.path().join("0/notes.txt"), b"x").expect("write");
        assert_eq!(
            list(dir.path()).expect("one"),
            [("0/b_left.jpeg".to_owned(), 0)]
        );
        assert!(refused("train").contains("prepare each part by itself"));
        assert!(refused("masks").contains("\"masks\" is no grade"));
        assert!(refused("no_dr").contains("\"0\" and \"no_dr\" both stand for grade 0"));
    }
}
