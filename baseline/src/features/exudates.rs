//! Exudates: bright spots with sharp edges, outside the optic disc.

use image::GrayImage;
use imageproc::morphology::{Mask as Element, grayscale_close, grayscale_open};

use super::field::Field;
use super::mask::{Mask, and, combined, edges, standing_out, without};
use super::regions::Regions;
use crate::photograph::DIAMETER;

/// Closing with this disc erases the vessels, so that the retina between two of them is not taken for a bright spot.
const CLOSED: u8 = (DIAMETER / 72) as u8;
/// What is wider than this disc is no exudate but uneven light.
const WIDEST: u8 = (DIAMETER / 32) as u8;
/// A pixel of an exudate is brighter than its surroundings by this (in units of 1/256).
const FAINT: u8 = 22;
/// Brightness is compared with the brightest pixel within this distance.
const SCALE: u8 = (DIAMETER / 128) as u8;
/// Some pixel of an exudate is brighter by this.
const CLEAR: u8 = 40;
/// Neighbours at its outline differ by this on average: more than those of the nerve fibres' sheen.
const SHARP: u64 = 14;
/// Pixels of the smallest exudate that counts.
const SMALLEST: u64 = 5;

/// The exudates in `relative`, the green channel relative to its surroundings.
pub(super) fn exudates(relative: &GrayImage, field: &Field, optic_disc: &Mask) -> Mask {
    let closed = grayscale_close(relative, &Element::disk(CLOSED));
    let wide = grayscale_open(&closed, &Element::disk(WIDEST));
    // Not of what is closed: that would fill the gaps between exudates.
    let bright = combined(relative, &wide, u8::saturating_sub);
    let faint = and(&standing_out(&bright, FAINT, SCALE), &field.inner);
    let faint = field.without_glare(&without(&faint, optic_disc));
    Regions::of(&faint, &bright, &edges(relative, &faint))
        .kept(|r| r.peak >= CLEAR && r.sharpness() >= SHARP && r.area >= SMALLEST)
}
