//! Pictures of what the features are measured on.

use std::collections::HashSet;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use fovea_baseline::{LEGEND, overlay};
use fovea_core::count::count;
use fovea_core::spec::Part;
use fovea_dataset::Sample as Indexed;
use fovea_dataset::leftovers::{Names, Readers, TemporaryFile};
use fovea_judging::HALF;
use image::ImageFormat;
use rayon::prelude::*;

use super::output::Output;
use crate::baseline::{Model, Task};
use crate::error::Error;
use crate::receive::{check_target, write_whole};

/// Pictures of each kind.
const EACH: usize = 4;

/// What a picture shows, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Positive, and not called so.
    Missed,
    /// Called positive, and not so.
    FalseAlarm,
    /// Positive, and called so.
    Found,
    /// Neither.
    Cleared,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Missed, Self::FalseAlarm, Self::Found, Self::Cleared];

    /// Of a photograph with this P(positive), at the threshold that the table of models has.
    fn of(positive: bool, p: f64) -> Self {
        match (positive, p >= HALF.threshold) {
            (true, false) => Self::Missed,
            (false, true) => Self::FalseAlarm,
            (true, true) => Self::Found,
            (false, false) => Self::Cleared,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::FalseAlarm => "false-alarm",
            Self::Found => "found",
            Self::Cleared => "cleared",
        }
    }

    /// Whether the photographs that are shown are those with the lowest P(positive).
    fn lowest_first(self) -> bool {
        matches!(self, Self::Missed | Self::Cleared)
    }
}

/// Refuses a folder that pictures cannot be written to, or that has something in it: pictures of two models would lie together.
///
/// # Errors
/// Names the folder.
pub fn check(dir: &Path, overwrite: bool) -> Result<(), Error> {
    let refused = |what: &str| Error::Usage(format!("{}: {what}", dir.display()));
    if dir.is_dir() {
        let mut inside = std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))?;
        if !overwrite && inside.next().is_some() {
            return Err(refused(
                "the folder is not empty; give another one, or --overwrite",
            ));
        }
        return try_file(dir);
    }
    if dir.symlink_metadata().is_ok() {
        return Err(refused(match dir.exists() {
            true => "it is a file; name a folder",
            false => "it is a link to nothing; name a folder",
        }));
    }
    // It is made when there is something to write.
    let above = dir.ancestors().skip(1).find(|a| a.exists());
    let above = above.unwrap_or(Path::new("."));
    match above.is_dir() {
        true => try_file(above),
        false => Err(refused(&format!(
            "{} is a file; name another folder",
            above.display()
        ))),
    }
}

/// Makes a file in a folder, and removes it at once.
fn try_file(folder: &Path) -> Result<(), Error> {
    let names = Names::new(".fovea-", ".part");
    let made = TemporaryFile::create(folder, &names, Readers::Owner);
    made.map(drop).map_err(|e| Error::io(folder, e))
}

/// Writes pictures of the photographs that a model is most wrong and most right about. With `overwrite`, those of an earlier call
/// are removed: pictures of two models are not told apart.
///
/// # Errors
/// A photograph cannot be read, or a picture not be written.
pub fn write(
    task: &Task,
    part: Part,
    model: &Model,
    dir: &Path,
    overwrite: bool,
    output: &Output,
) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let positive = task.spec.positive_class() as usize;
    let samples = model.samples.iter();
    let scored: Vec<(bool, f64)> = samples
        .map(|s| (s.label >= positive, s.p_positive(positive)))
        .collect();
    let photographs = task.part(part);
    let chosen = chosen(&scored);
    let pictures: Vec<(PathBuf, &Indexed)> = chosen
        .iter()
        .map(|&(kind, rank, at)| {
            let sample = photographs[at];
            let name = format!(
                "{}-{rank}-{}-grade{}-p{:.3}.png",
                kind.as_str(),
                plain(&sample.image),
                sample.grade,
                scored[at].1
            );
            (dir.join(name), sample)
        })
        .collect();
    for (file, _) in &pictures {
        check_target(file, overwrite)?;
    }
    pictures.par_iter().try_for_each(|(file, sample)| {
        let (photograph, masks) = task.masks(sample)?;
        let mut png = Cursor::new(Vec::new());
        overlay(&photograph, &masks)
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|e| Error::io(file, io::Error::other(e)))?;
        write_whole(file, overwrite, &png.into_inner())
    })?;
    if overwrite {
        let kept = pictures.iter().map(|(file, _)| file.as_path()).collect();
        remove_others(dir, &kept).map_err(|e| Error::io(dir, e))?;
    }
    let of_kind = |kind: Kind| {
        let number = chosen.iter().filter(|(of, ..)| *of == kind).count();
        format!("{number} {}", kind.as_str())
    };
    output.line(format!(
        "masks    {}: {} of the photographs that {} is most wrong and most right about at the threshold {}: {}; {LEGEND}",
        dir.display(),
        count(pictures.len(), "picture", "pictures"),
        model.name,
        HALF.threshold,
        Kind::ALL.map(of_kind).join(", ")
    ));
    Ok(())
}

