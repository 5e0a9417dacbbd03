//! DICOM files: the picture, whose it is and of which eye.
//!
//! What identifies a person must not reach a message: parsers quote what they could not read, so none of their texts
//! is passed on.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use dicom_object::file::{OpenFileOptions, ReadPreamble};
use dicom_object::{DefaultDicomObject, Tag};
use dicom_pixeldata::{PhotometricInterpretation, PixelDecoder};
use image::{DynamicImage, GrayImage, RgbImage};

use super::error::DecodeError;
use super::raster;
use crate::eye::Eye;

const SOP_CLASS: Tag = Tag(0x0008, 0x0016);
const PATIENT_ID: Tag = Tag(0x0010, 0x0020);
const PATIENT_ID_ISSUER: Tag = Tag(0x0010, 0x0021);
const LATERALITY: Tag = Tag(0x0020, 0x0060);
const IMAGE_LATERALITY: Tag = Tag(0x0020, 0x0062);
const PHOTOMETRIC: Tag = Tag(0x0028, 0x0004);
const FRAMES: Tag = Tag(0x0028, 0x0008);
const PIXEL_DATA: Tag = Tag(0x7fe0, 0x0010);

/// Ophthalmic tomography: sections of the retina and no photograph of it.
const TOMOGRAPHY: &str = "1.2.840.10008.5.1.4.1.1.77.1.5.4";
/// JPEG with 8 bits, sequential.
const JPEG_BASELINE: &str = "1.2.840.10008.1.2.4.50";

/// Bytes before the mark, which belong to other programs.
const PREAMBLE: usize = 128;
const MARK: &[u8] = b"DICM";

/// Whether a file begins as a DICOM file does.
pub(super) fn is(bytes: &[u8]) -> bool {
    bytes
        .get(PREAMBLE..)
        .is_some_and(|rest| rest.starts_with(MARK))
}

/// A picture in a DICOM file.
pub(super) enum Picture {
    /// A JPEG file.
    Jpeg(Vec<u8>),
    /// Pixels.
    Pixels(RgbImage),
}

/// Reads the picture in a DICOM file.
pub(super) fn picture(bytes: &[u8]) -> Result<Picture, DecodeError> {
    let refused = |problem: String| Err(DecodeError::Dicom(problem));
    // A parser that panics on a malformed file must not end the whole preparation.
    let read = || {
        let object = OpenFileOptions::new()
            .read_preamble(ReadPreamble::Always)
            .from_reader(bytes);
        let Ok(object) = object else {
            return refused("it is damaged or incomplete".into());
        };
        if text(&object, SOP_CLASS).as_deref() == Some(TOMOGRAPHY) {
            return refused("it is a tomography (OCT) and no photograph".into());
        }
        match text(&object, FRAMES).map(|frames| frames.parse::<u32>()) {
            None | Some(Ok(1)) => {}
            Some(_) => {
                return refused("it has several frames; export the photograph alone".into());
            }
        }
        let syntax = object
            .meta()
            .transfer_syntax()
            .trim_end_matches('\0')
            .to_owned();
        let colours = text(&object, PHOTOMETRIC).unwrap_or_default();
        if syntax == JPEG_BASELINE && colours.starts_with("YBR") {
            let data = object.element(PIXEL_DATA).ok();
            let fragments = data.and_then(|element| element.fragments().map(|f| f.concat()));
            return match fragments {
                Some(mut jpeg) => {
                    // An odd length was made even.
                    if jpeg.ends_with(&[0xff, 0xd9, 0]) {
                        jpeg.pop();
                    }
                    Ok(Picture::Jpeg(jpeg))
                }
                None => refused("it has no picture".into()),
            };
        }
        let Some(pixels) = pixels(&object) else {
            return refused(format!(
                "its picture cannot be read (transfer syntax {syntax}, {colours}); export it without \
                 compression or as JPEG"
            ));
        };
        Ok(Picture::Pixels(pixels))
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read))
        .unwrap_or(Err(DecodeError::Malformed))
}

/// The pixels by dicom-pixeldata, to 8 bits: the upper 8 of those that the file says are stored.
fn pixels(object: &DefaultDicomObject) -> Option<RgbImage> {
    let decoded = object.decode_pixel_data().ok()?;
    let stored = u32::from(decoded.bits_stored());
    let (width, height) = (decoded.columns(), decoded.rows());
    if !(8..=16).contains(&stored)
        || u64::from(width) * u64::from(height) * 6 > super::MAX_DECODED_BYTES
    {
        return None;
    }
    match decoded.photometric_interpretation() {
        grey
        @ (PhotometricInterpretation::Monochrome1 | PhotometricInterpretation::Monochrome2) => {
            let wide = decoded.bits_allocated() > 8;
            let mut levels: Vec<u8> = if wide {
                let values = decoded.data_ow();
                values
                    .iter()
                    .map(|&v| (v >> (stored - 8)).min(255) as u8)
                    .collect()
            } else {
                decoded.data().to_vec()
            };
            if *grey == PhotometricInterpretation::Monochrome1 {
                levels.iter_mut().for_each(|level| *level = 255 - *level);
            }
            let picture = GrayImage::from_raw(width, height, levels)?;
            Some(DynamicImage::ImageLuma8(picture).into_rgb8())
        }
        _ => {
            let picture = decoded.to_dynamic_image(0).ok()?;
            Some(raster::to_rgb(picture, Some(stored)))
        }
    }
}

