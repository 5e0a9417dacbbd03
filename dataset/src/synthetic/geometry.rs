//! Points, and random numbers to scatter them with.
//!
//! Only operations that IEEE 754 defines exactly are used (no library sine or exponential), so a
//! picture has the same bytes on every machine.

use std::ops::{Add, Mul, Sub};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

/// A place or a direction in the field of view: its centre is (0, 0), its radius 1; x grows to the
/// right, y downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub x: f32,
    pub y: f32,
}

pub const fn point(x: f32, y: f32) -> Point {
    Point { x, y }
}

impl Point {
    pub fn dot(self, other: Point) -> f32 {
        self.x * other.x + self.y * other.y
    }

    pub fn length(self) -> f32 {
        self.dot(self).sqrt()
    }

    pub fn distance(self, other: Point) -> f32 {
        (self - other).length()
    }

    /// The direction, of length 1. A zero vector points to the right.
    pub fn unit(self) -> Point {
        let length = self.length();
        if length > 0.0 {
            self * (1.0 / length)
        } else {
            point(1.0, 0.0)
        }
    }

    /// Turned by the angle whose half has the tangent `half_tangent`.
    pub fn turned(self, half_tangent: f32) -> Point {
        let t = half_tangent;
        let scale = 1.0 / (1.0 + t * t);
        let (cos, sin) = ((1.0 - t * t) * scale, 2.0 * t * scale);
        point(self.x * cos - self.y * sin, self.x * sin + self.y * cos)
    }
}

impl Add for Point {
    type Output = Point;
    fn add(self, other: Point) -> Point {
        point(self.x + other.x, self.y + other.y)
    }
}

impl Sub for Point {
    type Output = Point;
    fn sub(self, other: Point) -> Point {
        point(self.x - other.x, self.y - other.y)
    }
}

impl Mul<f32> for Point {
    type Output = Point;
    fn mul(self, by: f32) -> Point {
        point(self.x * by, self.y * by)
    }
}

/// 0 at or below `low`, 1 at or above `high`, smooth between. `high < low` falls instead of rising.
pub fn smoothstep(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// The draws that pictures are made of.
pub struct Dice(pub ChaCha8Rng);

impl Dice {
    /// In 0 <= x < 1.
    pub fn uniform(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1 << 24) as f32
    }

    /// In low <= x < high.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// One of low..=high.
    pub fn count(&mut self, low: u32, high: u32) -> u32 {
        low + fovea_core::random::below(&mut self.0, u64::from(high - low) + 1) as u32
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.uniform() < p
    }

    /// About normal, mean 0 and deviation 1, never beyond 3.5: the sum of four uniform numbers.
    pub fn normal(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| self.uniform()).sum();
        (sum - 2.0) * 1.732_050_8
    }

    /// Uniform in the disc of radius 1.
    pub fn in_disc(&mut self) -> Point {
        loop {
            let p = point(self.range(-1.0, 1.0), self.range(-1.0, 1.0));
            if p.dot(p) < 1.0 {
                return p;
            }
        }
    }

    /// A direction, all equally likely.
    pub fn direction(&mut self) -> Point {
        loop {
            let p = self.in_disc();
            if p.dot(p) > 0.01 {
                return p.unit();
            }
        }
    }
}

/// Smooth random numbers over the plane (value noise): random values on a lattice, blended between.
pub struct Noise(Vec<f32>);

impl Noise {
    /// Lattice points a side; the pattern repeats after so many.
    const SIDE: usize = 64;

    pub fn new(dice: &mut Dice) -> Self {
        Self(
            (0..Self::SIDE * Self::SIDE)
                .map(|_| dice.range(-1.0, 1.0))
                .collect(),
        )
    }

    /// In -1..1; changes over a distance of about 1.
    pub fn at(&self, x: f32, y: f32) -> f32 {
        let (left, top) = (x.floor(), y.floor());
        let (u, v) = (
            smoothstep(0.0, 1.0, x - left),
            smoothstep(0.0, 1.0, y - top),
        );
        let wrap = |i: f32| (i as i32).rem_euclid(Self::SIDE as i32) as usize;
        let (i, j) = (wrap(left), wrap(top));
        let (i1, j1) = ((i + 1) % Self::SIDE, (j + 1) % Self::SIDE);
        let value = |i: usize, j: usize| self.0[j * Self::SIDE + i];
        let upper = value(i, j) + (value(i1, j) - value(i, j)) * u;
        let lower = value(i, j1) + (value(i1, j1) - value(i, j1)) * u;
        upper + (lower - upper) * v
    }
}
