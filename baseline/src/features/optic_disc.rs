//! The optic disc: the brightest compact place, where the vessels meet.

use image::GrayImage;
use imageproc::integral_image::{integral_image, sum_image_pixels};
use imageproc::morphology::{Mask as Element, grayscale_close};

use super::mask::{Mask, SET, grown, mapped};
use crate::photograph::DIAMETER;

/// Half the side of the square that is compared with its surroundings: the disc is about a seventh of the fundus wide.
const CORE: u32 = DIAMETER / 18;
/// Half the side of the surroundings.
const AROUND: u32 = DIAMETER / 8;
/// Half the height and width of the place where the large vessels meet.
const TRUNK: u32 = DIAMETER / 16;
/// Radius of the mask: the disc with its rim.
const RADIUS: u8 = (DIAMETER / 11) as u8;
/// Vessels of this width do not interrupt the disc's brightness.
const CLOSED: u8 = (DIAMETER / 64) as u8;
/// Added to the vessels' pixels, so that a disc whose vessels are not seen has a score, too.
const FEW: i64 = 512;
/// A core is no disc unless it is brighter than its surroundings by this many grey values.
const LEAST: i64 = 12;

/// The optic disc's place as a mask; empty if none is seen.
///
/// Each pixel's score is how much brighter the square around it is than the square's surroundings, times how many vessels
/// there are: exudates can be as bright, but no large vessels meet there.
pub(super) fn optic_disc(brightness: &GrayImage, vessels: &Mask, field: &Mask) -> Mask {
    let (width, height) = brightness.dimensions();
    let closed = grayscale_close(brightness, &Element::disk(CLOSED));
    let values = integral_image::<_, u32>(&super::mask::and(&closed, field));
    let inside = integral_image::<_, u32>(&mapped(field, |v| v & 1));
    let vessels = integral_image::<_, u32>(&mapped(vessels, |v| v & 1));
    let sums = |image: &_, x: u32, y: u32, half: u32| {
        let [sum] = sum_image_pixels(
            image,
            x.saturating_sub(half),
            y.saturating_sub(half),
            (x + half).min(width - 1),
            (y + half).min(height - 1),
        );
        i64::from(sum)
    };
    let mut contrasts = vec![0i64; (width * height) as usize];
    let mut scores = contrasts.clone();
    let both = contrasts.iter_mut().zip(&mut scores);
    for ((x, y, pixel), (contrast, score)) in field.enumerate_pixels().zip(both) {
        if pixel[0] != SET {
            continue;
        }
        let (core, core_area) = (sums(&values, x, y, CORE), sums(&inside, x, y, CORE));
        let around = sums(&values, x, y, AROUND) - core;
        let around_area = sums(&inside, x, y, AROUND) - core_area;
        if core_area == 0 || around_area == 0 {
            continue;
        }
        // In 1/256 of a grey value, so that few places tie.
        let brighter = 256 * core / core_area - 256 * around / around_area;
        if brighter >= 256 * LEAST {
            *contrast = brighter;
            *score = brighter * (sums(&vessels, x, y, TRUNK) + FEW);
        }
    }
    let place = best(&scores, width, height, |_| true);
    // The vessels leave the disc to one side; the brightest place nearby is its middle.
    let near = grown(&place, RADIUS);
    let middle = best(&contrasts, width, height, |at| near.as_raw()[at] == SET);
    grown(&middle, RADIUS)
}

/// All places with the highest score above 0: which of them comes first depends on how the photograph is turned.
fn best(scores: &[i64], width: u32, height: u32, among: impl Fn(usize) -> bool) -> Mask {
    let score = |at: usize| if among(at) { scores[at] } else { 0 };
    let highest = (0..scores.len()).map(score).max().unwrap_or(0);
    let mut mask = Mask::new(width, height);
    for (at, pixel) in mask.iter_mut().enumerate() {
        if highest > 0 && score(at) == highest {
            *pixel = SET;
        }
    }
    mask
}
