//! Label and split files as they come: whatever is accepted keeps patients together and loses no row.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use fovea_dataset::labels::{Importer, LabelRemark};
use fovea_dataset::prepare::PrepareError;
use fovea_dataset::{
    Dataset, GradeScale, MaxBad, PrepareOptions, PrepareReport, Progress, Warning, prepare,
};

use crate::study::Study;

/// The rows of a study's label file: image and grade.
fn rows(study: &Study) -> Vec<(String, u8)> {
    let text = study.labels();
    let row = |line: &str| {
        let (image, grade) = line.split_once(',').expect("two cells");
        (image.to_owned(), grade.parse().expect("grade"))
    };
    text.lines().skip(1).map(row).collect()
}

fn table(header: &str, rows: &[(String, u8)], row: impl Fn(usize, &str, u8) -> String) -> String {
    let rows = rows.iter().enumerate();
    let rows: Vec<String> = rows
        .map(|(i, (image, grade))| row(i, image, *grade))
        .collect();
    format!("{header}\n{}\n", rows.join("\n"))
}

/// Gives the photographs of the first `count` rows names that tell nothing.
fn rename(study: &Study, rows: &mut [(String, u8)], count: usize) {
    for (i, (image, _)) in rows.iter_mut().enumerate().take(count) {
        let name = format!("img{:05}", i + 1);
        for ending in ["jpeg", "PNG"] {
            let old = study.images().join(format!("{image}.{ending}"));
            if old.exists() {
                fs::rename(old, study.images().join(format!("{name}.{ending}"))).expect("rename");
            }
        }
        *image = name;
    }
}

/// The sides on which each patient's photographs are, by the place of their rows.
fn sides(study: &Study, patient_of: impl Fn(&str) -> String) -> BTreeMap<String, BTreeSet<String>> {
    let dataset = Dataset::open(&study.out()).expect("open");
    let mut sides: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (side, samples) in [
        ("train", dataset.index().train()),
        ("validation", dataset.index().validation()),
    ] {
        for sample in samples {
            let of_patient = sides.entry(patient_of(&sample.image)).or_default();
            of_patient.insert(side.to_owned());
        }
    }
    sides
}

fn refusal(options: &PrepareOptions) -> String {
    prepare(options, &Unread).expect_err("refused").to_string()
}

fn prepared(options: &PrepareOptions) -> PrepareReport {
    prepare(options, &()).expect("prepared")
}

/// Fails if a photograph is read.
struct Unread;

impl Progress for Unread {
    fn total(&self, _: u64) {}
    fn advance(&self, _: u64) {
        panic!("a photograph was read before the refusal");
    }
}

#[test]
fn a_patient_column_keeps_patients_on_one_side() {
    let study = Study::new(12);
    let mut all = rows(&study);
    rename(&study, &mut all, 24);
    study.write_labels(&table("image,patient_id,level", &all, |i, image, grade| {
        format!("{image},P{:03},{grade}", i / 2)
    }));
    prepared(&study.options());
    let patient = |image: &str| {
        let number: usize = image[3..].parse().expect("number");
        ((number - 1) / 2).to_string()
    };
    let sides = sides(&study, patient);
    assert_eq!(sides.len(), 12);
    assert!(sides.values().all(|sides| sides.len() == 1), "{sides:?}");
}

#[test]
fn a_few_names_that_tell_the_patient_do_not_silence_the_many_that_do_not() {
    let study = Study::new(12);
    let mut all = rows(&study);
    rename(&study, &mut all, 22);
    study.write_labels(&table("image,level", &all, |_, image, grade| {
        format!("{image},{grade}")
    }));
    let mut options = study.options();
    let message = refusal(&options);
    assert!(
        message.contains("22 of 24 images do not tell their patient"),
        "{message}"
    );
    options.label_options.each_image_a_patient = true;
    let report = prepared(&options);
    assert!(report.warnings.iter().any(|warning| matches!(
        warning,
        Warning::Labels(LabelRemark::Untold {
            untold: 22,
            total: 24,
            ..
        })
    )));
}

