//! A tiny dataset of synthetic photographs, for the integration tests and those beside the code.

use std::path::{Path, PathBuf};

use fovea_core::ids::DatasetName;
use fovea_dataset::{PrepareOptions, prepare};

/// A dataset of 24 photographs of 12 patients, 32 px, made in `dir`.
pub fn dataset(dir: &Path, name: &str, seed: u64) -> PathBuf {
    let images = dir.join(format!("{name}-images"));
    std::fs::create_dir_all(&images).unwrap();
    let mut labels = String::from("image,level\n");
    for patient in 0u32..12 {
        for (eye, side) in ["left", "right"].iter().enumerate() {
            labels.push_str(&format!("{patient}_{side},{}\n", patient % 5));
            // A bright disc with some structure on black.
            let picture = image::RgbImage::from_fn(64, 64, |x, y| {
                let (dx, dy) = (x as f32 - 31.5, y as f32 - 31.5);
                if dx * dx + dy * dy < 28.0 * 28.0 {
                    let tone = 120 + ((x * (patient + 2) + y * (eye as u32 + 3)) % 60) as u8;
                    image::Rgb([tone, tone / 2, tone / 3])
                } else {
                    image::Rgb([0, 0, 0])
                }
            });
            picture
                .save(images.join(format!("{patient}_{side}.png")))
                .unwrap();
        }
    }
    let csv = dir.join(format!("{name}.csv"));
    std::fs::write(&csv, labels).unwrap();
    let out = dir.join(name);
    let mut options =
        PrepareOptions::new(csv, images, out.clone(), DatasetName::new(name).unwrap());
    options.image_size = 32;
    options.seed = seed;
    options.pack_records = 8;
    prepare(&options, &()).unwrap();
    out
}
