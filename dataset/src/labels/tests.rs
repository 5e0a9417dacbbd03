//! Valid and invalid label files.

use super::*;

fn labels(text: &str) -> Labels {
    try_labels(text, &LabelOptions::default()).expect("labels")
}

fn try_labels(text: &str, options: &LabelOptions) -> Result<Labels, LabelsError> {
    let path = Path::new("l.csv");
    let mut labels = parse(text.as_bytes(), path, options, &Pairs::new())?;
    check_told(&mut labels, path, options)?;
    Ok(labels)
}

fn refused(text: &str, options: &LabelOptions) -> String {
    try_labels(text, options).expect_err("refused").to_string()
}

fn from(importer: Importer) -> LabelOptions {
    LabelOptions {
        from: Some(importer),
        ..LabelOptions::default()
    }
}

fn columns(text: &str) -> LabelOptions {
    LabelOptions {
        columns: text.parse().expect("columns"),
        ..LabelOptions::default()
    }
}

fn each() -> LabelOptions {
    LabelOptions {
        each_image_a_patient: true,
        ..LabelOptions::default()
    }
}

/// A row whose patient is told unless it is called like the image.
fn row(line: u64, image: &str, patient: &str, eye: Eye, grade: u8) -> LabelRow {
    LabelRow {
        line,
        image: image.to_owned(),
        patient: patient.to_owned(),
        told: patient != image,
        eye,
        grade,
    }
}

fn patients(labels: &Labels) -> Vec<&str> {
    labels.rows.iter().map(|row| row.patient.as_str()).collect()
}

#[test]
fn the_public_layouts_are_read() {
    let eyepacs = labels("image,level\n10_left,0\n10_right,2\n");
    assert_eq!(
        eyepacs.rows,
        [
            row(2, "10_left", "10", Eye::Left, 0),
            row(3, "10_right", "10", Eye::Right, 2)
        ]
    );
    // Extra columns in front, a byte-order mark, CRLF.
    let rehosted = labels("\u{feff},Unnamed: 0,image,level,Usage\r\n0,0,10_left,4,Public\r\n");
    assert_eq!(rehosted.rows, [row(2, "10_left", "10", Eye::Left, 4)]);
    let hex = "000c1434d8d7";
    let aptos = try_labels("id_code,diagnosis\n000c1434d8d7,2\n", &each()).expect("aptos");
    assert_eq!(aptos.rows, [row(2, hex, hex, Eye::Unknown, 2)]);
    let idrid = "Image name, Retinopathy  grade ,Risk of macular edema ,,,\r\n IDRiD_001 ,3,2,,,\r\n,,,,,\r\n";
    let idrid = try_labels(idrid, &from(Importer::Idrid)).expect("idrid");
    assert_eq!(
        idrid.rows,
        [row(2, "IDRiD_001", "IDRiD_001", Eye::Unknown, 3)]
    );
    assert_eq!((idrid.total, idrid.problems.len()), (1, 0));
    let messidor = "image_id,adjudicated_dr_grade\na.jpg,2.0\nb.png,\n";
    let plain = try_labels(messidor, &each()).expect("messidor");
    assert_eq!(plain.rows, [row(2, "a", "a", Eye::Unknown, 2)]);
    assert_eq!(plain.problems[0].reason, "the grade is empty");
    assert!(!plain.problems[0].expected);
    let mut known = from(Importer::Messidor2);
    known.each_image_a_patient = true;
    assert!(try_labels(messidor, &known).expect("messidor").problems[0].expected);
}

