//! Photographs as they come: other formats, sub-folders, damage, copies.

use std::fs;
use std::path::Path;

use fovea_core::ids::DatasetName;
use fovea_dataset::prepare::PrepareError;
use fovea_dataset::synthetic::{SyntheticOptions, generate};
use fovea_dataset::{Dataset, Eye, MaxBad, PrepareOptions, PrepareReport, Warning, prepare};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, RgbImage};

use crate::study::{Study, photograph};

/// Drawings of 12 patients in `dir`, and options to prepare them.
fn drawings(dir: &Path, patients: u32, size: u32) -> PrepareOptions {
    let folder = dir.join("drawings");
    let options = SyntheticOptions {
        patients,
        size,
        ..SyntheticOptions::default()
    };
    generate(&folder, &options, &|_| {}).expect("drawn");
    PrepareOptions {
        image_size: 96,
        ..PrepareOptions::new(
            folder.join("trainLabels.csv"),
            folder.join("images"),
            dir.join("out"),
            DatasetName::new("drawings").expect("name"),
        )
    }
}

fn refused(options: &PrepareOptions) -> String {
    prepare(options, &()).expect_err("refused").to_string()
}

fn prepared(options: &PrepareOptions) -> PrepareReport {
    prepare(options, &()).expect("prepared")
}

const FIRST: &str = "synthetic0001_left";

#[test]
fn a_damaged_jpeg_is_named() {
    let dir = tempfile::tempdir().expect("folder");
    let mut options = drawings(dir.path(), 12, 256);
    let path = options.images_dir.join(format!("{FIRST}.jpeg"));
    let whole = fs::read(&path).expect("read");
    let mut early = whole[..whole.len() * 6 / 10].to_vec();
    early.extend([0xff, 0xd9]);
    let overwritten = |length: usize| {
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        let mut state = 7u32;
        for byte in &mut bytes[middle..middle + length] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8 & 0xfe;
        }
        bytes
    };
    for (case, bytes) in [
        ("ends early", early),
        ("512 bytes", overwritten(512)),
        ("2,000 bytes", overwritten(2000)),
    ] {
        fs::write(&path, bytes).expect("damage");
        let message = refused(&options);
        assert!(message.contains(FIRST), "{case}: {message}");
        assert!(message.contains("the JPEG is damaged"), "{case}: {message}");
    }
    options.max_bad = MaxBad::Count(1);
    assert_eq!(prepared(&options).excluded.len(), 1);
}

#[test]
fn photographs_in_sub_folders_and_of_other_formats_are_found() {
    let study = Study::new(12);
    let images = study.images();
    for patient in 0..12 {
        fs::create_dir(images.join(patient.to_string())).expect("folder");
    }
    let endings = ["bmp", "tiff", "webp", "jfif", "JPG", "png"];
    for patient in 0u32..12 {
        for (eye, side) in ["left", "right"].into_iter().enumerate() {
            let number = patient * 2 + eye as u32;
            let ending = endings[number as usize % endings.len()];
            let old = ["jpeg", "PNG"][patient as usize % 2];
            let folder = images.join(patient.to_string());
            let new = folder.join(format!("{patient}_{side}.{ending}"));
            if matches!(ending, "jfif" | "JPG") {
                jpeg(&photograph(number), 95, &new);
            } else {
                photograph(number).save(&new).expect("save");
            }
            fs::remove_file(images.join(format!("{patient}_{side}.{old}"))).expect("remove");
            // What macOS puts beside it.
            fs::write(folder.join(format!("._{patient}_{side}.{ending}")), b"x").expect("hidden");
        }
    }
    let report = prepared(&study.options());
    assert_eq!((report.excluded, report.warnings), (vec![], vec![]));

    fs::rename(images.join("3/3_left.bmp"), images.join("3/3_left.heic")).expect("rename");
    let message = refused(&PrepareOptions {
        out: study.dir.path().join("other"),
        ..study.options()
    });
    assert!(
        message.contains("3_left (line 8): not read: the images folder has 3/3_left.heic"),
        "{message}"
    );
}

fn jpeg(picture: &RgbImage, quality: u8, path: &Path) {
    let file = fs::File::create(path).expect("create");
    JpegEncoder::new_with_quality(file, quality)
        .encode_image(picture)
        .expect("encode");
}

