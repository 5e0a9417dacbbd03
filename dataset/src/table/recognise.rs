//! What a file is, by its bytes, and its text if it is one.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::TableError;

/// A file's text.
pub(super) struct Text<'a> {
    pub text: Cow<'a, str>,
    pub remark: Option<EncodingRemark>,
}

/// The text was read as Windows-1252, because it is in none of Unicode's encodings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodingRemark {
    /// The first line with a letter that this matters for, from 1.
    pub line: u64,
    /// That line's beginning.
    pub text: String,
}

/// The text of a file, or what the file is instead.
pub(super) fn text(bytes: &[u8]) -> Result<Text<'_>, TableError> {
    if let Some((kind, todo)) = kind(bytes) {
        return Err(TableError::Kind { kind, todo });
    }
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        return decoded(encoding, &bytes[mark..]);
    }
    if let Some(encoding) = utf16_without_mark(bytes) {
        return decoded(encoding, bytes);
    }
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        return Err(TableError::Binary {
            line: line_of(bytes, at),
        });
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Text {
            text: text.into(),
            remark: None,
        }),
        Err(error) => windows(bytes, line_of(bytes, error.valid_up_to())),
    }
}

fn decoded<'a>(encoding: &'static Encoding, bytes: &'a [u8]) -> Result<Text<'a>, TableError> {
    match encoding.decode_without_bom_handling_and_without_replacement(bytes) {
        Some(text) => Ok(Text { text, remark: None }),
        None => {
            let (lossy, _) = encoding.decode_without_bom_handling(bytes);
            let good = lossy.split('\u{fffd}').next().unwrap_or_default();
            Err(TableError::Encoding {
                line: line_of(good.as_bytes(), good.len()),
            })
        }
    }
}

/// UTF-16 that lost its mark: of ASCII text every other byte is zero.
fn utf16_without_mark(bytes: &[u8]) -> Option<&'static Encoding> {
    let start = &bytes[..bytes.len().min(1000) & !1];
    let zeros = |first: usize| {
        start
            .iter()
            .skip(first)
            .step_by(2)
            .filter(|b| **b == 0)
            .count()
    };
    let (even, odd) = (zeros(0), zeros(1));
    let most = start.len() / 2 * 9 / 10;
    match (even, odd) {
        _ if start.is_empty() => None,
        (0, odd) if odd > most => Some(UTF_16LE),
        (even, 0) if even > most => Some(UTF_16BE),
        _ => None,
    }
}

fn windows(bytes: &[u8], line: u64) -> Result<Text<'_>, TableError> {
    let (text, _) = WINDOWS_1252.decode_without_bom_handling(bytes);
    // Bytes that Windows-1252 does not use come out as control characters: another encoding.
    let foreign = |c: char| ('\u{80}'..'\u{a0}').contains(&c);
    if let Some(at) = text.find(foreign) {
        return Err(TableError::Encoding {
            line: line_of(text.as_bytes(), at),
        });
    }
    let shown = text.lines().nth(line as usize - 1).unwrap_or_default();
    let shown = shown.chars().take(super::SHOWN).collect();
    Ok(Text {
        remark: Some(EncodingRemark { line, text: shown }),
        text,
    })
}

/// The line, from 1, of the byte at `at`.
fn line_of(bytes: &[u8], at: usize) -> u64 {
    let before = &bytes[..at.min(bytes.len())];
    1 + before.iter().filter(|&&byte| byte == b'\n').count() as u64
}

const SAVE_SHEET: &str = "open it and save the sheet with the labels as CSV (UTF-8)";
const EXPORT: &str = "write its columns to a CSV file";
const UNPACK: &str = "unpack it and give the table that is in it";
const AGAIN: &str = "fetch the table itself again";

/// What a file is that is no text table, and what to do.
fn kind(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const KINDS: [(&[u8], &str, &str); 12] = [
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
            "an Excel 97-2003 workbook (.xls)",
            SAVE_SHEET,
        ),
        (b"\xff\xfe\0\0", "text in UTF-32", "save it as CSV in UTF-8"),
        (b"PAR1", "a Parquet file", EXPORT),
        (b"ARROW1", "an Arrow or Feather file", EXPORT),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file", EXPORT),
        (b"SQLite format 3\0", "an SQLite database", EXPORT),
        (b"\x93NUMPY", "a NumPy array (.npy)", EXPORT),
        (b"%PDF", "a PDF document", "copy its table into a CSV file"),
        (b"\x1f\x8b", "compressed by gzip", UNPACK),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
        (b"Rar!", "a RAR archive", UNPACK),
        (
            b"version https://git-lfs",
            "a pointer of Git LFS to the real file",
            "run `git lfs pull`",
        ),
    ];
    let known = KINDS.iter().find(|(magic, ..)| bytes.starts_with(magic));
    if let Some((_, kind, todo)) = known {
        return Some((kind, todo));
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Some(zip_kind(bytes));
    }
    let start = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let start = start.trim_ascii_start();
    let lower = start[..start.len().min(20)].to_ascii_lowercase();
    let pages: [&[u8]; 4] = [b"<!doctype", b"<html", b"<table", b"<head"];
    if pages.iter().any(|page| lower.starts_with(page)) {
        return Some(("a web page, perhaps one that asks to log in", AGAIN));
    }
    match start.first() {
        Some(b'<') => Some(("an XML document", EXPORT)),
        Some(b'{' | b'[') => Some(("JSON", EXPORT)),
        _ => None,
    }
}

/// Kinds of ZIP files, by the names of their parts.
fn zip_kind(bytes: &[u8]) -> (&'static str, &'static str) {
    let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    if has(b"xl/workbook") {
        ("an Excel workbook (.xlsx)", SAVE_SHEET)
    } else if has(b"opendocument.spreadsheet") {
        ("an OpenDocument spreadsheet (.ods)", SAVE_SHEET)
    } else if has(b".npy") {
        (
            "a NumPy archive (.npz)",
            "RetinaMNIST is read with --from retinamnist; of another, write the columns to a CSV file",
        )
    } else {
        ("a ZIP archive", UNPACK)
    }
}
