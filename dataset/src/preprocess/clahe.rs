//! Contrast-limited adaptive histogram equalization (CLAHE) of the lightness: local contrast without another colour.
//!
//! The lightness L of CIE Lab (D65, from sRGB) in 256 levels is equalized in each of 8 x 8 tiles; what a level of a tile's
//! histogram has beyond the limit is shared among all. Between the tiles' middles the results are interpolated. As OpenCV's
//! `createCLAHE(2.0, (8, 8))` does it; source of the method: K. Zuiderveld, "Contrast limited adaptive histogram
//! equalization", Graphics Gems IV, 1994.
//!
//! Written here because no kept library in Rust has it; powers and roots come from `libm`, which computes the same on every
//! machine.

use std::sync::LazyLock;

use image::RgbImage;

/// Applies it to a picture: `clip` is the limit relative to the mean of a histogram, `tiles` their number across and down.
pub(super) fn apply(picture: &mut RgbImage, clip: f64, tiles: usize) {
    let lab: Vec<[f32; 3]> = picture.pixels().map(|p| to_lab(p.0)).collect();
    let levels: Vec<u8> = lab
        .iter()
        .map(|[lightness, ..]| (lightness * 2.55 + 0.5) as u8)
        .collect();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let equalized = equalize(&levels, width, height, clip, tiles);
    for ((pixel, [_, a, b]), level) in picture.pixels_mut().zip(lab).zip(equalized) {
        pixel.0 = to_rgb([f32::from(level) / 2.55, a, b]);
    }
}

/// Equalizes levels, tile by tile.
fn equalize(levels: &[u8], width: usize, height: usize, clip: f64, tiles: usize) -> Vec<u8> {
    // Tiles of one size; the picture is mirrored where they reach beyond it.
    let (wide, high) = (width.div_ceil(tiles), height.div_ceil(tiles));
    let tables: Vec<[u8; 256]> = (0..tiles * tiles)
        .map(|tile| {
            let (left, top) = (tile % tiles * wide, tile / tiles * high);
            let mut histogram = [0u32; 256];
            for y in (top..top + high).map(|y| mirrored(y, height)) {
                for x in (left..left + wide).map(|x| mirrored(x, width)) {
                    histogram[usize::from(levels[y * width + x])] += 1;
                }
            }
            table(&mut histogram, (wide * high) as u32, clip)
        })
        .collect();
    let columns: Vec<Between> = (0..width).map(|x| Between::tiles(x, wide, tiles)).collect();
    let mut out = Vec::with_capacity(levels.len());
    for y in 0..height {
        let row = Between::tiles(y, high, tiles);
        let line = &levels[y * width..(y + 1) * width];
        for (column, &level) in columns.iter().zip(line) {
            let of = |down: usize, across: usize| {
                f32::from(tables[down * tiles + across][usize::from(level)])
            };
            let along = |down: usize| {
                of(down, column.first) * (1.0 - column.share)
                    + of(down, column.second) * column.share
            };
            let value = along(row.first) * (1.0 - row.share) + along(row.second) * row.share;
            out.push(value.round_ties_even() as u8);
        }
    }
    out
}

/// The position from which a mirrored picture has its pixel `at`, for what lies less than a picture beyond it.
fn mirrored(at: usize, length: usize) -> usize {
    match at < length {
        true => at,
        false => (2 * (length - 1)).saturating_sub(at),
    }
}

/// Two neighbouring tiles, and the second one's share.
struct Between {
    first: usize,
    second: usize,
    share: f32,
}

impl Between {
    /// Those between whose middles a pixel lies; at the edges there is one.
    fn tiles(at: usize, side: usize, tiles: usize) -> Self {
        let place = at as f32 * (1.0 / side as f32) - 0.5;
        let first = place.floor();
        let within = |tile: f32| tile.clamp(0.0, (tiles - 1) as f32) as usize;
        Self {
            first: within(first),
            second: within(first + 1.0),
            share: place - first,
        }
    }
}

