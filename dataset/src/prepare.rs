//! From a label file and a folder of photographs to a prepared dataset.
//!
//! Steps: labels → all threads decode, crop and resize the photographs into a *spool* of raw records
//! (memory holds one photograph per thread) → split and order of the usable ones → packs, index and
//! manifest, cut from the spool → rename into place. Everything is written to a temporary folder
//! beside the destination, so the destination is a complete dataset or absent. Temporary folders of
//! killed processes are swept by the next call for the same destination ([`leftovers`]).

mod copies;
mod identify;
mod leftovers;
mod options;
mod output;
mod report;
mod sheet;
mod split_file;
mod spool;

pub use options::{MaxBad, MaxBadError, PrepareOptions, Progress};
pub use report::{Excluded, PrepareError, PrepareReport, Warning};

use std::collections::{BTreeMap, BTreeSet};

use crate::folder::ImageFolder;
use crate::labels::{self, LabelRow, Labels};
use crate::split::{Patient, choose_validation, interleave};
use crate::{Counts, Split, SplitOrigin};

use output::{Output, Place};
use report::io_error;
use spool::Spool;

/// Prepares a dataset.
///
/// Deterministic: the same photographs, labels and options give the same bytes, whatever the number
/// of threads or the order in which the folder is listed.
///
/// # Errors
/// Rows and photographs that cannot be used are collected; if there are more than
/// [`PrepareOptions::max_bad`], the call fails with the list. After any error nothing is left at the
/// destination.
pub fn prepare(
    options: &PrepareOptions,
    progress: &dyn Progress,
) -> Result<PrepareReport, PrepareError> {
    let fraction_ppm = options.check()?;
    let mut labels = labels::read(&options.labels, &options.label_options)?;
    let folder = ImageFolder::list(&options.images_dir)
        .map_err(|source| io_error("list the images folder", &options.images_dir, source))?;
    identify::identify(&mut labels.rows, &folder);
    let imposed = match &options.split_file {
        Some(path) => Some(split_file::read(path)?),
        None => None,
    };
    let (output, swept) = Output::begin(&options.out, options.overwrite)?;

    let mut warnings: Vec<Warning> = swept.into_iter().map(Warning::from).collect();
    warnings.extend(unlabelled(&labels, &folder));
    let spool = Spool::fill(
        output.path("spool"),
        options,
        &labels.rows,
        &folder,
        progress,
    )?;
    let excluded = excluded(&labels, &spool);
    let allowed = options.max_bad.allowed(labels.total);
    if excluded.len() > allowed {
        return Err(PrepareError::TooManyBad {
            excluded,
            total: labels.total,
            allowed,
        });
    }

    let rows = &labels.rows;
    let good: Vec<usize> = (0..rows.len())
        .filter(|&row| spool.records[row].is_ok())
        .collect();
    let patients = Patients::of(rows, &good);
    let held_out = match &imposed {
        Some(file) => file.assign(rows, &good, &patients)?,
        None => choose_validation(&patients.known, fraction_ppm, options.seed),
    };
    let origin = match &imposed {
        Some(file) => SplitOrigin::File {
            seed: options.seed,
            sha256: file.sha256.clone(),
        },
        None => SplitOrigin::Stratified {
            seed: options.seed,
            validation_fraction: f64::from(fraction_ppm) / 1e6,
        },
    };
    let order = patients.order(&held_out, options.seed);
    let (counts, split_of) = count(rows, &order);
    for split in [Split::Train, Split::Validation] {
        if counts.of(split).iter().sum::<u64>() == 0 {
            return Err(PrepareError::EmptySplit { split });
        }
    }
    warnings.extend(spool.without_circle(rows));
    warnings.extend(copies_of(options, rows, &spool, &split_of)?);
    warnings.extend(patients.warning(rows, &good));

    let places = output.write_packs(options, &spool, &order)?;
    let manifest = output.write_files(options, rows, &places, counts, origin, &excluded)?;
    output.write_quality(rows, &places, &spool)?;
    let mut flaws = BTreeMap::new();
    for flaw in spool
        .usable()
        .flat_map(|(_, record)| record.quality.flaws())
    {
        *flaws.entry(flaw).or_insert(0) += 1;
    }
    // The spool is a file of the temporary folder: it must be gone before that is published.
    drop(spool);
    output.publish()?;
    Ok(PrepareReport {
        dir: options.out.clone(),
        digest: manifest.digest,
        counts,
        patients: held_out_counts(&held_out),
        packs: manifest.packs.len(),
        excluded,
        warnings,
        flaws,
    })
}

