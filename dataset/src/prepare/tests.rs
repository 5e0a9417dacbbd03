//! No patient on two sides, over schemes of names and columns.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use proptest::prelude::*;

use super::*;
use crate::labels::{LabelOptions, LabelsError};
use crate::split::Shares;

/// An image of the study that a table is written for.
struct Image {
    patient: usize,
    right: bool,
    /// The photograph of this eye, from 1.
    view: usize,
    grade: u8,
    /// Its place in the whole study.
    number: usize,
    /// Something that varies from image to image: case, form of a number.
    variant: bool,
}

impl Image {
    fn side(&self, words: [&str; 2]) -> String {
        let word = words[usize::from(self.right)];
        match self.variant {
            true => word.to_uppercase(),
            false => word.to_owned(),
        }
    }

    fn id(&self) -> String {
        match self.variant {
            true => format!("P{:03}", self.patient),
            false => format!("p{:03}", self.patient),
        }
    }
}

/// Names that tell the patient.
const NAMES: [fn(&Image) -> String; 16] = [
    |i| format!("{}_{}_{}", i.patient, i.side(["left", "right"]), i.view),
    |i| format!("{}_{}{}", i.patient, i.side(["l", "r"]), i.view),
    |i| format!("{}-{}-{}", i.id(), i.side(["os", "od"]), i.view),
    |i| format!("{} {} ({})", i.id(), i.side(["left", "right"]), i.view),
    |i| format!("{}_{}-macula{}", i.id(), i.side(["oi", "od"]), i.view),
    |i| {
        format!(
            "{}_20{:02}0{}17_{}",
            i.id(),
            i.view + 10,
            i.view,
            i.side(["os", "od"])
        )
    },
    |i| {
        format!(
            "{}_20{}-1{}-03-{}",
            i.id(),
            i.view + 10,
            i.view % 3,
            i.side(["os", "od"])
        )
    },
    |i| format!("{:04}{}_{}", i.patient, i.side(["os", "od"]), i.view),
    |i| {
        format!(
            "{:04}{}-{}",
            i.patient,
            ["L", "R"][usize::from(i.right)],
            i.view
        )
    },
    |i| {
        format!(
            "site3_{}_{}_aug{}",
            i.id(),
            i.side(["left", "right"]),
            i.view
        )
    },
    |i| format!("{}.{}.{}", i.patient, i.side(["og", "od"]), i.view),
    |i| format!("{}_{}_cropped_{}", i.id(), i.side(["le", "re"]), i.view),
    // Visits, with their days and times.
    |i| format!("{}_V{}_{}", i.id(), i.view, i.side(["l", "r"])),
    |i| format!("{}-visit-{}-{}", i.patient, i.view, i.side(["os", "od"])),
    |i| format!("{}_20{}_{}", i.id(), i.view + 10, i.side(["left", "right"])),
    |i| {
        let (day, time) = (i.view + 10, 100_000 + i.number);
        format!("{}_20{day}0117_{time}_{}", i.id(), i.side(["os", "od"]))
    },
];

/// Names of which some readings are wrong: to be refused, or read with nobody on two sides.
const DOUBTFUL: [fn(&Image) -> String; 9] = [
    |i| format!("image_{}_{:04}", i.side(["left", "right"]), i.number),
    |i| format!("{}_{}_{}", i.side(["left", "right"]), i.patient, i.view),
    |i| format!("img{:05}", i.number),
    |i| format!("{}_{}_x{}", i.patient, i.side(["os", "od"]), i.view),
    |i| format!("20{:02}0117_{:05}_0100_PP", i.view, i.number),
    // The number of the visit, of the photograph on that day, of the photograph in front and alone.
    |i| format!("{}_{}_{}", i.patient, i.view, i.side(["l", "r"])),
    |i| format!("2019041{}_{:04}_{}", i.view, i.number, i.side(["os", "od"])),
    |i| {
        format!(
            "{:05}_{}_{}",
            i.number,
            i.patient,
            i.side(["left", "right"])
        )
    },
    |i| format!("img{:05}_{}", i.number, i.side(["left", "right"])),
];

/// Columns that are the patient.
const COLUMNS: [&str; 9] = [
    "patient",
    "patient_id",
    "PatientID",
    "Patient ID",
    "subject",
    "subject_id",
    "case",
    "MRN",
    "participant no",
];

