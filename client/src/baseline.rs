//! Baselines on a prepared dataset: features of its photographs, fitted on the training split, judged as a run is.

use fovea_baseline::{
    Chosen, Features, FitError, Masks, Photograph, Settings, Training, fit, measure,
};
use fovea_core::spec::{Labels, Part, RunSpec};
use fovea_dataset::{Dataset, Method, PackFile, Sample as Indexed};
use fovea_evaluation::{
    Draws, Estimate, Evaluated, Sample, Samples, Wanted, auc_difference, choose, evaluate,
};
use fovea_judging::{Described, ready, samples};
use rayon::prelude::*;

use crate::error::Error;
use crate::view::Scores;

/// A prepared dataset, and the classes that are fitted on it.
pub struct Task {
    dataset: Dataset,
    pub described: Described,
    /// Only its labels count.
    pub spec: RunSpec,
}

/// A model that is judged.
pub struct Model {
    /// As the table shows it.
    pub name: String,
    pub origin: Origin,
    /// The scored photographs, in the order of the dataset's index.
    pub samples: Vec<Sample>,
    /// The same, ready for figures.
    pub judging: Samples,
    pub evaluated: Evaluated,
}

/// Where a model's scores come from.
pub enum Origin {
    /// A classifier that was fitted here.
    Baseline(Box<Chosen>),
    /// A checkpoint of a run.
    Run { step: u64 },
    /// A file.
    Scores { file: String },
}

impl Task {
    /// Opens a dataset and reads all of it once, to see that it is whole.
    ///
    /// # Errors
    /// It is no prepared dataset, or damaged.
    pub fn open(dir: &std::path::Path, labels: Labels, positive_from: u32) -> Result<Self, Error> {
        let broken = |e: fovea_dataset::DatasetError| Error::Dataset(e.to_string());
        let dataset = Dataset::open(dir).map_err(broken)?;
        dataset.verify().map_err(broken)?;
        let described = Described {
            manifest: dataset.manifest().clone(),
            index: dataset.index().clone(),
        };
        Ok(Self {
            spec: spec(dataset.manifest().name.as_str(), labels, positive_from)?,
            dataset,
            described,
        })
    }

