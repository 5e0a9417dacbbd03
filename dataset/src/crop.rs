//! From a camera's photograph to a square picture around the fundus.
//!
//! A fundus camera shows the retina as a bright disc on black, often cut by the frame at top and
//! bottom. The disc's outline is found by a threshold relative to the picture's own levels, a
//! circle is fitted to the parts of it that are not the frame, and the square around the circle is
//! cut out. Where the frame cuts the disc, the square is narrowed to what the frame shows
//! ([`Crop::within`]): black bars would only make the lesions smaller. So every eye is centred,
//! whatever the camera's frame, and a rotation by 90 degrees gives a possible picture.

mod circle;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;

use circle::{Circle, Point};

/// Finds the fundus, cuts out the square of it that the frame shows and resizes that to `size` ×
/// `size` pixels.
///
/// Resizing is a convolution with the bilinear (triangle) kernel, widened when shrinking so that
/// small lesions are averaged in and not skipped.
pub fn crop_and_resize(photograph: &RgbImage, size: u32) -> Result<(RgbImage, Crop), CropError> {
    let crop = find(photograph)?.within(photograph.width(), photograph.height());
    Ok((extract(photograph, &crop, size), crop))
}

/// The square to cut out, in pixels of the photograph. It may reach beyond the photograph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop {
    /// Column of the left edge.
    pub left: i64,
    /// Row of the top edge.
    pub top: i64,
    /// Width and height.
    pub side: u32,
    /// How it was found.
    pub method: CropMethod,
}

impl Crop {
    /// The largest square inside both this one and a photograph of `width` × `height` pixels, in the
    /// middle of what the two share. A square that lies wholly inside stays as it is.
    pub fn within(self, width: u32, height: u32) -> Crop {
        let shared = |start: i64, length: u32| {
            let from = start.max(0);
            let to = (start + i64::from(self.side)).min(i64::from(length));
            (from, (to - from).max(1))
        };
        let (left, wide) = shared(self.left, width);
        let (top, high) = shared(self.top, height);
        let side = wide.min(high);
        Crop {
            left: left + (wide - side) / 2,
            top: top + (high - side) / 2,
            side: side as u32,
            method: self.method,
        }
    }
}

/// How a square was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CropMethod {
    /// Around a circle fitted to the outline.
    Circle,
    /// Around everything bright, because the outline is no circle: the photograph was cropped
    /// before, or a part of the retina is too dark.
    BoundingBox,
    /// Around the whole photograph: no fundus was sought.
    Frame,
}

/// Why no fundus can be cut out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CropError {
    /// Too few pixels to find an outline.
    #[error("the picture has only {width} x {height} pixels; at least 32 x 32 are needed")]
    TooSmall {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Black, or nearly so.
    #[error("blank or too dark: 99 % of its pixels are at or below level {level} of 255")]
    TooDark {
        /// The 99th percentile.
        level: u8,
    },
    /// One colour, or nearly so.
    #[error("blank: 98 % of its pixels lie between the levels {low} and {high} of 255")]
    NoContrast {
        /// The 1st percentile.
        low: u8,
        /// The 99th percentile.
        high: u8,
    },
    /// The bright area is no disc.
    #[error(
        "no fundus found: the largest bright area covers {percent:.0} % of the picture and is no disc"
    )]
    NoFundus {
        /// Its share of the picture, in per cent.
        percent: f64,
    },
}

/// Version of the rules by which photographs become records, kept in the manifest: other rules make other pictures.
/// 3: JPEG by libjpeg-turbo, reduced while it is decoded, and turned as the file says.
pub const CROP_VERSION: u32 = 3;

/// Least side of a photograph, in pixels.
pub(crate) const MIN_SIDE: u32 = 32;
/// Levels (of 255) below which a picture is dark or flat.
const MIN_LEVEL: u8 = 20;
/// Longest side, in pixels, of the reduced picture in which the outline is sought: enough to place
/// the circle within one part in a thousand.
const OUTLINE_SIDE: u32 = 768;
/// Threshold of the fundus, as a fraction of the way from the background's level to the retina's.
const THRESHOLD: f64 = 0.1;
/// Least distance of that threshold from the background's level: above JPEG noise.
const MIN_THRESHOLD: f64 = 6.0;
/// A background brighter than this fraction of the retina's level is retina: there is no border.
const MAX_BACKGROUND: f64 = 0.5;
/// Least share of the picture that a fundus covers.
const MIN_AREA: f64 = 0.05;
/// Least share of its bounding box that a fundus fills (a disc: π/4).
const MIN_FILL: f64 = 0.5;