#[test]
fn own_columns_are_named_or_imported() {
    let study = Study::new(12);
    let all = rows(&study);
    study.write_labels(&table(
        "image_id,patient_id,camera,DR_ICDR",
        &all,
        |i, image, grade| format!("{image},{},Canon,{grade}", i / 2),
    ));
    let mut options = study.options();
    let message = refusal(&options);
    assert!(
        message.contains("--from brset") && message.contains("--columns"),
        "{message}"
    );
    let columns = "image=image_id,grade=DR_ICDR,patient=patient_id";
    options.label_options.columns = columns.parse().expect("columns");
    prepared(&options);
    let named = Dataset::read_manifest(&options.out).expect("manifest");
    options.label_options = Default::default();
    options.label_options.from = Some(Importer::Brset);
    options.overwrite = true;
    let imported = prepared(&options);
    let manifest = Dataset::read_manifest(&options.out).expect("manifest");
    assert_eq!(manifest.index, named.index);
    assert_eq!(manifest.packs, named.packs);
    // Only an importer knows what the grades mean.
    assert_eq!(named.scale, Some(GradeScale::Unstated));
    assert_eq!(manifest.scale, Some(GradeScale::Icdr));
    let last = imported.warnings.last().expect("a warning").to_string();
    assert!(last.contains("the whole set has 16266 images"), "{last}");
}

#[test]
fn a_quotation_mark_that_is_not_closed_loses_no_row() {
    let study = Study::new(12);
    let all = rows(&study);
    study.write_labels(&table("image,level", &all, |i, image, grade| {
        format!("{}{image},{grade}", if i == 17 { "\"" } else { "" })
    }));
    let mut options = study.options();
    options.max_bad = MaxBad::Count(1);
    let message = refusal(&options);
    assert!(message.contains("line 19: the quotation mark"), "{message}");
}

#[test]
fn one_class_is_warned_of_with_the_counts() {
    let study = Study::new(12);
    let all = rows(&study);
    study.write_labels(&table("image,level", &all, |_, image, grade| {
        format!("{image},{}", grade.min(1))
    }));
    let report = prepared(&study.options());
    let warnings: Vec<String> = report.warnings.iter().map(ToString::to_string).collect();
    let of_sides: Vec<&String> = warnings
        .iter()
        .filter(|w| w.contains("one class only"))
        .collect();
    assert_eq!(of_sides.len(), 2, "{warnings:?}");
    let counts = report.counts.train;
    assert!(of_sides[0].contains("the train split"), "{warnings:?}");
    assert!(
        of_sides[0].contains(&format!("{}/{}/0/0/0", counts[0], counts[1])),
        "{warnings:?}"
    );
    assert!(
        warnings
            .iter()
            .any(|w| w.contains("no image has grade 2 or 3 or 4"))
    );
}

#[test]
fn messidors_grades_are_not_taken_for_the_international_scale() {
    let study = Study::new(12);
    let all = rows(&study);
    let header = "Image name,Ophthalmologic department,Retinopathy grade,Risk of macular edema ";
    study.write_labels(&table(header, &all, |_, image, grade| {
        format!("{image}.jpeg,Clinic A,{},0", grade.min(3))
    }));
    let mut options = study.options();
    assert!(refusal(&options).contains("--from messidor"));
    options.label_options.from = Some(Importer::Messidor);
    let report = prepared(&options);
    assert!(
        report
            .warnings
            .contains(&Warning::Labels(LabelRemark::MessidorScale))
    );
}

#[test]
fn tables_of_every_kind_give_the_same_dataset() {
    let study = Study::new(12);
    let all = rows(&study);
    let expected = prepared(&study.options()).digest;
    let semicolons = table("image;level", &all, |_, image, grade| {
        format!("{image};{grade}")
    });
    let decimals = table("image,level", &all, |_, image, grade| {
        format!("{image},{grade}.00")
    });
    let paths = table("image,level", &all, |_, image, grade| {
        format!("eyes/{image}.jpg,{grade}")
    });
    let accent = table("image,level,comment", &all, |i, image, grade| {
        format!(
            "{image},{grade},{}",
            if i == 4 { "r\u{e9}tine" } else { "" }
        )
    });
    let latin: Vec<u8> = accent.chars().map(|c| c as u8).collect();
    let utf16: Vec<u8> = format!("\u{feff}{accent}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let files: [Vec<u8>; 7] = [
        semicolons.clone().into(),
        format!("sep=;\n{semicolons}").into(),
        semicolons.replace(';', "\t").into(),
        decimals.into(),
        paths.into(),
        latin,
        utf16,
    ];
    let mut options = study.options();
    options.overwrite = true;
    for file in files {
        fs::write(&options.labels, &file).expect("labels");
        let digest = prepared(&options).digest;
        assert_eq!(digest, expected, "{}", String::from_utf8_lossy(&file));
    }
    fs::write(
        &options.labels,
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x07\x99\0\0",
    )
    .expect("labels");
    let message = refusal(&options);
    assert!(
        message.contains("Excel 97-2003 workbook (.xls), not a text table: open it and save"),
        "{message}"
    );
}