    /// Refuses photographs on which features cannot be measured.
    ///
    /// # Errors
    /// They were prepared another way than by `crop`.
    pub fn check_photographs(&self) -> Result<(), Error> {
        let preprocess = &self.described.manifest.preprocess;
        if preprocess.name == Method::Crop {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "{} was prepared with --preprocess {}: features are measured on photographs as they are; prepare it with \
             --preprocess crop",
            self.dataset.dir().display(),
            preprocess.shown()
        )))
    }

    /// The features of photographs; `done` is called after each.
    ///
    /// # Errors
    /// A pack cannot be read.
    pub fn measure(
        &self,
        samples: &[&Indexed],
        done: &(dyn Fn() + Sync),
    ) -> Result<Vec<Features>, Error> {
        let packs = self.packs()?;
        let features = samples.par_iter().map(|sample| {
            let (features, _) = measure(&self.read(&packs, sample)?);
            done();
            Ok(features)
        });
        features.collect()
    }

    /// One photograph, and what its features are measured on.
    ///
    /// # Errors
    /// Its pack cannot be read.
    pub fn masks(&self, sample: &Indexed) -> Result<(Photograph, Masks), Error> {
        let photograph = self.read(&self.packs()?, sample)?;
        let (_, masks) = measure(&photograph);
        Ok((photograph, masks))
    }

    fn packs(&self) -> Result<Vec<PackFile>, Error> {
        let packs = 0..self.described.manifest.packs.len();
        packs
            .map(|pack| self.dataset.open_pack(pack))
            .collect::<Result<_, _>>()
            .map_err(|e| Error::Dataset(e.to_string()))
    }

    fn read(&self, packs: &[PackFile], sample: &Indexed) -> Result<Photograph, Error> {
        let manifest = &self.described.manifest;
        let mut record = vec![0; manifest.record_bytes as usize];
        packs[sample.pack as usize]
            .read(sample.record, &mut record)
            .map_err(|e| Error::Dataset(e.to_string()))?;
        Photograph::from_record(&record, manifest.image_size)
            .map_err(|e| Error::Dataset(format!("image {}: {e}", sample.image)))
    }

    /// The samples of a part, in the order of the index.
    pub fn part(&self, part: Part) -> Vec<&Indexed> {
        self.described.index.part(part).iter().collect()
    }

    /// Fits a classifier to the training split and scores parts. `rows`: the features of a part's photographs, in its order.
    ///
    /// # Errors
    /// The training split cannot be learnt from.
    pub fn fitted(
        &self,
        settings: Settings,
        rows: impl Fn(Part) -> Vec<Vec<f64>>,
        parts: &[Part],
    ) -> Result<(Chosen, Vec<Scores>), Error> {
        let train = self.part(Part::Train);
        let training = Training {
            rows: rows(Part::Train),
            labels: train
                .iter()
                .map(|s| self.spec.class_of(s.grade) as usize)
                .collect(),
            patients: train.iter().map(|s| s.patient).collect(),
            scheme: self.spec.scheme(),
        };
        let classifier = fit(&training, settings).map_err(|e| self.unfit(&e))?;
        let scored = |part: &Part| {
            let rows = rows(*part);
            let p = rows
                .par_iter()
                .flat_map_iter(|row| classifier.probabilities(row));
            self.scores(*part, p.collect())
        };
        let scores = parts.iter().map(scored).collect();
        Ok((classifier.chosen, scores))
    }

    fn unfit(&self, error: &FitError) -> Error {
        let named = match error {
            FitError::Class { class, .. } => {
                format!(
                    " (class {class} is {})",
                    self.spec.model.class_name(*class as u32)
                )
            }
            _ => String::new(),
        };
        Error::Usage(format!(
            "the training split of {}: {error}{named}",
            self.dataset.dir().display()
        ))
    }

    /// Probabilities of the photographs of a part, class by class.
    pub fn scores(&self, part: Part, probabilities: Vec<f32>) -> Scores {
        Scores::without_maps(
            self.described.manifest.digest.clone(),
            part,
            self.spec.model.classes as usize,
            probabilities,
        )
    }

    /// Judges scores. Operating points are chosen on `validation`, the scores of the same model on the validation split; without
    /// them 0.5 is the only point. `spec` tells how probabilities become a class: it has the labels of this comparison, and perhaps
    /// another head.
    ///
    /// # Errors
    /// The scores are not of this dataset.
    pub fn judged(
        &self,
        name: String,
        origin: Origin,
        scores: &Scores,
        validation: Option<&Scores>,
        (wanted, draws): (Wanted, Draws),
        spec: &RunSpec,
    ) -> Result<Model, Error> {
        let of = samples(scores, &self.described, spec)?;
        let judging = ready(&of, spec)?;
        let mut points = match validation {
            None => Vec::new(),
            Some(scores) => {
                let choosing = samples(scores, &self.described, spec)?;
                choose(&ready(&choosing, spec)?, wanted)
            }
        };
        if points.is_empty() {
            points.push(fovea_evaluation::Point {
                choice: fovea_evaluation::Choice::Half,
                threshold: 0.5,
            });
        }
        Ok(Model {
            name,
            origin,
            evaluated: evaluate(&judging, &points, draws),
            samples: of,
            judging,
        })
    }
}

/// A spec of which only the labels count.
fn spec(dataset: &str, labels: Labels, positive_from: u32) -> Result<RunSpec, Error> {
    let text = format!(
        "name = \"baseline\"\ndataset = \"{dataset}\"\n[model]\nclasses = {}\npositive_from = {positive_from}",
        labels.classes()
    );
    toml::from_str(&text).map_err(|e| Error::Usage(e.to_string()))
}

/// AUC of each model minus that of `reference`, a number among them; None for the reference itself.
///
/// # Errors
/// They are not of the same photographs.
pub fn differences(
    models: &[Model],
    reference: usize,
    draws: Draws,
) -> Result<Vec<Option<Estimate>>, Error> {
    let to = &models[reference];
    let difference = |(at, model): (usize, &Model)| {
        if at == reference {
            return Ok(None);
        }
        auc_difference(&model.judging, &to.judging, draws)
            .map_err(|e| Error::Usage(format!("{} and {}: {e}", model.name, to.name)))
    };
    models.iter().enumerate().map(difference).collect()
}
