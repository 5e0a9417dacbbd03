//! Masks: pictures of one channel that are [`SET`] or 0, and operations on them.

use image::GrayImage;
use imageproc::morphology::{Mask as Element, grayscale_dilate, grayscale_erode};

/// A mask: [`SET`] where it holds, 0 elsewhere.
pub type Mask = GrayImage;

/// The value of a pixel that is in a mask.
pub const SET: u8 = 255;

/// In per cent. A little below one half, because the smoothing lowers the peaks of small spots.
const HEIGHT: u32 = 42;

/// The pixels for which `holds` says so.
pub(super) fn where_pixels(image: &GrayImage, holds: impl Fn(u8) -> bool) -> Mask {
    mapped(image, |v| if holds(v) { SET } else { 0 })
}

/// Number of pixels.
pub(super) fn area(mask: &Mask) -> u64 {
    mask.iter().filter(|&&v| v == SET).count() as u64
}

/// Pixels that are in both.
pub(super) fn and(a: &Mask, b: &Mask) -> Mask {
    combined(a, b, |a, b| a & b)
}

/// Pixels of `a` that are not in `b`.
pub(super) fn without(a: &Mask, b: &Mask) -> Mask {
    combined(a, b, |a, b| a & !b)
}

/// Grown by a disc.
pub(super) fn grown(mask: &Mask, radius: u8) -> Mask {
    grayscale_dilate(mask, &Element::disk(radius))
}

/// Shrunk by a disc.
pub(super) fn shrunk(mask: &Mask, radius: u8) -> Mask {
    grayscale_erode(mask, &Element::disk(radius))
}

/// Pixel by pixel.
pub(super) fn mapped(image: &GrayImage, f: impl Fn(u8) -> u8) -> GrayImage {
    let mut out = image.clone();
    out.iter_mut().for_each(|v| *v = f(*v));
    out
}

/// Pixel by pixel, of two pictures of one size.
pub(super) fn combined(a: &GrayImage, b: &GrayImage, f: impl Fn(u8, u8) -> u8) -> GrayImage {
    let mut out = a.clone();
    for (a, &b) in out.iter_mut().zip(b.iter()) {
        *a = f(*a, b);
    }
    out
}

/// At the outline of a mask, how much the pixels of `image` within one step of each differ; 0 elsewhere.
pub(super) fn edges(image: &GrayImage, mask: &Mask) -> GrayImage {
    let cross = Element::disk(1);
    let (most, least) = (
        grayscale_dilate(image, &cross),
        grayscale_erode(image, &cross),
    );
    let differ = combined(&most, &least, u8::saturating_sub);
    and(&differ, &without(mask, &grayscale_erode(mask, &cross)))
}

/// Pixels of at least `least` that have [`HEIGHT`] of the highest value within `radius`: what stands out, up to a part of its
/// height, so that a blurred edge counts where it would be without the blur.
pub(super) fn standing_out(image: &GrayImage, least: u8, radius: u8) -> Mask {
    let highest = grayscale_dilate(image, &Element::disk(radius));
    combined(image, &highest, |v, highest| {
        let out = v >= least && u32::from(v) * 100 >= u32::from(highest) * HEIGHT;
        if out { SET } else { 0 }
    })
}

/// Smoothed by (1 2 1) / 4 in both directions, rounded once.
pub(super) fn smoothed(image: &GrayImage) -> GrayImage {
    let (width, height) = image.dimensions();
    let mut out = image.clone();
    for (x, y, pixel) in out.enumerate_pixels_mut() {
        let columns = [x.saturating_sub(1), x, (x + 1).min(width - 1)];
        let rows = [y.saturating_sub(1), y, (y + 1).min(height - 1)];
        let row = |y: u32| {
            let [a, b, c] = columns.map(|x| u32::from(image.get_pixel(x, y)[0]));
            a + 2 * b + c
        };
        let [a, b, c] = rows.map(row);
        pixel[0] = ((a + 2 * b + c + 8) / 16) as u8;
    }
    out
}
