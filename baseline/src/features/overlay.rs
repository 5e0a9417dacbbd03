//! Pictures that show what the features are measured on.

use image::{Rgb, RgbImage};

use super::Masks;
use super::mask::{Mask, SET};
use crate::photograph::{DIAMETER, Photograph};

/// What the colours of [`overlay`] mean.
pub const LEGEND: &str = "vessels green, exudates yellow, microaneurysms cyan, haemorrhages magenta, optic disc and field white";

/// The photograph, and beside it the photograph with the outlines of all masks ([`LEGEND`] explains them).
pub fn overlay(photograph: &Photograph, masks: &Masks) -> RgbImage {
    let side = DIAMETER;
    let mut picture = RgbImage::new(2 * side, side);
    for y in 0..side {
        for x in 0..side {
            let at = |channel: &Mask| channel.get_pixel(x, y)[0];
            let pixel = Rgb([&photograph.red, &photograph.green, &photograph.blue].map(at));
            picture.put_pixel(x, y, pixel);
            picture.put_pixel(side + x, y, pixel);
        }
    }
    for (mask, colour) in [
        (&masks.field, [255, 255, 255]),
        (&masks.vessels, [0, 255, 0]),
        (&masks.optic_disc, [255, 255, 255]),
        (&masks.exudates, [255, 255, 0]),
        (&masks.microaneurysms, [0, 255, 255]),
        (&masks.haemorrhages, [255, 0, 255]),
    ] {
        for (x, y, pixel) in mask.enumerate_pixels() {
            if pixel[0] == SET && on_outline(mask, x, y) {
                picture.put_pixel(side + x, y, Rgb(colour));
            }
        }
    }
    picture
}

/// Whether a side neighbour of a pixel in the mask is not in it.
fn on_outline(mask: &Mask, x: u32, y: u32) -> bool {
    let set = |x: u32, y: u32| mask.get_pixel_checked(x, y).is_some_and(|p| p[0] == SET);
    !(set(x.wrapping_sub(1), y) && set(x + 1, y) && set(x, y.wrapping_sub(1)) && set(x, y + 1))
}
