//! Valid and invalid label files.

mod patients;

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
