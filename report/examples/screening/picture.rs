//! Something like a fundus photograph with a heat map over it.

use std::io::Cursor;

use fovea_core::random::{below, stream};
use image::{ImageFormat, Rgb, RgbImage};

const SIDE: u32 = 256;

pub fn heat_map(number: u64) -> Vec<u8> {
    let mut rng = stream("heat map", &[number]);
    let mut place = |from: f64, to: f64| from + (to - from) * below(&mut rng, 1000) as f64 / 1000.0;
    let left = number.is_multiple_of(2);
    let disc = (if left { 0.27 } else { 0.73 }, place(0.45, 0.55));
    let spots: Vec<(f64, f64, f64)> = (0..3)
        .map(|_| (place(0.3, 0.7), place(0.3, 0.7), place(0.05, 0.13)))
        .collect();
    let picture = RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let (x, y) = (
            f64::from(x) / f64::from(SIDE),
            f64::from(y) / f64::from(SIDE),
        );
        let away = |cx: f64, cy: f64| ((x - cx).powi(2) + (y - cy).powi(2)).sqrt();
        if away(0.5, 0.5) > 0.48 {
            return Rgb([0, 0, 0]);
        }
        let shade = 1.0 - 0.9 * away(0.5, 0.5);
        let bright = (-(away(disc.0, disc.1) / 0.06).powi(4)).exp();
        let dark = (-(away(1.0 - disc.0, 0.5) / 0.08).powi(2)).exp();
        // Two vessels as arcs around the macula.
        let arc = (away(1.0 - disc.0, 0.5) - 0.34 - 0.02 * (20.0 * x).sin()).abs();
        let vessel = if arc < 0.008 { 0.72 } else { 1.0 };
        let base = [190.0, 92.0, 45.0].map(|c| c * shade * vessel * (1.0 - 0.45 * dark));
        let base = [
            base[0] + 60.0 * bright,
            base[1] + 110.0 * bright,
            base[2] + 70.0 * bright,
        ];
        let heat = spots
            .iter()
            .map(|(cx, cy, r)| (-(away(*cx, *cy) / r).powi(2)).exp())
            .fold(0.0f64, f64::max);
        let colour = [255.0, 220.0 * (1.0 - heat).max(0.2), 40.0];
        let mix = 0.6 * heat;
        let mixed =
            [0, 1, 2].map(|c| (base[c] * (1.0 - mix) + colour[c] * mix).clamp(0.0, 255.0) as u8);
        Rgb(mixed)
    });
    let mut png = Cursor::new(Vec::new());
    picture
        .write_to(&mut png, ImageFormat::Png)
        .expect("a picture in memory is written");
    png.into_inner()
}