#[test]
fn decomposed_names_are_found() {
    let study = Study::new(12);
    let all = rows(&study);
    fs::rename(
        study.images().join("0_left.jpeg"),
        study.images().join("Mu\u{308}ller_left.jpeg"),
    )
    .expect("rename");
    let mut options = study.options();
    options.overwrite = true;
    let mut digests = BTreeSet::new();
    for name in ["M\u{fc}ller_left", "Mu\u{308}ller_left"] {
        study.write_labels(&table("image,level", &all, |i, image, grade| {
            format!("{},{grade}", if i == 0 { name } else { image })
        }));
        let report = prepared(&options);
        assert_eq!(report.excluded, []);
        digests.insert(report.digest);
    }
    assert_eq!(
        digests.len(),
        1,
        "the table's form of a name must not matter"
    );
}

#[test]
fn split_files_name_images_and_sides_as_people_do() {
    let study = Study::new(12);
    let all = rows(&study);
    let mut options = study.options();
    let path = study.dir.path().join("split.csv");
    options.split_file = Some(path.clone());
    options.overwrite = true;
    let split = |ending: &str, [train, held_out]: [&str; 2], tail: &str| {
        table("image,split", &all, |i, image, _| {
            format!("{image}{ending},{}", if i < 18 { train } else { held_out })
        }) + tail
    };
    let files = [
        split("", ["train", "validation"], ""),
        split(".jpeg", ["train", "val"], ""),
        split(".PNG", ["Train", "Valid"], ",\n\n,\n"),
        split("", ["TRAINING", "Validation"], "").to_uppercase(),
        format!(
            "\u{feff}{}",
            split("", ["train", "val"], "").replace(',', ";")
        ),
        split("", ["train", "val"], "").replace("\n1", "\neyes/1"),
    ];
    for file in &files {
        fs::write(&path, file).expect("split file");
        let report = prepared(&options);
        let counts = [report.counts.train, report.counts.validation];
        assert_eq!(
            counts.map(|side| side.iter().sum::<u64>()),
            [18, 6],
            "{file}"
        );
    }
    let patient = |image: &str| image.split('_').next().expect("patient").to_owned();
    assert!(
        sides(&study, patient)
            .values()
            .all(|sides| sides.len() == 1)
    );

    // Refused before a photograph is read.
    fs::remove_dir_all(study.out()).expect("remove");
    let good = &files[0];
    for (file, expected) in [
        (
            good.replace("4_left,train", "4_left,validation"),
            "patient \"4\" is in both",
        ),
        (
            good.replace("4_left,train\n", ""),
            "does not name these images (1): 4_left",
        ),
        (
            format!("{good}99_left,train\n"),
            "no row in the label file (1): 99_left",
        ),
        (
            good.replace("4_left,train", "4_left,"),
            "line 10: \"\" is none of train, validation and test",
        ),
        (
            good.replace("4_left,train", "\"4_left,train"),
            "line 10: the quotation mark",
        ),
        ("PAR1".to_owned(), "a Parquet file"),
    ] {
        fs::write(&path, file).expect("split file");
        let message = refusal(&options);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_split_file_may_name_what_cannot_be_used() {
    let study = Study::new(12);
    let all = rows(&study);
    study.write_labels(&table("image,level", &all, |i, image, grade| {
        format!("{image},{}", if i == 3 { 5 } else { grade })
    }));
    fs::write(study.images().join("4_left.jpeg"), b"no picture").expect("damage");
    fs::remove_file(study.images().join("5_left.PNG")).expect("remove");
    let mut options = study.options();
    let path = study.dir.path().join("split.csv");
    let split = table("image,split", &all, |i, image, _| {
        format!("{image},{}", if i < 18 { "train" } else { "validation" })
    });
    fs::write(&path, &split).expect("split file");
    options.split_file = Some(path.clone());
    options.max_bad = MaxBad::Count(3);
    let report = prepared(&options);
    let images: Vec<&str> = report.excluded.iter().map(|e| e.image.as_str()).collect();
    assert_eq!(images, ["1_right", "4_left", "5_left"]);
    // It need not name them either, as far as that is known without reading photographs.
    let split = split
        .replace("1_right,train\n", "")
        .replace("5_left,train\n", "");
    fs::write(&path, split).expect("split file");
    options.overwrite = true;
    prepared(&options);
    options.max_bad = MaxBad::Count(2);
    let error = prepare(&options, &()).expect_err("three are bad");
    assert!(matches!(error, PrepareError::TooManyBad { .. }), "{error}");
}
