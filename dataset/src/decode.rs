//! Photographs from files: finding them by name, decoding them in bounded memory.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use image::{ImageFormat, ImageReader, Limits, RgbImage};

use crate::names::{composed, key};

/// Decodes the photograph at `path` (JPEG, PNG, TIFF or BMP, recognized by content) to 8-bit RGB.
///
/// An incomplete file is an error even where a decoder would fill the rest with grey: half a retina
/// must not be used as a whole one. EXIF orientation is not applied, as
/// the published pipelines do not either.
pub fn decode(path: &Path) -> Result<RgbImage, DecodeError> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(DecodeError::TooLarge);
    }
    decode_bytes(&bytes)
}

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 512 << 20;
/// Largest width or height that is accepted, in pixels.
const MAX_SIDE: u32 = 20_000;
/// Most memory that a decoder may use, in bytes.
const MAX_DECODED_BYTES: u64 = 1 << 30;

/// Why a photograph cannot be used. The messages leave out the path, which the caller adds.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file is larger than any photograph.
    #[error("the file is larger than 512 MiB")]
    TooLarge,
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// A JPEG without its end.
    #[error("the JPEG is truncated: the file ends before the picture does")]
    Truncated,
    /// The decoder reported an error.
    #[error("cannot be decoded: {0}")]
    Image(#[from] image::ImageError),
    /// The decoder panicked.
    #[error("cannot be decoded: the file is malformed")]
    Malformed,
}

/// Why there is no photograph of a name in the images folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FindError {
    /// There is no such file.
    #[error("missing: there is no {name}.{{{}}} in the images folder", ENDINGS.join(","))]
    Missing {
        /// The image.
        name: String,
    },
    /// There are several.
    #[error("ambiguous: the images folder has {}; keep one", files.join(", "))]
    Ambiguous {
        /// Names of the files.
        files: Vec<String>,
    },
}

fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    if reader.format() == Some(ImageFormat::Jpeg) && !jpeg_is_complete(bytes) {
        return Err(DecodeError::Truncated);
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    // A decoder that panics on a malformed file must not end the whole preparation.
    let decoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reader.decode()));
    Ok(decoded.map_err(|_| DecodeError::Malformed)??.into_rgb8())
}

/// Whether a JPEG has its end-of-image marker, by walking its segments (ITU-T T.81, annex B). A
/// search for the marker's bytes would find the one of an embedded thumbnail.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    const START_OF_IMAGE: u8 = 0xd8;
    const END_OF_IMAGE: u8 = 0xd9;
    const START_OF_SCAN: u8 = 0xda;
    let mut at = 2;
    let mut in_scan = false;
    // Between segments and inside a scan alike: go to the next 0xff and see what follows it.
    while let Some(&[lead, marker]) = bytes.get(at..at + 2) {
        match (lead, marker) {
            (0xff, END_OF_IMAGE) => return true,
            // Fill bytes before a marker; 0x00 is an escaped 0xff inside a scan; restarts and the
            // other markers without a length are skipped.
            (0xff, 0xff) => at += 1,
            (0xff, 0x00 | 0x01 | 0xd0..=0xd7 | START_OF_IMAGE) => at += 2,
            (0xff, _) => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else {
                    return false;
                };
                at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
                in_scan |= marker == START_OF_SCAN;
            }
            // Data of a scan, or stray bytes between segments, which decoders skip too.
            _ => at += 1,
        }
    }
    // Without any scan the walk proves nothing; the decoder reports what is missing.
    !in_scan
}

/// File endings of photographs, in the order in which they are tried.
const ENDINGS: [&str; 5] = ["jpeg", "jpg", "png", "tif", "tiff"];

/// Whether `ending` (without the dot) is one of a photograph, in any case.
pub(crate) fn is_image_ending(ending: &str) -> bool {
    ENDINGS.iter().any(|e| ending.eq_ignore_ascii_case(e))
}

/// The photographs of a folder, by name.
pub(crate) struct ImageFolder {
    dir: PathBuf,
    /// File names by the key of the name before the ending.
    files: HashMap<String, Vec<String>>,
}

