//! Why a photograph cannot be used.

use std::io;

use super::scan::Implausible;

/// Why a photograph cannot be used. The messages leave out the path, which the caller adds.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file is larger than any photograph.
    #[error("the file is larger than 512 MiB")]
    TooLarge,
    /// The picture is larger than any photograph.
    #[error("the picture has {width} x {height} pixels; at most {most} a side are read")]
    TooManyPixels {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Most pixels a side.
        most: u32,
    },
    /// The file is empty.
    #[error("the file is empty")]
    Empty,
    /// A JPEG without its end.
    #[error("the JPEG is truncated: the file ends before the picture does")]
    Truncated,
    /// A JPEG of which libjpeg-turbo says that a part is lost.
    #[error("the JPEG is damaged: {0}")]
    Damaged(String),
    /// A JPEG whose data no encoder writes.
    #[error("the JPEG is damaged: {0}")]
    Implausible(#[from] Implausible),
    /// A DICOM file without a picture that can be used.
    #[error("DICOM: {0}")]
    Dicom(String),
    /// A picture in a format that is not read, or that nobody knows.
    #[error("cannot be decoded: {0}; convert it to PNG")]
    Unsupported(image::ImageError),
    /// The decoder reported an error.
    #[error("cannot be decoded: {0}")]
    Image(#[from] image::ImageError),
    /// The decoder panicked.
    #[error("cannot be decoded: the file is malformed")]
    Malformed,
}
