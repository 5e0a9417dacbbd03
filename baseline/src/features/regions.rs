//! Connected regions of a mask, and what is counted over their pixels.
//!
//! All sums are of whole numbers, and the shape comes from moments about the centre, so that a region that was turned has the
//! same numbers, to the bit.

use image::{GrayImage, Luma};
use imageproc::region_labelling::{Connectivity, connected_components};

use super::mask::{Mask, SET};

/// A connected region (pixels that touch by a side or a corner).
#[derive(Debug, Clone, Default)]
pub(super) struct Region {
    /// Number of pixels.
    pub area: u64,
    /// Largest value of the image that it was measured on.
    pub peak: u8,
    /// Pixels that have an edge, in the picture of edges that it was measured on.
    edge_pixels: u64,
    /// Their sum.
    edges: u64,
    left: u32,
    right: u32,
    top: u32,
    bottom: u32,
    x: i64,
    y: i64,
    xx: i64,
    yy: i64,
    xy: i64,
}

impl Region {
    fn add(&mut self, x: u32, y: u32, value: u8, edge: u8) {
        if self.area == 0 {
            (self.left, self.right, self.top, self.bottom) = (x, x, y, y);
        }
        self.area += 1;
        self.peak = self.peak.max(value);
        self.edge_pixels += u64::from(edge > 0);
        self.edges += u64::from(edge);
        self.left = self.left.min(x);
        self.right = self.right.max(x);
        self.top = self.top.min(y);
        self.bottom = self.bottom.max(y);
        let (x, y) = (i64::from(x), i64::from(y));
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.yy += y * y;
        self.xy += x * y;
    }

    /// The longer side of the box around it, in pixels.
    pub fn extent(&self) -> u32 {
        (self.right - self.left).max(self.bottom - self.top) + 1
    }

    /// Mean of its edges.
    pub fn sharpness(&self) -> u64 {
        self.edges.checked_div(self.edge_pixels).unwrap_or(0)
    }

    /// Whether it reaches the edge of a picture of this size.
    pub fn touches_edge(&self, width: u32, height: u32) -> bool {
        self.left == 0 || self.top == 0 || self.right + 1 == width || self.bottom + 1 == height
    }

    /// Diameter of the disc of the same area, in pixels.
    pub fn diameter(&self) -> f64 {
        (4.0 * self.area as f64 / std::f64::consts::PI).sqrt()
    }

    /// Length over width of the ellipse with the same second moments: 1 for a disc.
    pub fn elongation(&self) -> f64 {
        let n = self.area as i128;
        let central =
            |sum: i64, a: i64, b: i64| n * i128::from(sum) - i128::from(a) * i128::from(b);
        // A pixel is a square, whose own second moment is 1/12.
        let pixel = n * n / 12;
        let xx = central(self.xx, self.x, self.x) + pixel;
        let yy = central(self.yy, self.y, self.y) + pixel;
        let xy = central(self.xy, self.x, self.y);
        let spread = (((xx - yy) as f64).powi(2) + 4.0 * (xy as f64).powi(2)).sqrt();
        let both = (xx + yy) as f64;
        let (long, wide) = (both + spread, both - spread);
        if wide > 0.0 {
            (long / wide).sqrt()
        } else {
            f64::INFINITY
        }
    }

    /// Its pixels as a share of the ellipse's with the same second moments: about 1 for a compact shape, less for one that is
    /// bent or has branches.
    pub fn solidity(&self) -> f64 {
        let n = self.area as i128;
        let central =
            |sum: i64, a: i64, b: i64| n * i128::from(sum) - i128::from(a) * i128::from(b);
        let pixel = n * n / 12;
        let xx = central(self.xx, self.x, self.x) + pixel;
        let yy = central(self.yy, self.y, self.y) + pixel;
        let xy = central(self.xy, self.x, self.y);
        let n = self.area as f64;
        // Of an ellipse with half axes a and b: second moments a²/4 and b²/4, area pi a b.
        let determinant = xx as f64 * yy as f64 - (xy as f64).powi(2);
        let ellipse = 4.0 * std::f64::consts::PI * determinant.max(0.0).sqrt() / (n * n);
        if ellipse > 0.0 { n / ellipse } else { 1.0 }
    }
}

/// The regions of a mask.
pub(super) struct Regions {
    labels: image::ImageBuffer<Luma<u32>, Vec<u32>>,
    all: Vec<Region>,
}

impl Regions {
    /// Finds the regions of `mask`, measured on `values` and on `edges`.
    pub fn of(mask: &Mask, values: &GrayImage, edges: &GrayImage) -> Self {
        let labels = connected_components(mask, Connectivity::Eight, Luma([0]));
        let number = labels.iter().max().copied().unwrap_or(0);
        let mut all = vec![Region::default(); number as usize];
        let values = values.iter().zip(edges.iter());
        for ((x, y, label), (value, edge)) in labels.enumerate_pixels().zip(values) {
            if let Some(region) = (label[0] as usize).checked_sub(1) {
                all[region].add(x, y, *value, *edge);
            }
        }
        Self { labels, all }
    }

    /// The regions for which `keep` holds, as a mask.
    pub fn kept(&self, keep: impl Fn(&Region) -> bool) -> Mask {
        let kept: Vec<bool> = self.all.iter().map(keep).collect();
        let mut mask = Mask::new(self.labels.width(), self.labels.height());
        for (pixel, &label) in mask.iter_mut().zip(self.labels.iter()) {
            if label > 0 && kept[label as usize - 1] {
                *pixel = SET;
            }
        }
        mask
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Region> {
        self.all.iter()
    }
}