/// Kind, rank from 1, and number of the photographs to show, from whether each is positive and its P(positive). A kind that no
/// photograph is of has none.
fn chosen(scored: &[(bool, f64)]) -> Vec<(Kind, usize, usize)> {
    let of_kind = |kind: Kind| {
        let mut all: Vec<usize> = (0..scored.len())
            .filter(|&at| Kind::of(scored[at].0, scored[at].1) == kind)
            .collect();
        all.sort_by(|&a, &b| match kind.lowest_first() {
            true => scored[a].1.total_cmp(&scored[b].1),
            false => scored[b].1.total_cmp(&scored[a].1),
        });
        all.truncate(EACH);
        let ranked = all.into_iter().enumerate();
        ranked
            .map(|(rank, at)| (kind, rank + 1, at))
            .collect::<Vec<_>>()
    };
    Kind::ALL.into_iter().flat_map(of_kind).collect()
}

/// Removes the pictures in a folder that are not among `kept`. Files with other names are left.
fn remove_others(dir: &Path, kept: &HashSet<&Path>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let is_picture = name.to_str().is_some_and(is_picture) && entry.file_type()?.is_file();
        if is_picture && !kept.contains(path.as_path()) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Whether a file's name is one that [`write`] gives: kind, rank, image, grade, P(positive).
fn is_picture(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let of_kind = |kind: Kind| name.strip_prefix(kind.as_str())?.strip_prefix('-');
    let Some(rest) = Kind::ALL.into_iter().find_map(of_kind) else {
        return false;
    };
    let parts = || {
        let (rank, rest) = rest.strip_suffix(".png")?.split_once('-')?;
        let (rest, p) = rest.rsplit_once("-p")?;
        let (_, grade) = rest.rsplit_once("-grade")?;
        let (whole, thousandths) = p.split_once('.')?;
        Some([rank, grade, whole, thousandths].into_iter().all(digits))
    };
    parts().unwrap_or(false)
}

/// A name that is one file's on any system.
fn plain(image: &str) -> String {
    let kept = |c: char| {
        if c.is_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '_'
        }
    };
    image.chars().map(kept).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_most_wrong_and_the_most_right_are_shown() {
        let scored = [
            (true, 0.2),
            (false, 0.7),
            (true, 0.9),
            (false, 0.1),
            (true, 0.1),
            // One at the threshold is called positive.
            (true, 0.5),
        ];
        assert_eq!(
            chosen(&scored),
            [
                (Kind::Missed, 1, 4),
                (Kind::Missed, 2, 0),
                (Kind::FalseAlarm, 1, 1),
                (Kind::Found, 1, 2),
                (Kind::Found, 2, 5),
                (Kind::Cleared, 1, 3),
            ]
        );
        assert_eq!(plain("a/b 1_left.v2"), "a_b_1_left.v2");
    }

    #[test]
    fn no_photograph_is_of_two_kinds_and_a_kind_may_have_none() {
        let scored = [(true, 0.948), (true, 0.6), (false, 0.061), (false, 0.3)];
        assert_eq!(
            chosen(&scored),
            [
                (Kind::Found, 1, 0),
                (Kind::Found, 2, 1),
                (Kind::Cleared, 1, 2),
                (Kind::Cleared, 2, 3),
            ]
        );
    }

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let above = tempfile::tempdir().unwrap();
        let at = |name: &str| above.path().join(name);
        let refused = |dir: &Path, overwrite| check(dir, overwrite).unwrap_err().to_string();
        check(&at("new/masks"), false).unwrap();
        assert!(!at("new").exists());
        fs::create_dir(at("masks")).unwrap();
        check(&at("masks"), false).unwrap();
        fs::write(at("masks/1.png"), "").unwrap();
        let said = refused(&at("masks"), false);
        assert!(
            said.ends_with("masks: the folder is not empty; give another one, or --overwrite"),
            "{said}"
        );
        check(&at("masks"), true).unwrap();
        let said = refused(&at("masks/1.png"), true);
        assert!(said.ends_with("it is a file; name a folder"), "{said}");
        let said = refused(&at("masks/1.png/deep"), true);
        assert!(said.contains("1.png is a file"), "{said}");
        // Nothing can be made there, whoever asks.
        assert!(refused(Path::new("/proc/masks"), false).starts_with("/proc: "));
    }

    #[test]
    fn pictures_of_an_earlier_call_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let kept = "found-1-7_left-grade2-p0.948.png";
        let earlier = [
            "missed-1-7_left-grade2-p0.100.png",
            "false-alarm-4-a-b-grade0-p1.000.png",
        ];
        let others = ["missed-1.png", "notes.txt", "found-x-1-grade2-p0.9.png"];
        for name in [kept].iter().chain(&earlier).chain(&others) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let path = dir.path().join(kept);
        remove_others(dir.path(), &HashSet::from([path.as_path()])).unwrap();
        let mut left: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, [kept, others[2], others[0], others[1]]);
    }
}
