//! Who the patient of an image is, by columns, names and pairs.

use super::*;

#[test]
fn a_column_that_is_the_patient_is_used_whatever_it_is_called() {
    for name in [
        "patient",
        "patient_id",
        "PatientID",
        "patient id",
        "Subject",
        "case",
        "person_no",
        "MRN",
    ] {
        let text = format!("image,{name},level\na,7,0\nb,7.0,1\nc,p8,2\nd,P8,3\n");
        assert_eq!(patients(&labels(&text)), ["7", "7", "P8", "P8"], "{name}");
    }
    // Properties of a patient, and columns without a value, are not the patient.
    let text = "image,patient_age,patient,camera_id,level\n1_left,50,,A,0\n1_right,50,,A,1\n";
    assert_eq!(patients(&labels(text)), ["1", "1"]);
    let default = LabelOptions::default();
    let message = refused("image,subject,case,level\na,1,2,0\n", &default);
    assert!(
        message.contains("subject, case; say which with --columns"),
        "{message}"
    );
    let message = refused("image,patient pseudonym,level\na,x,0\n", &default);
    assert!(
        message.contains("\"patient pseudonym\" looks like the patient"),
        "{message}"
    );
    // By its values: photographs of four exams.
    let rows: String = (0..8).map(|i| format!("{i},e{},0\n", i / 2)).collect();
    let message = refused(&format!("image,exam_id,level\n{rows}"), &default);
    assert!(
        message.contains("\"exam_id\" repeats its values (4 in 8 rows)"),
        "{message}"
    );
    let text = format!("image,exam_id,level\n{rows}");
    let named = try_labels(&text, &columns("patient=exam_id")).expect("named");
    assert_eq!(patients(&named)[..3], ["e0", "e0", "e1"]);
    let mut none = columns("patient=none");
    none.each_image_a_patient = true;
    assert_eq!(
        patients(&try_labels(&text, &none).expect("none"))[..2],
        ["0", "1"]
    );
}

#[test]
fn a_column_and_names_that_disagree_about_patients_are_refused() {
    // A column `case` that numbers the rows would part the eyes of all patients.
    let text = "case,image,level\n1,10_left,0\n2,10_right,0\n3,11_left,1\n4,11_right,1\n";
    let message = refused(text, &LabelOptions::default());
    assert!(
        message.contains("\"case\" gives 10_left and 10_right"),
        "{message}"
    );
    assert!(message.contains("2 patients"), "{message}");
    let named = try_labels(text, &columns("patient=case")).expect("a person said so");
    assert_eq!(patients(&named), ["1", "2", "3", "4"]);
    assert!(matches!(
        named.remarks[0],
        LabelRemark::ColumnSplitsPatients { patients: 2, .. }
    ));
    let names = try_labels(text, &columns("patient=none")).expect("a person said so");
    assert_eq!(patients(&names), ["10", "10", "11", "11"]);
    let mut both = LabelOptions {
        patient_pattern: Some("^([0-9]+)".parse().expect("pattern")),
        ..LabelOptions::default()
    };
    let message = refused(text, &both);
    assert!(message.contains("leave the pattern out"), "{message}");
    both.columns = "patient=none".parse().expect("columns");
    assert_eq!(
        patients(&try_labels(text, &both).expect("pattern")),
        ["10", "10", "11", "11"]
    );
}

#[test]
fn an_empty_cell_of_the_patient_column_is_filled_by_the_name() {
    let text = "image,level,patient\n7_left,1,P7\n7_right,1,\nb_left,1,\nB_right,1,\n";
    let labels = labels(text);
    // The fellow eye's patient; one patient, however the name is written.
    assert_eq!(patients(&labels), ["P7", "P7", "B", "B"]);
    assert!(
        labels.remarks.contains(&LabelRemark::Filled { images: 1 }),
        "{:?}",
        labels.remarks
    );
    let message = refused(
        "image,level,patient\na,1,P7\nb,1,\n",
        &LabelOptions::default(),
    );
    assert!(
        message.contains("1 of 2 images do not tell their patient (b)"),
        "{message}"
    );
}

