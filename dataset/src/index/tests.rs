//! Indexes that must be refused, each for its reason.

use super::*;
use crate::manifest::tests::valid;

const VALID: &str = "\
image,patient,eye,grade,split,pack,record
1_left,1,left,0,train,0,0
1_right,1,right,2,train,0,1
2_left,2,left,0,train,1,0
3,3,,0,validation,2,0
";

/// Parses `text` as the index of a manifest that names exactly these bytes.
fn parse(text: &str) -> Result<Index, IndexError> {
    let mut manifest = valid();
    manifest.index.bytes = text.len() as u64;
    manifest.index.sha256 = crate::sha256_hex(text.as_bytes());
    Index::parse(text.as_bytes(), &manifest)
}

#[test]
fn a_valid_index_is_read() {
    let index = parse(VALID).expect("valid");
    assert_eq!(index.train().len(), 3);
    let expected = Sample {
        ordinal: 1,
        image: "1_right".to_owned(),
        patient: 0,
        eye: Eye::Right,
        grade: 2,
        pack: 0,
        record: 1,
        content: None,
    };
    assert_eq!(index.train()[1], expected);
    let [held_out] = index.validation() else {
        panic!("one sample is held out");
    };
    assert_eq!((held_out.ordinal, held_out.patient), (0, 2));
    assert_eq!((index.patient(2), index.patient(3)), (Some("3"), None));
}

#[test]
fn contents_are_read_where_there_are_any() {
    let with = |content: &str| {
        let mut lines = VALID.lines();
        let head = format!("{},content\n", lines.next().expect("a header"));
        let rows = lines.map(|line| format!("{line},{content}\n"));
        head + &rows.collect::<String>()
    };
    let digits = "0123456789abcdef0123456789abcdef";
    let index = parse(&with(digits)).expect("with contents");
    let all = index.part(Part::All);
    let shown: Vec<String> = all
        .iter()
        .filter_map(|s| Some(s.content?.to_string()))
        .collect();
    assert_eq!(shown, vec![digits; 4]);
    for wrong in ["", "0123", &digits.replace('a', "g")] {
        let message = parse(&with(wrong)).expect_err("refused").to_string();
        assert!(
            message.contains("row 1") && message.contains("32 hexadecimal digits"),
            "{message}"
        );
    }
    let message = parse(&with(digits).replace("content", "sha"))
        .expect_err("header")
        .to_string();
    assert!(
        message.contains("expected \"image,patient,eye,grade,split,pack,record,content\""),
        "{message}"
    );
}

#[test]
fn test_samples_are_kept_apart() {
    let with_test = VALID.to_owned() + "4,4,,3,test,3,0\n";
    let parse = |text: &str| {
        let mut manifest = crate::manifest::tests::with_test();
        manifest.index.bytes = text.len() as u64;
        manifest.index.sha256 = crate::sha256_hex(text.as_bytes());
        Index::parse(text.as_bytes(), &manifest)
    };
    let index = parse(&with_test).expect("valid");
    assert_eq!((index.train().len(), index.validation().len()), (3, 1));
    let [test] = index.of(Split::Test) else {
        panic!("one sample is for the test");
    };
    assert_eq!(
        (test.image.as_str(), test.ordinal, test.patient),
        ("4", 0, 3)
    );
    assert_eq!(index.test(), index.of(Split::Test));
    let leaking = parse(&with_test.replace("4,4,,3", "4,3,,3")).expect_err("a leak");
    assert!(
        leaking
            .to_string()
            .contains("both the validation and the test split"),
        "{leaking}"
    );
}

#[test]
fn a_fold_takes_the_place_of_the_validation_split() {
    use fovea_core::spec::FoldSpec;
    let with_test = VALID.to_owned() + "4,4,,3,test,3,0\n";
    let mut manifest = crate::manifest::tests::with_test();
    manifest.index.bytes = with_test.len() as u64;
    manifest.index.sha256 = crate::sha256_hex(with_test.as_bytes());
    let index = Index::parse(with_test.as_bytes(), &manifest).expect("valid");
    let names = |samples: &[Sample]| -> Vec<String> {
        for (at, sample) in (0..).zip(samples) {
            assert_eq!(sample.ordinal, at);
        }
        samples.iter().map(|s| s.image.clone()).collect()
    };
    // Patients 2 and 3 are of grade 0 and dealt first, then patient 1 of grade 2.
    let expected = [
        (1, vec!["1_left", "1_right", "3"], vec!["2_left"]),
        (2, vec!["1_left", "1_right", "2_left"], vec!["3"]),
        (3, vec!["2_left", "3"], vec!["1_left", "1_right"]),
    ];
    for (number, train, held_out) in expected {
        let fold = Some(FoldSpec {
            index: number,
            of: 3,
        });
        let folded = index.clone().folded(fold).expect("three patients");
        assert_eq!(names(folded.train()), train);
        assert_eq!(names(folded.validation()), held_out);
        assert_eq!(folded.test(), index.test());
        // Where a sample lies in the packs, and whose it is, stays.
        for sample in folded.part(Part::All).iter() {
            let before = index.part(Part::All);
            let mut same = before.iter().filter(|s| s.image == sample.image);
            let same = same.next().expect("the same sample");
            assert_eq!(
                (same.pack, same.record, same.patient),
                (sample.pack, sample.record, sample.patient)
            );
        }
    }
    assert_eq!(index.clone().folded(None).expect("no fold"), index);
    let too_many = Some(FoldSpec { index: 1, of: 4 });
    assert!(index.folded(too_many).is_err());
}

