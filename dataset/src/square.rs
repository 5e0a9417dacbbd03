//! From a photograph's file to the square that is stored.

use std::path::Path;

use image::RgbImage;
use image::metadata::Orientation;

use crate::crop::{self, Crop, CropError};
use crate::decode::{DecodeError, Encoded, upright};

/// The square around the fundus, resized and upright.
#[derive(Debug)]
pub struct Square {
    /// `size` x `size` pixels.
    pub pixels: RgbImage,
    /// Where it was cut out, in pixels of the decoded picture: one of these stands for `reduction` pixels of the file.
    pub crop: Crop,
    /// By how much the picture was reduced when it was decoded, along a side: 1, 2, 4 or 8.
    pub reduction: u32,
    /// Whether the file's orientation was applied.
    pub turned: bool,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum SquareError {
    /// The file is no photograph, or a damaged one.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It shows no fundus.
    #[error(transparent)]
    Crop(#[from] CropError),
}

/// Least pixels of the square before it is resized, for each pixel after that: reducing a JPEG when it is decoded cuts
/// its frequencies off sharply, and the resizing that follows smooths what comes of that.
const OVERSAMPLING: u32 = 2;

/// Least pixels of the shorter side of a picture in which the outline is sought.
const OUTLINE: u32 = 512;

impl Square {
    /// Reads the photograph at `path`: decodes it, finds the fundus, cuts out the square around it and resizes that to
    /// `size` x `size` pixels.
    ///
    /// A JPEG is decoded at the smallest size at which the square, and not only the frame, has twice as many pixels
    /// a side as are needed: at most as often as it takes to know how large the fundus is within its frame, which is
    /// once unless it fills less than half of it.
    pub fn read(path: &Path, size: u32) -> Result<Self, SquareError> {
        Self::of(&Encoded::read(path)?, size)
    }

    /// The same for a file that was read.
    pub fn of(file: &Encoded, size: u32) -> Result<Self, SquareError> {
        let least = OVERSAMPLING * size;
        // The square is not larger than the frame's shorter side.
        let mut reduction = file.reduction(least.max(OUTLINE));
        loop {
            let photograph = file.decode(reduction)?;
            let pixels = &photograph.pixels;
            let crop = crop::find(pixels)?.within(pixels.width(), pixels.height());
            if photograph.reduction == 1 || crop.side >= least {
                let square = crop::extract(pixels, &crop, size);
                return Ok(Self {
                    pixels: upright(square, photograph.orientation),
                    crop,
                    reduction: photograph.reduction,
                    turned: photograph.orientation != Orientation::NoTransforms,
                });
            }
            while reduction > 1 && crop.side * photograph.reduction / reduction < least {
                reduction /= 2;
            }
        }
    }
}

#[cfg(test)]
mod tests;
