//! Photographs without grades as a dataset: to be scored, and nothing else.
//!
//! It says nothing of the photographs but their pixels: each is called by its number and is a patient of its own, so that no
//! name leaves whoever made it. All are in the validation split, in their order.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use fovea_core::ids::DatasetName;
use sha2::{Digest, Sha256};

use crate::index::Content;
use crate::recipe::Recipe;
use crate::{
    Counts, GradeScale, INDEX_FILE, IndexEntry, MANIFEST_FILE, Manifest, PackEntry, Preprocess,
    Split, SplitOrigin,
};

use super::PrepareError;
use super::output::Output;
use super::report::io_error;

/// Records in a pack: workers share the work by packs, and none is fetched for a few images of it.
const PACK_RECORDS: usize = 256;

/// Writes `records`, which `recipe` made, as a dataset without grades into the new folder `out`. Their order is the order of
/// the dataset's samples.
///
/// # Errors
/// The folder is there, or a file cannot be written. There are no records, or one has another size. Nothing is left at the
/// destination then.
pub fn write_ungraded(
    out: &Path,
    name: DatasetName,
    recipe: &Recipe,
    records: impl IntoIterator<Item = Vec<u8>>,
) -> Result<Manifest, PrepareError> {
    let (output, _) = Output::begin(out, false)?;
    let folder = output.path("packs");
    fs::create_dir(&folder).map_err(|source| io_error("create", &folder, source))?;
    let size = recipe.size();
    let record_bytes = size as usize * size as usize * 3;
    let mut records = records.into_iter().peekable();
    let (mut packs, mut rows) = (Vec::new(), Vec::new());
    while records.peek().is_some() {
        let pack = packs.len() as u32;
        let file = format!("packs/{}-{pack:05}.pack", Split::Validation);
        let path = output.path(&file);
        let failed = |source| io_error("write", &path, source);
        let mut writer =
            BufWriter::with_capacity(1 << 20, File::create_new(&path).map_err(failed)?);
        let mut hash = Sha256::new();
        let mut count = 0u32;
        for record in records.by_ref().take(PACK_RECORDS) {
            if record.len() != record_bytes {
                return Err(PrepareError::Option {
                    option: "records",
                    problem: format!("one has {} bytes, and not {record_bytes}", record.len()),
                });
            }
            hash.update(&record);
            writer.write_all(&record).map_err(failed)?;
            let image = format!("{:08}", rows.len() + 1);
            rows.push(crate::index::Row {
                patient: image.clone(),
                image,
                eye: String::new(),
                grade: 0,
                split: Split::Validation.as_str().to_owned(),
                pack,
                record: count,
                content: Some(Content::of(&Sha256::digest(&record).into()).to_string()),
            });
            count += 1;
        }
        let written = writer.into_inner().map_err(|e| failed(e.into_error()))?;
        written.sync_all().map_err(failed)?;
        packs.push(PackEntry {
            file,
            split: Split::Validation,
            records: count,
            bytes: u64::from(count) * record_bytes as u64,
            sha256: hex::encode(hash.finalize()),
        });
    }
    if rows.is_empty() {
        return Err(PrepareError::Option {
            option: "records",
            problem: "there are none".to_owned(),
        });
    }
    let index = crate::index::write(&rows);
    let path = output.path(INDEX_FILE);
    let index = index.map_err(|e| io_error("write", &path, std::io::Error::other(e)))?;
    output.write_file(INDEX_FILE, &index)?;
    let mut counts = Counts::default();
    counts.of_mut(Split::Validation)[0] = rows.len() as u64;
    let [format, layout, channels] = Manifest::constants(GradeScale::None);
    let mut manifest = Manifest {
        format,
        name,
        image_size: size,
        record_bytes: record_bytes as u64,
        layout,
        channels,
        preprocess: Preprocess::new(recipe.preprocessing(), size),
        scale: Some(GradeScale::None),
        duplicates: None,
        split: SplitOrigin::Unsplit {},
        counts,
        index: IndexEntry {
            file: INDEX_FILE.to_owned(),
            bytes: index.len() as u64,
            sha256: crate::sha256_hex(&index),
            rows: rows.len() as u64,
        },
        packs,
        excluded: 0,
        digest: String::new(),
    };
    let bytes = manifest.seal()?;
    output.write_file(MANIFEST_FILE, &bytes)?;
    output.publish()?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use crate::Dataset;

    use super::*;

    #[test]
    fn photographs_without_grades_are_a_dataset_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("set");
        let recipe = Recipe::new("clahe:clip=3".parse().unwrap(), 32).unwrap();
        let name = || DatasetName::new("predict-1").unwrap();
        let record = |i: usize| vec![(i % 251) as u8; 32 * 32 * 3];
        let written = write_ungraded(&out, name(), &recipe, (0..300).map(record)).unwrap();
        assert_eq!(written.format, "fovea-dataset-4");
        assert_eq!(written.pipeline(), recipe.pipeline());
        assert!(written.is_ungraded());
        let dataset = Dataset::open(&out).unwrap();
        assert_eq!(*dataset.manifest(), written);
        let samples = dataset.index().part(fovea_core::spec::Part::All);
        assert_eq!((samples.len(), written.packs.len()), (300, 2));
        let pack = fs::read(dataset.pack_path(1)).unwrap();
        assert_eq!(pack[..3], [(256 % 251) as u8; 3]);
        let text = fs::read_to_string(out.join("index.csv")).unwrap();
        assert!(
            text.contains("00000300,00000300,,0,validation,1,43,"),
            "{text}"
        );

        let again = write_ungraded(&out, name(), &recipe, [record(0)]);
        assert!(matches!(again, Err(PrepareError::Exists { .. })));
        let elsewhere = folder.path().join("other");
        for bad in [vec![], vec![vec![0; 5]]] {
            assert!(write_ungraded(&elsewhere, name(), &recipe, bad).is_err());
            assert!(!elsewhere.exists());
        }
    }
}
