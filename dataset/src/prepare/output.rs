//! The folder being written: temporary beside its destination, then renamed into place.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::labels::LabelRow;
use crate::recipe::as_record;
use crate::{
    Counts, Duplicates, GradeScale, INDEX_FILE, IndexEntry, MANIFEST_FILE, Manifest, PackEntry,
    Preprocess, Split, SplitOrigin,
};

use super::leftovers::{self, Swept, Temporary};
use super::report::io_error;
use super::sheet;
use super::spool::Spool;
use super::{Excluded, Order, PrepareError, PrepareOptions, Progress};

/// What a look at each photograph found. It stays with whoever prepared the dataset.
const QUALITY_FILE: &str = "quality.csv";
/// The contact sheet; the column `sheet` of `quality.csv` numbers its pictures row by row.
const SHEET_FILE: &str = "contact-sheet.png";

/// Records of a pack that are preprocessed at once.
const AT_ONCE: usize = 4;

/// A dataset being written. Dropped before [`Output::publish`], it leaves nothing behind.
pub(super) struct Output {
    out: PathBuf,
    overwrite: bool,
    /// The folder that `out` is in.
    parent: PathBuf,
    temporary: Temporary,
}

/// Where a row's record was written.
pub(super) struct Place {
    pub row: usize,
    pub split: Split,
    pub pack: u32,
    pub record: u32,
}

/// What a manifest says about the samples as a whole.
pub(super) struct Facts {
    pub counts: Counts,
    pub split: SplitOrigin,
    pub scale: GradeScale,
    pub duplicates: Duplicates,
}

/// What [`Output::write_packs`] wrote.
pub(super) struct Packs {
    entries: Vec<PackEntry>,
    /// In plan order, training first.
    places: Vec<Place>,
}

impl Output {
    /// Sweeps what killed processes left beside `out`, checks that `out` may be made, and makes a
    /// temporary folder beside it. Returns what was swept, too.
    pub fn begin(out: &Path, overwrite: bool) -> Result<(Self, Vec<Swept>), PrepareError> {
        let Some(name) = out.file_name() else {
            return Err(PrepareError::Option {
                option: "output folder",
                problem: format!("{} names no folder", out.display()),
            });
        };
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let swept = match leftovers::sweep(&parent, out, name) {
            Ok(swept) => swept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => {
                return Err(io_error(
                    "sweep leftovers of killed processes in",
                    &parent,
                    source,
                ));
            }
        };
        check_destination(out, overwrite)?;
        fs::create_dir_all(&parent)
            .map_err(|source| io_error("create the folder", &parent, source))?;
        let temporary = Temporary::create(&parent, name)
            .map_err(|source| io_error("create a temporary folder in", &parent, source))?;
        let output = Self {
            out: out.to_owned(),
            overwrite,
            parent,
            temporary,
        };
        Ok((output, swept))
    }

