//! What is written, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use fovea_dataset::prepare::PrepareError;
use fovea_dataset::{Dataset, Eye, Manifest, Progress, Split, prepare};

use crate::study::{Study, file};

#[derive(Default)]
struct Counting {
    total: AtomicU64,
    done: AtomicU64,
    stop_after: Option<u64>,
}

impl Progress for Counting {
    fn total(&self, n: u64) {
        self.total.store(n, Ordering::SeqCst);
    }
    fn advance(&self, n: u64) {
        self.done.fetch_add(n, Ordering::SeqCst);
    }
    fn cancelled(&self) -> bool {
        self.stop_after
            .is_some_and(|n| self.done.load(Ordering::SeqCst) >= n)
    }
}

#[test]
fn a_prepared_dataset_can_be_opened_verified_and_read() {
    let study = Study::new(20);
    let progress = Counting::default();
    let report = prepare(&study.options(), &progress).expect("prepared");
    assert_eq!(progress.total.load(Ordering::SeqCst), 40);
    assert_eq!(progress.done.load(Ordering::SeqCst), 40);
    assert_eq!((report.excluded, report.warnings), (vec![], vec![]));
    assert_eq!(report.patients, [15, 5, 0]);

    let dataset = Dataset::open(&study.out()).expect("open");
    dataset.verify().expect("packs are whole");
    let (manifest, index) = (dataset.manifest(), dataset.index());
    assert_eq!(manifest.digest, report.digest);
    assert_eq!((index.train().len(), index.validation().len()), (30, 10));
    assert_eq!(manifest.counts.train, [6; 5]);
    assert_eq!(manifest.counts.validation, [2; 5]);
    for (split, samples) in [
        (Split::Train, index.train()),
        (Split::Validation, index.validation()),
    ] {
        for (i, sample) in samples.iter().enumerate() {
            assert_eq!(sample.ordinal as usize, i);
            assert_eq!(manifest.packs[sample.pack as usize].split, split);
            let patient = index.patient(sample.patient).expect("patient");
            let side = if sample.eye == Eye::Left {
                "left"
            } else {
                "right"
            };
            assert_eq!(sample.image, format!("{patient}_{side}"));
        }
    }
    for pack in &manifest.packs {
        assert!(pack.records % 2 == 0, "{} cuts a patient", pack.file);
        assert!(pack.records <= 4, "{} holds {}", pack.file, pack.records);
    }
    // Outside the split, nothing is left over.
    let files = study.output_files();
    assert_eq!(files.len(), 4 + manifest.packs.len());
    let quality = String::from_utf8(file(&files, "quality.csv")).expect("text");
    assert_eq!(
        quality.lines().next(),
        Some("image,brightness,sharpness,peak,redness,notes,sheet")
    );
    assert_eq!(quality.lines().count(), 41);
    let sheet = image::load_from_memory(&file(&files, "contact-sheet.png")).expect("a picture");
    // A legend, and two lines below each photograph.
    let rows = 5 * (144 + 28);
    assert_eq!(sheet.width(), 8 * 144);
    assert!((rows + 50..rows + 100).contains(&sheet.height()));

    // Records: B, G, R, the disc filling the square, and the mark where that image has it.
    let mut record = vec![0; 48 * 48 * 3];
    for sample in index.train() {
        let pack = dataset.open_pack(sample.pack as usize).expect("pack");
        pack.read(sample.record, &mut record).expect("record");
        let patient: u32 = index
            .patient(sample.patient)
            .expect("name")
            .parse()
            .expect("number");
        let number = patient * 2 + u32::from(sample.eye == Eye::Right);
        let pixel = |x: f64, y: f64| {
            // The circle's centre and radius in the photograph are (80, 60) and 52.
            let at = |v: f64, center: f64| ((v - center + 52.0) * 48.0 / 104.0) as usize;
            let i = (at(y, 60.0) * 48 + at(x, 80.0)) * 3;
            [record[i], record[i + 1], record[i + 2]]
        };
        let mark = pixel(
            f64::from(53 + number % 8 * 8),
            f64::from(33 + number / 8 * 8),
        );
        assert!(
            mark[1] > 140 && mark[2] > mark[0] + 60,
            "{}: {mark:?}",
            sample.image
        );
        let other = pixel(80.0, 85.0);
        assert!(
            other[2] > other[1] && other[1] > other[0],
            "{}: {other:?}",
            sample.image
        );
        assert!(record[..3].iter().all(|v| *v < 10), "the corner is black");
    }
}