#[test]
fn copies_on_both_sides_of_the_split_are_refused_unless_allowed() {
    let dir = tempfile::tempdir().expect("folder");
    let mut options = drawings(dir.path(), 12, 256);
    let split = dir.path().join("split.csv");
    let images: Vec<String> = fs::read_to_string(&options.labels)
        .expect("labels")
        .lines()
        .skip(1)
        .map(|line| line.split(',').next().expect("image").to_owned())
        .collect();
    let sides = |held_out: &[usize]| {
        let rows = images.iter().enumerate().map(|(i, image)| {
            let side = if held_out.contains(&(i / 2)) {
                "validation"
            } else {
                "train"
            };
            format!("{image},{side}\n")
        });
        fs::write(
            &split,
            "image,split\n".to_owned() + &rows.collect::<String>(),
        )
        .expect("split");
    };
    options.split_file = Some(split.clone());
    let file = |image: &str| options.images_dir.join(format!("{image}.jpeg"));
    let (original, copy) = (&images[0], &images[23]);
    let whole = fs::read(file(original)).expect("read");

    // Held out: the last patient, whose right eye is the first patient's left one.
    sides(&[10, 11]);
    let small = image::load_from_memory(&whole).expect("decode").resize(
        150,
        150,
        image::imageops::FilterType::Triangle,
    );
    for (saved_again, text) in [(false, "same pixels"), (true, "saved again")] {
        if saved_again {
            jpeg(&small.to_rgb8(), 60, &file(copy));
        } else {
            fs::write(file(copy), &whole).expect("copy");
        }
        let error = prepare(&options, &()).expect_err("both sides");
        assert!(matches!(error, PrepareError::Copies { .. }), "{error}");
        let message = error.to_string();
        for part in [text, original, copy, "in both train and validation"] {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
    }
    options.allow_duplicates = true;
    let warned = |report: &PrepareReport, across: bool| {
        let found = |w: &Warning| matches!(w, Warning::SamePixels { splits, .. } if (splits.len() > 1) == across);
        assert!(report.warnings.iter().any(found), "{:?}", report.warnings);
    };
    warned(&prepared(&options), true);

    // Of different patients they are refused on one side, too: another seed would part them.
    options.allow_duplicates = false;
    options.overwrite = true;
    sides(&[4, 5]);
    let message = refused(&options);
    assert!(
        message.contains("labelled as different patients"),
        "{message}"
    );
    assert!(!message.contains("in both"), "{message}");

    // Of one patient they are a warning.
    jpeg(
        &image::open(file(&images[22])).expect("decode").into_rgb8(),
        95,
        &file(copy),
    );
    warned(&prepared(&options), false);
}

#[test]
fn different_photographs_are_no_copies() {
    let dir = tempfile::tempdir().expect("folder");
    let report = prepared(&drawings(dir.path(), 60, 160));
    assert_eq!(report.warnings, vec![]);
}

/// A DICOM file, explicit VR little endian: 8-bit RGB, or a JPEG.
fn dicom(patient: &str, laterality: &str, picture: &RgbImage, compressed: bool) -> Vec<u8> {
    let mut pixels = Vec::new();
    if compressed {
        JpegEncoder::new_with_quality(&mut pixels, 95)
            .encode_image(picture)
            .expect("encode");
    } else {
        pixels.extend_from_slice(picture.as_raw());
    }
    if pixels.len() % 2 == 1 {
        pixels.push(0);
    }
    let mut out = vec![0; 128];
    out.extend(b"DICM");
    let text = |group: u16, element: u16, vr: &str, value: &str| {
        let pad = if vr == "UI" { '\0' } else { ' ' };
        let mut value = value.to_owned();
        if value.len() % 2 == 1 {
            value.push(pad);
        }
        let mut bytes = [group.to_le_bytes(), element.to_le_bytes()].concat();
        bytes.extend(vr.as_bytes());
        bytes.extend((value.len() as u16).to_le_bytes());
        bytes.extend(value.as_bytes());
        bytes
    };
    let number = |element: u16, value: u16| {
        let mut bytes = [0x28u16.to_le_bytes(), element.to_le_bytes()].concat();
        bytes.extend(b"US\x02\0");
        bytes.extend(value.to_le_bytes());
        bytes
    };
    let syntax = if compressed {
        "1.2.840.10008.1.2.4.50"
    } else {
        "1.2.840.10008.1.2.1"
    };
    let class = "1.2.840.10008.5.1.4.1.1.77.1.5.1";
    let meta = [
        text(2, 2, "UI", class),
        text(2, 3, "UI", "1.2.3.4"),
        text(2, 0x10, "UI", syntax),
        text(2, 0x12, "UI", "1.2.3"),
    ]
    .concat();
    out.extend([2, 0, 0, 0, b'U', b'L', 4, 0]);
    out.extend((meta.len() as u32).to_le_bytes());
    out.extend(meta);
    out.extend(text(8, 0x16, "UI", class));
    out.extend(text(8, 0x18, "UI", "1.2.3.4"));
    out.extend(text(0x10, 0x10, "PN", "Secret^Name"));
    out.extend(text(0x10, 0x20, "LO", patient));
    out.extend(text(0x20, 0x62, "CS", laterality));
    out.extend(number(2, 3));
    out.extend(text(
        0x28,
        4,
        "CS",
        if compressed { "YBR_FULL_422" } else { "RGB" },
    ));
    out.extend(number(6, 0));
    out.extend(number(0x10, picture.height() as u16));
    out.extend(number(0x11, picture.width() as u16));
    for (element, value) in [(0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0)] {
        out.extend(number(element, value));
    }
    out.extend([0xe0, 0x7f, 0x10, 0, b'O', b'B', 0, 0]);
    if compressed {
        let item = |tag: u8, length: usize| {
            let mut bytes = vec![0xfe, 0xff, tag, 0xe0];
            bytes.extend((length as u32).to_le_bytes());
            bytes
        };
        out.extend([0xff; 4]);
        out.extend(item(0, 0));
        out.extend(item(0, pixels.len()));
        out.extend(pixels);
        out.extend(item(0xdd, 0));
    } else {
        out.extend((pixels.len() as u32).to_le_bytes());
        out.extend(pixels);
    }
    out
}

#[test]
fn dicom_files_tell_patient_and_eye_and_no_identifier_comes_out() {
    let study = Study::new(0);
    let mut labels = "image,level\n".to_owned();
    let mut plain = Vec::new();
    for number in 0u32..24 {
        let name = format!("IM{number:04}");
        let patient = format!("MRN77{:03}", number / 2);
        let side = ["L", "R"][number as usize % 2];
        let picture = photograph(number);
        let bytes = dicom(&patient, side, &picture, number % 4 == 3);
        // Half of them without an ending.
        let ending = ["", ".dcm"][number as usize / 12];
        fs::write(study.images().join(format!("{name}{ending}")), bytes).expect("write");
        labels += &format!("{name},{}\n", number / 2 % 5);
        plain.push(picture);
    }
    study.write_labels(&labels);
    let report = prepared(&study.options());
    assert_eq!((report.excluded, report.warnings), (vec![], vec![]));
    assert_eq!(report.patients.iter().sum::<usize>(), 12);
    let dataset = Dataset::open(&study.out()).expect("open");
    let index = dataset.index();
    let mut record = vec![0; 48 * 48 * 3];
    for sample in index.train().iter().chain(index.validation()) {
        let number: u32 = sample.image[2..].parse().expect("number");
        let expected = [Eye::Left, Eye::Right][number as usize % 2];
        assert_eq!(sample.eye, expected, "{}", sample.image);
        let patient = index.patient(sample.patient).expect("name");
        assert_eq!(patient, format!("dicom-{:05}", number / 2 + 1));
        // Red above green above blue in the middle: the channels are right.
        let pack = dataset.open_pack(sample.pack as usize).expect("pack");
        pack.read(sample.record, &mut record).expect("record");
        let middle = &record[(40 * 48 + 24) * 3..][..3];
        assert!(
            middle[0] < middle[1] && middle[1] < middle[2],
            "{}: {middle:?}",
            sample.image
        );
    }
    for (path, bytes) in study.output_files() {
        for secret in ["MRN77", "Secret"] {
            let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found, "{secret} in {}", path.display());
        }
    }
}

