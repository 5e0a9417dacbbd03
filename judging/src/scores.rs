//! The scores that an evaluation left, as the coordinator sends them.

use fovea_core::class_map::ClassMap;
use fovea_core::spec::{FoldSpec, Part};
use fovea_proto::pb;

use crate::error::Error;
use crate::evaluation::part_of;

/// Most probabilities that are accepted: 10 million samples of 5 classes, 200 MB.
const MOST: u64 = 50_000_000;

/// Scores that come in parts.
#[derive(Debug, Default)]
pub struct Receiving(Option<(Scores, u64)>);

impl Receiving {
    /// Takes the next part.
    ///
    /// # Errors
    /// It is not what was announced.
    pub fn take(&mut self, part: pb::ScoresPart) -> Result<(), Error> {
        let pb::ScoresPart {
            info,
            probabilities,
            maps,
        } = part;
        if let Some(info) = info {
            self.0 = Some(Scores::begin(info)?);
        }
        let Some((scores, expected)) = &mut self.0 else {
            return Err(Error::Protocol(
                "scores come before what they are of".into(),
            ));
        };
        scores.take_maps(maps)?;
        scores.probabilities.extend(probabilities);
        if *expected > MOST || scores.probabilities.len() as u64 > *expected {
            return Err(Error::Protocol(format!(
                "more scores come than the {expected} that were announced"
            )));
        }
        Ok(())
    }

    /// The scores, when no more parts come.
    ///
    /// # Errors
    /// Some are missing.
    pub fn finish(self) -> Result<Scores, Error> {
        match self.0 {
            Some((scores, expected)) if scores.probabilities.len() as u64 == expected => {
                scores.check_maps()?;
                Ok(scores)
            }
            Some((scores, expected)) => Err(Error::Protocol(format!(
                "{} of {expected} scores came",
                scores.probabilities.len()
            ))),
            None => Err(Error::Protocol("no scores came".into())),
        }
    }
}

/// The probabilities that a model gave to every class of every sample of a part.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Digest of the dataset.
    pub dataset_digest: String,
    /// The part that was scored.
    pub part: Part,
    /// The fold that counts as validation split there.
    pub fold: Option<FoldSpec>,
    /// Number of classes.
    pub classes: usize,
    /// Whether each score is the mean over the four rotations of its photograph.
    pub rotations: bool,
    /// Sample by sample in the order of the dataset's index, class by class.
    pub probabilities: Vec<f32>,
    /// Number of samples that were announced.
    announced: u64,
    /// Rows and columns of each class activation map; 0 if none are sent.
    map_size: (usize, usize),
    /// Sample by sample, row by row.
    map_values: Vec<f32>,
}

impl Scores {
    /// Scores that no coordinator sent, without maps.
    pub fn without_maps(
        dataset_digest: String,
        part: Part,
        classes: usize,
        probabilities: Vec<f32>,
    ) -> Self {
        Self {
            dataset_digest,
            part,
            fold: None,
            classes,
            rotations: false,
            announced: (probabilities.len() / classes.max(1)) as u64,
            probabilities,
            map_size: (0, 0),
            map_values: Vec::new(),
        }
    }

    /// Begins with what the scores are of. Returns the number of probabilities that are to follow, too.
    fn begin(info: pb::ScoresInfo) -> Result<(Self, u64), Error> {
        let pb::ScoresInfo {
            dataset_digest,
            part,
            samples,
            classes,
            epoch: _,
            fold,
            map_height,
            map_width,
            rotations,
        } = info;
        let scores = Self {
            dataset_digest,
            part: part_of(part)?,
            fold: fold.map(Into::into),
            classes: classes as usize,
            rotations,
            probabilities: Vec::new(),
            announced: samples,
            map_size: (map_height as usize, map_width as usize),
            map_values: Vec::new(),
        };
        Ok((scores, samples.saturating_mul(u64::from(classes))))
    }

    /// Takes the next values of maps.
    fn take_maps(&mut self, values: Vec<f32>) -> Result<(), Error> {
        self.map_values.extend(values);
        match self.map_values.len() as u64 > self.map_values_announced() {
            true => Err(self.wrong_maps()),
            false => Ok(()),
        }
    }

    /// Whether all maps have come.
    fn check_maps(&self) -> Result<(), Error> {
        match self.map_values.len() as u64 == self.map_values_announced() {
            true => Ok(()),
            false => Err(self.wrong_maps()),
        }
    }

    fn map_values_announced(&self) -> u64 {
        let (height, width) = self.map_size;
        let places = (height as u64).saturating_mul(width as u64);
        self.announced.saturating_mul(places)
    }

    fn wrong_maps(&self) -> Error {
        let (height, width) = self.map_size;
        Error::Protocol(format!(
            "{} values of maps came for {} samples of {height} x {width}",
            self.map_values.len(),
            self.announced
        ))
    }

    /// The class activation map of a sample, if maps were sent.
    pub fn map(&self, sample: usize) -> Option<ClassMap> {
        let (height, width) = self.map_size;
        let places = height * width;
        let values = self
            .map_values
            .get(sample * places..(sample + 1) * places)?;
        (places > 0).then(|| ClassMap {
            height,
            width,
            values: values.to_vec(),
        })
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.probabilities.len() / self.classes.max(1)
    }
}
