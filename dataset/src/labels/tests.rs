//! Valid and invalid label files.

use super::*;

fn labels(text: &str) -> Labels {
    try_labels(text, &LabelOptions::default()).expect("labels")
}

fn try_labels(text: &str, options: &LabelOptions) -> Result<Labels, LabelsError> {
    parse(text.as_bytes(), Path::new("l.csv"), options)
}

fn row(line: u64, image: &str, patient: &str, eye: Eye, grade: u8) -> LabelRow {
    LabelRow {
        line,
        image: image.to_owned(),
        patient: patient.to_owned(),
        eye,
        grade,
    }
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
    let aptos = labels("id_code,diagnosis\n000c1434d8d7,2\n");
    let hex = "000c1434d8d7";
    assert_eq!(aptos.rows, [row(2, hex, hex, Eye::Unknown, 2)]);
    let idrid = labels(
        "Image name, Retinopathy  grade ,Risk of macular edema ,,,\r\n IDRiD_001 ,3,2,,,\r\n,,,,,\r\n",
    );
    assert_eq!(
        idrid.rows,
        [row(2, "IDRiD_001", "IDRiD_001", Eye::Unknown, 3)]
    );
    assert_eq!((idrid.total, idrid.problems.len()), (1, 0));
    let messidor = labels("image_id,adjudicated_dr_grade\na.jpg,2.0\nb.png,\n");
    assert_eq!(messidor.rows, [row(2, "a", "a", Eye::Unknown, 2)]);
    assert_eq!(messidor.problems[0].reason, "the grade is empty");
}

#[test]
fn a_patient_column_overrides_the_name() {
    let text = "image,level,patient,who\na_left,1,P7,\nb_left,1,,X\n";
    let patients = |options: &LabelOptions| -> Vec<String> {
        let labels = try_labels(text, options).expect("labels");
        labels.rows.into_iter().map(|r| r.patient).collect()
    };
    assert_eq!(patients(&LabelOptions::default()), ["P7", "b"]);
    let options = LabelOptions {
        patient_column: Some("Who".to_owned()),
        ..LabelOptions::default()
    };
    assert_eq!(patients(&options), ["a", "X"]);
}

#[test]
fn each_bad_row_is_named() {
    let labels =
        labels("image,level\na,7\nb,-1\nc,high\n,1\nd,0\nd,0\ne,1\ne,2\ne,1\n../f,1\ng,1.5\nh\n");
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
        "line 11: \"../f\": the name holds a folder; give plain names of files in the images folder",
        "line 12: \"g\": grade \"1.5\" is not a whole number from 0 to 4",
        "line 13: \"h\": the grade is empty",
    ];
    assert_eq!(reported, expected);
    assert_eq!(labels.rows, [row(6, "d", "d", Eye::Unknown, 0)]);
    assert_eq!(labels.total, 12);
}

#[test]
fn an_unknown_header_is_refused_and_columns_can_be_named() {
    let text = "file,stage\nx,3\n";
    let error = try_labels(text, &LabelOptions::default()).expect_err("no known header");
    assert!(error.to_string().contains("(file,stage)"), "{error}");
    let options = LabelOptions {
        image_column: Some("file".to_owned()),
        grade_column: Some("stage".to_owned()),
        patient_column: None,
    };
    assert_eq!(try_labels(text, &options).expect("named").rows.len(), 1);
}

#[test]
fn files_that_are_no_labels_are_errors() {
    let error = |text: &[u8]| {
        parse(text, Path::new("l.csv"), &LabelOptions::default()).expect_err("refused")
    };
    assert!(matches!(error(b"image,level\n"), LabelsError::Empty { .. }));
    assert!(matches!(error(b""), LabelsError::Header { .. }));
    assert!(matches!(
        error(b"image,level\n\xff\xfe,1\n"),
        LabelsError::Csv { .. }
    ));
    let gone = read(Path::new("no-such-file.csv"), &LabelOptions::default());
    assert!(
        gone.expect_err("gone")
            .to_string()
            .contains("no-such-file.csv")
    );
}
