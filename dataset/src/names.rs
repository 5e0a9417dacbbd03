//! Names of images as tables and folders write them, made comparable.
//!
//! One image is `10_left`, `10_left.jpeg`, `train/10_left.jpg` or `train\10_left.jpg`, composed or
//! decomposed Unicode, depending on who wrote the table and on which system.

use unicode_normalization::UnicodeNormalization;

/// The image's name in a table's cell: the last part of a path, without a picture's ending, in
/// Unicode's composed form (NFC).
pub(crate) fn image_name(cell: &str) -> String {
    let file = cell.trim().rsplit(['/', '\\']).next().unwrap_or_default();
    composed(without_ending(file).trim())
}

/// A file's name without a picture's ending. Of `1.2.3.10` all stays: dots are common in names of DICOM files.
pub fn without_ending(file: &str) -> &str {
    match file.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() && is_picture_ending(ending) => stem,
        _ => file,
    }
}

/// What two spellings of a name have in common: NFC, lower case.
pub(crate) fn key(name: &str) -> String {
    composed(&name.to_lowercase())
}

/// A text in Unicode's composed form (NFC).
pub(crate) fn composed(text: &str) -> String {
    text.nfc().collect()
}

/// Endings of photographs that are read.
pub(crate) const READ_ENDINGS: [&str; 11] = [
    "jpeg", "jpg", "jpe", "jfif", "png", "tif", "tiff", "bmp", "webp", "dcm", "dicom",
];

/// Endings of pictures that are not read.
const OTHER_ENDINGS: [&str; 4] = ["gif", "heic", "heif", "avif"];

/// Whether photographs with this ending (without the dot, in any case) are read.
pub(crate) fn is_read_ending(ending: &str) -> bool {
    READ_ENDINGS.iter().any(|e| ending.eq_ignore_ascii_case(e))
}

/// Whether tables and folders give this ending to pictures, whether or not such pictures are read.
pub(crate) fn is_picture_ending(ending: &str) -> bool {
    let mut others = OTHER_ENDINGS.iter();
    is_read_ending(ending) || others.any(|e| ending.eq_ignore_ascii_case(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_one_name_whatever_the_table_writes() {
        for cell in [
            "10_left",
            " 10_left.jpeg ",
            "10_left.JPG",
            "10_left.dcm",
            "train/10_left.png",
            "C:\\eyes\\train\\10_left.tif",
            "../images/10_left.webp",
        ] {
            assert_eq!(image_name(cell), "10_left", "{cell}");
        }
        assert_eq!(image_name("1.1.jpg"), "1.1");
        assert_eq!(image_name("1.1"), "1.1");
        assert_eq!(image_name(".jpg"), ".jpg");
        assert_eq!(image_name("images/"), "");
    }

    #[test]
    fn composed_and_decomposed_names_are_one() {
        assert_eq!(image_name("Mu\u{308}ller_left"), "M\u{fc}ller_left");
        assert_eq!(key("MU\u{308}LLER"), key("m\u{fc}ller"));
    }
}
