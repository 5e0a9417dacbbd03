//! A photograph at the one scale that features are measured at.

use image::GrayImage;

use crate::resample::resized;

/// Side of a photograph in pixels, and so the diameter of its fundus. All lengths of the features are parts of it.
pub const DIAMETER: u32 = 512;

/// A fundus photograph of [`DIAMETER`] x [`DIAMETER`] pixels whose fundus touches the edges, by channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Photograph {
    pub red: GrayImage,
    pub green: GrayImage,
    pub blue: GrayImage,
}

/// Why bytes are no photograph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a photograph of {size} x {size} pixels has {expected} bytes and not {found}")]
pub struct PhotographError {
    /// Width and height as given.
    pub size: u32,
    /// Bytes that this needs.
    pub expected: u64,
    /// Bytes as given.
    pub found: usize,
}

impl Photograph {
    /// Takes the record of a prepared dataset, `size` x `size` pixels of blue, green, red, and brings it to [`DIAMETER`].
    ///
    /// A record that was turned by 90 degrees gives the same photograph, turned.
    ///
    /// # Errors
    /// `record` does not have 3 bytes for each pixel, or there are none.
    pub fn from_record(record: &[u8], size: u32) -> Result<Self, PhotographError> {
        let expected = 3 * u64::from(size) * u64::from(size);
        if size == 0 || record.len() as u64 != expected {
            return Err(PhotographError {
                size,
                expected,
                found: record.len(),
            });
        }
        let channel = |of: usize| {
            let values: Vec<u8> = record.iter().skip(of).step_by(3).copied().collect();
            GrayImage::from_raw(DIAMETER, DIAMETER, resized(&values, size, DIAMETER))
                .expect("one byte for each pixel")
        };
        Ok(Self {
            blue: channel(0),
            green: channel(1),
            red: channel(2),
        })
    }
}
