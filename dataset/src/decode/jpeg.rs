//! JPEG by libjpeg-turbo, reduced while it is decoded.
//!
//! A block of 8 x 8 pixels is stored as 64 frequencies. Leaving out the upper ones gives the picture at half,
//! quarter or eighth size, averaged and not skipped, in a fraction of the time.
//!
//! The same file gives the same pixels on every machine: the library is built from the source in its crate, the
//! inverse transform is the accurate integer one (its default), chroma is interpolated (its default, too), and
//! for these its SIMD code gives what its C code gives, to the bit.

use image::RgbImage;
use image::metadata::Orientation;
use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat, ScalingFactor};

use super::error::DecodeError;
use super::segments::{self, marker};
use super::{MAX_DECODED_BYTES, MAX_SIDE, scan};

/// Most scans of a progressive file: each is a pass over the whole picture, so a small file could take hours.
const MAX_SCANS: u32 = 500;

/// What the headers of a JPEG say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Jpeg {
    pub width: u32,
    pub height: u32,
    pub orientation: Orientation,
    cmyk: bool,
    /// CMYK values are stored as 255 minus the ink, as Adobe's programs do it.
    inverted: bool,
}

impl Jpeg {
    /// Whether `bytes` begin as a JPEG does.
    pub fn is(bytes: &[u8]) -> bool {
        bytes.starts_with(&[0xff, marker::START_OF_IMAGE, 0xff])
    }

    /// Checks a JPEG and reads its headers. Harmless errors in the headers are corrected in `bytes`.
    pub fn read(bytes: &mut [u8]) -> Result<Self, DecodeError> {
        if !segments::is_complete(bytes) {
            return Err(DecodeError::Truncated);
        }
        scan::check(bytes)?;
        let (orientation, inverted) = metadata(bytes);
        correct(bytes);
        let header = Decompressor::new()
            .and_then(|mut decompressor| decompressor.read_header(bytes))
            .map_err(damaged)?;
        let (width, height) = (header.width, header.height);
        let side = |length: usize| u32::try_from(length).ok().filter(|&l| l <= MAX_SIDE);
        let (Some(width), Some(height)) = (side(width), side(height)) else {
            return Err(DecodeError::TooManyPixels {
                width,
                height,
                most: MAX_SIDE,
            });
        };
        Ok(Self {
            width,
            height,
            orientation,
            cmyk: matches!(header.colorspace, Colorspace::CMYK | Colorspace::YCCK),
            inverted,
        })
    }

    /// Decodes the picture with each side divided by `reduction` (1, 2, 4 or 8) and rounded up.
    pub fn decode(&self, bytes: &[u8], reduction: u32) -> Result<RgbImage, DecodeError> {
        let (width, height) = (
            self.width.div_ceil(reduction),
            self.height.div_ceil(reduction),
        );
        let channels: u32 = if self.cmyk { 4 } else { 3 };
        let size = u64::from(width) * u64::from(height) * u64::from(channels);
        if size > MAX_DECODED_BYTES {
            return Err(DecodeError::TooLarge);
        }
        let mut pixels = vec![0; size as usize];
        let image = Image {
            pixels: pixels.as_mut_slice(),
            width: width as usize,
            pitch: (width * channels) as usize,
            height: height as usize,
            format: if self.cmyk {
                PixelFormat::CMYK
            } else {
                PixelFormat::RGB
            },
        };
        let decode = || {
            let mut decompressor = Decompressor::new()?;
            decompressor.set_scan_limit(MAX_SCANS)?;
            decompressor.set_scaling_factor(ScalingFactor::new(1, reduction as usize))?;
            // A warning is an error, too: pixels are missing or wrong.
            decompressor.decompress(bytes, image)
        };
        decode().map_err(damaged)?;
        if self.cmyk {
            pixels = self.without_ink(&pixels);
        }
        RgbImage::from_raw(width, height, pixels).ok_or(DecodeError::Malformed)
    }

    /// CMYK to RGB: what the inks leave of the paper's white.
    fn without_ink(&self, pixels: &[u8]) -> Vec<u8> {
        let light = |value: u8| u32::from(if self.inverted { value } else { 255 - value });
        let pixel = |p: &[u8]| {
            let black = light(p[3]);
            [0, 1, 2].map(|i| ((light(p[i]) * black + 127) / 255) as u8)
        };
        pixels.chunks_exact(4).flat_map(pixel).collect()
    }
}

fn damaged(error: turbojpeg::Error) -> DecodeError {
    let text = match error {
        turbojpeg::Error::TurboJpegError(text) => text,
        other => other.to_string(),
    };
    // Its own words, without the prefixes that say the same again.
    let text = text
        .trim_start_matches("Corrupt JPEG data: ")
        .trim_start_matches("tj3Decompress8(): ")
        .trim_start_matches("tj3DecompressHeader(): ");
    DecodeError::Damaged(text.to_owned())
}

/// The orientation in the Exif segment, and whether an Adobe segment is there.
fn metadata(bytes: &[u8]) -> (Orientation, bool) {
    let mut orientation = Orientation::NoTransforms;
    let mut adobe = false;
    for segment in segments::headers(bytes) {
        let content = &bytes[segment.start..segment.end];
        match segment.marker {
            marker::APP1 => {
                if let Some(exif) = content.strip_prefix(b"Exif\0\0")
                    && let Some(found) = Orientation::from_exif_chunk(exif)
                {
                    orientation = found;
                }
            }
            marker::ADOBE => adobe |= content.starts_with(b"Adobe"),
            _ => {}
        }
    }
    (orientation, adobe)
}

/// Corrects in the headers what makes libjpeg-turbo warn although no pixel is wrong: a colour profile in pieces
/// (it is not used), another revision of JFIF, and the spectral selection of a sequential scan, which only a
/// progressive one has.
fn correct(bytes: &mut [u8]) {
    let headers = segments::headers(bytes);
    let sequential = headers
        .iter()
        .any(|s| marker::SEQUENTIAL.contains(&s.marker));
    for segment in headers {
        let content = &mut bytes[segment.start..segment.end];
        match segment.marker {
            marker::APP0 if content.starts_with(b"JFIF\0") && content.len() > 5 => content[5] = 1,
            marker::START_OF_SCAN if sequential => {
                if let [.., first, last, approximation] = content {
                    (*first, *last, *approximation) = (0, 63, 0);
                }
            }
            marker::APP2 => bytes[segment.start - 3] = marker::COMMENT,
            _ => {}
        }
    }
}