/// Warnings about copies of a photograph; an error if some are on both sides and this is not allowed: a network has seen
/// what it is evaluated on.
fn copies_of(
    options: &PrepareOptions,
    rows: &[LabelRow],
    spool: &Spool,
    split_of: &[Option<Split>],
) -> Result<Vec<Warning>, PrepareError> {
    let warning = |copies: copies::Copies| {
        let first = copies.rows[0];
        let differ = |what: &dyn Fn(usize) -> bool| copies.rows.iter().any(|&row| what(row));
        Warning::SamePixels {
            exact: copies.exact,
            across_patients: differ(&|row| rows[row].patient != rows[first].patient),
            across_splits: differ(&|row| split_of[row] != split_of[first]),
            images: (copies.rows.iter())
                .map(|&row| (rows[row].image.clone(), rows[row].grade))
                .collect(),
        }
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()?;
    let copies = pool.install(|| copies::find(spool))?;
    let warnings: Vec<Warning> = copies.into_iter().map(warning).collect();
    let leaks = |w: &&Warning| {
        matches!(
            w,
            Warning::SamePixels {
                across_splits: true,
                ..
            }
        )
    };
    let leaking: Vec<Warning> = warnings.iter().filter(leaks).cloned().collect();
    if leaking.is_empty() || options.allow_duplicates {
        Ok(warnings)
    } else {
        Err(PrepareError::Copies { copies: leaking })
    }
}

/// The patients of the usable rows.
struct Patients {
    /// By name.
    known: Vec<Patient>,
    /// Rows of each, by image name.
    rows: Vec<Vec<usize>>,
}

/// One side of the split in plan order: rows, grouped by patient.
type Order = [(Split, Vec<Vec<usize>>); 2];

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

    fn order(&self, held_out: &[bool], seed: u64) -> Order {
        [Split::Train, Split::Validation].map(|split| {
            let members: Vec<usize> = (0..self.known.len())
                .filter(|&p| held_out[p] == (split == Split::Validation))
                .collect();
            let patients: Vec<Patient> = members.iter().map(|&p| self.known[p].clone()).collect();
            let rows = interleave(&patients, split.as_str(), seed)
                .into_iter()
                .map(|i| self.rows[members[i]].clone())
                .collect();
            (split, rows)
        })
    }

    /// A warning if neither names nor a column identify patients: then the split is by image, and two
    /// eyes of a patient may be on different sides.
    fn warning(&self, rows: &[LabelRow], good: &[usize]) -> Option<Warning> {
        let own = |&row: &usize| rows[row].patient == rows[row].image;
        let nothing_known = self.known.len() == good.len() && good.iter().all(own);
        nothing_known.then_some(Warning::NoPatients)
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

fn held_out_counts(held_out: &[bool]) -> [usize; 2] {
    let validation = held_out.iter().filter(|&&h| h).count();
    [held_out.len() - validation, validation]
}

/// Unusable rows and photographs, in the order of the label file.
fn excluded(labels: &Labels, spool: &Spool) -> Vec<Excluded> {
    let rows = labels.problems.iter().map(|problem| Excluded {
        line: problem.line,
        image: problem.image.clone(),
        reason: problem.reason.clone(),
    });
    let photographs = labels.rows.iter().zip(&spool.records);
    let photographs = photographs.filter_map(|(row, record)| {
        record.as_ref().err().map(|unusable| Excluded {
            line: row.line,
            image: row.image.clone(),
            reason: unusable.to_string(),
        })
    });
    let mut all: Vec<Excluded> = rows.chain(photographs).collect();
    all.sort_by_key(|e| e.line);
    all
}

fn unlabelled(labels: &Labels, folder: &ImageFolder) -> Option<Warning> {
    let rows = labels.rows.iter().map(|row| row.image.as_str());
    let problems = labels.problems.iter().map(|problem| problem.image.as_str());
    let named: BTreeSet<&str> = rows.chain(problems).collect();
    let (count, examples) = folder.unused(named.into_iter());
    (count > 0).then_some(Warning::Unlabelled { count, examples })
}

/// A sample's place in the packs; `write_packs` gives them in plan order.
impl Place {
    fn row_of_index(&self, rows: &[LabelRow]) -> crate::index::Row {
        let row = &rows[self.row];
        crate::index::Row {
            image: row.image.clone(),
            patient: row.patient.clone(),
            eye: row.eye.as_str().to_owned(),
            grade: row.grade,
            split: self.split.as_str().to_owned(),
            pack: self.pack,
            record: self.record,
        }
    }
}
