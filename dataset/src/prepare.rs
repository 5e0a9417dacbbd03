//! From a label file and a folder of photographs to a prepared dataset.
//!
//! Steps: labels → all threads decode, crop and resize the photographs into a *spool* of raw records
//! (memory holds one photograph per thread) → split and order of the usable ones → packs, index and
//! manifest, cut from the spool → rename into place. Everything is written to a temporary folder
//! beside the destination, so the destination is a complete dataset or absent. Temporary folders of
//! killed processes are swept by the next call for the same destination ([`leftovers`]).

mod copies;
mod leftovers;
mod options;
mod output;
mod report;
mod sheet;
mod split_file;
mod spool;
mod ungraded;
mod unpacked;

pub use options::{MaxBad, MaxBadError, PrepareOptions, Progress};
pub use report::{Excluded, PrepareError, PrepareReport, Warning};
pub use ungraded::write_ungraded;

use std::collections::{BTreeMap, BTreeSet};

use crate::decode::identity;
use crate::folder::ImageFolder;
use crate::identify::{self, Known};
use crate::index::Content;
use crate::labels::{self, Importer, LabelRow, Labels};
use crate::patient::eye_of;
use crate::split::{Patient, choose, interleave};
use crate::{Counts, Eye, Split, SplitOrigin};

use output::{Facts, Output, Place};
use report::{io_error, unreadable};
use spool::Spool;
use unpacked::Unpacked;

/// Prepares a dataset.
///
/// Deterministic: the same photographs, labels and options give the same bytes, whatever the number
/// of threads or the order in which the folder is listed.
///
/// # Errors
/// Rows and photographs that cannot be used are collected; if there are more than
/// [`PrepareOptions::max_bad`], the call fails with the list. A photograph that the disk does not give is none of them:
/// the call fails, so that another one does not make another dataset. After any error nothing is left at the destination.
pub fn prepare(
    options: &PrepareOptions,
    progress: &dyn Progress,
) -> Result<PrepareReport, PrepareError> {
    let shares = options.check()?;
    let mut labels = labels::read(&options.labels, &options.label_options)?;
    let (output, swept) = Output::begin(&options.out, options.overwrite)?;
    let unpacked = match options.label_options.from {
        Some(Importer::Retinamnist) => {
            Some(Unpacked::from(&options.labels, output.path("unpacked"))?)
        }
        _ => None,
    };
    let images_dir = unpacked
        .as_ref()
        .map_or(&*options.images_dir, Unpacked::path);
    let folder = ImageFolder::list(images_dir)
        .map_err(|e| io_error("list the images folder", &e.path, e.source))?;
    identify(&mut labels.rows, &folder)?;
    labels::check_told(&mut labels, &options.labels, &options.label_options)?;
    let imposed = match (&options.split_file, &unpacked) {
        (Some(path), _) => Some(split_file::read(path)?),
        (None, Some(unpacked)) => Some(unpacked.split(&options.labels)?),
        (None, None) => None,
    };
    if let Some(file) = &imposed {
        options.check_imposed()?;
        file.check(&labels, &folder)?;
    }
    let unlabelled = Unlabelled::of(&labels, &folder, options);
    // What is too bad before any photograph is decoded need not wait for all of them.
    let known = [bad_rows(&labels), missing(&labels, &folder)].concat();
    too_many_bad(&in_order(known), &labels, &unlabelled, options)?;

    let mut warnings: Vec<Warning> = swept.into_iter().map(Warning::from).collect();
    warnings.extend(labels.remarks.iter().cloned().map(Warning::Labels));
    warnings.extend(unlabelled.warning());
    let enlarged = unpacked.as_ref().and_then(|unpacked| unpacked.enlarged);
    warnings.extend(enlarged.map(|[width, height]| Warning::Enlarged { width, height }));
    let spool = Spool::fill(
        output.path("spool"),
        options,
        &labels.rows,
        &folder,
        progress,
    )?;
    let excluded = excluded(&labels, &spool);
    too_many_bad(&excluded, &labels, &unlabelled, options)?;

    let rows = &labels.rows;
    let good: Vec<usize> = (0..rows.len())
        .filter(|&row| spool.records[row].is_ok())
        .collect();
    let patients = Patients::of(rows, &good);
    let sides = match &imposed {
        Some(file) => file.assign(rows, &patients)?,
        None => choose(&patients.known, shares, options.seed),
    };
    let origin = match &imposed {
        Some(file) => SplitOrigin::File {
            seed: options.seed,
            sha256: file.sha256.clone(),
        },
        None => SplitOrigin::Stratified {
            seed: options.seed,
            validation_fraction: f64::from(shares.validation_ppm) / 1e6,
            test_fraction: f64::from(shares.test_ppm) / 1e6,
        },
    };
    let order = patients.order(&sides, options.seed);
    let (counts, split_of) = count(rows, &order);
    for split in Split::ALL {
        let wanted = split != Split::Test || shares.test_ppm > 0;
        if wanted && counts.of(split).iter().sum::<u64>() == 0 {
            let imposed = imposed.is_some();
            return Err(PrepareError::EmptySplit { split, imposed });
        }
    }
    warnings.extend(spool.without_circle(rows));
    let (duplicates, copies) = copies::check(options, enlarged.is_none(), rows, &spool, &split_of)?;
    warnings.extend(copies);
    warnings.extend(one_class(&counts));

    let places = output.write_packs(options, &spool, &order, progress)?;
    let facts = Facts {
        counts,
        split: origin,
        scale: options.label_options.scale(),
        duplicates,
    };
    let manifest = output.write_files(options, rows, &spool, &places, facts, &excluded)?;
    output.write_quality(options, rows, &places, &spool)?;
    let flaws = spool.flaws();
    // Both are in the temporary folder: they must be gone before that is published.
    drop(spool);
    drop(unpacked);
    output.publish()?;
    Ok(PrepareReport {
        dir: options.out.clone(),
        pipeline: manifest.pipeline(),
        digest: manifest.digest,
        counts,
        scale: options.label_options.scale(),
        patients: Split::ALL.map(|split| sides.iter().filter(|s| **s == split).count()),
        packs: manifest.packs.len(),
        excluded,
        warnings,
        flaws,
    })
}

