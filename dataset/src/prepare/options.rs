//! The options of [`super::prepare`].

use std::path::PathBuf;
use std::str::FromStr;

use fovea_core::ids::DatasetName;

use crate::Preprocessing;
use crate::labels::LabelOptions;
use crate::split::{MILLION, Shares};
use crate::{MAX_IMAGE_SIZE, MIN_IMAGE_SIZE};

use super::PrepareError;

/// What to prepare, and how. [`PrepareOptions::new`] sets the defaults.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// The label file, or what the data set has in its place ([`crate::labels::Importer::is_one_place`]).
    pub labels: PathBuf,
    /// How to read it.
    pub label_options: LabelOptions,
    /// The folder with the photographs: `<image>.jpeg`, `.png`, `.dcm` ..., also in
    /// sub-folders.
    pub images_dir: PathBuf,
    /// The folder to make.
    pub out: PathBuf,
    /// The dataset's name.
    pub name: DatasetName,
    /// Width and height of the records, in pixels: 32 to 2048.
    pub image_size: u32,
    /// What is done with the photographs.
    pub preprocess: Preprocessing,
    /// Share of the patients held out for validation, between 0 and 1 (kept to a millionth). Not
    /// used with a `split_file`.
    pub validation_fraction: f64,
    /// Share of the patients held out for the test, from 0 (no test part); with the validation part
    /// it stays below 1. Not used with a `split_file`.
    pub test_fraction: f64,
    /// Seed of the split and of the samples' order.
    pub seed: u64,
    /// A table `image,split` (`train`, `validation` or `test`) that imposes the split. It must name
    /// every usable image; a patient on two sides is refused.
    pub split_file: Option<PathBuf>,
    /// Least number of records in a pack but the last: a pack ends at a patient's end.
    pub pack_records: u32,
    /// Threads; 0 for one per core.
    pub threads: usize,
    /// Most bad rows and photographs that are left out; with more of them nothing is made.
    pub max_bad: MaxBad,
    /// Whether photographs without a label are no sign of lost rows. Otherwise they count as bad when
    /// they are more than 1 % of the rows.
    pub allow_unlabelled: bool,
    /// Whether copies of a photograph may belong to different patients, who may be on both sides of the
    /// split. Without it they are an error.
    pub allow_duplicates: bool,
    /// Whether an existing dataset at `out` is replaced. Anything else there is never touched.
    pub overwrite: bool,
}

impl PrepareOptions {
    /// Options with the defaults: 224 px, a quarter held out, seed 0, no bad image allowed.
    pub fn new(labels: PathBuf, images_dir: PathBuf, out: PathBuf, name: DatasetName) -> Self {
        Self {
            labels,
            label_options: LabelOptions::default(),
            images_dir,
            out,
            name,
            image_size: 224,
            preprocess: Preprocessing::default(),
            validation_fraction: 0.25,
            test_fraction: 0.0,
            seed: 0,
            split_file: None,
            pack_records: 256,
            threads: 0,
            max_bad: MaxBad::Count(0),
            allow_unlabelled: false,
            allow_duplicates: false,
            overwrite: false,
        }
    }

    /// Checks the values; returns the shares of the sides.
    pub(super) fn check(&self) -> Result<Shares, PrepareError> {
        let fail =
            |option: &'static str, problem: String| Err(PrepareError::Option { option, problem });
        if !(MIN_IMAGE_SIZE..=MAX_IMAGE_SIZE).contains(&self.image_size) {
            let problem = format!(
                "is {}; use {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels",
                self.image_size
            );
            return fail("image size", problem);
        }
        if !(1..=100_000).contains(&self.pack_records) {
            let problem = format!("is {}; use 1 to 100000", self.pack_records);
            return fail("records in a pack", problem);
        }
        if self.threads > 1024 {
            return fail("threads", format!("is {}; use at most 1024", self.threads));
        }
        let ppm = |share: f64| (share * MILLION as f64).round();
        let (validation, test) = (ppm(self.validation_fraction), ppm(self.test_fraction));
        if !(1.0..=999_999.0).contains(&validation) {
            let problem = format!(
                "is {}; use a share between 0 and 1, such as 0.25",
                self.validation_fraction
            );
            return fail("validation fraction", problem);
        }
        if !(0.0..1e6 - validation).contains(&test) {
            let problem = format!(
                "is {}; use a share from 0 that leaves patients to train on, such as 0.2",
                self.test_fraction
            );
            return fail("test fraction", problem);
        }
        Ok(Shares {
            validation_ppm: validation as u32,
            test_ppm: test as u32,
        })
    }

