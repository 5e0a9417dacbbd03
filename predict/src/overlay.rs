//! The picture of a class activation map: the photograph, and the same in grey with the evidence for "positive" in colour.
//!
//! Colours are viridis, which gets lighter from end to end and is read alike with every kind of colour vision. They begin at 0:
//! where the evidence speaks against, or is none, the grey photograph shows alone. The scale ends at the strongest evidence of
//! the photograph in either direction, so that a photograph that is negative throughout does not glow, and never below 1.

use fovea_core::class_map::ClassMap;
use fovea_dataset::canvas::{Canvas, LETTER, LINE, wrapped};
use fovea_dataset::{Disc, Square};
use image::imageops;
use image::{Rgb, RgbImage};
use rayon::prelude::*;

use crate::files::{FileError, Maps};

/// What is written on the picture.
#[derive(Debug, Clone, Copy)]
pub struct Caption<'a> {
    /// Which photograph it is.
    pub photograph: &'a str,
    /// Which grades are positive: `grade 2 and above`.
    pub positive: &'a str,
    /// The model's probability of these.
    pub score: f64,
    /// Whether map and score are means over four rotations: of the evidence, and of the probabilities.
    pub rotations: bool,
}

/// A photograph with its map, ready to be drawn.
#[derive(Debug)]
pub struct Picture {
    /// Its name in the folder of maps.
    pub name: String,
    /// Which photograph it is.
    pub photograph: String,
    /// The photograph as people see it.
    pub square: Square,
    /// The map.
    pub map: ClassMap,
    /// The model's probability of "positive".
    pub score: f64,
}

/// Draws pictures into the folder of maps, several at once. `positive` says which grades that is, `rotations` whether scores and maps are means over
/// four rotations.
///
/// # Errors
/// One cannot be written.
pub fn draw(
    pictures: &[Picture],
    positive: &str,
    rotations: bool,
    maps: &Maps,
) -> Result<(), FileError> {
    pictures.par_iter().try_for_each(|picture| {
        let caption = Caption {
            photograph: &picture.photograph,
            positive,
            score: picture.score,
            rotations,
        };
        maps.write(
            &picture.name,
            &overlay(&picture.square, &picture.map, caption),
        )
    })
}

/// Between and around the parts.
const MARGIN: u32 = 8;
/// Height of the scale.
const SCALE: u32 = 12;
/// The ground.
const GROUND: Rgb<u8> = Rgb([32, 32, 32]);
/// Least value at which the scale ends, in log-odds.
const LEAST: f64 = 1.0;
/// How much of the photograph the strongest colour covers.
const MOST: f64 = 0.8;
/// The photograph shows nothing below this brightness.
const BLACK: u8 = 10;
/// How far towards the rim of the fundus colours go, in parts of its radius.
const WITHIN: f64 = 0.985;

/// Draws the picture. `square` is the photograph as people see it, which the map covers from edge to edge.
pub fn overlay(square: &Square, map: &ClassMap, caption: Caption<'_>) -> RgbImage {
    let photograph = &square.pixels;
    let side = photograph.width();
    let end = scale_end(map);
    let Caption {
        photograph: name,
        positive,
        score,
        rotations,
    } = caption;
    let across = 2 * side + MARGIN;
    let letters = across / LETTER;
    let log_odds = map.mean();
    let above = wrapped(&format!("{name}: P({positive}) = {score:.3}"), letters);
    let rotated = match rotations {
        true => " (of four rotations; the score above is the mean of their probabilities)",
        false => "",
    };
    let below = wrapped(
        &format!(
            "Evidence for {positive}, in log-odds; their mean over the whole square is {log_odds:+.2}{rotated}. No colour: none, or \
             against. It shows what the model looked at, and no outline of lesions."
        ),
        letters,
    );
    let lines = |lines: &[String]| lines.len() as u32 * LINE;
    let top = MARGIN + lines(&above) + MARGIN / 2;
    let scale = top + side + MARGIN;
    let height = scale + SCALE + LINE + MARGIN + lines(&below) + MARGIN;
    let mut canvas = Canvas(RgbImage::from_pixel(across + 2 * MARGIN, height, GROUND));
    for (row, line) in (0..).zip(&above) {
        canvas.text(MARGIN, MARGIN + row * LINE, line);
    }
    let (left, right) = (i64::from(MARGIN), i64::from(2 * MARGIN + side));
    imageops::replace(&mut canvas.0, photograph, left, i64::from(top));
    let coloured = coloured(photograph, square.disc, map, end);
    imageops::replace(&mut canvas.0, &coloured, right, i64::from(top));
    legend(&mut canvas, 2 * MARGIN + side, scale, side, end);
    for (row, line) in (0..).zip(&below) {
        let y = scale + SCALE + LINE + MARGIN + row * LINE;
        canvas.text(MARGIN, y, line);
    }
    canvas.0
}

