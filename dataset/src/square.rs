//! From a photograph's file to the square that is stored.

use std::path::Path;

use image::RgbImage;
use image::metadata::Orientation;

use crate::Method;
use crate::crop::{self, Crop, CropError};
use crate::decode::{DecodeError, Encoded, upright};

/// The square around the fundus, resized and upright.
#[derive(Debug)]
pub struct Square {
    /// `size` x `size` pixels.
    pub pixels: RgbImage,
    /// Where the fundus lies in it.
    pub disc: Disc,
    /// Where it was cut out, in pixels of the decoded picture: one of these stands for `reduction` pixels of the file.
    pub crop: Crop,
    /// By how much the picture was reduced when it was decoded, along a side: 1, 2, 4 or 8.
    pub reduction: u32,
    /// Whether the file's orientation was applied.
    pub turned: bool,
}

/// A disc in a square, in parts of the square's side; y grows downwards. It may reach beyond the square.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disc {
    /// Of its middle.
    pub x: f64,
    /// Of its middle.
    pub y: f64,
    /// Its radius.
    pub radius: f64,
}

impl Disc {
    /// The largest inside the square.
    pub const WHOLE: Self = Self {
        x: 0.5,
        y: 0.5,
        radius: 0.5,
    };

    /// The disc that `found` is around, in the square `cut`.
    fn within(found: &Crop, cut: &Crop) -> Self {
        let (diameter, side) = (f64::from(found.side), f64::from(cut.side));
        let middle = |found: i64, cut: i64| ((found - cut) as f64 + diameter / 2.0) / side;
        Self {
            x: middle(found.left, cut.left),
            y: middle(found.top, cut.top),
            radius: diameter / 2.0 / side,
        }
    }

    /// Where it is when the square is turned as [`upright`] does.
    fn upright(self, orientation: Orientation) -> Self {
        let (x, y) = (self.x, self.y);
        let (x, y) = match orientation {
            Orientation::NoTransforms => (x, y),
            Orientation::Rotate90 => (1.0 - y, x),
            Orientation::Rotate180 => (1.0 - x, 1.0 - y),
            Orientation::Rotate270 => (y, 1.0 - x),
            Orientation::FlipHorizontal => (1.0 - x, y),
            Orientation::FlipVertical => (x, 1.0 - y),
            Orientation::Rotate90FlipH => (y, x),
            Orientation::Rotate270FlipH => (1.0 - y, 1.0 - x),
        };
        Self { x, y, ..self }
    }
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
            let found = crop::find(pixels)?;
            let crop = found.within(pixels.width(), pixels.height());
            if photograph.reduction == 1 || crop.side >= least {
                let square = crop::extract(pixels, &crop, size);
                return Ok(Self {
                    pixels: upright(square, photograph.orientation),
                    disc: Disc::within(&found, &crop).upright(photograph.orientation),
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

    /// The part of the photograph that `method` shows: [`Self::of`] or [`Self::framed`].
    pub fn cut(file: &Encoded, method: Method, size: u32) -> Result<Self, SquareError> {
        match method.crops() {
            true => Self::of(file, size),
            false => Self::framed(file, size),
        }
    }

    /// The whole photograph in the middle of a black square, resized to `size` x `size` pixels. One without anything on it
    /// is an error here, too.
    pub fn framed(file: &Encoded, size: u32) -> Result<Self, SquareError> {
        let least = OVERSAMPLING * size;
        let photograph = file.decode(file.reduction(least.max(OUTLINE)))?;
        let pixels = &photograph.pixels;
        match crop::find(pixels) {
            Ok(_) | Err(CropError::NoFundus { .. }) => {}
            Err(blank) => return Err(blank.into()),
        }
        let crop = crop::frame(pixels.width(), pixels.height());
        let square = crop::extract(pixels, &crop, size);
        Ok(Self {
            pixels: upright(square, photograph.orientation),
            disc: Disc::WHOLE,
            crop,
            reduction: photograph.reduction,
            turned: photograph.orientation != Orientation::NoTransforms,
        })
    }
}

#[cfg(test)]
mod tests;
