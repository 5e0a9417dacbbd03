//! Photographs to records, by all threads, in a file of records in the label file's order.
//!
//! They are the squares that were cut out, not preprocessed yet: copies are found, and the quality is looked at, the same way
//! whatever is done with the pixels afterwards.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use image::RgbImage;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::crop::{CropError, CropMethod};
use crate::decode::{DecodeError, Encoded};
use crate::folder::{FindError, ImageFolder};
use crate::labels::LabelRow;
use crate::likeness::Print;
use crate::preprocess::Preprocessing;
use crate::quality::{Flaw, Quality};
use crate::recipe::as_record;
use crate::square::{Disc, Square, SquareError};

use super::report::{io_error, unreadable};
use super::{PrepareError, PrepareOptions, Progress, Warning};

/// The records of all usable photographs, and the reasons why others are unusable.
pub(super) struct Spool {
    path: PathBuf,
    file: File,
    record_bytes: usize,
    /// For each row of the label file: digest and crop of its record, or why there is none.
    pub records: Vec<Result<Record, Unusable>>,
}

/// Why a photograph is left out. The texts leave out folders, so that what is written to
/// `excluded.csv` does not depend on where the photographs lie.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// Its file is missing or ambiguous.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its file is no picture, or a link to nothing.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The picture shows no fundus.
    #[error(transparent)]
    Crop(#[from] CropError),
}

impl From<SquareError> for Unusable {
    fn from(error: SquareError) -> Self {
        match error {
            SquareError::Decode(error) => Unusable::Decode(error),
            SquareError::Crop(error) => Unusable::Crop(error),
        }
    }
}

/// What is kept in memory of a record.
pub(super) struct Record {
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    pub method: CropMethod,
    /// Where the fundus lies in it.
    pub disc: Disc,
    /// To find copies.
    pub print: Print,
    pub quality: Quality,
}

impl Spool {
    /// Decodes, crops and resizes every row's photograph into a new file at `path`, one at a time in each thread.
    pub fn fill(
        path: PathBuf,
        options: &PrepareOptions,
        rows: &[LabelRow],
        folder: &ImageFolder,
        progress: &dyn Progress,
    ) -> Result<Self, PrepareError> {
        let failed = |source| io_error("write", &path, source);
        let file = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        let record_bytes = options.image_size as usize * options.image_size as usize * 3;
        progress.total(rows.len() as u64);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .build()?;
        let one = |(position, row): (usize, &LabelRow)| {
            if progress.cancelled() {
                return Err(PrepareError::Cancelled);
            }
            let record = match record(folder, &row.image, options)? {
                Ok((bytes, record)) => {
                    let offset = position as u64 * record_bytes as u64;
                    file.write_all_at(&bytes, offset).map_err(failed)?;
                    Ok(record)
                }
                Err(unusable) => Err(unusable),
            };
            progress.advance(1);
            Ok(record)
        };
        let records = pool.install(|| {
            rows.par_iter()
                .enumerate()
                .map(one)
                .collect::<Result<_, _>>()
        })?;
        Ok(Self {
            path,
            file,
            record_bytes,
            records,
        })
    }

    /// Reads the record of a row.
    pub fn read(&self, row: usize, buffer: &mut [u8]) -> Result<(), PrepareError> {
        self.file
            .read_exact_at(buffer, row as u64 * self.record_bytes as u64)
            .map_err(|source| io_error("read", &self.path, source))
    }

    /// The record of a row as it is stored in a dataset: the spool's, preprocessed.
    pub fn processed(
        &self,
        row: usize,
        preprocess: &Preprocessing,
    ) -> Result<RgbImage, PrepareError> {
        let mut square = self.square(row)?;
        if let Ok(record) = &self.records[row] {
            preprocess.apply(&mut square, record.disc);
        }
        Ok(square)
    }

    /// The record of a row as a picture.
    pub fn square(&self, row: usize) -> Result<RgbImage, PrepareError> {
        let mut record = vec![0; self.record_bytes];
        self.read(row, &mut record)?;
        let size = self.side();
        let rgb = record.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]);
        Ok(RgbImage::from_raw(size, size, rgb.collect()).expect("a record is size x size pixels"))
    }

    /// Size of a record.
    pub fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// Width and height of the records, in pixels.
    pub fn side(&self) -> u32 {
        (self.record_bytes / 3).isqrt() as u32
    }

    /// The rows that have a record.
    pub fn usable(&self) -> impl Iterator<Item = (usize, &Record)> {
        let records = self.records.iter().enumerate();
        records.filter_map(|(row, record)| Some((row, record.as_ref().ok()?)))
    }

    /// How many photographs have which flaw.
    pub fn flaws(&self) -> BTreeMap<Flaw, usize> {
        let mut flaws = BTreeMap::new();
        for (_, record) in self.usable() {
            for flaw in record.quality.flaws() {
                *flaws.entry(flaw).or_insert(0) += 1;
            }
        }
        flaws
    }

    /// A warning about photographs without a circle.
    pub fn without_circle(&self, rows: &[LabelRow]) -> Option<Warning> {
        let images: Vec<String> = self
            .usable()
            .filter(|(_, record)| record.method == CropMethod::BoundingBox)
            .map(|(row, _)| rows[row].image.clone())
            .collect();
        (!images.is_empty()).then_some(Warning::NoCircle { images })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // On failure it only takes space in a folder that is removed later.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The record of an image, or why there is none.
///
/// # Errors
/// The disk does not give its file.
fn record(
    folder: &ImageFolder,
    image: &str,
    options: &PrepareOptions,
) -> Result<Result<(Vec<u8>, Record), Unusable>, PrepareError> {
    let path = match folder.find(image) {
        Ok(path) => path,
        Err(error) => return Ok(Err(error.into())),
    };
    match Encoded::read(&path) {
        Ok(file) => Ok(cut(&file, options)),
        // A link may lead nowhere.
        Err(DecodeError::Io(source)) if source.kind() != io::ErrorKind::NotFound => {
            Err(unreadable(&path, source))
        }
        Err(error) => Ok(Err(error.into())),
    }
}

fn cut(file: &Encoded, options: &PrepareOptions) -> Result<(Vec<u8>, Record), Unusable> {
    let square = Square::cut(file, options.preprocess.method(), options.image_size)?;
    let print = Print::of(&square.pixels);
    let quality = Quality::of(&square.pixels);
    let bytes = as_record(square.pixels);
    let record = Record {
        sha256: Sha256::digest(&bytes).into(),
        method: square.crop.method,
        disc: square.disc,
        print,
        quality,
    };
    Ok((bytes, record))
}
