//! DICOM files: the picture, whose it is and of which eye.
//!
//! What identifies a person must not reach a message: parsers quote what they could not read, so none of their texts
//! is passed on.

use std::fs::File;
use std::io::Read;
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

/// Whether the file at `path` begins as DICOM files do; not if it cannot be read.
pub(crate) fn is_dicom(path: &Path) -> bool {
    let mut begin = [0; PREAMBLE + MARK.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut begin));
    read.is_ok() && is(&begin)
}

/// Reads the tags of the file at `path`; `None` if it is no DICOM file that can be read.
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    if !is_dicom(path) {
        return None;
    }
    let read = || {
        let object = OpenFileOptions::new()
            .read_until(PIXEL_DATA)
            .open_file(path)
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
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).ok()?
}

/// The text of an element; `None` if it is absent or empty.
fn text(object: &DefaultDicomObject, tag: Tag) -> Option<String> {
    let element = object.element_opt(tag).ok()??;
    let text = element.to_str().ok()?;
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!text.is_empty()).then(|| text.to_owned())
}
