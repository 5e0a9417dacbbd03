//! Blood vessels: dark lines.

use image::{GrayImage, Luma};
use imageproc::morphology::{Mask as Element, grayscale_dilate, grayscale_erode, grayscale_open};

use super::mask::{Mask, and, combined, standing_out};
use super::regions::Regions;
use crate::photograph::DIAMETER;

/// Pixels to the right, and down.
type Step = (i32, i32);

/// Half the length of the lines that a vessel must hold.
const HALF_LINE: i32 = (DIAMETER / 64) as i32;
/// What is as wide as this disc is no vessel. The widest veins measure a fortieth of the diameter.
const WIDEST: u8 = (DIAMETER / 64) as u8;
/// A pixel of a vessel is darker than its surroundings by this (in units of 1/256).
const FAINT: u8 = 14;
/// Darkness is compared with the darkest pixel within this distance.
const SCALE: u8 = (DIAMETER / 128) as u8;
/// Some pixel of a vessel is darker by this.
const CLEAR: u8 = 28;
/// Extent of the smallest piece of the tree that counts.
const SHORTEST: u32 = DIAMETER / 12;
/// Pixels of the smallest piece that counts.
const SMALLEST: u64 = (DIAMETER * DIAMETER / 2600) as u64;

/// The vessels in `dark`, how much darker the green channel is than its surroundings.
///
/// After Zana and Klein (2001): openings by lines in all directions keep what is a line somewhere and remove dots; a top-hat
/// then removes what is wide. The threshold has two steps, so that faint vessels count where they continue a clear one.
pub(super) fn vessels(dark: &GrayImage, field: &Mask) -> Mask {
    let lines = elements()
        .iter()
        .map(|line| grayscale_dilate(&grayscale_erode(dark, line), line))
        .reduce(|a, b| combined(&a, &b, u8::max))
        .unwrap_or_else(|| dark.clone());
    let wide = grayscale_open(&lines, &Element::disk(WIDEST));
    let ridge = combined(&lines, &wide, u8::saturating_sub);
    let faint = and(&standing_out(&ridge, FAINT, SCALE), field);
    Regions::of(&faint, &ridge, &ridge)
        .kept(|r| r.peak >= CLEAR && r.extent() >= SHORTEST && r.area >= SMALLEST)
}

/// Lines in twelve directions, a set that turning by 90 degrees and mirroring leave as it is.
fn elements() -> Vec<Element> {
    let mut all: Vec<Vec<(i32, i32)>> = Vec::new();
    for degrees in [0.0f64, 15.0, 30.0, 45.0] {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let line: Vec<(i32, i32)> = (-HALF_LINE..=HALF_LINE)
            .map(|t| {
                (
                    (f64::from(t) * cos).round() as i32,
                    (f64::from(t) * sin).round() as i32,
                )
            })
            .collect();
        let images: [fn(Step) -> Step; 4] = [
            |(x, y)| (x, y),
            |(x, y)| (-x, y),
            |(x, y)| (y, x),
            |(x, y)| (-y, x),
        ];
        for image in images {
            let mut line: Vec<(i32, i32)> = line.iter().copied().map(image).collect();
            line.sort_unstable();
            if !all.contains(&line) {
                all.push(line);
            }
        }
    }
    all.iter().map(|line| element(line)).collect()
}

fn element(line: &[(i32, i32)]) -> Element {
    let side = 2 * HALF_LINE as u32 + 1;
    let mut picture = GrayImage::new(side, side);
    for &(x, y) in line {
        picture.put_pixel((x + HALF_LINE) as u32, (y + HALF_LINE) as u32, Luma([255]));
    }
    let centre = HALF_LINE as u8;
    Element::from_image(&picture, centre, centre)
}