#[test]
fn the_bytes_depend_on_nothing_but_the_input() {
    let study = Study::new(12);
    let mut options = study.options();
    let mut outputs = Vec::new();
    for threads in [1, 4] {
        options.threads = threads;
        options.overwrite = true;
        prepare(&options, &()).expect("prepared");
        outputs.push(study.output_files());
    }
    // The rows in another order: the same dataset.
    let text = study.labels();
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1..].reverse();
    study.write_labels(&(lines.join("\r\n") + "\r\n"));
    prepare(&options, &()).expect("prepared");
    outputs.push(study.output_files());
    assert!(outputs.iter().all(|output| *output == outputs[0]));

    options.seed = 1;
    let other = prepare(&options, &()).expect("prepared");
    let first = Manifest::parse(&file(&outputs[0], "manifest.json")).expect("manifest");
    assert_ne!(other.digest, first.digest);
}

#[test]
fn a_split_file_imposes_the_split_but_not_on_halves_of_a_patient() {
    let study = Study::new(4);
    let mut options = study.options();
    let path = study.dir.path().join("split.csv");
    options.split_file = Some(path.clone());
    let with = |text: &str| {
        fs::write(&path, text).expect("split file");
        prepare(&options, &())
    };
    let good = "image,split\n0_left,train\n0_right,train\n1_left,validation\n1_right,validation\n\
                2_left,train\n2_right,train\n3_left,train\n3_right,train\n";
    with(good).expect("prepared");
    let dataset = Dataset::open(&study.out()).expect("open");
    let held_out: Vec<&str> = dataset
        .index()
        .validation()
        .iter()
        .map(|s| s.image.as_str())
        .collect();
    assert_eq!(held_out, ["1_left", "1_right"]);
    fs::remove_dir_all(study.out()).expect("remove");

    let refused = |text: &str, expected: &str| {
        let message = with(text).expect_err(expected).to_string();
        assert!(message.contains(expected), "{message}");
        assert_eq!(study.output_files(), vec![]);
    };
    let leak = good.replace("1_left,validation", "1_left,train");
    refused(
        &leak,
        "patient \"1\" is in both train (1_left) and validation (1_right)",
    );
    refused(
        &good.replace("3_left,train\n", ""),
        "does not name these images (1): 3_left",
    );
    refused(
        &format!("{good}9_left,train\n"),
        "no row in the label file (1): 9_left",
    );
    refused(
        &good.replace("3_left,train", "3_left,test"),
        "patient \"3\" is in both train (3_right) and test (3_left)",
    );
    refused(
        &good.replace("3_left,train", "3_left,fold 2"),
        "line 8: \"fold 2\" is none of train, validation and test",
    );
    refused(
        &format!("{good}0_left,train\n"),
        "line 10: \"0_left\" is listed twice",
    );
    refused("name,split\n", "no column \"image\"");
    refused(
        &good.replace("validation", "train"),
        "the validation split would be empty: the split file names no usable image for it",
    );
}