#[test]
fn the_importers_know_their_columns_patients_and_scales() {
    let read = |importer, text: &str| try_labels(text, &from(importer)).expect("read");
    let deepdrid = read(
        Importer::Deepdrid,
        "patient_id,image_id,image_path,left_eye_DR_Level,right_eye_DR_Level,patient_DR_Level\n\
         56,56_l1,\\t\\56\\56_l1.jpg,1,,1\n56,56_r3,\\t\\56\\56_r3.jpg,1,,1\n56,56_r2,\\t\\x.jpg,,0,1\n",
    );
    assert_eq!(patients(&deepdrid), ["56"; 3]);
    let grades: Vec<u8> = deepdrid.rows.iter().map(|row| row.grade).collect();
    assert_eq!(grades, [1, 1, 0]);
    let ddr = read(Importer::Ddr, "007-0004-000.jpg 0\n007-0007-000.jpg 5\n");
    assert_eq!(ddr.rows.len(), 1);
    assert_eq!(ddr.rows[0].line, 1);
    assert_eq!(
        ddr.problems[0].to_string(),
        "line 2: \"007-0007-000\": ungradable, as the data set says"
    );
    assert!(ddr.problems[0].expected);
    let ddr = read(Importer::Ddr, "id_code,diagnosis\na.jpg,4\n");
    assert_eq!(ddr.rows[0].grade, 4);
    let brset = read(
        Importer::Brset,
        "image_id,patient_id,camera,patient_age,patient_sex,exam_eye,DR_SDRG,DR_ICDR\n\
         img00001,1,Canon,48,1,1,1,0\nimg00002,1,Canon,48,1,2,1,3\n",
    );
    assert_eq!(
        brset.rows,
        [
            row(2, "img00001", "1", Eye::Right, 0),
            row(3, "img00002", "1", Eye::Left, 3)
        ]
    );
    let header = "Image name,Ophthalmologic department,Retinopathy grade,Risk of macular edema \n";
    let messidor = read(
        Importer::Messidor,
        &format!("{header}a.tif,X,R3,0\nb.tif,X,2,0\nc.tif,X,4,0\n"),
    );
    assert_eq!(messidor.rows.len(), 2);
    assert_eq!(messidor.problems[0].reason, "grade 4 is outside 0 to 3");
    assert!(messidor.remarks.contains(&LabelRemark::MessidorScale));
    let message = refused(
        &format!("{header}10_left,X,3,0\n"),
        &LabelOptions::default(),
    );
    assert!(message.contains("--from messidor"), "{message}");
    let message = refused("file,level\n", &from(Importer::Aptos));
    assert!(
        message.contains("no column \"id_code\" (image)"),
        "{message}"
    );
}

#[test]
fn the_counts_of_a_data_set_are_compared() {
    let counts = [34, 5, 32, 19, 13];
    let mut text = "Image name,Retinopathy grade\n".to_owned();
    let grades = (0..5u8).flat_map(|grade| vec![grade; counts[usize::from(grade)]]);
    for (i, grade) in grades.enumerate() {
        text += &format!("IDRiD_{i:03},{grade}\n");
    }
    let remarks = |text: &str| {
        try_labels(text, &from(Importer::Idrid))
            .expect("idrid")
            .remarks
    };
    let untold = |remark: &LabelRemark| {
        matches!(
            remark,
            LabelRemark::Untold {
                untold: 103,
                total: 103,
                ..
            }
        )
    };
    let whole = remarks(&text);
    assert!(
        matches!(whole.as_slice(), [remark] if untold(remark)),
        "{whole:?}"
    );
    let cut = remarks(text.trim_end().rsplit_once('\n').expect("lines").0);
    assert_eq!(
        cut.last().map(ToString::to_string).as_deref(),
        Some(
            "IDRiD: 102 usable rows, by grade 34/5/32/19/12; the test set has 103 images, by grade \
             34/5/32/19/13"
        )
    );
}

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

#[test]
fn each_bad_row_is_named() {
    let labels = try_labels(
        "image,level\na,7\nb,-1\nc,high\n,1\nd,0\nd,0\ne,1\ne,2\ne,1\ng,1.5\nh\nx, y,1\nt/f.jpg,1\nv/f.jpg,2\n",
        &each(),
    )
    .expect("labels");
    let reported: Vec<String> = labels.problems.iter().map(Problem::to_string).collect();
    let expected = [
        "line 2: \"a\": grade 7 is outside 0 to 4",
        "line 3: \"b\": grade -1 is outside 0 to 4",
        "line 4: \"c\": grade \"high\" is not a whole number from 0 to 4",
        "line 5: \"\": the name is empty",
        "line 7: \"d\": duplicate row: the image is on line 6 already, with the same grade",
        "line 8: \"e\": conflicting labels: grade 1 here, grade 2 on line 9; the image is left out",
        "line 9: \"e\": conflicting labels: grade 2 here, grade 1 on line 8; the image is left out",
        "line 10: \"e\": duplicate row: the image is on line 8 already, with the same grade",
        "line 11: \"g\": grade \"1.5\" is not a whole number from 0 to 4",
        "line 12: \"h\": the grade is empty",
        "line 13: \"x\": the row has 3 cells, and the header 2: is a quotation mark missing?",
        "line 15: \"f\": \"t/f.jpg\" on line 14 has the same file name: photographs are known by the name \
         of their file, without its folder",
    ];
    assert_eq!(reported, expected);
    assert_eq!(
        labels.rows,
        [
            row(6, "d", "d", Eye::Unknown, 0),
            row(14, "f", "f", Eye::Unknown, 1)
        ]
    );
    assert_eq!(labels.total, 14);
}

