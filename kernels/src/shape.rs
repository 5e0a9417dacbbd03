//! The shape of an image.

use std::fmt;

/// Height, width and channels of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Values in a pixel.
    pub channels: usize,
}

impl Shape {
    /// Values in an image of this shape.
    ///
    /// # Panics
    /// If the number does not fit a `usize`.
    #[allow(clippy::len_without_is_empty)] // Kernels refuse empty images.
    #[track_caller]
    pub fn len(self) -> usize {
        let len = self.pixels().checked_mul(self.channels);
        len.unwrap_or_else(|| panic!("an image of {self} is larger than memory"))
    }

    /// Pixels in an image of this shape.
    ///
    /// # Panics
    /// If the number does not fit a `usize`.
    #[track_caller]
    pub fn pixels(self) -> usize {
        let pixels = self.height.checked_mul(self.width);
        pixels.unwrap_or_else(|| panic!("an image of {self} is larger than memory"))
    }

    /// The same height and width with another number of channels.
    pub fn with_channels(self, channels: usize) -> Self {
        Self { channels, ..self }
    }

    /// The shape after a 3x3 pooling with stride 2, without padding and rounding up: `ceil((n - 3) / 2) + 1` rows and
    /// columns, as Caffe computes it.
    ///
    /// # Panics
    /// If height or width is below 2.
    #[track_caller]
    pub fn pooled(self) -> Self {
        assert!(
            self.height >= 2 && self.width >= 2,
            "an image of {self} is too small for a 3x3 pooling with stride 2, which needs 2x2 pixels"
        );
        Self {
            height: self.height / 2,
            width: self.width / 2,
            channels: self.channels,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.height, self.width, self.channels)
    }
}
