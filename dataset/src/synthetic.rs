//! SYNTHETIC fundus photographs: drawn by this module, not taken from patients.
//!
//! They let anybody try Fovea without data that may not be shared: for tests, and for a demo that learns
//! to distinguish referable eyes (grade 2 and above) from others. A network trained on them knows
//! nothing about real eyes.
//!
//! A drawing is a pure function of (seed, patient, eye, grade, size), with the same bytes on every
//! machine: each part has a random stream of its own, so the same eye at another grade differs in
//! its lesions only. Colour, light and sharpness vary between patients more than lesions change
//! them, so that a picture's mean colour does not give the grade away.

mod anatomy;
mod canvas;
mod geometry;
mod lesions;
mod write;

use fovea_core::random::stream;
use image::RgbImage;

use crate::Eye;
use anatomy::{Anatomy, Style};
use canvas::{Canvas, Mask, View};
use geometry::{Dice, Noise, point, smoothstep};
use lesions::Counts;

pub use write::{SyntheticError, SyntheticOptions, generate};

/// Smallest and largest width of a drawing, in pixels.
pub const SIZES: std::ops::RangeInclusive<u32> = 64..=2048;

/// One eye to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EyeSpec {
    /// Seed of the whole set of drawings.
    pub seed: u64,
    /// The patient's number. Style and, mostly, grade are the patient's.
    pub patient: u32,
    /// Which eye; the optic disc lies on the nose's side. [`Eye::Unknown`] is drawn as a right eye.
    pub eye: Eye,
    /// Grade on the international scale, 0 to 4; above 4 counts as 4.
    pub grade: u8,
    /// Width and height of the picture in pixels, within [`SIZES`].
    pub size: u32,
}

impl EyeSpec {
    fn dice(&self, purpose: &str) -> Dice {
        let eye = match self.eye {
            Eye::Left => 0,
            Eye::Right | Eye::Unknown => 1,
        };
        Dice(stream(purpose, &[self.seed, u64::from(self.patient), eye]))
    }
}

/// Draws one eye: a square picture, black around the round field of view.
///
/// # Panics
/// If `spec.size` is not within [`SIZES`].
pub fn render(spec: &EyeSpec) -> RgbImage {
    draw(spec).0
}

/// How strongly the lesions of the drawing are seen at each pixel, 0 to 1: `spec.size` rows of `spec.size` values. Drusen
/// are no lesions here: they say nothing about the grade.
///
/// # Panics
/// If `spec.size` is not within [`SIZES`].
pub fn lesions(spec: &EyeSpec) -> Vec<f32> {
    draw(spec).1.into_values()
}

fn draw(spec: &EyeSpec) -> (RgbImage, Mask) {
    assert!(
        SIZES.contains(&spec.size),
        "size {} of a drawing",
        spec.size
    );
    let style = Style::draw(&mut Dice(stream(
        "synthetic/patient",
        &[spec.seed, u64::from(spec.patient)],
    )));
    let nasal = if spec.eye == Eye::Left { -1.0 } else { 1.0 };
    let eye = Anatomy::draw(style, nasal, &mut spec.dice("synthetic/anatomy"));
    let mut camera = spec.dice("synthetic/camera");
    let size = spec.size as f32;
    let view = View {
        size: spec.size as usize,
        centre: point(0.5 * size, 0.5 * size) + camera.in_disc() * (0.012 * size),
        radius: camera.range(0.455, 0.485) * size,
    };
    let mut canvas = eye.paint(view, &mut spec.dice("synthetic/retina"));
    let mut dice = spec.dice("synthetic/lesions");
    let counts = Counts::draw(spec.grade, &mut dice);
    let lesions = lesions::paint(&mut canvas, &eye, view, &counts, &mut dice);
    photograph(&mut canvas, view, &mut camera);
    (canvas.into_image(), lesions)
}

/// What the camera adds: uneven light, its round mask, a little blur, exposure and noise.
fn photograph(canvas: &mut Canvas, view: View, dice: &mut Dice) {
    let exposure = dice.range(0.75, 1.18);
    let balance = [1.0, dice.range(0.9, 1.1), dice.range(0.8, 1.25)];
    let slope = dice.in_disc() * 0.16;
    let vignette = dice.range(0.15, 0.4);
    let haze = dice.range(0.0, 10.0);
    let rim = 1.5 / view.radius;
    canvas.adjust(|p, pixel| {
        let r = p.length();
        let light = exposure * (1.0 - vignette * r * r * r) * (1.0 + slope.dot(p));
        let inside = smoothstep(1.0 + rim, 1.0 - rim, r);
        for (value, balance) in pixel.iter_mut().zip(balance) {
            *value = (*value * light * balance + haze) * inside;
        }
    });
    canvas.blur(dice.range(0.0, 0.8));
    let level = dice.range(1.0, 3.5);
    // One table, looked up at a new offset for every channel, is noise enough.
    let noise = Noise::new(dice);
    let mut offset = 0.0;
    canvas.adjust(|p, pixel| {
        offset += 0.37;
        for (c, value) in pixel.iter_mut().enumerate() {
            let at = point(p.x * 61.7 + offset, p.y * 53.3 + 17.0 * c as f32);
            // The black border stays almost clean.
            let amount = if *value > 8.0 { level } else { 0.5 };
            *value += amount * noise.at(at.x, at.y);
        }
    });
}

#[cfg(test)]
mod tests;