/// Finds the square around the fundus.
pub fn find(photograph: &RgbImage) -> Result<Crop, CropError> {
    let (width, height) = photograph.dimensions();
    if width.min(height) < MIN_SIDE {
        return Err(CropError::TooSmall { width, height });
    }
    let factor = width.max(height).div_ceil(OUTLINE_SIDE);
    let levels = Levels::reduce(photograph, factor);
    let [low, background, bright, high] = levels.percentiles([0.01, 0.02, 0.95, 0.99]);
    if high < MIN_LEVEL {
        return Err(CropError::TooDark { level: high });
    }
    if high - low < MIN_LEVEL {
        return Err(CropError::NoContrast { low, high });
    }
    let (background, bright) = (f64::from(background), f64::from(bright));
    if background >= f64::from(MIN_LEVEL) && background > MAX_BACKGROUND * bright {
        return Ok(Crop {
            method: CropMethod::BoundingBox,
            ..frame(width, height)
        });
    }
    let rise = bright - background;
    let threshold = background + (THRESHOLD * rise).max(MIN_THRESHOLD);
    let area = Area::largest(&levels, threshold);
    let share = area.pixels as f64 / levels.values.len() as f64;
    let no_fundus = CropError::NoFundus {
        percent: 100.0 * share,
    };
    if share < MIN_AREA {
        return Err(no_fundus);
    }

    let scale = f64::from(factor);
    let square = |circle: Circle, method| {
        // Pixel centres of the reduced picture to edges of the photograph's pixels.
        let side = (2.0 * (circle.radius + 0.5) * scale).round();
        Crop {
            left: ((circle.center.x + 0.5) * scale - side / 2.0).round() as i64,
            top: ((circle.center.y + 0.5) * scale - side / 2.0).round() as i64,
            side: side as u32,
            method,
        }
    };
    if let Some(circle) = circle::fit(&area.outline(), levels.width.min(levels.height)) {
        return Ok(square(circle, CropMethod::Circle));
    }
    let (bounds, fill) = area.bounding_square();
    if fill < MIN_FILL {
        return Err(no_fundus);
    }
    Ok(square(bounds, CropMethod::BoundingBox))
}

/// The square around a whole photograph, which it shows in its middle.
pub fn frame(width: u32, height: u32) -> Crop {
    let side = width.max(height);
    Crop {
        left: (i64::from(width) - i64::from(side)) / 2,
        top: (i64::from(height) - i64::from(side)) / 2,
        side,
        method: CropMethod::Frame,
    }
}

/// Cuts out `crop` and resizes it to `size` × `size` pixels.
pub fn extract(photograph: &RgbImage, crop: &Crop, size: u32) -> RgbImage {
    let square = cut(photograph, crop);
    let mut resized = RgbImage::new(size, size);
    // By type: a choice among all pixel types when the program runs would compile the resizing of all of them into this
    // crate, which is half of it.
    let source = TypedImageRef::<U8x3>::from_buffer(crop.side, crop.side, square.as_raw())
        .expect("the buffer has side x side pixels of three bytes");
    let mut target = TypedImage::<U8x3>::from_buffer(size, size, &mut resized)
        .expect("the buffer has size x size pixels of three bytes");
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new()
        .resize_typed(&source, &mut target, &options)
        .expect("nothing is cut out of the square");
    resized
}

/// The square itself, black where it leaves the photograph.
fn cut(photograph: &RgbImage, crop: &Crop) -> RgbImage {
    let (width, height) = (
        i64::from(photograph.width()),
        i64::from(photograph.height()),
    );
    let side = i64::from(crop.side);
    let mut square = RgbImage::new(crop.side, crop.side);
    let from = crop.left.clamp(0, width);
    let to = (crop.left + side).clamp(from, width);
    let bytes = |n: i64| 3 * n as usize;
    for y in crop.top.max(0)..(crop.top + side).min(height) {
        let source = bytes(y * width + from)..bytes(y * width + to);
        let target = bytes((y - crop.top) * side + from - crop.left);
        let length = source.len();
        let out: &mut [u8] = &mut square;
        out[target..target + length].copy_from_slice(&photograph.as_raw()[source]);
    }
    square
}

/// The photograph reduced to one level a pixel: the largest of R, G and B, averaged over blocks.
/// The largest, because a dark retina is still visible in red.
struct Levels {
    width: usize,
    height: usize,
    values: Vec<u8>,
}