/// Fills in what only the tags of DICOM files tell, and eyes that only a name without a patient tells.
fn identify(rows: &mut [LabelRow], folder: &ImageFolder) -> Result<(), PrepareError> {
    let images: Vec<String> = rows.iter().map(|row| row.image.clone()).collect();
    let known = rows.iter_mut().map(|row| Known {
        patient: &mut row.patient,
        told: &mut row.told,
        eye: &mut row.eye,
    });
    identify::identify(known.collect(), |row| match folder.find(&images[row]) {
        Ok(path) => identity(&path).map_err(|source| unreadable(&path, source)),
        // It is left out, or too much is bad.
        Err(_) => Ok(None),
    })?;
    for row in rows.iter_mut().filter(|row| row.eye == Eye::Unknown) {
        row.eye = eye_of(&row.image);
    }
    Ok(())
}

/// The patients of the usable rows.
struct Patients {
    /// By name.
    known: Vec<Patient>,
    /// Rows of each, by image name.
    rows: Vec<Vec<usize>>,
}

/// The sides of the split in plan order: rows, grouped by patient.
type Order = [(Split, Vec<Vec<usize>>); Split::ALL.len()];

impl Patients {
    fn of(rows: &[LabelRow], good: &[usize]) -> Self {
        let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for &row in good {
            by_name.entry(&rows[row].patient).or_default().push(row);
        }
        let (mut known, mut of_patient) = (Vec::new(), Vec::new());
        for (name, mut members) in by_name {
            members.sort_by(|&a, &b| rows[a].image.cmp(&rows[b].image));
            known.push(Patient {
                name: name.to_owned(),
                highest_grade: members
                    .iter()
                    .map(|&row| rows[row].grade)
                    .max()
                    .unwrap_or(0),
            });
            of_patient.push(members);
        }
        Self {
            known,
            rows: of_patient,
        }
    }

    fn order(&self, sides: &[Split], seed: u64) -> Order {
        Split::ALL.map(|split| {
            let members: Vec<usize> = (0..self.known.len())
                .filter(|&p| sides[p] == split)
                .collect();
            let patients: Vec<Patient> = members.iter().map(|&p| self.known[p].clone()).collect();
            let rows = interleave(&patients, split.as_str(), seed)
                .into_iter()
                .map(|i| self.rows[members[i]].clone())
                .collect();
            (split, rows)
        })
    }
}

/// Counts by side and grade, and the side of every row that has one.
fn count(rows: &[LabelRow], order: &Order) -> (Counts, Vec<Option<Split>>) {
    let mut counts = Counts::default();
    let mut split_of = vec![None; rows.len()];
    for (split, patients) in order {
        for &row in patients.iter().flatten() {
            counts.of_mut(*split)[usize::from(rows[row].grade)] += 1;
            split_of[row] = Some(*split);
        }
    }
    (counts, split_of)
}

