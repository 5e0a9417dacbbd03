//! A set of drawings on disk, in the form in which EyePACS publishes photographs.

use std::fs;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;

use super::{EyeSpec, SIZES, render};
use crate::{Eye, GRADES};
use fovea_core::random::stream;
use rand_chacha::rand_core::RngCore;

/// What to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct SyntheticOptions {
    /// Patients, of two eyes each: at least 1.
    pub patients: u32,
    /// Width and height of a picture in pixels, within [`SIZES`].
    pub size: u32,
    /// Seed of everything drawn.
    pub seed: u64,
    /// How frequent patients of each grade are; only the proportions count.
    pub grade_weights: [f64; GRADES],
}

impl Default for SyntheticOptions {
    /// 300 patients at 256 pixels, half of them referable (grade 2 and above).
    fn default() -> Self {
        Self {
            patients: 300,
            size: 256,
            seed: 0,
            grade_weights: [35.0, 15.0, 25.0, 12.5, 12.5],
        }
    }
}

/// Why no drawings were written.
#[derive(Debug, thiserror::Error)]
pub enum SyntheticError {
    /// An option with an invalid value.
    #[error("{option}: {message}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What is wrong, and a valid value.
        message: String,
    },
    /// The folder contains other files.
    #[error(
        "{}: the folder is not empty and holds no synthetic photographs; name a new folder",
        dir.display()
    )]
    NotOurs {
        /// The folder.
        dir: PathBuf,
    },
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A picture cannot be encoded.
    #[error("{}: cannot encode the picture: {source}", path.display())]
    Encode {
        /// The file it was meant for.
        path: PathBuf,
        /// What the encoder says.
        source: image::ImageError,
    },
}

const IMAGES: &str = "images";
const LABELS: &str = "trainLabels.csv";
const README: &str = "README.txt";
/// The README's first line, by which a folder of synthetic photographs is recognized.
const HEADING: &str = "SYNTHETIC fundus photographs, drawn by Fovea. They show no patient.";
/// Prefix of every image's name, so that none is mistaken for a photograph.
const PREFIX: &str = "synthetic";
const JPEG_QUALITY: u8 = 90;

