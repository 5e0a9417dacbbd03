//! Names of the files in a run's folder.

use std::path::{Path, PathBuf};

/// Where the checkpoint of `step`, taken by `generation`, lies in the run's `folder`:
/// `step-<10 digits>.g<generation>.safetensors`.
///
/// The generation is part of the name because a step can be taken again after a resume from an older checkpoint;
/// the first file must stay whole until the journal has the second.
pub(super) fn path_for(folder: &Path, step: u64, generation: u64) -> PathBuf {
    folder.join(format!("step-{step:010}.g{generation}.safetensors"))
}

/// Which of a checkpoint's two files a name belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// `.json`. Comes first: at no moment may a manifest describe a file that is not there.
    Manifest,
    /// `.safetensors`.
    Data,
}

/// The generation, step and part of a file of a checkpoint; None for any name that the store does not write.
pub(super) fn parse(name: &str) -> Option<(u64, u64, Part)> {
    let (stem, part) = match name.strip_suffix(".safetensors") {
        Some(stem) => (stem, Part::Data),
        None => (name.strip_suffix(".json")?, Part::Manifest),
    };
    let (step, generation) = stem.strip_prefix("step-")?.split_once(".g")?;
    let (step, generation) = (step.parse().ok()?, generation.parse().ok()?);
    // Not "+7", nor other spellings of the same numbers.
    (format!("step-{step:010}.g{generation}") == stem).then_some((generation, step, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (step, generation) in [(0, 1), (120, 7), (12_345_678_901, 10)] {
            let path = path_for(Path::new("r"), step, generation);
            let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
            assert_eq!(parse(&name(&path)), Some((generation, step, Part::Data)));
            let manifest = path.with_extension("json");
            assert_eq!(
                parse(&name(&manifest)),
                Some((generation, step, Part::Manifest))
            );
        }
        for other in [
            "step-0000000010.g1.safetensors.damaged",
            "step-10.g1.json",
            "step-0000000010.g+1.json",
            "step-0000000010.json",
            "step-by-step",
            "tmp-1-0000000010-x",
            "notes.txt",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