impl Levels {
    fn reduce(photograph: &RgbImage, factor: u32) -> Self {
        let factor = factor as usize;
        let (width, height) = (
            photograph.width() as usize / factor,
            photograph.height() as usize / factor,
        );
        let stride = photograph.width() as usize * 3;
        let mut values = Vec::with_capacity(width * height);
        let mut sums = vec![0u32; width];
        for y in 0..height {
            sums.fill(0);
            for row in photograph.as_raw()[y * factor * stride..]
                .chunks_exact(stride)
                .take(factor)
            {
                for (sum, block) in sums.iter_mut().zip(row.chunks_exact(3 * factor)) {
                    *sum += block
                        .chunks_exact(3)
                        .map(|p| u32::from(p[0].max(p[1]).max(p[2])))
                        .sum::<u32>();
                }
            }
            let count = (factor * factor) as u32;
            values.extend(sums.iter().map(|sum| ((sum + count / 2) / count) as u8));
        }
        Self {
            width,
            height,
            values,
        }
    }

    fn percentiles<const N: usize>(&self, parts: [f64; N]) -> [u8; N] {
        let mut histogram = [0usize; 256];
        for &value in &self.values {
            histogram[usize::from(value)] += 1;
        }
        parts.map(|part| {
            let wanted = part * self.values.len() as f64;
            let mut seen = 0;
            let level = histogram.iter().position(|count| {
                seen += count;
                seen as f64 > wanted
            });
            level.unwrap_or(255) as u8
        })
    }
}

/// A connected area of bright pixels.
struct Area {
    width: usize,
    height: usize,
    member: Vec<bool>,
    pixels: usize,
}

impl Area {
    /// The largest one above `threshold`; text and logos in a corner are others.
    fn largest(levels: &Levels, threshold: f64) -> Self {
        const DARK: u32 = 0;
        const OPEN: u32 = u32::MAX;
        let (width, height) = (levels.width, levels.height);
        let mut label: Vec<u32> = levels
            .values
            .iter()
            .map(|&v| if f64::from(v) > threshold { OPEN } else { DARK })
            .collect();
        let (mut best, mut pixels, mut next) = (DARK, 0, 1);
        let mut stack = Vec::new();
        for start in 0..label.len() {
            if label[start] != OPEN {
                continue;
            }
            label[start] = next;
            stack.push(start);
            let mut count = 0;
            while let Some(at) = stack.pop() {
                count += 1;
                let (x, y) = (at % width, at / width);
                let neighbours = [
                    (x > 0).then(|| at - 1),
                    (x + 1 < width).then(|| at + 1),
                    (y > 0).then(|| at - width),
                    (y + 1 < height).then(|| at + width),
                ];
                for neighbour in neighbours.into_iter().flatten() {
                    if label[neighbour] == OPEN {
                        label[neighbour] = next;
                        stack.push(neighbour);
                    }
                }
            }
            if count > pixels {
                (best, pixels) = (next, count);
            }
            next += 1;
        }
        Self {
            width,
            height,
            member: label.iter().map(|&l| l == best && l != DARK).collect(),
            pixels,
        }
    }

    /// First and last pixel of every row and column, without those at the frame: there the
    /// photograph ends, not the fundus.
    fn outline(&self) -> Vec<Point> {
        let mut points = Vec::new();
        let mut add = |x: usize, y: usize| {
            let inside = |at: usize, length: usize| at > 1 && at + 2 < length;
            if inside(x, self.width) && inside(y, self.height) {
                points.push(Point {
                    x: x as f64,
                    y: y as f64,
                });
            }
        };
        for y in 0..self.height {
            let row = &self.member[y * self.width..(y + 1) * self.width];
            if let Some(first) = row.iter().position(|&m| m) {
                add(first, y);
                add(row.iter().rposition(|&m| m).unwrap_or(first), y);
            }
        }
        for x in 0..self.width {
            let is_member = |y: &usize| self.member[y * self.width + x];
            if let Some(first) = (0..self.height).find(is_member) {
                add(x, first);
                add(x, (0..self.height).rfind(is_member).unwrap_or(first));
            }
        }
        points
    }

    /// The circle inscribed in the square around the area's bounding box, and the share of the box
    /// that the area fills.
    fn bounding_square(&self) -> (Circle, f64) {
        let (mut left, mut right, mut top, mut bottom) = (self.width, 0, self.height, 0);
        for (at, _) in self.member.iter().enumerate().filter(|(_, m)| **m) {
            let (x, y) = (at % self.width, at / self.width);
            (left, right) = (left.min(x), right.max(x));
            (top, bottom) = (top.min(y), bottom.max(y));
        }
        let (wide, high) = (right + 1 - left, bottom + 1 - top);
        let circle = Circle {
            center: Point {
                x: (left + right) as f64 / 2.0,
                y: (top + bottom) as f64 / 2.0,
            },
            radius: (wide.max(high) - 1) as f64 / 2.0,
        };
        (circle, self.pixels as f64 / (wide * high) as f64)
    }
}

#[cfg(test)]
mod tests;
