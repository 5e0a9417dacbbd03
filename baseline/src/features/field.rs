//! The field of view: where the photograph shows the fundus, and how bright the fundus is there.

use image::GrayImage;
use imageproc::integral_image::{integral_image, sum_image_pixels};

use super::mask::{Mask, SET, and, area, combined, mapped, shrunk, where_pixels, without};
use super::regions::Regions;
use crate::photograph::{DIAMETER, Photograph};

/// A pixel whose brightest channel is darker than this is outside the fundus.
const LIT: u8 = 20;
/// Width of the rim that is left out: 2 % of the diameter. The fundus is often brighter or blurred there.
const RIM: u8 = (DIAMETER / 50) as u8;
/// Half the side of the squares over which the local brightness is averaged.
const NEIGHBOURHOOD: u32 = DIAMETER / 16;
/// What reaches the field's edge and is longer by this than wide is glare.
const BAND: f64 = 3.0;
/// Value of a pixel as bright as its surroundings.
pub(super) const EVEN: u8 = 128;
/// How far a pixel's value lies from [`EVEN`] if it is twice as bright as its surroundings.
pub(super) const GAIN: i64 = 256;

/// Where the photograph shows the fundus.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// All of it.
    pub lit: Mask,
    /// Without the rim. Features are measured here.
    pub inner: Mask,
    /// Pixels of `inner`.
    pub area: u64,
}

impl Field {
    /// The largest lit region without its holes.
    pub fn of(photograph: &Photograph) -> Self {
        let channels = photograph.red.iter().zip(photograph.green.iter());
        let mut brightest = photograph.blue.clone();
        for (value, (&red, &green)) in brightest.iter_mut().zip(channels) {
            *value = red.max(green).max(*value);
        }
        let lit = where_pixels(&brightest, |v| v >= LIT);
        let regions = Regions::of(&lit, &lit, &lit);
        let largest = regions.iter().map(|r| r.area).max().unwrap_or(0);
        let lit = without_holes(&regions.kept(|r| r.area == largest));
        let inner = shrunk(&without_edge(&lit), RIM);
        Self {
            area: area(&inner),
            lit,
            inner,
        }
    }

    /// A channel relative to its surroundings within the fundus: [`EVEN`] + [`GAIN`] (v - mean) / mean, so that uneven
    /// light and the exposure drop out. Where the fundus is darker than on the whole, the divisor is the mean of all of it:
    /// noise would count there. [`EVEN`] outside the fundus.
    pub fn relative(&self, channel: &GrayImage) -> GrayImage {
        // Squares, averaged several times: close to a cone. Their sums are whole numbers, so the order of adding does not
        // matter. What stands out is clipped, so that the surroundings of a bright or dark spot keep their value.
        let first = self.mean(&self.mean(channel));
        let clipped = combined(channel, &first, |v, mean| {
            let tenth = mean / 10;
            v.clamp(mean - tenth, mean.saturating_add(tenth))
        });
        let mean = self.mean(&self.mean(&clipped));
        let lit = channel.iter().zip(self.lit.iter());
        let lit = lit.filter(|(_, lit)| **lit == SET);
        let (sum, number) = lit.fold((0i64, 0i64), |(sum, number), (&v, _)| {
            (sum + i64::from(v), number + 1)
        });
        let least = (sum / number.max(1)).max(1);
        let mut out = channel.clone();
        for ((value, &mean), &lit) in out.iter_mut().zip(mean.iter()).zip(self.lit.iter()) {
            *value = if lit == SET {
                let mean = i64::from(mean);
                let relative =
                    i64::from(EVEN) + GAIN * (i64::from(*value) - mean) / mean.max(least);
                relative.clamp(0, 255) as u8
            } else {
                EVEN
            };
        }
        out
    }

    /// Mean over the part of the neighbourhood that is lit.
    fn mean(&self, channel: &GrayImage) -> GrayImage {
        let (width, height) = channel.dimensions();
        let values = and(channel, &self.lit);
        let values = integral_image::<_, u32>(&values);
        let lit = integral_image::<_, u32>(&mapped(&self.lit, |v| v & 1));
        let mut out = channel.clone();
        for (x, y, mean) in out.enumerate_pixels_mut() {
            let (left, top) = (
                x.saturating_sub(NEIGHBOURHOOD),
                y.saturating_sub(NEIGHBOURHOOD),
            );
            let right = (x + NEIGHBOURHOOD).min(width - 1);
            let bottom = (y + NEIGHBOURHOOD).min(height - 1);
            let [sum] = sum_image_pixels(&values, left, top, right, bottom);
            let [number] = sum_image_pixels(&lit, left, top, right, bottom);
            mean[0] = sum.checked_div(number).unwrap_or(0) as u8;
        }
        out
    }
}

impl Field {
    /// A mask without the bands along the field's edge: glare. A lesion that reaches the edge stays.
    pub fn without_glare(&self, mask: &Mask) -> Mask {
        let rim = without(&self.inner, &shrunk(&without_edge(&self.inner), 1));
        Regions::of(mask, &rim, &rim).kept(|r| r.peak == 0 || r.elongation() < BAND)
    }
}

/// Without the pixels at the picture's own edge, beyond which nothing is known.
fn without_edge(mask: &Mask) -> Mask {
    let (width, height) = mask.dimensions();
    let mut out = mask.clone();
    for (x, y, pixel) in out.enumerate_pixels_mut() {
        if x == 0 || y == 0 || x + 1 == width || y + 1 == height {
            pixel[0] = 0;
        }
    }
    out
}

/// Fills what the mask encloses.
pub(super) fn without_holes(mask: &Mask) -> Mask {
    let outside = mapped(mask, |v| !v);
    let regions = Regions::of(&outside, &outside, &outside);
    let open = regions.kept(|r| r.touches_edge(mask.width(), mask.height()));
    mapped(&open, |v| !v)
}