/// Whose eye a DICOM file shows, as its tags tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Issuer and identifier of the patient. It must not leave this program.
    pub patient: Option<(String, String)>,
    /// Which eye.
    pub eye: Eye,
}

/// As much of the beginning of the file at `path` as tells what it is; nothing if there is none.
///
/// # Errors
/// It cannot be read now, which says nothing about what it is.
pub(super) fn begin(path: &Path) -> io::Result<Vec<u8>> {
    let mut begin = Vec::with_capacity(PREAMBLE + MARK.len());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(begin),
        Err(error) => return Err(error),
    };
    file.take((PREAMBLE + MARK.len()) as u64)
        .read_to_end(&mut begin)?;
    Ok(begin)
}

/// Reads the tags of the file at `path`; `None` if it is no DICOM file, or a damaged one.
///
/// # Errors
/// It cannot be read now, which says nothing about what is in it.
pub(crate) fn identity(path: &Path) -> io::Result<Option<Identity>> {
    match is(&begin(path)?) {
        true => tags(File::open(path)?),
        false => Ok(None),
    }
}

fn tags(file: impl Read) -> io::Result<Option<Identity>> {
    let mut file = Disk { file, error: None };
    let read = || {
        let object = OpenFileOptions::new()
            .read_preamble(ReadPreamble::Always)
            .read_until(PIXEL_DATA)
            .from_reader(&mut file)
            .ok()?;
        let eye = match text(&object, IMAGE_LATERALITY)
            .or_else(|| text(&object, LATERALITY))
            .as_deref()
        {
            Some("L") => Eye::Left,
            Some("R") => Eye::Right,
            _ => Eye::Unknown,
        };
        let patient = text(&object, PATIENT_ID)
            .map(|id| (text(&object, PATIENT_ID_ISSUER).unwrap_or_default(), id));
        Some(Identity { patient, eye })
    };
    let identity = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    match file.error {
        Some(error) => Err(error),
        None => Ok(identity.unwrap_or(None)),
    }
}

/// A file that is parsed. It keeps the disk's error, which parsers do not tell from damage.
struct Disk<R> {
    file: R,
    error: Option<io::Error>,
}

impl<R: Read> Read for Disk<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                let code = error.raw_os_error();
                let same = code.map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
                self.error = Some(same);
            }
        })
    }
}

/// The text of an element; `None` if it is absent or empty.
fn text(object: &DefaultDicomObject, tag: Tag) -> Option<String> {
    let element = object.element_opt(tag).ok()??;
    let text = element.to_str().ok()?;
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element with a text, explicit VR little endian.
    fn element(tag: Tag, vr: &str, value: &str) -> Vec<u8> {
        let mut bytes = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
        bytes.extend(vr.as_bytes());
        bytes.extend((value.len() as u16).to_le_bytes());
        bytes.extend(value.as_bytes());
        bytes
    }

    /// A file with the tags of a patient and an eye, and no picture.
    fn file() -> Vec<u8> {
        let meta = [
            element(Tag(2, 2), "UI", "1.2.3.44"),
            element(Tag(2, 3), "UI", "1.2.3.44"),
            element(Tag(2, 0x10), "UI", "1.2.840.10008.1.2.1\0"),
            element(Tag(2, 0x12), "UI", "1.2.3.44"),
        ]
        .concat();
        let mut bytes = vec![0; PREAMBLE];
        bytes.extend(MARK);
        bytes.extend([2, 0, 0, 0, b'U', b'L', 4, 0]);
        bytes.extend((meta.len() as u32).to_le_bytes());
        bytes.extend(meta);
        bytes.extend(element(PATIENT_ID, "LO", "MRN77001"));
        bytes.extend(element(IMAGE_LATERALITY, "CS", "L "));
        bytes
    }

    /// Gives its bytes, and then the disk's error.
    struct Failing<'a>(&'a [u8]);

    impl Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.is_empty() {
                true => Err(io::Error::from_raw_os_error(libc::EIO)),
                false => self.0.read(buffer),
            }
        }
    }

    #[test]
    fn a_failing_disk_is_no_damaged_file() {
        let file = file();
        let whole = tags(&file[..]).unwrap().unwrap();
        assert_eq!(whole.patient.unwrap().1, "MRN77001");
        assert_eq!(whole.eye, Eye::Left);
        for length in 0..file.len() {
            assert!(tags(&file[..length]).is_ok(), "cut at {length}");
            let error = tags(Failing(&file[..length])).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "at {length}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("short"), &file()[..100]).unwrap();
        std::fs::write(at("whole"), file()).unwrap();
        // Opens, and fails to be read, whoever reads.
        std::os::unix::fs::symlink("/proc/self/mem", at("failing")).unwrap();
        for (name, expected) in [("none", false), ("short", false), ("whole", true)] {
            assert_eq!(is(&begin(&at(name)).unwrap()), expected, "{name}");
            assert_eq!(identity(&at(name)).unwrap().is_some(), expected, "{name}");
        }
        assert!(begin(&at("failing")).is_err());
        assert!(identity(&at("failing")).is_err());
    }
}
