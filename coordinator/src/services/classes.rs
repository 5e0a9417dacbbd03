//! Whether a dataset has the classes that a run is to learn, and images that its network can take.

use fovea_core::googlenet::output_shapes;
use fovea_core::spec::{Part, RunSpec};
use fovea_dataset::{GRADES, Split};

use crate::error::ApiError;
use crate::store::HeldDataset;

const SPLITS: [Split; 2] = [Split::Train, Split::Validation];

/// Both splits must have negative and positive samples: a model that says the same of every photograph would be right in all
/// cases, and there is no AUC. Every class needs samples to train on. One that the validation split lacks is no error: its
/// recall is not defined there, and all other figures are. No layer of the network may have an empty output.
pub(super) fn check_dataset(spec: &RunSpec, dataset: &HeldDataset) -> Result<(), ApiError> {
    if dataset.manifest.is_ungraded() {
        return Err(ApiError::Precondition(format!(
            "dataset {} has photographs without grades: a run cannot learn from it; prepare it with a label file (`fovea prepare`)",
            dataset.manifest.name
        )));
    }
    let view = dataset.pool.view(spec.fold)?;
    let counts = [Part::Train, Part::Validation].map(|part| {
        let mut counts = [0u64; GRADES];
        for grade in view.grades(part).unwrap_or_default() {
            counts[usize::from(*grade)] += 1;
        }
        counts
    });
    check_size(spec, dataset.manifest.image_size)?;
    check(spec, dataset.manifest.name.as_str(), &counts)
}

fn check_size(spec: &RunSpec, image_size: u32) -> Result<(), ApiError> {
    let network = spec.model.network();
    let network = network.map_err(|e| ApiError::invalid("spec.model", e.to_string()))?;
    let size = image_size as usize;
    match output_shapes(network, size, size) {
        Ok(_) => Ok(()),
        Err(e) => Err(ApiError::Precondition(format!(
            "dataset {}: {e}: `fovea prepare --size`, or model.pooling = \"global\"",
            spec.dataset
        ))),
    }
}

/// `counts`: training and validation samples of each grade.
fn check(spec: &RunSpec, dataset: &str, counts: &[[u64; GRADES]; 2]) -> Result<(), ApiError> {
    let from = spec.model.positive_from;
    let by_grade = || {
        let of = |(split, counts): (&Split, &[u64; GRADES])| {
            let counts = counts.map(|n| n.to_string());
            format!("{split} {}", counts.join(", "))
        };
        let splits: Vec<String> = SPLITS.iter().zip(counts).map(of).collect();
        splits.join("; ")
    };
    let (of_fold, cure) = match spec.fold {
        None => (
            String::new(),
            "prepare the dataset again with another split or with more photographs",
        ),
        Some(fold) => (
            format!(" of fold {fold}"),
            "ask for fewer folds, or prepare the dataset again with more photographs",
        ),
    };
    for (split, grades) in SPLITS.into_iter().zip(counts) {
        let (below, above) = grades.split_at(from as usize);
        let [negative, positive] = [below, above].map(|grades| grades.iter().sum::<u64>());
        if negative > 0 && positive > 0 {
            continue;
        }
        let kind = if positive == 0 {
            "negative"
        } else {
            "positive"
        };
        return Err(ApiError::Precondition(format!(
            "the {split} split{of_fold} of dataset {dataset} has only {kind} samples, with model.positive_from = {from} (samples \
             of grades 0 to 4: {}): give another model.positive_from, or {cure}",
            by_grade()
        )));
    }
    let classes = spec.class_counts(&counts[0]);
    let Some(empty) = classes.iter().position(|n| *n == 0) else {
        return Ok(());
    };
    Err(ApiError::Precondition(format!(
        "the train split{of_fold} of dataset {dataset} has no samples of {}, which is a class with model.classes = {} (samples \
         of grades 0 to 4: {}): give model.labels with fewer classes, or {cure}",
        spec.model.class_name(empty as u32),
        spec.model.classes,
        by_grade()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a run with these lines in [model] on a dataset with these training samples of each grade.
    fn said(model: &str, train: [u64; 5], validation: [u64; 5]) -> String {
        let spec = format!("name = 'r'\ndataset = 'd'\n[model]\n{model}");
        let spec: RunSpec = toml::from_str(&spec).unwrap();
        match check(&spec, "d", &[train, validation]) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn images_that_are_too_small_for_the_network_are_refused_with_the_least_size() {
        let spec = |pooling: &str| -> RunSpec {
            let text = format!("name = 'r'\ndataset = 'd'\n[model]\npooling = '{pooling}'");
            toml::from_str(&text).unwrap()
        };
        assert!(check_size(&spec("global"), 64).is_ok());
        assert!(check_size(&spec("dense"), 223).is_ok());
        let said = check_size(&spec("dense"), 222).unwrap_err().to_string();
        assert!(
            said.contains("pool5/7x7_s1 would be empty; use 223 px or more"),
            "{said}"
        );
    }

    #[test]
    fn a_class_without_training_samples_is_refused_with_the_counts() {
        let all = [9, 3, 4, 2, 1];
        let no_3 = [9, 3, 4, 0, 1];
        for (model, train) in [
            ("", no_3),
            ("positive_from = 4", all),
            ("classes = 4", no_3),
            ("classes = 4", [9, 3, 4, 2, 0]),
            ("classes = 5", all),
            ("classes = 5\nhead = 'ordinal'", all),
        ] {
            assert_eq!(said(model, train, all), "", "{model}");
            // What validation lacks is not defined there, and that is all.
            assert_eq!(said(model, train, [2, 0, 1, 0, 1]), "", "{model}");
        }
        for (model, train, missing) in [
            (
                "classes = 5",
                no_3,
                "grade 3, which is a class with model.classes = 5",
            ),
            ("classes = 4", [9, 3, 4, 0, 0], "grades 3 and 4, which"),
            ("classes = 4", [9, 0, 4, 1, 0], "grade 1, which"),
        ] {
            let said = said(model, train, all);
            let counts = train.map(|n| n.to_string()).join(", ");
            assert!(said.contains(missing), "{said}");
            assert!(
                said.contains(&format!("train {counts}; validation 9, 3, 4, 2, 1")),
                "{said}"
            );
        }
    }

    #[test]
    fn a_split_of_one_kind_is_refused_with_the_counts() {
        let all = [9, 3, 4, 2, 1];
        let only = said("", all, [5, 1, 0, 0, 0]);
        assert!(
            only.contains("the validation split of dataset d has only negative samples"),
            "{only}"
        );
        let only = said("positive_from = 1", [0, 1, 0, 2, 0], all);
        assert!(
            only.contains("only positive samples, with model.positive_from = 1"),
            "{only}"
        );
        assert!(only.contains("train 0, 1, 0, 2, 0;"), "{only}");
    }
}