/// The photograph, and beside it the map over it: without words and scale, for a page that has them. The strongest evidence of
/// the photograph has the brightest colour.
pub fn pair(photograph: &RgbImage, map: &ClassMap) -> RgbImage {
    let side = photograph.width();
    let mut both = RgbImage::new(2 * side, photograph.height());
    imageops::replace(&mut both, photograph, 0, 0);
    let coloured = coloured(photograph, Disc::WHOLE, map, scale_end(map));
    imageops::replace(&mut both, &coloured, i64::from(side), 0);
    both
}

/// The value at which the scale ends: a round number.
fn scale_end(map: &ClassMap) -> f64 {
    let strongest = map.values.iter().map(|v| f64::from(v.abs()));
    let strongest = strongest.fold(LEAST, f64::max);
    let power = 10f64.powf(strongest.log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0].map(|step| step * power);
    let enough = steps.into_iter().find(|end| *end >= strongest);
    enough.unwrap_or(strongest)
}

/// The photograph in grey, with the map in colour over the fundus.
fn coloured(photograph: &RgbImage, disc: Disc, map: &ClassMap, end: f64) -> RgbImage {
    let side = f64::from(photograph.width());
    RgbImage::from_fn(photograph.width(), photograph.height(), |x, y| {
        let Rgb(pixel) = *photograph.get_pixel(x, y);
        let at = |place: u32| (f64::from(place) + 0.5) / side;
        let (x, y) = (at(x), at(y));
        let inside = (x - disc.x).hypot(y - disc.y) <= WITHIN * disc.radius;
        let strength = match inside && pixel.iter().any(|c| *c >= BLACK) {
            true => (map.at(x, y) / end).clamp(0.0, 1.0),
            false => 0.0,
        };
        mixed(grey(pixel), strength)
    })
}

/// Rec. 601 luma.
fn grey([r, g, b]: [u8; 3]) -> f64 {
    0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b)
}

/// Grey, covered by the colour of evidence of a strength of 0 to 1.
fn mixed(grey: f64, strength: f64) -> Rgb<u8> {
    let colorous::Color { r, g, b } = colorous::VIRIDIS.eval_continuous(strength);
    // Weak evidence is faint as well as dark, so that noise around 0 does not draw patterns.
    let cover = MOST * strength.powf(0.8);
    Rgb([r, g, b].map(|c| (f64::from(c) * cover + grey * (1.0 - cover)).round() as u8))
}

/// The scale, below the coloured photograph.
fn legend(canvas: &mut Canvas, left: u32, top: u32, width: u32, end: f64) {
    const MIDDLE: f64 = 110.0;
    for x in 0..width {
        let strength = f64::from(x) / f64::from(width - 1);
        canvas.fill(left + x, top, 1, SCALE, mixed(MIDDLE, strength));
    }
    let below = top + SCALE + 2;
    canvas.text(left, below, "0");
    for (part, text) in [(0.5, format!("+{}", end / 2.0)), (1.0, format!("+{end}"))] {
        let wide = text.len() as u32 * LETTER;
        let middle = (f64::from(width) * part) as u32;
        let x = match part < 1.0 {
            true => middle - wide / 2,
            false => middle - wide,
        };
        canvas.text(left + x, below, &text);
    }
}

