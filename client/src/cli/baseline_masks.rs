//! Pictures of what the features are measured on.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use fovea_baseline::{LEGEND, overlay};
use fovea_core::count::count;
use fovea_core::spec::Part;
use fovea_dataset::Sample as Indexed;
use image::ImageFormat;
use rayon::prelude::*;

use super::output::Output;
use crate::baseline::{Model, Task};
use crate::error::Error;
use crate::receive::{check_target, write_whole};

/// Pictures of each kind.
const EACH: usize = 4;

/// Writes pictures of the photographs that a model is most wrong and most right about.
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
    let pictures: Vec<(PathBuf, &Indexed)> = chosen(&scored)
        .into_iter()
        .map(|(kind, rank, at)| {
            let sample = photographs[at];
            let name = format!(
                "{kind}-{rank}-{}-grade{}-p{:.3}.png",
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
            .map_err(|e| Error::io(file, std::io::Error::other(e)))?;
        write_whole(file, overwrite, &png.into_inner())
    })?;
    output.line(format!(
        "masks    {}: {} of the photographs that {} is most wrong (missed, false-alarm) and most right about; {LEGEND}",
        dir.display(),
        count(pictures.len(), "picture", "pictures"),
        model.name
    ));
    Ok(())
}

/// Kind, rank from 1, and number of the photographs to show, from whether each is positive and its P(positive).
fn chosen(scored: &[(bool, f64)]) -> Vec<(&'static str, usize, usize)> {
    let kinds = [
        ("missed", true, true),
        ("false-alarm", false, false),
        ("found", true, false),
        ("cleared", false, true),
    ];
    let of_kind = |(kind, positive, lowest_first): (&'static str, bool, bool)| {
        let mut all: Vec<usize> = (0..scored.len())
            .filter(|&at| scored[at].0 == positive)
            .collect();
        all.sort_by(|&a, &b| match lowest_first {
            true => scored[a].1.total_cmp(&scored[b].1),
            false => scored[b].1.total_cmp(&scored[a].1),
        });
        all.truncate(EACH);
        let ranked = all.into_iter().enumerate();
        ranked
            .map(|(rank, at)| (kind, rank + 1, at))
            .collect::<Vec<_>>()
    };
    kinds.into_iter().flat_map(of_kind).collect()
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
    use super::*;

    #[test]
    fn the_most_wrong_and_the_most_right_are_shown() {
        let scored = [
            (true, 0.2),
            (false, 0.7),
            (true, 0.9),
            (false, 0.1),
            (true, 0.1),
        ];
        assert_eq!(
            chosen(&scored),
            [
                ("missed", 1, 4),
                ("missed", 2, 0),
                ("missed", 3, 2),
                ("false-alarm", 1, 1),
                ("false-alarm", 2, 3),
                ("found", 1, 2),
                ("found", 2, 0),
                ("found", 3, 4),
                ("cleared", 1, 3),
                ("cleared", 2, 1),
            ]
        );
        assert_eq!(plain("a/b 1_left.v2"), "a_b_1_left.v2");
    }
}