    /// A path inside the temporary folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// Cuts the order into packs at patients' boundaries, preprocesses the records and writes them, several at once.
    pub fn write_packs(
        &self,
        options: &PrepareOptions,
        spool: &Spool,
        order: &Order,
        progress: &dyn Progress,
    ) -> Result<Packs, PrepareError> {
        let folder = self.path("packs");
        fs::create_dir(&folder).map_err(|source| io_error("create", &folder, source))?;
        let mut packs: Vec<(String, Split, Vec<usize>)> = Vec::new();
        for (split, patients) in order {
            let mut rest = patients.as_slice();
            for number in 0.. {
                let mut rows = Vec::new();
                while let [first, others @ ..] = rest
                    && rows.len() < options.pack_records as usize
                {
                    rows.extend(first);
                    rest = others;
                }
                if rows.is_empty() {
                    break;
                }
                packs.push((format!("packs/{split}-{number:05}.pack"), *split, rows));
            }
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .build()?;
        let record_bytes = options.image_size as usize * options.image_size as usize * 3;
        if options.preprocess.changes_pixels() {
            progress.total(packs.iter().map(|(_, _, rows)| rows.len() as u64).sum());
        }
        let write = |(file, split, rows): &(String, Split, Vec<usize>)| {
            let sha256 = self.write_pack(file, rows, spool, options, progress)?;
            Ok::<_, PrepareError>(PackEntry {
                file: file.clone(),
                split: *split,
                records: rows.len() as u32,
                bytes: rows.len() as u64 * record_bytes as u64,
                sha256,
            })
        };
        let entries = pool.install(|| packs.par_iter().map(write).collect::<Result<_, _>>())?;
        let places = packs
            .iter()
            .enumerate()
            .flat_map(|(pack, (_, split, rows))| {
                rows.iter().enumerate().map(move |(record, &row)| Place {
                    row,
                    split: *split,
                    pack: pack as u32,
                    record: record as u32,
                })
            });
        Ok(Packs {
            places: places.collect(),
            entries,
        })
    }

    /// Writes one pack; returns its SHA-256.
    fn write_pack(
        &self,
        name: &str,
        rows: &[usize],
        spool: &Spool,
        options: &PrepareOptions,
        progress: &dyn Progress,
    ) -> Result<String, PrepareError> {
        let path = self.path(name);
        let failed = |source| io_error("write", &path, source);
        let mut file = BufWriter::with_capacity(1 << 20, File::create_new(&path).map_err(failed)?);
        let mut hash = Sha256::new();
        let mut put = |record: &[u8]| {
            hash.update(record);
            file.write_all(record).map_err(failed)
        };
        let preprocess = &options.preprocess;
        if preprocess.changes_pixels() {
            for rows in rows.chunks(AT_ONCE) {
                if progress.cancelled() {
                    return Err(PrepareError::Cancelled);
                }
                let processed = |&row: &usize| spool.processed(row, preprocess).map(as_record);
                let records: Vec<Vec<u8>> =
                    rows.par_iter().map(processed).collect::<Result<_, _>>()?;
                records.iter().try_for_each(|record| put(record))?;
                progress.advance(rows.len() as u64);
            }
        } else {
            let mut record = vec![0; spool.record_bytes()];
            for &row in rows {
                spool.read(row, &mut record)?;
                put(&record)?;
            }
        }
        let file = file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        Ok(hex::encode(hash.finalize()))
    }

    /// Writes index, list of exclusions and manifest.
    pub fn write_files(
        &self,
        options: &PrepareOptions,
        rows: &[LabelRow],
        spool: &Spool,
        packs: &Packs,
        facts: Facts,
        excluded: &[Excluded],
    ) -> Result<Manifest, PrepareError> {
        let failed = |name: &str| {
            let path = self.path(name);
            move |source: csv::Error| io_error("write", &path, io::Error::other(source))
        };
        let places = packs.places.iter();
        let lines: Vec<_> = places
            .map(|place| place.row_of_index(rows, spool))
            .collect();
        let index = crate::index::write(&lines).map_err(failed(INDEX_FILE))?;
        self.write_file(INDEX_FILE, &index)?;
        if !excluded.is_empty() {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer
                .write_record(["image", "reason"])
                .map_err(failed("excluded.csv"))?;
            for one in excluded {
                let reason = format!("line {}: {}", one.line, one.reason);
                writer
                    .write_record([&one.image, &reason])
                    .map_err(failed("excluded.csv"))?;
            }
            let bytes = writer
                .into_inner()
                .map_err(|e| io_error("write", &self.path("excluded.csv"), e.into_error()))?;
            self.write_file("excluded.csv", &bytes)?;
        }
        let Facts {
            counts,
            split,
            scale,
            duplicates,
        } = facts;
        let [format, layout, channels] = Manifest::constants(scale);
        let mut manifest = Manifest {
            format,
            name: options.name.clone(),
            image_size: options.image_size,
            record_bytes: u64::from(options.image_size).pow(2) * 3,
            layout,
            channels,
            preprocess: Preprocess::new(&options.preprocess, options.image_size),
            scale: Some(scale),
            duplicates: Some(duplicates),
            split,
            counts,
            index: IndexEntry {
                file: INDEX_FILE.to_owned(),
                bytes: index.len() as u64,
                sha256: crate::sha256_hex(&index),
                rows: lines.len() as u64,
            },
            packs: packs.entries.clone(),
            excluded: excluded.len() as u64,
            digest: String::new(),
        };
        let bytes = manifest.seal()?;
        self.write_file(MANIFEST_FILE, &bytes)?;
        Ok(manifest)
    }

    /// Writes what a look at each photograph found, in the order of the index, and the contact sheet.
    pub fn write_quality(
        &self,
        options: &PrepareOptions,
        rows: &[LabelRow],
        packs: &Packs,
        spool: &Spool,
    ) -> Result<(), PrepareError> {
        let (sheet, shown) = sheet::draw(options, rows, spool)?;
        let mut png = io::Cursor::new(Vec::new());
        sheet
            .write_to(&mut png, image::ImageFormat::Png)
            .map_err(|e| io_error("write", &self.path(SHEET_FILE), io::Error::other(e)))?;
        self.write_file(SHEET_FILE, png.get_ref())?;
        let place_on_sheet: HashMap<usize, usize> = shown.into_iter().zip(1..).collect();
        let mut writer = csv::Writer::from_writer(Vec::new());
        let mut write = || {
            writer.write_record([
                "image",
                "brightness",
                "sharpness",
                "peak",
                "redness",
                "notes",
                "sheet",
            ])?;
            for place in &packs.places {
                let Ok(record) = &spool.records[place.row] else {
                    continue;
                };
                let quality = record.quality;
                let notes: Vec<String> = quality.flaws().iter().map(ToString::to_string).collect();
                let sharpness = quality.sharpness.map(|s| format!("{s:.2}"));
                writer.write_record([
                    rows[place.row].image.as_str(),
                    &format!("{:.1}", quality.brightness),
                    &sharpness.unwrap_or_default(),
                    &format!("{:.2}", quality.peak),
                    &format!("{:.2}", quality.redness),
                    &notes.join("; "),
                    &place_on_sheet
                        .get(&place.row)
                        .map_or(String::new(), usize::to_string),
                ])?;
            }
            Ok::<(), csv::Error>(())
        };
        let path = self.path(QUALITY_FILE);
        write().map_err(|source| io_error("write", &path, io::Error::other(source)))?;
        let bytes = writer.into_inner();
        self.write_file(
            QUALITY_FILE,
            &bytes.map_err(|e| io_error("write", &path, e.into_error()))?,
        )
    }

    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), PrepareError> {
        let path = self.path(name);
        let write = || {
            let mut file = File::create_new(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|source| io_error("write", &path, source))
    }

    /// Renames the folder into place, durably. A dataset that is there is replaced.
    pub fn publish(self) -> Result<(), PrepareError> {
        sync_folder(&self.path("packs"))?;
        sync_folder(self.temporary.path())?;
        // Checked again: hours may have passed since the start.
        check_destination(&self.out, self.overwrite)?;
        let rename = |from: &Path, to: &Path| {
            fs::rename(from, to).map_err(|source| io_error("rename into place", to, source))
        };
        // An empty folder is replaced by the rename itself.
        let replaces = fs::read_dir(&self.out).is_ok_and(|mut entries| entries.next().is_some());
        let mut old = None;
        if replaces {
            let aside = self.temporary.replaced();
            rename(&self.out, &aside)?;
            old = Some(aside);
        }
        if let Err(error) = rename(self.temporary.path(), &self.out) {
            if let Some(old) = &old {
                // Best effort: the error to report is the one above.
                let _ = fs::rename(old, &self.out);
            }
            return Err(error);
        }
        // It has its final name now and must not be removed.
        self.temporary.keep();
        sync_folder(&self.parent)?;
        match old {
            Some(old) => leftovers::remove(&old)
                .map_err(|source| io_error("remove the replaced dataset", &old, source)),
            None => Ok(()),
        }
    }
}

fn sync_folder(path: &Path) -> Result<(), PrepareError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| io_error("sync the folder", path, source))
}

/// The destination must be absent, an empty folder or, with `overwrite`, a Fovea dataset.
fn check_destination(out: &Path, overwrite: bool) -> Result<(), PrepareError> {
    let refuse = |hint| {
        Err(PrepareError::Exists {
            out: out.to_owned(),
            hint,
        })
    };
    let mut entries = match fs::read_dir(out) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return refuse("it is not a folder; choose another one");
        }
        Err(error) => return Err(io_error("list", out, error)),
    };
    if entries.next().is_none() {
        return Ok(());
    }
    // Only the format is looked at: a damaged dataset may be replaced as well.
    let is_dataset = fs::read(out.join(MANIFEST_FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .is_some_and(|manifest| {
            let format = manifest["format"].as_str();
            format.is_some_and(|f| f.starts_with("fovea-dataset-"))
        });
    match (is_dataset, overwrite) {
        (true, true) => Ok(()),
        (true, false) => refuse("it is a dataset; choose another folder, or overwrite it"),
        (false, _) => refuse("it is a folder with other files in it; choose another one"),
    }
}