#[test]
fn an_unknown_header_is_refused_and_columns_can_be_named() {
    let text = "file,stage\nx_left,3\n";
    let message = refused(text, &LabelOptions::default());
    assert!(message.contains("(file,stage)"), "{message}");
    for way_out in ["--columns image=NAME", "--from (eyepacs, aptos"] {
        assert!(message.contains(way_out), "{message}");
    }
    let named = try_labels(text, &columns("image=file,grade=Stage")).expect("named");
    assert_eq!(named.rows.len(), 1);
    let message = refused(text, &columns("image=fle,grade=stage"));
    assert!(message.contains("no column \"fle\" (image)"), "{message}");
    // The data set that it looks like is named.
    let brset = "image_id,patient_id,camera,DR_ICDR\nimg1,1,Canon,0\nimg2,1,Canon,2\n";
    let message = refused(brset, &LabelOptions::default());
    assert!(
        message.contains("it looks like BRSET: give --from brset"),
        "{message}"
    );
    let own = try_labels(
        brset,
        &columns("image=image_id,grade=DR_ICDR,patient=patient_id"),
    );
    assert_eq!(patients(&own.expect("own columns")), ["1", "1"]);
    let message = refused("10_left,0\n10_right,1\n", &LabelOptions::default());
    assert!(
        message.contains("the first line must name the columns"),
        "{message}"
    );
    let message = refused("image,level,level\n", &LabelOptions::default());
    assert!(
        message.contains("two columns are called \"level\""),
        "{message}"
    );
}

#[test]
fn absent_grades_and_another_scale_are_remarked() {
    let remark = |grades: &[u8]| {
        let rows = grades
            .iter()
            .enumerate()
            .map(|(i, grade)| format!("{i}_left,{grade}\n"));
        let labels = labels(&format!("image,level\n{}", rows.collect::<String>()));
        labels
            .remarks
            .first()
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    assert_eq!(remark(&[0, 1, 2, 3, 4]), "");
    let three = remark(&[0, 1, 2, 3]);
    assert!(
        three.starts_with("no image has grade 4 (images of grades 0 to 4: 1/1/1/1/0)"),
        "{three}"
    );
    assert!(three.contains("--from messidor"), "{three}");
    assert!(remark(&[0, 2, 4]).starts_with("no image has grade 1 or 3"));
    assert!(remark(&[0, 1, 1]).contains("read here as mild"));
    let labels = try_labels("image,level\na_left,R0\n", &LabelOptions::default()).expect("labels");
    assert!(labels.problems[0].reason.contains("--from messidor"));
}

#[test]
fn files_that_are_no_labels_are_errors() {
    let error = |text: &[u8]| {
        parse(
            text,
            Path::new("l.csv"),
            &LabelOptions::default(),
            &Pairs::new(),
        )
        .expect_err("refused")
    };
    assert!(matches!(error(b"image,level\n"), LabelsError::Empty { .. }));
    assert_eq!(error(b" \n").to_string(), "label file l.csv: it is empty");
    let message = error(b"PAR1").to_string();
    assert!(
        message.starts_with("label file l.csv: it is a Parquet file"),
        "{message}"
    );
    let message = error(b"image,level\n\"a,1\n").to_string();
    assert!(
        message.starts_with("label file l.csv: line 2: the quotation mark"),
        "{message}"
    );
    let gone = read(Path::new("no-such-file.csv"), &LabelOptions::default());
    assert!(
        gone.expect_err("gone")
            .to_string()
            .contains("no-such-file.csv")
    );
}