/// Draws a set into `dir`: `images/synthetic<patient>_<left|right>.jpeg`, `trainLabels.csv`
/// (`image,level`) and a README that says what this is. Uses all of rayon's threads; the files do
/// not depend on how many.
///
/// `progress` is called with the number of pictures finished since the last call. An older set in the
/// same folder is replaced; a folder with anything else in it is refused.
pub fn generate(
    dir: &Path,
    options: &SyntheticOptions,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<(), SyntheticError> {
    options.validate()?;
    clear(dir)?;
    let images = dir.join(IMAGES);
    fs::create_dir_all(&images).map_err(io(&images))?;
    write(&dir.join(README), readme(options).as_bytes())?;

    let eyes = options.eyes();
    eyes.par_iter().try_for_each(|eye| {
        let path = images.join(format!("{}.jpeg", name(eye)));
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
            .encode_image(&render(eye))
            .map_err(|source| SyntheticError::Encode {
                path: path.clone(),
                source,
            })?;
        write(&path, &bytes)?;
        progress(1);
        Ok(())
    })?;

    // Written last: a set with labels is complete.
    let mut labels = String::from("image,level\n");
    for eye in &eyes {
        labels += &format!("{},{}\n", name(eye), eye.grade);
    }
    write(&dir.join(LABELS), labels.as_bytes())
}

impl SyntheticOptions {
    /// Every eye of the set, patient by patient, left before right.
    ///
    /// A patient's eyes depend on the seed and the patient's number, not on how many there are.
    pub fn eyes(&self) -> Vec<EyeSpec> {
        (1..=self.patients)
            .flat_map(|patient| {
                let grades = self.grades(patient);
                [Eye::Left, Eye::Right]
                    .into_iter()
                    .zip(grades)
                    .map(move |(eye, grade)| EyeSpec {
                        seed: self.seed,
                        patient,
                        eye,
                        grade,
                        size: self.size,
                    })
            })
            .collect()
    }

    /// Grades of a patient's left and right eye: equal in most patients, else one apart.
    fn grades(&self, patient: u32) -> [u8; 2] {
        // Steps of the golden ratio fill 0..1 evenly, so the first n patients of any set have
        // about the wanted proportions.
        let start = stream("synthetic/grades", &[self.seed]).next_u64();
        let place = start.wrapping_add(u64::from(patient).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let place = (place >> 11) as f64 / (1u64 << 53) as f64;
        let grade = self.grade_at(place);

        let mut rng = stream("synthetic/fellow", &[self.seed, u64::from(patient)]);
        let fellow = match rng.next_u32() % 10 {
            0 => grade.saturating_sub(1),
            1 => (grade + 1).min(GRADES as u8 - 1),
            _ => grade,
        };
        // A grade of weight 0 is not drawn.
        let fellow = if self.grade_weights[usize::from(fellow)] > 0.0 {
            fellow
        } else {
            grade
        };
        if rng.next_u32().is_multiple_of(2) {
            [grade, fellow]
        } else {
            [fellow, grade]
        }
    }

    /// The grade at a place of 0..1, when grades lie side by side with their weights as lengths.
    fn grade_at(&self, place: f64) -> u8 {
        let mut left = place * self.grade_weights.iter().sum::<f64>();
        let mut last = 0;
        for (grade, &weight) in self.grade_weights.iter().enumerate() {
            if weight > 0.0 {
                last = grade as u8;
                if left < weight {
                    break;
                }
                left -= weight;
            }
        }
        last
    }

    fn validate(&self) -> Result<(), SyntheticError> {
        let refuse = |option, message| Err(SyntheticError::Option { option, message });
        if self.patients == 0 {
            return refuse(
                "patients",
                "0 patients have no eyes; draw at least 1".into(),
            );
        }
        if !SIZES.contains(&self.size) {
            let (low, high) = (SIZES.start(), SIZES.end());
            return refuse(
                "size",
                format!("{} pixels are not between {low} and {high}", self.size),
            );
        }
        let sane = |w: &f64| w.is_finite() && *w >= 0.0;
        let total: f64 = self.grade_weights.iter().sum();
        if !(self.grade_weights.iter().all(sane) && total.is_finite() && total > 0.0) {
            return refuse(
                "grade_weights",
                format!(
                    "{:?} are no proportions: give five numbers of at least 0, not all of them 0",
                    self.grade_weights
                ),
            );
        }
        Ok(())
    }
}

fn name(eye: &EyeSpec) -> String {
    format!("{PREFIX}{:04}_{}", eye.patient, eye.eye.as_str())
}

/// Removes the labels and pictures of an older set; refuses a folder with anything else.
fn clear(dir: &Path) -> Result<(), SyntheticError> {
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io(dir)(e)),
    };
    if entries.next().is_none() {
        return Ok(());
    }
    let ours = fs::read(dir.join(README)).is_ok_and(|text| text.starts_with(HEADING.as_bytes()));
    if !ours {
        return Err(SyntheticError::NotOurs {
            dir: dir.to_owned(),
        });
    }
    remove(&dir.join(LABELS))?;
    let images = dir.join(IMAGES);
    let Ok(entries) = fs::read_dir(&images) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry.map_err(io(&images))?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), SyntheticError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(path)(e)),
        _ => Ok(()),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), SyntheticError> {
    fs::write(path, bytes).map_err(io(path))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SyntheticError {
    let path = path.to_owned();
    |source| SyntheticError::Io { path, source }
}

fn readme(options: &SyntheticOptions) -> String {
    let SyntheticOptions {
        patients,
        size,
        seed,
        grade_weights,
    } = options;
    format!(
        "{HEADING}\n\
         \n\
         Every picture here is computed from random numbers: {patients} invented patients of two eyes \
         each,\n{size} x {size} pixels, seed {seed}, grades 0 to 4 in the proportions {grade_weights:?}.\n\
         \n\
         {LABELS} gives each drawing's grade of diabetic retinopathy, 0 to 4, which says what was \
         drawn\ninto it. The drawings are for trying out and testing software. They are no medical \
         data, and a\nnetwork trained on them knows nothing about eyes.\n"
    )
}
