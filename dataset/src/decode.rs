//! Photographs from files: decoding them in bounded memory, at the size that is needed.

mod dicom;
mod error;
mod huffman;
mod jpeg;
mod raster;
mod scan;
mod segments;

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use image::RgbImage;
use image::metadata::Orientation;

use jpeg::Jpeg;

pub(crate) use dicom::{Identity, identity};
pub use error::DecodeError;
pub use scan::Implausible;

/// Decodes the photograph at `path` to 8-bit RGB, whole and upright.
///
/// The format (JPEG, PNG, TIFF, BMP, WebP or DICOM) is recognized by content. A damaged or incomplete file is an error
/// even where a decoder would fill the rest with grey: half a retina must not be used as a whole one. The Exif
/// orientation is applied, so that left is left for the network as it was for whoever graded the photograph.
pub fn decode(path: &Path) -> Result<RgbImage, DecodeError> {
    let file = Encoded::read(path)?;
    let photograph = file.decode(1)?;
    Ok(upright(photograph.pixels, photograph.orientation))
}

/// Whether a file begins as a photograph does: as DICOM, JPEG, PNG, TIFF or WebP. (Of BMP it is only two letters.)
///
/// # Errors
/// It cannot be read now, which says nothing about what it is.
pub(crate) fn is_picture(path: &Path) -> io::Result<bool> {
    use image::ImageFormat::{Jpeg, Png, Tiff, WebP};
    let begin = dicom::begin(path)?;
    let known = image::guess_format(&begin);
    Ok(dicom::is(&begin) || known.is_ok_and(|format| matches!(format, Jpeg | Png | Tiff | WebP)))
}

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 512 << 20;
/// Largest width or height that is accepted, in pixels.
const MAX_SIDE: u32 = 20_000;
/// Most memory that a decoder may use, in bytes.
const MAX_DECODED_BYTES: u64 = 1 << 30;

/// The content of a photograph's file, of a JPEG also checked for damage.
#[derive(Debug)]
pub struct Encoded(Content);

#[derive(Debug)]
enum Content {
    Jpeg(Jpeg, Vec<u8>),
    /// A file that the image crate decodes.
    Raster(Vec<u8>),
    /// Pixels of a DICOM file.
    Pixels(RgbImage),
}

/// A decoded photograph.
#[derive(Debug)]
pub struct Photograph {
    /// As they are stored: not turned yet.
    pub pixels: RgbImage,
    /// How many pixels of the file one of these stands for, along a side: 1, 2, 4 or 8.
    pub reduction: u32,
    /// How to turn them ([`upright`]).
    pub orientation: Orientation,
}

impl Encoded {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, DecodeError> {
        let mut bytes = Vec::new();
        fs::File::open(path)?
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(DecodeError::TooLarge);
        }
        Self::from_bytes(bytes)
    }

    /// The same for the content of a file.
    pub fn from_bytes(mut bytes: Vec<u8>) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::Empty);
        }
        if dicom::is(&bytes) {
            match dicom::picture(&bytes)? {
                dicom::Picture::Pixels(pixels) => return Ok(Self(Content::Pixels(pixels))),
                dicom::Picture::Jpeg(jpeg) => bytes = jpeg,
            }
        }
        Ok(Self(if Jpeg::is(&bytes) {
            Content::Jpeg(Jpeg::read(&mut bytes)?, bytes)
        } else {
            Content::Raster(bytes)
        }))
    }

    /// The largest reduction (8, 4, 2 or 1) that leaves at least `least` pixels of the photograph's shorter side. It is 1
    /// for formats that are only decoded whole.
    pub fn reduction(&self, least: u32) -> u32 {
        let Content::Jpeg(jpeg, _) = &self.0 else {
            return 1;
        };
        let shorter = jpeg.width.min(jpeg.height);
        let enough = |&reduction: &u32| shorter / reduction >= least;
        [8, 4, 2].into_iter().find(enough).unwrap_or(1)
    }

    /// Decodes the photograph, with each side divided by `reduction` (1, 2, 4 or 8) if its format allows.
    pub fn decode(&self, reduction: u32) -> Result<Photograph, DecodeError> {
        let (pixels, reduction, orientation) = match &self.0 {
            Content::Jpeg(jpeg, bytes) => {
                (jpeg.decode(bytes, reduction)?, reduction, jpeg.orientation)
            }
            Content::Raster(bytes) => {
                let (pixels, orientation) = raster::decode(bytes)?;
                (pixels, 1, orientation)
            }
            Content::Pixels(pixels) => (pixels.clone(), 1, Orientation::NoTransforms),
        };
        Ok(Photograph {
            pixels,
            reduction,
            orientation,
        })
    }
}

/// Turns a picture as its orientation says.
pub fn upright(pixels: RgbImage, orientation: Orientation) -> RgbImage {
    if orientation == Orientation::NoTransforms {
        return pixels;
    }
    let mut picture = image::DynamicImage::ImageRgb8(pixels);
    picture.apply_orientation(orientation);
    picture.into_rgb8()
}

#[cfg(test)]
mod tests;
