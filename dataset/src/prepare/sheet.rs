//! A contact sheet: one picture of what the crop made of the photographs, the worst first.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::PrepareError;
use super::spool::{Record, Spool};
use crate::crop::CropMethod;

/// Photographs in a row, and rows.
const ACROSS: u32 = 8;
/// Side of one, in pixels, with its frame.
const TILE: u32 = 144;
/// Width of the frame around each.
const FRAME: u32 = 4;
/// The sheet's ground, and the frames: nothing to say, a note on its quality, no circle found.
const GROUND: Rgb<u8> = Rgb([48, 48, 48]);
const NOTED: Rgb<u8> = Rgb([240, 180, 0]);
const NO_CIRCLE: Rgb<u8> = Rgb([230, 40, 40]);

/// Draws the 64 worst photographs (or all, if there are fewer): those without a circle first, then those with a note on
/// their quality, then those with the least contrast of the optic disc. Returns the rows shown, too, in reading order.
pub(super) fn draw(spool: &Spool) -> Result<(RgbImage, Vec<usize>), PrepareError> {
    let mut all: Vec<(usize, &Record)> = spool.usable().collect();
    let rank = |record: &Record| {
        (
            record.method == CropMethod::Circle,
            std::cmp::Reverse(record.quality.flaws().len()),
        )
    };
    all.sort_by(|(_, a), (_, b)| {
        let peaks = a.quality.peak.total_cmp(&b.quality.peak);
        rank(a).cmp(&rank(b)).then(peaks)
    });
    all.truncate((ACROSS * ACROSS) as usize);
    let count = all.len() as u32;
    let (across, down) = (count.min(ACROSS), count.div_ceil(ACROSS));
    let mut sheet = RgbImage::from_pixel(across * TILE, down * TILE, GROUND);
    for (place, (row, record)) in (0..).zip(&all) {
        let frame = if record.method == CropMethod::BoundingBox {
            NO_CIRCLE
        } else if record.quality.flaws().is_empty() {
            GROUND
        } else {
            NOTED
        };
        let mut tile = RgbImage::from_pixel(TILE, TILE, frame);
        let side = TILE - 2 * FRAME;
        let picture = imageops::resize(&spool.square(*row)?, side, side, FilterType::Triangle);
        imageops::replace(&mut tile, &picture, FRAME.into(), FRAME.into());
        let (x, y) = (place % ACROSS * TILE, place / ACROSS * TILE);
        imageops::replace(&mut sheet, &tile, x.into(), y.into());
    }
    Ok((sheet, all.into_iter().map(|(row, _)| row).collect()))
}
