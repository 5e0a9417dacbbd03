//! Ben Graham's preprocessing: each photograph relative to its own local mean, so that cameras and light differ less.
//!
//! `4 I - 4 G(I) + 128` with a Gaussian `G` of a thirtieth of the disc's radius, and grey outside nine tenths of the
//! radius, where the rim would be brighter than any lesion. Source: B. Graham, "Kaggle diabetic retinopathy detection
//! competition report", 2015.
//!
//! The blur is written here, in integers: those of the libraries at hand take their kernels from the system's `exp`, and
//! the same photographs are to give the same bytes on every machine.

use image::{Rgb, RgbImage};

use crate::square::Disc;

/// What the local mean becomes, and everything outside the disc.
const BASE: u8 = 128;

/// Its parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// How much of the difference from the local mean is kept.
    pub gain: i64,
    /// The part of the radius inside which the photograph is kept.
    pub kept: f64,
    /// The disc's radius in standard deviations of the Gaussian.
    pub radius_per_sigma: f64,
}

/// Applies it to a square around the disc, or around as much of it as the frame shows.
pub(super) fn apply(square: &mut RgbImage, disc: Disc, settings: Settings) {
    let side = f64::from(square.width());
    // A disc of which the square shows next to nothing is a mistake, and would make the kernel as long as the sky is high.
    let radius = side * disc.radius.clamp(0.25, 2.0);
    let blurred = blur(square, radius / settings.radius_per_sigma);
    let (middle_x, middle_y) = (side * disc.x, side * disc.y);
    let limit = settings.kept * radius;
    let mean = blurred.chunks_exact(3);
    for ((x, y, pixel), mean) in square.enumerate_pixels_mut().zip(mean) {
        let (dx, dy) = (f64::from(x) + 0.5 - middle_x, f64::from(y) + 0.5 - middle_y);
        if dx * dx + dy * dy > limit * limit {
            *pixel = Rgb([BASE; 3]);
            continue;
        }
        for (level, &mean) in pixel.0.iter_mut().zip(mean) {
            let difference = (i64::from(*level) << FRACTION) - i64::from(mean);
            let value = settings.gain * difference + (i64::from(BASE) << FRACTION);
            let half = 1 << (FRACTION - 1);
            *level = ((value + half) >> FRACTION).clamp(0, 255) as u8;
        }
    }
}

/// Bits behind the point in what [`blur`] returns.
const FRACTION: u32 = 24;
/// Bits behind the point between its two passes.
const BETWEEN: u32 = 8;
/// The sum of a kernel's weights, as a power of two.
const WEIGHT: u32 = 16;

/// The picture under a Gaussian of `sigma` pixels, in fixed point ([`FRACTION`]); the picture is mirrored at its edges,
/// without repeating them.
fn blur(picture: &RgbImage, sigma: f64) -> Vec<u32> {
    let kernel = kernel(sigma);
    let reach = kernel.len() / 2;
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let stride = 3 * width;
    let mut across = vec![0u16; stride * height];
    let mut padded = vec![0u8; 3 * (width + 2 * reach)];
    let mut sums = vec![0u32; stride];
    let rows = picture.as_raw().chunks_exact(stride);
    for (row, out) in rows.zip(across.chunks_exact_mut(stride)) {
        for (x, pixel) in padded.chunks_exact_mut(3).enumerate() {
            let from = 3 * mirrored(x as i64 - reach as i64, width);
            pixel.copy_from_slice(&row[from..from + 3]);
        }
        sums.fill(1 << (WEIGHT - BETWEEN - 1));
        for (k, &weight) in kernel.iter().enumerate() {
            add(&mut sums, &padded[3 * k..], weight);
        }
        for (out, sum) in out.iter_mut().zip(&sums) {
            *out = (sum >> (WEIGHT - BETWEEN)) as u16;
        }
    }
    let mut both = vec![0u32; stride * height];
    for (y, out) in both.chunks_exact_mut(stride).enumerate() {
        for (k, &weight) in kernel.iter().enumerate() {
            let from = stride * mirrored((y + k) as i64 - reach as i64, height);
            add(out, &across[from..], weight);
        }
    }
    both
}

/// Adds values times a weight. It cannot overflow: weights add up to 2^16, and values are below 2^16; checks would keep the
/// compiler from using vectors.
fn add<T: Copy + Into<u32>>(sums: &mut [u32], values: &[T], weight: u32) {
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum = sum.wrapping_add(weight.wrapping_mul(value.into()));
    }
}

/// The position from which a mirrored picture of `length` pixels has its pixel `at`.
fn mirrored(at: i64, length: usize) -> usize {
    if length == 1 {
        return 0;
    }
    let period = 2 * (length as i64 - 1);
    let at = at.rem_euclid(period);
    at.min(period - at) as usize
}

/// Weights of a Gaussian to four standard deviations, in units of 2^-16; they add up to 1.
fn kernel(sigma: f64) -> Vec<u32> {
    let reach = (4.0 * sigma).ceil().max(1.0) as i64;
    let weights: Vec<f64> = (-reach..=reach)
        .map(|x| libm::exp(-((x * x) as f64) / (2.0 * sigma * sigma)))
        .collect();
    let total: f64 = weights.iter().sum();
    let mut kernel: Vec<u32> = weights
        .iter()
        .map(|weight| libm::round(weight / total * f64::from(1 << WEIGHT)) as u32)
        .collect();
    // What rounding left over belongs to the middle.
    let sum: u32 = kernel.iter().sum();
    let middle = kernel.len() / 2;
    kernel[middle] = kernel[middle] + (1 << WEIGHT) - sum;
    kernel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_adds_up_and_is_symmetric() {
        for sigma in [0.3, 1.0, 3.7, 17.0, 34.1] {
            let kernel = kernel(sigma);
            assert_eq!(kernel.iter().sum::<u32>(), 1 << WEIGHT, "{sigma}");
            assert!(kernel.iter().eq(kernel.iter().rev()), "{sigma}");
        }
    }

    #[test]
    fn edges_are_mirrored() {
        let seen: Vec<usize> = (-4..8).map(|at| mirrored(at, 4)).collect();
        assert_eq!(seen, [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]);
        assert_eq!(mirrored(-5, 1), 0);
    }

    #[test]
    fn an_even_picture_becomes_grey() {
        for level in [0, 1, 77, 254, 255] {
            let mut square = RgbImage::from_pixel(64, 64, Rgb([level; 3]));
            let settings = Settings {
                gain: 4,
                kept: 0.9,
                radius_per_sigma: 30.0,
            };
            apply(&mut square, Disc::WHOLE, settings);
            assert!(square.pixels().all(|p| p.0 == [BASE; 3]), "{level}");
        }
    }
}