    /// The same where the split is not chosen but imposed.
    pub(super) fn check_imposed(&self) -> Result<(), PrepareError> {
        if self.test_fraction == 0.0 {
            return Ok(());
        }
        Err(PrepareError::Option {
            option: "test fraction",
            problem: "is given, but the split is: name the test images in the split file"
                .to_owned(),
        })
    }
}

/// How many bad rows and photographs may be left out. Written as a number (`5`) or a share of the
/// rows (`1%`, `0.01`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxBad {
    /// At most this number.
    Count(usize),
    /// At most this share of the label file's rows, 0 to 1.
    Fraction(f64),
}

impl MaxBad {
    /// The number for a label file of `rows` rows.
    pub fn allowed(self, rows: usize) -> usize {
        match self {
            MaxBad::Count(count) => count,
            // 0.29 * 1000 is 289.99999999999994: the small term undoes such rounding errors.
            MaxBad::Fraction(part) => (part * rows as f64 + 1e-9).floor() as usize,
        }
    }
}

/// A text that is no [`MaxBad`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is neither a number of images (5) nor a share of them (1% or 0.01)")]
pub struct MaxBadError {
    /// The text.
    pub text: String,
}

impl FromStr for MaxBad {
    type Err = MaxBadError;

    fn from_str(text: &str) -> Result<Self, MaxBadError> {
        let text = text.trim();
        let fail = || MaxBadError {
            text: text.to_owned(),
        };
        if let Ok(count) = text.parse() {
            return Ok(MaxBad::Count(count));
        }
        let (number, unit) = match text.strip_suffix('%') {
            Some(number) => (number.trim_end(), 100.0),
            None => (text, 1.0),
        };
        let part = number.parse::<f64>().map_err(|_| fail())? / unit;
        if (0.0..=1.0).contains(&part) {
            Ok(MaxBad::Fraction(part))
        } else {
            Err(fail())
        }
    }
}

/// Receives progress, from several threads.
pub trait Progress: Sync {
    /// A pass over `n` photographs begins: one in which they are read, and one more if their pixels are then processed.
    fn total(&self, n: u64);
    /// The pass is done with `n` more.
    fn advance(&self, n: u64);
    /// Whether to stop: then [`super::prepare`] cleans up and fails.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Discards progress.
impl Progress for () {
    fn total(&self, _: u64) {}
    fn advance(&self, _: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_number_or_a_share() {
        for (text, expected, of_1000) in [
            ("0", MaxBad::Count(0), 0),
            ("17", MaxBad::Count(17), 17),
            ("1%", MaxBad::Fraction(0.01), 10),
            ("0.29", MaxBad::Fraction(0.29), 290),
            ("100 %", MaxBad::Fraction(1.0), 1000),
        ] {
            let parsed: MaxBad = text.parse().expect(text);
            assert_eq!(
                (parsed, parsed.allowed(1000)),
                (expected, of_1000),
                "{text}"
            );
        }
        for bad in ["", "-1", "2.5", "101%", "NaN", "many"] {
            assert!(bad.parse::<MaxBad>().is_err(), "{bad}");
        }
    }

    #[test]
    fn impossible_options_are_refused_by_name() {
        let good = PrepareOptions::new(
            "l.csv".into(),
            "images".into(),
            "out".into(),
            DatasetName::new("x").expect("name"),
        );
        let shares = Shares {
            validation_ppm: 250_000,
            test_ppm: 0,
        };
        assert_eq!(good.check().expect("good"), shares);
        let refused = |change: fn(&mut PrepareOptions)| {
            let mut options = good.clone();
            change(&mut options);
            options.check().expect_err("refused").to_string()
        };
        assert!(refused(|o| o.image_size = 31).starts_with("image size is 31"));
        assert!(refused(|o| o.image_size = 2049).starts_with("image size"));
        assert!(refused(|o| o.pack_records = 0).starts_with("records in a pack"));
        for bad in [0.0, 1.0, -0.1, f64::NAN] {
            let mut options = good.clone();
            options.validation_fraction = bad;
            let message = options.check().expect_err("refused").to_string();
            assert!(message.starts_with("validation fraction"), "{message}");
        }
        for bad in [0.75, -0.1, 1.0, f64::NAN] {
            let mut options = good.clone();
            options.test_fraction = bad;
            let message = options.check().expect_err("refused").to_string();
            assert!(message.starts_with("test fraction"), "{message}");
        }
    }
}
