//! Photographs to records, by all threads, in a file of records in the label file's order.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::Split;
use crate::crop::{CropError, CropMethod};
use crate::decode::DecodeError;
use crate::folder::{FindError, ImageFolder};
use crate::labels::LabelRow;
use crate::square::{Square, SquareError};

use super::report::io_error;
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
    /// Its file is no picture.
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

/// A record's digest and crop.
pub(super) struct Record {
    /// SHA-256 of its bytes.
    sha256: [u8; 32],
    method: CropMethod,
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
            let record = match record(folder, &row.image, options.image_size) {
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

    /// Warnings about the records.
    pub fn warnings(&self, rows: &[LabelRow], split_of: &[Option<Split>]) -> Vec<Warning> {
        let mut no_circle = Vec::new();
        let mut by_pixels: HashMap<[u8; 32], Vec<usize>> = HashMap::new();
        for (row, record) in self.records.iter().enumerate() {
            if let Ok(record) = record {
                by_pixels.entry(record.sha256).or_default().push(row);
                if record.method == CropMethod::BoundingBox {
                    no_circle.push(rows[row].image.clone());
                }
            }
        }
        let mut same: Vec<Vec<usize>> = by_pixels.into_values().filter(|r| r.len() > 1).collect();
        same.sort();
        let differ = |of: &[usize], what: &dyn Fn(usize) -> bool| of.iter().any(|&row| what(row));
        let same = same.into_iter().map(|of| Warning::SamePixels {
            across_patients: differ(&of, &|row| rows[row].patient != rows[of[0]].patient),
            across_splits: differ(&of, &|row| split_of[row] != split_of[of[0]]),
            images: of
                .iter()
                .map(|&row| (rows[row].image.clone(), rows[row].grade))
                .collect(),
        });
        let no_circle = (!no_circle.is_empty()).then_some(Warning::NoCircle { images: no_circle });
        no_circle.into_iter().chain(same).collect()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // On failure it only takes space in a folder that is removed later.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The record of an image, or why there is none.
fn record(folder: &ImageFolder, image: &str, size: u32) -> Result<(Vec<u8>, Record), Unusable> {
    let path = folder.find(image)?;
    let square = Square::read(&path, size)?;
    let mut bytes = square.pixels.into_raw();
    for pixel in bytes.chunks_exact_mut(3) {
        pixel.swap(0, 2); // R, G, B to B, G, R
    }
    let record = Record {
        sha256: Sha256::digest(&bytes).into(),
        method: square.crop.method,
    };
    Ok((bytes, record))
}