#[test]
fn images_that_tell_no_patient_are_refused_above_five_percent() {
    let text = |untold: usize| {
        let told = (0..100 - untold)
            .map(|i| format!("{}_{},{}\n", i / 2, ["left", "right"][i % 2], i % 5));
        let rest = (0..untold).map(|i| format!("img{i},0\n"));
        format!("image,level\n{}", told.chain(rest).collect::<String>())
    };
    let five = labels(&text(5));
    let remark = five.remarks[0].to_string();
    assert!(
        remark.starts_with("5 of 100 images do not tell their patient"),
        "{remark}"
    );
    let message = refused(&text(6), &LabelOptions::default());
    assert!(
        message.contains("6 of 100 images do not tell their patient (img0, img1, img2)"),
        "{message}"
    );
    for way_out in [
        "--patient-pattern",
        "--each-image-a-patient",
        "--columns patient=NAME",
    ] {
        assert!(message.contains(way_out), "{message}");
    }
    let allowed = try_labels(&text(98), &each()).expect("allowed");
    assert!(
        allowed.remarks[0].to_string().starts_with("98 of 100"),
        "{:?}",
        allowed.remarks
    );
    let pattern = LabelOptions {
        patient_pattern: Some("^(?:img)?([0-9])".parse().expect("pattern")),
        ..LabelOptions::default()
    };
    assert_eq!(
        patients(&try_labels(&text(98), &pattern).expect("pattern"))[97],
        "9"
    );
}

/// What stands before the eye numbers the photographs, unless a person says that it does not.
#[test]
fn names_that_give_no_patient_both_eyes_are_refused() {
    let rows = |n: usize| -> String {
        let side = |i: usize| ["left", "right"][i % 2];
        let row = |i: usize| format!("img{i:03}_{},0\n", side(i));
        (0..n).map(row).collect()
    };
    let text = |n: usize| format!("image,level\n{}", rows(n));
    let message = refused(&text(12), &LabelOptions::default());
    assert!(
        message.contains("such as img000_left and img001_right, the images are of 12 patients, of whom none has both eyes"),
        "{message}"
    );
    let (_, rest) = message.split_once("before the eye: '").expect("a pattern");
    let (pattern, _) = rest.split_once('\'').expect("its end");
    let said = LabelOptions {
        patient_pattern: Some(pattern.parse().expect("it is one")),
        ..LabelOptions::default()
    };
    let read = try_labels(&text(12), &said).expect("the pattern is enough");
    assert_eq!(read.rows[11].patient, "img011");
    for options in [each(), from(Importer::Eyepacs)] {
        assert_eq!(
            try_labels(&text(12), &options).expect("said").rows.len(),
            12
        );
    }
    assert_eq!(labels(&text(9)).rows.len(), 9);
    assert_eq!(labels(&(text(12) + "img003_left,0\n")).rows.len(), 13);
}