/// Layouts of data sets that tell the patient, or nothing: header and a row for an image called so.
type Layout = (Importer, &'static str, fn(&Image, &str) -> String);
const LAYOUTS: [Layout; 5] = [
    (
        Importer::Brset,
        "image_id,patient_id,camera,exam_eye,DR_SDRG,DR_ICDR",
        |i, name| {
            let form = if i.variant { ".0" } else { "" };
            format!(
                "{name},{}{form},Canon,{},0,{}",
                i.patient,
                2 - u8::from(i.right),
                i.grade
            )
        },
    ),
    (
        Importer::Deepdrid,
        "patient_id,image_id,image_path,left_eye_DR_Level,right_eye_DR_Level,patient_DR_Level",
        |i, name| {
            let grades = if i.right {
                format!(",{}", i.grade)
            } else {
                format!("{},", i.grade)
            };
            format!("{},{name},\\t\\{name}.jpg,{grades},4", i.patient)
        },
    ),
    (
        Importer::Aptos,
        "id_code,diagnosis,patient_id",
        |i, name| format!("{name},{},{}", i.grade, i.id()),
    ),
    (
        Importer::Idrid,
        "Image name,Retinopathy grade,Subject",
        |i, name| format!("{name},{},{}", i.grade, i.id()),
    ),
    (Importer::Ddr, "id_code,diagnosis,case", |i, name| {
        format!("{name},{},{}", i.grade, i.id())
    }),
];

/// Images of patients: for each the photographs of the left and of the right eye.
fn study(patients: &[(usize, usize, u8)], variants: &[bool]) -> Vec<Image> {
    let mut images = Vec::new();
    for (patient, (left, right, grade)) in patients.iter().enumerate() {
        let eyes = [(false, *left), (true, *right)];
        for (right, views) in eyes {
            for view in 1..=views {
                let number = images.len();
                images.push(Image {
                    patient,
                    right,
                    view,
                    grade: (*grade + u8::from(right)) % 5,
                    number,
                    variant: variants[number % variants.len()],
                });
            }
        }
    }
    images
}

/// Reads a table and splits it; for each patient the sides on which images are. Names in any case.
fn sides(
    images: &[(String, usize)],
    table: &str,
    pairs: Option<&str>,
    options: &LabelOptions,
    seed: u64,
) -> Result<BTreeMap<usize, BTreeSet<Split>>, LabelsError> {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("labels.csv");
    fs::write(&path, table).expect("write");
    if let Some(pairs) = pairs {
        fs::write(dir.path().join("messidor-2.csv"), pairs).expect("write");
    }
    let mut labels = labels::read(&path, options)?;
    labels::check_told(&mut labels, &path, options)?;
    assert_eq!(labels.problems, []);
    let all: Vec<usize> = (0..labels.rows.len()).collect();
    assert_eq!(all.len(), images.len());
    let patients = Patients::of(&labels.rows, &all);
    let shares = Shares {
        validation_ppm: 300_000,
        test_ppm: [0, 200_000][seed as usize % 2],
    };
    let splits = choose(&patients.known, shares, seed);
    let truth: BTreeMap<&str, usize> = images.iter().map(|(name, p)| (&**name, *p)).collect();
    let mut sides: BTreeMap<usize, BTreeSet<Split>> = BTreeMap::new();
    for (rows, split) in patients.rows.iter().zip(splits) {
        for &row in rows {
            let patient = truth[&*labels.rows[row].image];
            sides.entry(patient).or_default().insert(split);
        }
    }
    Ok(sides)
}

fn nobody_on_two_sides(sides: &BTreeMap<usize, BTreeSet<Split>>) -> bool {
    sides.values().all(|sides| sides.len() == 1)
}

/// Turns the rows of a table about, so that a patient's images are not neighbours.
fn table(header: &str, mut rows: Vec<String>, by: usize) -> String {
    let by = by % rows.len();
    rows.rotate_left(by);
    let (even, odd): (Vec<_>, Vec<_>) = rows.iter().enumerate().partition(|(i, _)| i % 2 == 0);
    let rows: Vec<&str> = even
        .iter()
        .chain(&odd)
        .map(|(_, row)| row.as_str())
        .collect();
    format!("{header}\n{}\n", rows.join("\n"))
}

fn patients() -> impl Strategy<Value = Vec<(usize, usize, u8)>> {
    proptest::collection::vec((0usize..4, 1usize..4, 0u8..5), 4..40)
}

/// As many patients as a judgement of their names needs (`labels/patients.rs`), each with both eyes: of few, or of one eye each,
/// a name that numbers the photographs cannot be told from one that numbers the patients.
fn patients_with_both_eyes() -> impl Strategy<Value = Vec<(usize, usize, u8)>> {
    proptest::collection::vec((1usize..4, 1usize..4, 0u8..5), 10..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn names_keep_a_patient_on_one_side(
        patients in patients(), variants in proptest::collection::vec(any::<bool>(), 1..20),
        scheme in 0usize..NAMES.len(), seed in any::<u64>(), by in any::<usize>()
    ) {
        let images = study(&patients, &variants);
        let names: Vec<(String, usize)> = images.iter().map(|i| (NAMES[scheme](i), i.patient)).collect();
        let rows = images.iter().zip(&names).map(|(i, (name, _))| format!("{name}.jpeg,{}", i.grade));
        let text = table("image,level", rows.collect(), by);
        for from in [None, Some(Importer::Eyepacs)] {
            let options = LabelOptions { from, ..LabelOptions::default() };
            let sides = sides(&names, &text, None, &options, seed);
            let sides = sides.map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert!(nobody_on_two_sides(&sides), "{}: {:?}", text, sides);
        }
    }

    #[test]
    fn doubtful_names_are_refused_or_keep_a_patient_on_one_side(
        patients in patients_with_both_eyes(),
        variants in proptest::collection::vec(any::<bool>(), 1..20),
        scheme in 0usize..DOUBTFUL.len(), seed in any::<u64>(), by in any::<usize>()
    ) {
        let images = study(&patients, &variants);
        let names: Vec<(String, usize)> = images.iter().map(|i| (DOUBTFUL[scheme](i), i.patient)).collect();
        let rows = images.iter().zip(&names).map(|(i, (name, _))| format!("{name},{}", i.grade));
        let text = table("image,level", rows.collect(), by);
        match sides(&names, &text, None, &LabelOptions::default(), seed) {
            Ok(sides) => prop_assert!(nobody_on_two_sides(&sides), "{}: {:?}", text, sides),
            Err(error) => prop_assert!(
                matches!(
                    error,
                    LabelsError::Untold { .. } | LabelsError::Crowded { .. } | LabelsError::NoneHasBoth { .. }
                ), "{}", error
            ),
        }
    }

    #[test]
    fn columns_keep_a_patient_on_one_side(
        patients in patients(), variants in proptest::collection::vec(any::<bool>(), 1..20),
        column in 0usize..COLUMNS.len(), scheme in 0usize..NAMES.len() + 1, separator in 0usize..3,
        seed in any::<u64>(), by in any::<usize>()
    ) {
        let images = study(&patients, &variants);
        // Names that tell nothing, and such as tell it too.
        let name = |i: &Image| NAMES.get(scheme).map_or_else(|| format!("img{:05}", i.number), |name| name(i));
        let names: Vec<(String, usize)> = images.iter().map(|i| (name(i), i.patient)).collect();
        let rows = images.iter().zip(&names).map(|(i, (name, _))| {
            format!("{name},{},A,{}", i.id(), i.grade)
        });
        let header = format!("image,{},camera_id,level", COLUMNS[column]);
        let separator = [",", ";", "\t"][separator];
        let text = table(&header, rows.collect(), by).replace(',', separator);
        let sides = sides(&names, &text, None, &LabelOptions::default(), seed);
        let sides = sides.map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(nobody_on_two_sides(&sides), "{}: {:?}", text, sides);
    }

    #[test]
    fn importers_keep_a_patient_on_one_side(
        patients in patients(), variants in proptest::collection::vec(any::<bool>(), 1..20),
        layout in 0usize..LAYOUTS.len(), seed in any::<u64>(), by in any::<usize>()
    ) {
        let images = study(&patients, &variants);
        let (from, header, row) = LAYOUTS[layout];
        let named = |i: &Image| format!("x{:04}", i.number);
        let names: Vec<(String, usize)> = images.iter().map(|i| (named(i), i.patient)).collect();
        let text = table(header, images.iter().map(|i| row(i, &named(i))).collect(), by);
        let options = LabelOptions { from: Some(from), ..LabelOptions::default() };
        let sides = sides(&names, &text, None, &options, seed);
        let sides = sides.map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(nobody_on_two_sides(&sides), "{}: {:?}", text, sides);
    }

    #[test]
    fn pairs_keep_a_patient_on_one_side(
        grades in proptest::collection::vec(0u8..5, 4..40), seed in any::<u64>(), by in any::<usize>()
    ) {
        let patients: Vec<(usize, usize, u8)> = grades.into_iter().map(|grade| (1, 1, grade)).collect();
        let images = study(&patients, &[true, false, false]);
        let named = |i: &Image| format!("2005{:04}_{:05}_0100_PP", i.number * 7 % 1000, i.number);
        let names: Vec<(String, usize)> = images.iter().map(|i| (named(i), i.patient)).collect();
        let rows = images.iter().map(|i| format!("{}.png,{},0,1", named(i), i.grade)).collect();
        let text = table("image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable", rows, by);
        let pair = |eyes: &[Image]| format!("{}.JPG;{}.JPG", named(&eyes[0]), named(&eyes[1]));
        let pairs: Vec<String> = images.chunks(2).map(pair).collect();
        let pairs = format!("left;right\n{}\n", pairs.join("\n"));
        let options = LabelOptions { from: Some(Importer::Messidor2), ..LabelOptions::default() };
        let sides = sides(&names, &text, Some(&pairs), &options, seed);
        let sides = sides.map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(nobody_on_two_sides(&sides), "{}: {:?}", text, sides);
    }
}