#[test]
fn a_dicom_file_that_cannot_be_read_is_named_without_what_is_in_it() {
    let study = Study::new(8);
    let path = study.images().join("0_left.dcm");
    fs::remove_file(study.images().join("0_left.jpeg")).expect("remove");
    let whole = dicom("MRN77001", "L", &photograph(0), false);
    let mut frames = whole.clone();
    let at = frames
        .windows(4)
        .position(|w| w == [0x28, 0, 0x10, 0])
        .expect("tag");
    frames.splice(at..at, [&[0x28u8, 0, 8, 0][..], b"IS\x02\x0012"].concat());
    let jpeg = dicom("MRN77001", "L", &photograph(0), true);
    let mut damaged = jpeg.clone();
    let middle = jpeg.len() - 1200;
    damaged[middle..middle + 1000].fill(0x55);
    for (bytes, text) in [
        (whole[..whole.len() / 2].to_vec(), "DICOM: it is damaged"),
        (frames, "DICOM: it has several frames"),
        (damaged, "the JPEG is damaged"),
    ] {
        fs::write(&path, bytes).expect("write");
        let message = refused(&study.options());
        assert!(message.contains(text), "{text}: {message}");
        assert!(
            !message.contains("MRN77") && !message.contains("Secret"),
            "{message}"
        );
    }
}

#[test]
fn transparent_and_deep_photographs_are_read() {
    let study = Study::new(8);
    let picture = photograph(0);
    let path = study.images().join("0_left.png");
    fs::remove_file(study.images().join("0_left.jpeg")).expect("remove");
    // 12 bits in 16, and transparent where there is no retina.
    let deep = image::ImageBuffer::from_fn(160, 120, |x, y| {
        let [red, green, blue] = picture.get_pixel(x, y).0.map(|c| u16::from(c) << 4);
        let seen = if red > 64 { u16::MAX } else { 0 };
        image::Rgba([red, green, blue, seen])
    });
    DynamicImage::ImageRgba16(deep).save(&path).expect("save");
    let report = prepared(&study.options());
    assert_eq!((report.excluded, report.warnings), (vec![], vec![]));
}
