//! What a person should know of a photograph's quality: a first look, and no grading.
//!
//! The limits are for the square that is stored, around the fundus. They were set on the 476 photographs of a public study
//! of about 50 degrees, of which they name the one that is out of focus and the one that is nearly black. A retina is red: of those
//! photographs the mean of the red channel is 1.4 to 3.8 times that of the green one, and of 1,600 of another study, with other cameras
//! and 28 pixels a side, 1.05 to 3.0 times (3 of them below 1.1).

use std::fmt;

use image::RgbImage;

/// A look at one photograph.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Mean of the green channel within the disc, 0 to 255.
    pub brightness: f32,
    /// Mean curvature of the green channel within the disc relative to its mean slope, between pixels of a picture of 128
    /// pixels a side: 1.4 to 2.5 in focus, below 1.2 out of it. `None` for smaller squares, which do not tell.
    pub sharpness: Option<f32>,
    /// How far the brightest hundredth of the disc lies above the mean, in standard deviations: the optic disc, as a rule.
    pub peak: f32,
    /// Mean of the red channel within the disc over that of the green one: above 1.1 in colour photographs of a retina; 1 in a grey
    /// picture.
    pub redness: f32,
}

/// Something that a person should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flaw {
    /// Hardly any light.
    Dark,
    /// Hardly any edges.
    Blurred,
    /// Nothing in it stands out as an optic disc does.
    NoDisc,
    /// Not the colours of a retina: it may be another picture, or one without colours.
    NotRed,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flaw::Dark => "dark",
            Flaw::Blurred => "blurred",
            Flaw::NoDisc => "no disc",
            Flaw::NotRed => "not red",
        })
    }
}

/// Brightness below this is dark.
const DARK: f32 = 25.0;
/// Sharpness below this is blurred.
const BLURRED: f32 = 1.2;
/// A peak below this is no optic disc.
const NO_DISC: f32 = 1.5;
/// Less red than this, compared with green, is no colour photograph of a retina.
const NOT_RED: f32 = 1.1;
/// Side of the picture that is looked at: the limits would be others at another.
const SIDE: u32 = 128;

impl Quality {
    /// Looks at a square.
    pub fn of(square: &RgbImage) -> Self {
        let small = image::imageops::thumbnail(square, SIDE, SIDE);
        let green = |x: u32, y: u32| f32::from(small.get_pixel(x, y).0[1]);
        let length = |a: f32, b: f32| (a * a + b * b).sqrt();
        let half = SIDE as f32 / 2.0;
        // Within nine tenths of the radius: the rim is the steepest edge of all.
        let inside =
            |x: u32, y: u32| length(x as f32 + 0.5 - half, y as f32 + 0.5 - half) < 0.9 * half;
        let (mut values, mut slope, mut curvature, mut red) = (Vec::new(), 0.0, 0.0, 0.0);
        for y in 1..SIDE - 1 {
            for x in (1..SIDE - 1).filter(|&x| inside(x, y)) {
                let (left, right) = (green(x - 1, y), green(x + 1, y));
                let (above, below) = (green(x, y - 1), green(x, y + 1));
                let here = green(x, y);
                values.push(here);
                red += f32::from(small.get_pixel(x, y).0[0]);
                slope += length((right - left) / 2.0, (below - above) / 2.0);
                curvature += (4.0 * here - left - right - above - below).abs();
            }
        }
        let count = values.len() as f32;
        let brightness = values.iter().sum::<f32>() / count;
        let variance = values
            .iter()
            .map(|v| (v - brightness) * (v - brightness))
            .sum::<f32>()
            / count;
        values.sort_by(f32::total_cmp);
        let brightest = &values[values.len() * 99 / 100..];
        let top = brightest.iter().sum::<f32>() / brightest.len() as f32;
        Self {
            brightness,
            sharpness: (square.width() >= SIDE && slope > 0.0).then(|| curvature / slope),
            peak: (top - brightness) / variance.sqrt().max(1.0),
            redness: red / count / brightness.max(1.0),
        }
    }

    /// What a person should look at.
    pub fn flaws(&self) -> Vec<Flaw> {
        let all = [
            (self.brightness < DARK, Flaw::Dark),
            (self.sharpness.is_some_and(|s| s < BLURRED), Flaw::Blurred),
            (self.peak < NO_DISC, Flaw::NoDisc),
            // In the dark there are no colours.
            (
                self.redness < NOT_RED && self.brightness >= DARK,
                Flaw::NotRed,
            ),
        ];
        let found = all.into_iter().filter(|(is, _)| *is);
        found.map(|(_, flaw)| flaw).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    /// A disc with fine structure and, if so wished, an optic disc.
    fn retina(light: f32, disc: bool) -> RgbImage {
        RgbImage::from_fn(224, 224, |x, y| {
            let (dx, dy) = (x as f32 - 112.0, y as f32 - 112.0);
            if dx.hypot(dy) > 112.0 {
                return Rgb([0; 3]);
            }
            let fine =
                ((x * 7 + y * 13) % 11) as f32 / 11.0 * 0.3 + ((x / 4 + y / 6) % 3) as f32 * 0.1;
            let bright = disc && (dx - 50.0).hypot(dy) < 17.0;
            let level = light * if bright { 2.2 } else { 0.7 + fine };
            Rgb([1.4 * level, level, level / 2.0].map(|c| c.min(255.0) as u8))
        })
    }

    #[test]
    fn dark_blurred_and_empty_photographs_are_noted() {
        assert_eq!(Quality::of(&retina(90.0, true)).flaws(), []);
        assert_eq!(Quality::of(&retina(18.0, true)).flaws(), [Flaw::Dark]);
        let blurred = image::imageops::blur(&retina(90.0, true), 8.0);
        assert_eq!(Quality::of(&blurred).flaws(), [Flaw::Blurred]);
        let plain = RgbImage::from_pixel(224, 224, Rgb([140, 90, 40]));
        assert_eq!(Quality::of(&plain).flaws(), [Flaw::NoDisc]);
        let small = image::imageops::thumbnail(&blurred, 64, 64);
        assert_eq!(Quality::of(&small).sharpness, None);
    }
    #[test]
    fn pictures_without_the_colours_of_a_retina_are_noted() {
        let with = |change: fn([u8; 3]) -> [u8; 3]| {
            let mut picture = retina(90.0, true);
            for pixel in picture.pixels_mut() {
                pixel.0 = change(pixel.0);
            }
            Quality::of(&picture).flaws()
        };
        assert_eq!(with(|rgb| rgb), []);
        // Without colours, and with red and blue in each other's place.
        assert_eq!(with(|[_, green, _]| [green; 3]), [Flaw::NotRed]);
        assert_eq!(
            with(|[red, green, blue]| [blue, green, red]),
            [Flaw::NotRed]
        );
        let none = RgbImage::new(224, 224);
        assert_eq!(Quality::of(&none).flaws(), [Flaw::Dark, Flaw::NoDisc]);
    }
}