/// A warning for each side on which all images are referable (grade 2 and above), or none is: no ROC
/// curve can be drawn there, and nothing can be learned.
fn one_class(counts: &Counts) -> Vec<Warning> {
    let sides = Split::ALL.map(|split| (split, *counts.of(split)));
    let lacking = sides.into_iter().filter(|(_, grades)| {
        let [negative, positive] = [&grades[..2], &grades[2..]].map(|g| g.iter().sum::<u64>());
        // The test part may be empty.
        negative + positive > 0 && (negative == 0 || positive == 0)
    });
    lacking
        .map(|(split, counts)| Warning::OneClass { split, counts })
        .collect()
}

/// Rows that cannot be used, in the order of the label file.
fn bad_rows(labels: &Labels) -> Vec<Excluded> {
    let rows = labels.problems.iter().map(|problem| Excluded {
        line: problem.line,
        image: problem.image.clone(),
        reason: problem.reason.clone(),
        expected: problem.expected,
    });
    rows.collect()
}

/// Unusable rows and photographs, in the order of the label file.
fn excluded(labels: &Labels, spool: &Spool) -> Vec<Excluded> {
    let photographs = labels.rows.iter().zip(&spool.records);
    let photographs = photographs.filter_map(|(row, record)| {
        record.as_ref().err().map(|unusable| Excluded {
            line: row.line,
            image: row.image.clone(),
            reason: unusable.to_string(),
            expected: false,
        })
    });
    let photographs: Vec<Excluded> = photographs.collect();
    in_order([bad_rows(labels), photographs].concat())
}

/// Rows whose photograph is not there.
fn missing(labels: &Labels, folder: &ImageFolder) -> Vec<Excluded> {
    let rows = labels.rows.iter();
    let missing = rows.filter_map(|row| {
        let error = folder.find(&row.image).err()?;
        Some(Excluded {
            line: row.line,
            image: row.image.clone(),
            reason: error.to_string(),
            expected: false,
        })
    });
    missing.collect()
}

fn in_order(mut rows: Vec<Excluded>) -> Vec<Excluded> {
    rows.sort_by_key(|row| row.line);
    rows
}

/// An error if more is bad than allowed.
fn too_many_bad(
    excluded: &[Excluded],
    labels: &Labels,
    unlabelled: &Unlabelled,
    options: &PrepareOptions,
) -> Result<(), PrepareError> {
    let bad: Vec<&Excluded> = excluded.iter().filter(|one| !one.expected).collect();
    let counted = unlabelled.counted();
    let allowed = options.max_bad.allowed(labels.total + counted);
    if bad.len() + counted <= allowed {
        return Ok(());
    }
    Err(PrepareError::TooManyBad {
        excluded: bad.into_iter().cloned().collect(),
        total: labels.total,
        unlabelled: counted,
        unlabelled_examples: unlabelled.examples.clone(),
        allowed,
    })
}

/// Photographs that the label file does not name.
struct Unlabelled {
    count: usize,
    examples: Vec<String>,
    /// Whether they count as bad: a few left-overs do not, many mean lost rows.
    bad: bool,
}

impl Unlabelled {
    fn of(labels: &Labels, folder: &ImageFolder, options: &PrepareOptions) -> Self {
        let rows = labels.rows.iter().map(|row| row.image.as_str());
        let problems = labels.problems.iter().map(|problem| problem.image.as_str());
        let named: BTreeSet<&str> = rows.chain(problems).collect();
        let (count, examples) = folder.unused(named.into_iter());
        Self {
            count,
            examples,
            bad: !options.allow_unlabelled && count * 100 > labels.total,
        }
    }

    /// How many count as bad.
    fn counted(&self) -> usize {
        if self.bad { self.count } else { 0 }
    }

    fn warning(&self) -> Option<Warning> {
        (self.count > 0).then(|| Warning::Unlabelled {
            count: self.count,
            examples: self.examples.clone(),
        })
    }
}

/// A sample's place in the packs; `write_packs` gives them in plan order.
impl Place {
    fn row_of_index(&self, rows: &[LabelRow], spool: &Spool) -> crate::index::Row {
        let row = &rows[self.row];
        let record = spool.records[self.row].as_ref().ok();
        crate::index::Row {
            image: row.image.clone(),
            patient: row.patient.clone(),
            eye: row.eye.as_str().to_owned(),
            grade: row.grade,
            split: self.split.as_str().to_owned(),
            pack: self.pack,
            record: self.record,
            content: record.map(|record| Content::of(&record.sha256).to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
