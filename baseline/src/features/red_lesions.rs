//! Microaneurysms and haemorrhages: dark spots that are no vessels.

use image::GrayImage;
use imageproc::morphology::{Mask as Element, grayscale_open};

use super::mask::{Mask, and, area, combined, edges, grown, standing_out, without};
use super::regions::{Region, Regions};
use crate::photograph::DIAMETER;

/// What is wider than this disc is no lesion but uneven light or the fovea.
const WIDEST: u8 = (DIAMETER / 20) as u8;
/// A pixel of a lesion is darker than its surroundings by this (in units of 1/256).
const FAINT: u8 = 20;
/// Darkness is compared with the darkest pixel within this distance.
const SCALE: u8 = (DIAMETER / 128) as u8;
/// Some pixel of a lesion is darker by this.
const CLEAR: u8 = 32;
/// Neighbours at its outline differ by this on average: less than the fovea's do.
const SHARP: u64 = 12;
/// Pixels of the smallest lesion that counts.
const SMALLEST: u64 = 5;
/// Vessels are subtracted with this rim.
const RIM: u8 = 2;
/// Largest equivalent diameter of a microaneurysm: about 125 micrometres, the width of a vein at the optic disc.
const MICROANEURYSM: f64 = DIAMETER as f64 / 100.0;

/// The dark spots by size.
#[derive(Debug, Clone)]
pub(super) struct RedLesions {
    pub microaneurysms: Mask,
    /// Number of microaneurysms.
    pub number: u64,
    pub haemorrhages: Mask,
}

impl RedLesions {
    /// The spots in `dark`, how much darker the green channel is than its surroundings.
    pub fn of(dark: &GrayImage, field: &Mask, vessels: &Mask, optic_disc: &Mask) -> Self {
        let wide = grayscale_open(dark, &Element::disk(WIDEST));
        let spots = combined(dark, &wide, u8::saturating_sub);
        let faint = and(&standing_out(&spots, FAINT, SCALE), field);
        let faint = without(&without(&faint, &grown(vessels, RIM)), optic_disc);
        let regions = Regions::of(&faint, &spots, &edges(dark, &faint));
        let small = |r: &Region| r.diameter() <= MICROANEURYSM;
        let counts = |r: &Region| r.peak >= CLEAR && r.sharpness() >= SHARP && r.area >= SMALLEST;
        let spot = |r: &Region| counts(r) && small(r) && r.elongation() <= 2.0;
        let blot =
            |r: &Region| counts(r) && !small(r) && r.elongation() <= 3.0 && r.solidity() > 0.6;
        let (microaneurysms, haemorrhages) = (regions.kept(spot), regions.kept(blot));
        debug_assert!(area(&and(&microaneurysms, &haemorrhages)) == 0);
        Self {
            number: regions.iter().filter(|r| spot(r)).count() as u64,
            microaneurysms,
            haemorrhages,
        }
    }
}