/// The levels that a tile's levels become.
fn table(histogram: &mut [u32; 256], pixels: u32, clip: f64) -> [u8; 256] {
    let limit = ((clip * f64::from(pixels) / 256.0) as u32).max(1);
    let mut beyond = 0;
    for count in histogram.iter_mut() {
        beyond += count.saturating_sub(limit);
        *count = (*count).min(limit);
    }
    let (each, rest) = (beyond / 256, (beyond % 256) as usize);
    for count in histogram.iter_mut() {
        *count += each;
    }
    let step = 256 / rest.max(1);
    for count in histogram.iter_mut().step_by(step).take(rest) {
        *count += 1;
    }
    let scale = 255.0 / pixels as f32;
    let mut sum = 0;
    histogram.map(|count| {
        sum += count;
        // Halves to even, as the processor rounds.
        (sum as f32 * scale).round_ties_even().min(255.0) as u8
    })
}

/// White of D65, of which 1 is the brightest green.
const WHITE: [f32; 3] = [0.950_456, 1.0, 1.088_754];
/// The part of the curve near black that is a line.
const LINEAR: f32 = 0.008_856;

/// Linear light of each sRGB level.
static LIGHT: LazyLock<[f32; 256]> =
    LazyLock::new(|| std::array::from_fn(|level| light(level as f64)));

/// Linear light between each level and the next.
static BETWEEN: LazyLock<[f32; 255]> =
    LazyLock::new(|| std::array::from_fn(|level| light(level as f64 + 0.5)));

/// Linear light of an sRGB level from 0 to 255.
fn light(level: f64) -> f32 {
    let value = level / 255.0;
    let light = match value <= 0.040_45 {
        true => value / 12.92,
        false => libm::pow((value + 0.055) / 1.055, 2.4),
    };
    light as f32
}

/// sRGB to CIE Lab: L from 0 to 100.
fn to_lab(rgb: [u8; 3]) -> [f32; 3] {
    let [r, g, b] = rgb.map(|level| LIGHT[usize::from(level)]);
    let x = (0.412_453 * r + 0.357_580 * g + 0.180_423 * b) / WHITE[0];
    let y = 0.212_671 * r + 0.715_160 * g + 0.072_169 * b;
    let z = (0.019_334 * r + 0.119_193 * g + 0.950_227 * b) / WHITE[2];
    let curve = |t: f32| match t > LINEAR {
        true => libm::cbrtf(t),
        false => 7.787 * t + 16.0 / 116.0,
    };
    let [x, y, z] = [x, y, z].map(curve);
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

/// CIE Lab to the nearest sRGB colour.
fn to_rgb([lightness, a, b]: [f32; 3]) -> [u8; 3] {
    let y = (lightness + 16.0) / 116.0;
    let (x, z) = (y + a / 500.0, y - b / 200.0);
    let curve = |t: f32| {
        let cube = t * t * t;
        match cube > LINEAR {
            true => cube,
            false => (t - 16.0 / 116.0) / 7.787,
        }
    };
    let (x, y, z) = (curve(x) * WHITE[0], curve(y), curve(z) * WHITE[2]);
    let rgb = [
        3.240_479 * x - 1.537_15 * y - 0.498_535 * z,
        -0.969_256 * x + 1.875_991 * y + 0.041_556 * z,
        0.055_648 * x - 0.204_043 * y + 1.057_311 * z,
    ];
    let between = &*BETWEEN;
    rgb.map(|light| between.partition_point(|limit| *limit < light) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_come_back() {
        for rgb in [
            [0, 0, 0],
            [255, 255, 255],
            [200, 90, 40],
            [3, 250, 129],
            [12, 1, 0],
        ] {
            assert_eq!(to_rgb(to_lab(rgb)), rgb);
        }
        let [lightness, a, b] = to_lab([255; 3]);
        assert!((lightness - 100.0).abs() < 0.01 && a.abs() < 0.05 && b.abs() < 0.05);
    }

    #[test]
    fn a_limited_histogram_keeps_its_sum() {
        let mut histogram = [0; 256];
        (histogram[3], histogram[200]) = (500, 276);
        let table = table(&mut histogram, 776, 2.0);
        assert_eq!(histogram.iter().sum::<u32>(), 776);
        assert_eq!(table[255], 255);
        assert!(table.is_sorted());
    }
}