#[test]
fn a_column_of_eyes_or_of_photographs_is_not_taken_for_patients() {
    let table = |head: &str, row: &dyn Fn(usize) -> String| -> String {
        let rows: String = (0..10)
            .map(|i| format!("img{i:03},{},0\n", row(i)))
            .collect();
        format!("image,{head},level\n{rows}")
    };
    // Eyes of a patient count as the patient, and that is said.
    let eyes = labels(&table("patient_id", &|i| {
        format!("P{}_{}", i / 2, ["L", "R"][i % 2])
    }));
    assert_eq!(patients(&eyes)[..4], ["P0", "P0", "P1", "P1"]);
    let values = ["P0_L", "P0_R"].map(String::from);
    assert!(
        eyes.remarks.contains(&LabelRemark::EyesInColumn { values }),
        "{:?}",
        eyes.remarks
    );
    // A number of each photograph: a case is refused, a patient remarked on.
    let each_differs = |head: &str| table(head, &|i| format!("N{i}"));
    let message = refused(&each_differs("case"), &LabelOptions::default());
    assert!(
        message.contains("column \"case\" has another value in every row"),
        "{message}"
    );
    assert_eq!(
        labels(&table("case", &|i| format!("N{}", i / 2)))
            .rows
            .len(),
        10
    );
    let remarks = labels(&each_differs("patient_id")).remarks;
    let column = "patient_id".to_owned();
    assert!(
        remarks.contains(&LabelRemark::EachImageAnother { column, images: 10 }),
        "{remarks:?}"
    );
    let said =
        try_labels(&each_differs("patient_id"), &columns("patient=patient_id")).expect("said");
    assert!(
        !said
            .remarks
            .iter()
            .any(|r| matches!(r, LabelRemark::EachImageAnother { .. }))
    );
    // One number, however it is written, and what is no patient.
    let numbers = labels(&table("patient_id", &|i| {
        ["7", "007", "7.0"][i % 3].to_owned()
    }));
    assert_eq!(patients(&numbers), ["007"; 10]);
    let message = refused(
        &table("patient_id", &|i| ["NA", "unknown", "P1"][i % 3].to_owned()),
        &LabelOptions::default(),
    );
    assert!(
        message.contains("7 of 10 images do not tell their patient"),
        "{message}"
    );
    // A column of which the name says nothing is named where the patient is missing.
    let message = refused(
        &table("zz", &|i| format!("k{}", i / 2)),
        &LabelOptions::default(),
    );
    assert!(
        message.contains("The values of the column \"zz\" repeat"),
        "{message}"
    );
}

#[test]
fn names_that_give_one_patient_all_images_are_refused() {
    let rows: String = (0..41).map(|i| format!("site2_left_{i:03},0\n")).collect();
    let message = refused(&format!("image,level\n{rows}"), &LabelOptions::default());
    assert!(
        message.contains("41 images are of one patient, \"site2\""),
        "{message}"
    );
    let pattern = LabelOptions {
        patient_pattern: Some("_([0-9]+)$".parse().expect("pattern")),
        ..LabelOptions::default()
    };
    let read = try_labels(&format!("image,level\n{rows}"), &pattern).expect("pattern");
    assert_eq!(patients(&read)[..2], ["000", "001"]);
}

#[test]
fn pairs_of_images_are_one_patient() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("messidor_data.csv");
    let text = "image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable\n\
                20051020_43808_0100_PP.png,0,0,1\nIM000001.JPG,1,0,1\n20051020_43832_0100_PP.png,2,0,1\n";
    std::fs::write(&path, text).expect("labels");
    let options = from(Importer::Messidor2);
    let mut read_alone = read(&path, &options).expect("labels");
    let untold = check_told(&mut read_alone, &path, &options).expect_err("no pairs");
    let message = untold.to_string();
    assert!(message.contains("Put messidor-2.csv"), "{message}");
    let pairs = dir.path().join("messidor-2.csv");
    std::fs::write(
        &pairs,
        "left;right\n20051020_43808_0100_PP.png;20051020_43832_0100_PP.png\nIM000001.jpg;IM000002.jpg\n",
    )
    .expect("pairs");
    let labels = read(&path, &options).expect("read");
    assert_eq!(
        patients(&labels),
        [
            "20051020_43808_0100_PP",
            "IM000001",
            "20051020_43808_0100_PP"
        ]
    );
    assert_eq!(labels.rows[2].eye, Eye::Right);
    std::fs::write(&pairs, "left;right\na;b\na;c\n").expect("pairs");
    let message = read(&path, &options).expect_err("twice").to_string();
    assert!(
        message.contains("line 3: \"a\" is paired twice"),
        "{message}"
    );
}
