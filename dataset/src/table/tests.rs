//! Tables that are read, and files that are refused.

use super::*;

fn table(bytes: &[u8]) -> Table {
    parse(bytes, Header::FirstLine).expect("a table")
}

fn refused(bytes: &[u8]) -> String {
    parse(bytes, Header::FirstLine)
        .expect_err("refused")
        .to_string()
}

fn cells(table: &Table) -> Vec<(u64, Vec<&str>)> {
    let mut found = Vec::new();
    for row in &table.rows {
        found.push((row.line, (0..row.width()).map(|c| row.cell(c)).collect()));
    }
    found
}

#[test]
fn every_separator_and_encoding_gives_the_same_table() {
    let text = "image,level,comment\n10_left,0,r\u{e9}tine\n\n10_right,2,\n";
    let utf16 = |text: &str, big: bool| -> Vec<u8> {
        let bytes = |unit: u16| {
            if big {
                unit.to_be_bytes()
            } else {
                unit.to_le_bytes()
            }
        };
        text.encode_utf16().flat_map(bytes).collect()
    };
    let latin: Vec<u8> = text.chars().map(|c| c as u8).collect();
    let mut files: Vec<Vec<u8>> = vec![
        text.into(),
        format!("\u{feff}{text}").into(),
        text.replace('\n', "\r\n").into(),
        text.replace('\n', "\r").into(),
        text.trim_end().into(),
        format!("{text}\u{1a}").into(),
        utf16(&format!("\u{feff}{text}"), false),
        utf16(&format!("\u{feff}{text}"), true),
        utf16(text, false),
        utf16(text, true),
        latin.clone(),
    ];
    for separator in [";", "\t", "|"] {
        files.push(text.replace(',', separator).into());
    }
    for file in &files {
        let table = table(file);
        assert_eq!(table.header, ["image", "level", "comment"]);
        assert_eq!(
            cells(&table),
            [
                (2, vec!["10_left", "0", "r\u{e9}tine"]),
                (4, vec!["10_right", "2"])
            ],
            "{}",
            String::from_utf8_lossy(file)
        );
        let remark = (*file == latin).then(|| EncodingRemark {
            line: 2,
            text: "10_left,0,r\u{e9}tine".to_owned(),
        });
        assert_eq!(table.encoding, remark);
    }
    for line in ["sep=;", "SEP=;\r", "\"sep=;\""] {
        let text = format!("{line}\nimage;level\n10_left;2\n");
        assert_eq!(cells(&table(text.as_bytes())), [(3, vec!["10_left", "2"])]);
    }
}

#[test]
fn quotation_marks_that_are_not_closed_are_refused_where_they_begin() {
    let rows = |from: u32| {
        (from..30)
            .map(|i| format!("{i}_left,0\n"))
            .collect::<String>()
    };
    let text = format!("image,level\n1_left,0\n2_left,1\n\"3_left,1\n{}", rows(4));
    let message = refused(text.as_bytes());
    assert!(
        message.starts_with("line 4: the quotation mark before \"3_left,1\""),
        "{message}"
    );
    // One that another row's mark closes, one on the last line, one in a column that is not used.
    for (text, line) in [
        ("image,level\na,1\n\"b,1\nc\",1\nd,2\n".to_owned(), 3),
        ("image,level\na,1\n\"b,1".to_owned(), 3),
        ("image,level\na,1\n\"b,1\n".to_owned(), 3),
        ("image,level\r\n\r\na,\"1\r\nb,1\r\n".to_owned(), 3),
        ("image,level,note\na,1,\"two\nlines\"\nb,1,\n".to_owned(), 2),
        ("\"image,level\na,1\nb,2\n".to_owned(), 1),
    ] {
        let message = refused(text.as_bytes());
        assert!(
            message.starts_with(&format!("line {line}: the quot")),
            "{text:?}: {message}"
        );
    }
    let text = format!("image,level\n{},1\n", "x".repeat(1001));
    assert!(refused(text.as_bytes()).starts_with("line 2: a field of 1001 characters"));
    let text = "image,level,note\n\"a, b\",1,\"said \"\"two\"\"\"\n,,\n\"\"\nc,2,5\" disc\n";
    assert_eq!(
        cells(&table(text.as_bytes())),
        [
            (2, vec!["a, b", "1", "said \"two\""]),
            (5, vec!["c", "2", "5\" disc"])
        ]
    );
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let zip = |part: &str| format!("PK\u{3}\u{4}....{part}....").into_bytes();
    for (bytes, expected) in [
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0\0".to_vec(),
            "an Excel 97-2003 workbook (.xls)",
        ),
        (zip("xl/workbook.xml"), "an Excel workbook (.xlsx)"),
        (
            zip("mimetypeapplication/vnd.oasis.opendocument.spreadsheet"),
            "an OpenDocument spreadsheet (.ods)",
        ),
        (zip("train_images.npy"), "a NumPy archive (.npz)"),
        (zip("x.csv"), "a ZIP archive"),
        (b"PAR1\0\0".to_vec(), "a Parquet file"),
        (b"[{\"image\": 1}]".to_vec(), "JSON"),
        (b" {\"a\": 1}\n".to_vec(), "JSON"),
        (b"<!DOCTYPE html><html>".to_vec(), "a web page"),
        (b"<?xml version='1.0'?>".to_vec(), "an XML document"),
        (b"\x1f\x8b\x08".to_vec(), "compressed by gzip"),
        (
            b"version https://git-lfs.github.com/spec/v1\n".to_vec(),
            "a pointer of Git LFS",
        ),
        (b"\xff\xfe\0\0i\0\0\0".to_vec(), "text in UTF-32"),
    ] {
        let message = refused(&bytes);
        assert!(message.contains(expected), "{message}");
        assert!(message.contains(": "), "what to do is missing: {message}");
    }
    assert!(refused(b"image,level\na\0b,1\n").starts_with("line 2 holds a byte"));
    assert!(refused(b"image,level\na,1\nb\x81,1\n").contains("(line 3)"));
    assert!(refused(b"\xff\xfei\0m\0\x00\xd8a\0").contains("(line 1)"));
}

#[test]
fn a_table_without_a_header_has_the_names_that_are_given() {
    let header = Header::None {
        names: &["image", "grade"],
    };
    let table = parse(b"a.jpg 0\nb.jpg 5\n", header).expect("table");
    assert_eq!(table.header, ["image", "grade"]);
    assert_eq!(
        cells(&table),
        [(1, vec!["a.jpg", "0"]), (2, vec!["b.jpg", "5"])]
    );
    for header in [header, Header::FirstLine] {
        let error = parse(b" \n", header).expect_err("nothing in it");
        assert_eq!(error.to_string(), "is empty");
    }
}
