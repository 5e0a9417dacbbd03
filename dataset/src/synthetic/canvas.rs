//! What is drawn on: a picture in floating point, and masks that colour it.

use image::RgbImage;

use super::geometry::{Point, point};

/// Red, green and blue; 255 is as bright as a picture gets.
pub type Colour = [f32; 3];

/// Where the field of view lies in the picture.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Width and height of the picture in pixels.
    pub size: usize,
    /// Centre of the field of view, in pixels from the top left corner.
    pub centre: Point,
    /// Its radius in pixels.
    pub radius: f32,
}

impl View {
    /// The place of a pixel's centre in the field of view.
    pub fn place(&self, x: usize, y: usize) -> Point {
        (point(x as f32 + 0.5, y as f32 + 0.5) - self.centre) * (1.0 / self.radius)
    }

    /// Pixels (columns, rows) that may lie within `reach` of the segment from `a` to `b`.
    fn around(
        &self,
        a: Point,
        b: Point,
        reach: f32,
    ) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let span = |from: f32, to: f32, centre: f32| {
            let pixel = |v: f32| (v * self.radius + centre).clamp(0.0, self.size as f32);
            let low = pixel(from.min(to) - reach).floor() as usize;
            low..pixel(from.max(to) + reach).ceil() as usize
        };
        (span(a.x, b.x, self.centre.x), span(a.y, b.y, self.centre.y))
    }
}

/// A picture in floating point.
pub struct Canvas {
    view: View,
    pixels: Vec<Colour>,
}

impl Canvas {
    /// Colours every pixel by its place in the field of view.
    pub fn paint(view: View, colour: impl Fn(Point) -> Colour) -> Self {
        let mut pixels = Vec::with_capacity(view.size * view.size);
        for y in 0..view.size {
            pixels.extend((0..view.size).map(|x| colour(view.place(x, y))));
        }
        Self { view, pixels }
    }

    /// Takes away light where the mask is: each channel loses the part `loss` of it.
    pub fn absorb(&mut self, mask: &Mask, loss: Colour) {
        for (pixel, &m) in self.pixels.iter_mut().zip(&mask.values) {
            for (value, loss) in pixel.iter_mut().zip(loss) {
                *value *= 1.0 - m * loss;
            }
        }
    }

    /// Covers with `colour` where the mask is.
    pub fn cover(&mut self, mask: &Mask, colour: Colour) {
        for (pixel, &m) in self.pixels.iter_mut().zip(&mask.values) {
            for (value, colour) in pixel.iter_mut().zip(colour) {
                *value += (colour - *value) * m;
            }
        }
    }

    /// Changes every pixel, knowing its place.
    pub fn adjust(&mut self, mut change: impl FnMut(Point, &mut Colour)) {
        for (i, pixel) in self.pixels.iter_mut().enumerate() {
            change(
                self.view.place(i % self.view.size, i / self.view.size),
                pixel,
            );
        }
    }

    /// Blurs with the kernel (1 2 1)/4 in both directions; `share` of 0 changes nothing.
    pub fn blur(&mut self, share: f32) {
        let size = self.view.size;
        for stride in [1, size] {
            let before = self.pixels.clone();
            for (i, pixel) in self.pixels.iter_mut().enumerate() {
                let along = if stride == 1 { i % size } else { i / size };
                let low = if along > 0 { i - stride } else { i };
                let high = if along + 1 < size { i + stride } else { i };
                for (c, value) in pixel.iter_mut().enumerate() {
                    let mean = 0.25 * (before[low][c] + before[high][c]) + 0.5 * before[i][c];
                    *value += (mean - *value) * share;
                }
            }
        }
    }

    /// Rounds to bytes.
    pub fn into_image(self) -> RgbImage {
        let side = self.view.size as u32;
        let bytes = self
            .pixels
            .iter()
            .flatten()
            .map(|v| (v + 0.5).clamp(0.0, 255.0) as u8)
            .collect();
        RgbImage::from_raw(side, side, bytes).expect("three bytes for each of size x size pixels")
    }
}

/// How strongly something is seen at each pixel, 0 to 1. Overlapping shapes do not add up.
pub struct Mask {
    view: View,
    values: Vec<f32>,
}

impl Mask {
    pub fn new(view: View) -> Self {
        Self {
            view,
            values: vec![0.0; view.size * view.size],
        }
    }

    /// Adds what is seen of another.
    pub fn add(&mut self, other: &Mask) {
        for (value, other) in self.values.iter_mut().zip(&other.values) {
            *value = value.max(*other);
        }
    }

    /// How strongly it is seen at each pixel, row by row.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// A disc whose edge is soft over `edge` (at least a pixel).
    pub fn disc(&mut self, centre: Point, radius: f32, edge: f32, strength: f32) {
        self.segment((centre, radius), (centre, radius), edge, strength);
    }

    /// A line with round ends, from `a` to `b`, each a place and the half width there.
    ///
    /// What is narrower than a pixel is drawn a pixel wide and fainter, as a camera would see it.
    pub fn segment(&mut self, a: (Point, f32), b: (Point, f32), edge: f32, strength: f32) {
        let pixel = 1.0 / self.view.radius;
        let edge = edge.max(pixel);
        let least = 0.5 * pixel;
        let thin = |half: f32| (half.max(least), (half / least).min(1.0));
        let ((wide_a, faint_a), (wide_b, faint_b)) = (thin(a.1), thin(b.1));
        let (from, along) = (a.0, b.0 - a.0);
        let square = along.dot(along);
        let (columns, rows) = self.view.around(a.0, b.0, wide_a.max(wide_b) + edge);
        for y in rows {
            for x in columns.clone() {
                let p = self.view.place(x, y) - from;
                let t = if square > 0.0 {
                    (p.dot(along) / square).clamp(0.0, 1.0)
                } else {
                    0.0
                };
                let distance = (p - along * t).length();
                let half = wide_a + (wide_b - wide_a) * t;
                let cover = ((half - distance) / edge + 0.5).clamp(0.0, 1.0);
                let value = cover * strength * (faint_a + (faint_b - faint_a) * t);
                let old = &mut self.values[y * self.view.size + x];
                *old = old.max(value);
            }
        }
    }
}