#[test]
fn a_test_part_is_packed_and_counted_and_nobody_is_on_two_sides() {
    let study = Study::new(40);
    let mut options = study.options();
    options.test_fraction = 0.2;
    let report = prepare(&options, &()).expect("prepared");
    assert_eq!(report.patients, [22, 10, 8]);
    let dataset = Dataset::open(&study.out()).expect("open");
    dataset.verify().expect("packs");
    let (manifest, index) = (dataset.manifest(), dataset.index());
    assert_eq!(manifest.counts, report.counts);
    assert!(manifest.counts.test.iter().all(|count| *count > 0));
    let patients = |split| index.of(split).iter().map(|s| s.patient).collect();
    let of: [BTreeSet<u32>; 3] = Split::ALL.map(patients);
    assert_eq!(of.iter().map(BTreeSet::len).sum::<usize>(), 40);
    for (number, pack) in (0..).zip(&manifest.packs) {
        let samples = index.of(pack.split).iter().filter(|s| s.pack == number);
        assert_eq!(samples.count(), pack.records as usize, "{}", pack.file);
        assert!(pack.file.starts_with(&format!("packs/{}-", pack.split)));
    }

    // A split file with the words that people use gives the same.
    let split = study.dir.path().join("split.csv");
    let words = |split: Split| ["Train", "val", "TEST"][split as usize];
    let rows = Split::ALL.into_iter().flat_map(|split| {
        let row = move |s: &fovea_dataset::Sample| format!("{}.png,{}\n", s.image, words(split));
        index.of(split).iter().map(row)
    });
    let text = "image,split\n".to_owned() + &rows.collect::<String>();
    fs::write(&split, text).expect("split file");
    let mut imposed = study.options();
    (imposed.split_file, imposed.overwrite) = (Some(split), true);
    let again = prepare(&imposed, &()).expect("prepared");
    assert_eq!(
        (again.counts, again.patients),
        (report.counts, report.patients)
    );
    imposed.test_fraction = 0.2;
    let message = prepare(&imposed, &()).expect_err("both").to_string();
    assert!(
        message.contains("test fraction is given, but the split is"),
        "{message}"
    );

    let few = Study::new(8);
    let mut options = few.options();
    options.test_fraction = 0.2;
    let message = prepare(&options, &()).expect_err("8 patients").to_string();
    assert!(
        message.contains("the test split would be empty: too few patients, at least three"),
        "{message}"
    );
}

#[test]
fn only_a_dataset_is_replaced_and_only_when_asked() {
    let study = Study::new(6);
    let mut options = study.options();
    fs::create_dir_all(study.out()).expect("an empty folder");
    prepare(&options, &()).expect("an empty folder is accepted");
    let message = prepare(&options, &()).expect_err("exists").to_string();
    assert!(message.contains("overwrite"), "{message}");
    options.overwrite = true;
    options.image_size = 32;
    prepare(&options, &()).expect("replaced");
    let dataset = Dataset::open(&study.out()).expect("open");
    assert_eq!(dataset.manifest().image_size, 32);
    assert!(
        study
            .output_files()
            .iter()
            .all(|(path, _)| path.starts_with("dataset"))
    );

    fs::remove_dir_all(study.out()).expect("remove");
    fs::create_dir_all(study.out()).expect("create");
    fs::write(study.out().join("thesis.tex"), "years of work").expect("write");
    let progress = Counting::default();
    let error = prepare(&options, &progress).expect_err("something else");
    assert!(matches!(error, PrepareError::Exists { .. }), "{error}");
    let begun = progress.total.load(Ordering::SeqCst);
    assert_eq!(begun, 0, "photographs were read before it was refused");
    assert_eq!(study.output_files().len(), 1);
}

#[test]
fn stopping_leaves_nothing_behind() {
    let study = Study::new(10);
    let mut options = study.options();
    options.threads = 1;
    let progress = Counting {
        stop_after: Some(3),
        ..Counting::default()
    };
    let error = prepare(&options, &progress).expect_err("stopped");
    assert!(matches!(error, PrepareError::Cancelled), "{error}");
    assert_eq!(progress.done.load(Ordering::SeqCst), 3);
    assert_eq!(study.output_files(), vec![]);
}

/// No patient is on both sides of the split, also when the grades of the eyes differ.
#[test]
fn both_eyes_stay_together_whatever_their_grades() {
    let study = Study::new(20);
    let labels: String = study
        .labels()
        .lines()
        .enumerate()
        .map(|(i, line)| match line.rsplit_once(',') {
            Some((name, _)) if i > 0 => format!("{name},{}\n", (i * 7) % 5),
            _ => format!("{line}\n"),
        })
        .collect();
    study.write_labels(&labels);
    prepare(&study.options(), &()).expect("prepared");
    let text = String::from_utf8(file(&study.output_files(), "index.csv")).expect("text");
    let mut sides: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        sides
            .entry(cells[1].to_owned())
            .or_default()
            .insert(cells[4].to_owned());
    }
    assert_eq!(sides.len(), 20);
    assert!(sides.values().all(|sides| sides.len() == 1), "{sides:?}");
}
