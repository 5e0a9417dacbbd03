//! Drawn photographs and a folder to prepare them from.

use std::fs;
use std::path::{Path, PathBuf};

use fovea_core::ids::DatasetName;
use fovea_dataset::PrepareOptions;
use image::{Rgb, RgbImage};
use tempfile::TempDir;

/// A folder with photographs and labels, removed at the end.
pub struct Study {
    pub dir: TempDir,
}

impl Study {
    /// Photographs of `patients` patients, both eyes, grades 0 to 4 in turn.
    pub fn new(patients: u32) -> Self {
        let study = Self {
            dir: tempfile::tempdir().expect("folder"),
        };
        fs::create_dir(study.images()).expect("images");
        let mut labels = "image,level\n".to_owned();
        for patient in 0..patients {
            for (i, side) in ["left", "right"].into_iter().enumerate() {
                let name = format!("{patient}_{side}");
                let ending = if patient % 2 == 0 { "jpeg" } else { "PNG" };
                photograph(patient * 2 + i as u32)
                    .save(study.images().join(format!("{name}.{ending}")))
                    .expect("save");
                labels += &format!("{name},{}\n", patient % 5);
            }
        }
        study.write_labels(&labels);
        study
    }

    pub fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out").join("dataset")
    }

    pub fn write_labels(&self, text: &str) {
        fs::write(self.dir.path().join("labels.csv"), text).expect("labels");
    }

    pub fn labels(&self) -> String {
        fs::read_to_string(self.dir.path().join("labels.csv")).expect("labels")
    }

    /// Options to prepare it: 48 px, packs of about 4 records.
    pub fn options(&self) -> PrepareOptions {
        PrepareOptions {
            image_size: 48,
            pack_records: 4,
            ..PrepareOptions::new(
                self.dir.path().join("labels.csv"),
                self.images(),
                self.out(),
                DatasetName::new("study").expect("name"),
            )
        }
    }

    /// The files beside the dataset and in it, by relative path.
    pub fn output_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        walk(&self.dir.path().join("out"), Path::new(""), &mut files);
        files.sort();
        files
    }
}

fn walk(dir: &Path, relative: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let entry = entry.expect("entry");
        let name = relative.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            walk(&entry.path(), &name, files);
        } else {
            files.push((name, fs::read(entry.path()).expect("read")));
        }
    }
}

/// A disc on black with a mark whose place encodes `number`, with the shade of blue; red above green above blue.
pub fn photograph(number: u32) -> RgbImage {
    RgbImage::from_fn(160, 120, |x, y| {
        let (dx, dy) = (f64::from(x) - 80.0, f64::from(y) - 60.0);
        if dx * dx + dy * dy > 52.0 * 52.0 {
            return Rgb([1, 1, 1]);
        }
        let (mx, my) = (50 + number % 8 * 8, 30 + number / 8 % 8 * 8);
        if (mx..mx + 6).contains(&x) && (my..my + 6).contains(&y) {
            return Rgb([230, 200, 40]);
        }
        let light = 1.0 - (dx * dx + dy * dy) / 5500.0;
        let blue = 40.0 + f64::from(number / 64 * 3);
        Rgb([180.0, 100.0, blue].map(|c| (c * light) as u8))
    })
}

/// The file whose path ends so.
pub fn file(files: &[(PathBuf, Vec<u8>)], end: &str) -> Vec<u8> {
    let found = files.iter().find(|(path, _)| path.ends_with(end));
    found.expect(end).1.clone()
}
