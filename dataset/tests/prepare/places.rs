//! Data sets without a label file: a folder for each grade, and an archive with everything.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use fovea_dataset::labels::{self, Importer, LabelRemark};
use fovea_dataset::{Dataset, MaxBad, PrepareOptions, SplitOrigin, Warning, prepare};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::study::{Study, photograph};

fn options(study: &Study, from: Importer, place: &Path) -> PrepareOptions {
    let mut options = study.options();
    options.labels = place.to_owned();
    options.images_dir = place.to_owned();
    options.label_options.from = Some(from);
    options
}

#[test]
fn a_folder_for_each_grade_is_read() {
    let study = Study::new(12);
    let expected = prepare(&study.options(), &()).expect("prepared").digest;
    let root = study.dir.path().join("classes");
    let names = ["No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR"];
    for (i, name) in names.into_iter().enumerate() {
        fs::create_dir_all(root.join(name)).expect("create");
        for entry in fs::read_dir(study.images()).expect("list") {
            let entry = entry.expect("entry");
            let file = entry.file_name().into_string().expect("name");
            let patient: usize = file
                .split('_')
                .next()
                .expect("patient")
                .parse()
                .expect("number");
            if patient % 5 == i {
                fs::copy(entry.path(), root.join(name).join(file)).expect("copy");
            }
        }
    }
    let mut options = options(&study, Importer::Folders, &root);
    options.overwrite = true;
    let report = prepare(&options, &()).expect("prepared");
    assert_eq!((report.digest, report.warnings), (expected, vec![]));

    // The same photograph under two grades: nobody knows which is right.
    fs::copy(
        root.join("No_DR/0_left.jpeg"),
        root.join("Mild/0_left.jpeg"),
    )
    .expect("copy");
    let message = prepare(&options, &()).expect_err("twice").to_string();
    assert!(
        message.contains("0_left: ") && message.contains("has the same file name"),
        "{message}"
    );
    assert!(!message.contains("line"), "there are no lines: {message}");
    fs::create_dir(root.join("masks")).expect("create");
    let message = prepare(&options, &()).expect_err("masks").to_string();
    assert!(
        message.contains("the folder \"masks\" is no grade"),
        "{message}"
    );
}

/// An array of bytes as NumPy writes it.
fn npy(shape: &[usize], values: &[u8]) -> Vec<u8> {
    let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
    let mut header = format!(
        "{{'descr': '|u1', 'fortran_order': False, 'shape': ({},), }}",
        shape.join(", ")
    );
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    bytes
}

/// An archive of parts with so many pictures each.
fn archive(path: &Path, parts: [(&str, usize); 3], cut: usize) {
    let mut zip = ZipWriter::new(File::create(path).expect("create"));
    for (part, count) in parts {
        let mut pixels = Vec::new();
        for i in 0..count {
            let number = (part.len() * 7 + i) as u32;
            let picture = image::imageops::thumbnail(&photograph(number), 64, 64);
            pixels.extend(picture.into_raw());
        }
        let labels: Vec<u8> = (0..count).map(|i| (i % 5) as u8).collect();
        pixels.truncate(pixels.len() - cut);
        for (name, bytes) in [
            ("images", npy(&[count, 64, 64, 3], &pixels)),
            ("labels", npy(&[count, 1], &labels)),
        ] {
            let name = format!("{part}_{name}.npy");
            zip.start_file(name, SimpleFileOptions::default())
                .expect("entry");
            zip.write_all(&bytes).expect("write");
        }
    }
    zip.finish().expect("finish");
}

#[test]
fn an_archive_is_split_by_its_parts() {
    let study = Study::new(1);
    let path = study.dir.path().join("retinamnist.npz");
    let parts = [("train", 10), ("val", 5), ("test", 6)];
    archive(&path, parts, 0);
    let mut options = options(&study, Importer::Retinamnist, &path);
    let report = prepare(&options, &()).expect("prepared");
    assert_eq!(report.counts.train, [3; 5]);
    assert_eq!(report.counts.validation, [2, 1, 1, 1, 1]);
    let remark = |w: &Warning| matches!(w, Warning::Labels(LabelRemark::HeldOutPart { .. }));
    assert!(report.warnings.iter().any(remark), "{:?}", report.warnings);
    let dataset = Dataset::open(&study.out()).expect("open");
    dataset.verify().expect("packs");
    let held_out = dataset.index().validation().iter();
    assert!(
        held_out
            .map(|s| &s.image)
            .all(|image| image.starts_with("test_"))
    );
    assert!(matches!(dataset.manifest().split, SplitOrigin::File { .. }));
    // Nothing of the pictures is left over.
    assert!(
        study
            .output_files()
            .iter()
            .all(|(path, _)| !path.ends_with("test_0000.bmp"))
    );
    fs::remove_dir_all(study.out()).expect("remove");

    archive(&path, parts, 1);
    let message = prepare(&options, &()).expect_err("cut").to_string();
    assert!(message.contains("train_images: it ends early"), "{message}");
    assert_eq!(study.output_files(), vec![]);
    options.label_options.from = None;
    let message = prepare(&options, &()).expect_err("no table").to_string();
    assert!(message.contains("--from retinamnist"), "{message}");
}

#[cfg_attr(
    not(has_shared),
    ignore = "needs ../shared: real photographs and weights"
)]
#[test]
fn the_published_archive_has_the_expected_counts_and_is_enlarged() {
    let study = Study::new(1);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/retinamnist.npz");
    let mut options = options(&study, Importer::Retinamnist, &path);
    options.max_bad = MaxBad::Fraction(1.0);
    let labels = labels::read(&path, &options.label_options).expect("labels");
    assert_eq!((labels.rows.len(), labels.problems.len()), (1600, 0));
    let unexpected = |r: &LabelRemark| matches!(r, LabelRemark::Counts { .. });
    assert!(
        !labels.remarks.iter().any(unexpected),
        "{:?}",
        labels.remarks
    );
    // Most lesions cannot be seen in its pictures, but it can be tried out.
    let report = prepare(&options, &()).expect("enlarged");
    let remark = Warning::Enlarged {
        width: 28,
        height: 28,
    };
    assert!(report.warnings.contains(&remark), "{:?}", report.warnings);
    assert_eq!(report.excluded, vec![]);
    assert_eq!(report.counts.validation, [174, 46, 92, 68, 20]);
}