impl ImageFolder {
    /// Lists `dir` (not its sub-folders).
    pub(crate) fn list(dir: &Path) -> io::Result<Self> {
        let mut files: HashMap<String, Vec<String>> = HashMap::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not UTF-8 cannot be in a label file either.
            if let Ok(file) = entry?.file_name().into_string()
                && let Some((stem, ending)) = file.rsplit_once('.')
                && is_image_ending(ending)
            {
                files.entry(key(stem)).or_default().push(file);
            }
        }
        // The order in which a folder is listed must not matter.
        files.values_mut().for_each(|names| names.sort());
        Ok(Self {
            dir: dir.to_owned(),
            files,
        })
    }

    /// The file of the image `name` (in NFC): an exact match if there is one, else one that differs in case.
    pub(crate) fn find(&self, name: &str) -> Result<PathBuf, FindError> {
        let all = self.files.get(&key(name));
        let all: Vec<&str> = all.into_iter().flatten().map(String::as_str).collect();
        let stem = |file: &str| file.rsplit_once('.').map(|(stem, _)| composed(stem));
        let exact: Vec<&str> = all
            .iter()
            .copied()
            .filter(|file| stem(file).as_deref() == Some(name))
            .collect();
        match (exact.as_slice(), all.as_slice()) {
            ([file], _) | ([], [file]) => Ok(self.dir.join(file)),
            ([], []) => Err(FindError::Missing {
                name: name.to_owned(),
            }),
            ([], several) | (several, _) => Err(FindError::Ambiguous {
                files: several.iter().map(|&file| file.to_owned()).collect(),
            }),
        }
    }

    /// How many photographs `used` does not name, and the first few of them.
    pub(crate) fn unused<'a>(&self, used: impl Iterator<Item = &'a str>) -> (usize, Vec<String>) {
        let used: std::collections::HashSet<String> = used.map(key).collect();
        let mut unused: Vec<&String> = self
            .files
            .iter()
            .filter(|(stem, _)| !used.contains(*stem))
            .flat_map(|(_, files)| files)
            .collect();
        unused.sort();
        (unused.len(), unused.into_iter().take(5).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;

    fn jpeg() -> Vec<u8> {
        let picture = RgbImage::from_fn(64, 48, |x, y| {
            image::Rgb([x as u8 * 3, y as u8 * 5, (x * y) as u8])
        });
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 90)
            .encode_image(&picture)
            .expect("encode");
        bytes
    }

    #[test]
    fn a_truncated_jpeg_is_refused_wherever_it_is_cut() {
        let whole = jpeg();
        assert_eq!(decode_bytes(&whole).expect("whole").dimensions(), (64, 48));
        for keep in 1..whole.len() {
            assert!(decode_bytes(&whole[..keep]).is_err(), "{keep} bytes passed");
        }
        let cut = decode_bytes(&whole[..whole.len() * 3 / 4]);
        assert!(matches!(cut, Err(DecodeError::Truncated)));
    }

    #[test]
    fn a_tail_of_zeros_is_truncation_but_padding_is_not() {
        let whole = jpeg();
        let mut holed = whole.clone();
        let half = holed.len() / 2;
        holed[half..].fill(0);
        assert!(matches!(decode_bytes(&holed), Err(DecodeError::Truncated)));
        let mut padded = whole;
        padded.extend([0; 100]);
        assert!(decode_bytes(&padded).is_ok());
    }

    /// A thumbnail inside EXIF data is a whole JPEG: its end must not be taken for the picture's.
    #[test]
    fn the_end_of_a_thumbnail_is_not_the_end_of_the_picture() {
        let whole = jpeg();
        let thumbnail = jpeg();
        let mut bytes = vec![0xff, 0xd8, 0xff, 0xe1];
        bytes.extend(
            u16::try_from(thumbnail.len() + 2)
                .expect("small")
                .to_be_bytes(),
        );
        bytes.extend(&thumbnail);
        bytes.extend(&whole[2..]);
        assert!(decode_bytes(&bytes).is_ok());
        let cut = &bytes[..bytes.len() - 40];
        assert!(matches!(decode_bytes(cut), Err(DecodeError::Truncated)));
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(matches!(decode_bytes(b""), Err(DecodeError::Empty)));
        assert!(decode_bytes(b"image,level\n").is_err());
        assert!(decode_bytes(&[0xff, 0xd8, 0xff]).is_err());
    }

    #[test]
    fn files_are_found_by_name_whatever_the_case_of_the_ending() {
        let dir = tempfile::tempdir().expect("dir");
        for file in [
            "a.JPEG", "B.png", "c.jpg", "c.png", "d.txt", "e.tiff", "E.tif",
        ] {
            fs::write(dir.path().join(file), b"x").expect("write");
        }
        let folder = ImageFolder::list(dir.path()).expect("list");
        let found = |name: &str| {
            let path = folder.find(name).map_err(|e| e.to_string())?;
            Ok::<_, String>(
                path.file_name()
                    .expect("file")
                    .to_string_lossy()
                    .into_owned(),
            )
        };
        assert_eq!(found("a").as_deref(), Ok("a.JPEG"));
        assert_eq!(found("b").as_deref(), Ok("B.png"));
        assert_eq!(found("e").as_deref(), Ok("e.tiff"));
        assert_eq!(found("E").as_deref(), Ok("E.tif"));
        assert!(found("c").expect_err("two").contains("c.jpg, c.png"));
        assert!(found("d").expect_err("no image").starts_with("missing"));
        let (count, names) = folder.unused(["a", "b", "e"].into_iter());
        assert_eq!(
            (count, names),
            (2, vec!["c.jpg".to_owned(), "c.png".to_owned()])
        );
    }
}