#[cfg(test)]
mod tests {
    use fovea_dataset::synthetic::{EyeSpec, render};
    use fovea_dataset::{Encoded, Eye, Recipe};

    use super::*;

    fn square() -> Square {
        let spec = EyeSpec {
            seed: 2,
            patient: 3,
            eye: Eye::Left,
            grade: 3,
            size: 512,
        };
        let mut png = std::io::Cursor::new(Vec::new());
        render(&spec)
            .write_to(&mut png, image::ImageFormat::Png)
            .unwrap();
        let file = Encoded::from_bytes(png.into_inner()).unwrap();
        let recipe = Recipe::new("crop".parse().unwrap(), 448).unwrap();
        recipe.square(&file, 448).unwrap()
    }

    fn map(values: Vec<f32>) -> ClassMap {
        ClassMap {
            height: 7,
            width: 7,
            values,
        }
    }

    fn grey_only(picture: &RgbImage) -> impl Fn(u32, u32) -> bool + '_ {
        |x, y| {
            let Rgb([r, g, b]) = *picture.get_pixel(x, y);
            r == g && g == b
        }
    }

    #[test]
    fn colour_is_where_the_evidence_is_and_nowhere_else() {
        let square = square();
        let mut values = vec![-3.0; 49];
        values[2 * 7 + 4] = 3.0;
        let map = map(values);
        let picture = coloured(&square.pixels, square.disc, &map, scale_end(&map));
        let grey = grey_only(&picture);
        let (x, y) = ((4.5 / 7.0 * 448.0) as u32, (2.5 / 7.0 * 448.0) as u32);
        assert!(!grey(x, y), "{:?}", picture.get_pixel(x, y));
        for (x, y) in [(x, y + 128), (x - 128, y), (224, 224)] {
            assert!(grey(x, y), "{x} {y}: {:?}", picture.get_pixel(x, y));
        }
        // The photograph shows through: its pixels differ where the map hardly does.
        let around: Vec<u8> = (0..24)
            .map(|i| picture.get_pixel(x - 12 + i, y).0[1])
            .collect();
        assert!(around.iter().max() > around.iter().min(), "{around:?}");
    }

    #[test]
    fn the_black_surround_stays_black() {
        let square = square();
        let map = map(vec![5.0; 49]);
        let picture = coloured(&square.pixels, square.disc, &map, 5.0);
        let grey = grey_only(&picture);
        for (x, y) in [(0, 0), (447, 0), (0, 447), (447, 447), (20, 20)] {
            assert!(grey(x, y), "{x} {y}");
        }
        assert!(!grey(224, 224));
    }

    #[test]
    fn the_scale_ends_at_a_round_number() {
        for (strongest, end) in [
            (0.0, 1.0),
            (0.99, 1.0),
            (-1.4, 1.5),
            (4.2, 6.0),
            (-37.0, 40.0),
            (100.0, 100.0),
        ] {
            let mut values = vec![0.0; 49];
            values[5] = strongest;
            assert_eq!(scale_end(&map(values)), end);
        }
    }

    #[test]
    fn the_picture_has_both_the_photograph_and_the_map() {
        let square = square();
        let mut values = vec![0.5; 49];
        values[10] = 8.0;
        let caption = Caption {
            photograph: "10_left.jpeg",
            positive: "grade 2 and above",
            score: 0.731,
            rotations: false,
        };
        let rotated = Caption {
            rotations: true,
            ..caption
        };
        let rotated = overlay(&square, &map(values.clone()), rotated);
        let picture = overlay(&square, &map(values), caption);
        assert!(rotated != picture, "it does not say what the mean is of");
        assert_eq!(picture.width(), 2 * 448 + 3 * MARGIN);
        let same = square.pixels.enumerate_pixels().all(|(x, y, pixel)| {
            picture.get_pixel(x + MARGIN, y + MARGIN + LINE + MARGIN / 2) == pixel
        });
        assert!(same, "the photograph is not shown as it is");
    }
}
