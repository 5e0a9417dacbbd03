//! Photographs of another dataset that the run has seen.

use std::collections::HashSet;

use fovea_core::spec::Part;
use fovea_dataset::{Content, Sample};
use serde::Serialize;

use crate::dataset::Described;

/// Judged photographs of another dataset that the run's own dataset has, too: by their content, which datasets of earlier versions
/// do not say, or by the names of image and patient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// Name of the run's own dataset.
    pub own: String,
    /// Photographs that are judged.
    pub of: usize,
    /// How many of them the run was trained on.
    pub trained: Seen,
    /// How many checkpoint and thresholds were chosen on.
    pub chosen: Seen,
    /// How many are of the own dataset's test part.
    pub test: Seen,
}

/// A number of photographs, by what tells that they are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Their content is the same.
    pub content: usize,
    /// Image and patient have the same names, and the content of one of the two is not known.
    pub names: usize,
    /// Image and patient have the same names, and the content is another: other photographs, or the same in another file. Not counted
    /// as seen.
    pub other_content: usize,
}

impl Seen {
    /// Those that are taken for the same.
    pub fn number(self) -> usize {
        self.content + self.names
    }

    /// Where the photographs are, and how that is known.
    fn place(self, part: &str, own: &str) -> String {
        let how = match self {
            Self { content, names, .. } if content > 0 && names > 0 => {
                format!(
                    " ({content} by their content, {names} by the names of image and patient alone)"
                )
            }
            Self { content: 0, .. } => " under the same names of image and patient".to_owned(),
            Self { .. } => " with the same content".to_owned(),
        };
        format!("in the {part} of {own}{how}")
    }
}

impl Shared {
    /// Compares `part` of `dataset` with `own`, the dataset as the run saw it. None: they share nothing, or are the same.
    pub fn between(dataset: &Described, part: Part, own: &Described) -> Option<Self> {
        if dataset.manifest.digest == own.manifest.digest {
            return None;
        }
        let judged: Vec<&Sample> = dataset.index.part(part).iter().collect();
        let names: HashSet<(&str, &str)> = judged.iter().map(|s| name(dataset, s)).collect();
        let unknown = judged.iter().filter(|s| s.content.is_none());
        let unknown: HashSet<(&str, &str)> = unknown.map(|s| name(dataset, s)).collect();
        let contents: HashSet<Content> = judged.iter().filter_map(|s| s.content).collect();
        let among = |part| {
            let mut seen = Seen::default();
            for sample in own.index.part(part).iter() {
                if sample
                    .content
                    .is_some_and(|content| contents.contains(&content))
                {
                    seen.content += 1;
                } else if names.contains(&name(own, sample)) {
                    match sample.content.is_none() || unknown.contains(&name(own, sample)) {
                        true => seen.names += 1,
                        false => seen.other_content += 1,
                    }
                }
            }
            seen
        };
        let shared = Self {
            own: own.manifest.name.to_string(),
            of: judged.len(),
            trained: among(Part::Train),
            chosen: among(Part::Validation),
            test: among(Part::Test),
        };
        let all = [shared.trained, shared.chosen, shared.test];
        let found = |seen: &Seen| seen.number() + seen.other_content > 0;
        all.iter().any(found).then_some(shared)
    }

    /// What a reader must know, each as a sentence without a full stop.
    pub fn notes(&self) -> Vec<String> {
        let Self {
            own,
            of,
            trained,
            chosen,
            test,
        } = self;
        let mut notes = Vec::new();
        if trained.number() > 0 {
            notes.push(format!(
                "the model was trained on {} of the {of} photographs, which are {}: the figures look better than they are",
                trained.number(),
                trained.place("training split", own)
            ));
        }
        if chosen.number() > 0 {
            notes.push(format!(
                "{} of the {of} photographs are {}: what was chosen on it, such as thresholds, looks better than it is",
                chosen.number(),
                chosen.place("validation split", own)
            ));
        }
        if test.number() > 0 {
            notes.push(format!(
                "{} of the {of} photographs are {}: this was a use of it",
                test.number(),
                test.place("test part", own)
            ));
        }
        let other: usize = [trained, chosen, test]
            .iter()
            .map(|seen| seen.other_content)
            .sum();
        if other > 0 {
            notes.push(format!(
                "{other} of the {of} photographs have the names of image and patient of photographs in {own}, and another content: if they \
                 are the same in another file, the model has seen them"
            ));
        }
        notes
    }
}

/// Names of image and patient.
fn name<'a>(of: &'a Described, sample: &'a Sample) -> (&'a str, &'a str) {
    let patient = of.index.patient(sample.patient).unwrap_or_default();
    (&sample.image, patient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photographs_that_the_run_has_seen_are_counted() {
        let seen = |content, names| Seen {
            content,
            names,
            other_content: 0,
        };
        let shared = Shared {
            own: "eyes".into(),
            of: 80,
            trained: seen(0, 42),
            chosen: seen(2, 1),
            test: Seen {
                other_content: 4,
                ..seen(3, 0)
            },
        };
        assert_eq!(
            shared.notes(),
            [
                "the model was trained on 42 of the 80 photographs, which are in the training split of eyes under the same names \
                 of image and patient: the figures look better than they are",
                "3 of the 80 photographs are in the validation split of eyes (2 by their content, 1 by the names of image and \
                 patient alone): what was chosen on it, such as thresholds, looks better than it is",
                "3 of the 80 photographs are in the test part of eyes with the same content: this was a use of it",
                "4 of the 80 photographs have the names of image and patient of photographs in eyes, and another content: if they \
                 are the same in another file, the model has seen them",
            ]
        );
    }
}