#[test]
fn bad_rows_are_refused_by_name() {
    let cases = [
        (
            "1_right,1,right,2",
            "1_right,1,right,5",
            "\"1_right\"): grade 5 is outside",
        ),
        ("1_right,1,right,2", "1_right,1,right,x", "index.csv: CSV"),
        (
            "1_right,1,right,2",
            "1_left,1,right,2",
            "\"1_left\"): the image is in the index twice",
        ),
        ("1_right,1,right", "1_right,1,up", "eye \"up\""),
        ("2,train,0,1", "2,dev,0,1", "split \"dev\""),
        (
            "2,train,0,1",
            "2,test,0,1",
            "is for test, its pack for train",
        ),
        ("1_right,1", "1_right,", "patient: the name is empty"),
        ("1_right,1", "../x,1", "the name holds a folder"),
        (
            "train,1,0",
            "train,1,1",
            "next free place is pack 1, record 0",
        ),
        (
            "train,1,0",
            "train,0,0",
            "next free place is pack 1, record 0",
        ),
        (
            "2,train,0,1",
            "2,validation,0,1",
            "is for validation, its pack for train",
        ),
        (
            "2_left,2",
            "2_left,3",
            "patient \"3\" is in both the train and the validation split",
        ),
        (
            "2_left,2,left,0",
            "2_left,2,left,1",
            "by grade [1, 1, 1, 0, 0] to train",
        ),
        ("image,patient", "patient,image", "has the columns"),
        ("3,3,,0,validation,2,0\n", "", "by grade"),
        (
            "validation,2,0\n",
            "validation,2,0\n4,4,,0,validation,3,0\n",
            "there is no pack 3",
        ),
    ];
    for (from, to, expected) in cases {
        assert!(VALID.contains(from), "{from}");
        let message = parse(&VALID.replacen(from, to, 1))
            .expect_err(expected)
            .to_string();
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn a_patient_on_both_sides_is_named() {
    let leaking = VALID.replace("3,3,,0", "3,1,,0");
    let error = parse(&leaking).expect_err("a leak");
    assert!(
        matches!(&error, IndexError::PatientInTwoSplits { patient, .. } if patient == "1"),
        "{error}"
    );
}

#[test]
fn the_samples_of_a_patient_must_be_neighbours() {
    let text = VALID
        .replace("1_right,1,right,2", "x,9,,2")
        .replace("2_left,2,left", "1_right,1,right");
    let message = parse(&text).expect_err("scattered").to_string();
    assert!(
        message.contains("patient \"1\" are not neighbours"),
        "{message}"
    );
}

#[test]
fn other_bytes_than_the_manifest_names_are_refused() {
    let error = Index::parse(VALID.as_bytes(), &valid()).expect_err("wrong size");
    assert!(matches!(error, IndexError::Digest { .. }), "{error}");
    let mut manifest = valid();
    manifest.index.bytes = VALID.len() as u64;
    let error = Index::parse(VALID.as_bytes(), &manifest).expect_err("wrong digest");
    assert!(error.to_string().contains("SHA-256"), "{error}");
}

#[test]
fn what_is_written_is_read() {
    let digits = "0123456789abcdef0123456789abcdef";
    let mut lines = VALID.lines();
    let head = format!("{},content\n", lines.next().expect("a header"));
    let text = lines.fold(head, |text, line| text + &format!("{line},{digits}\n"));
    let rows: Vec<Row> = csv::Reader::from_reader(text.as_bytes())
        .deserialize()
        .collect::<Result<_, _>>()
        .expect("rows");
    assert_eq!(write(&rows).expect("write"), text.as_bytes());
}
