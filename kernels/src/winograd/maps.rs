//! The linear maps of F(4x4, 3x3) along one side of a tile, for some channels at a time, and their transposes.
//!
//! They stand written out, with common sums shared, for the points 0, 1, -1, 2, -2 and infinity. Source: A. Lavin,
//! S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, section 4.3.

use super::{IN, LANES, Lanes, OUT, ZERO};

/// `B^T d`
#[inline(always)]
pub fn bt(d: [Lanes; IN]) -> [Lanes; IN] {
    let mut t = [ZERO; IN];
    for l in 0..LANES {
        let (even, odd) = (d[4][l] - 4.0 * d[2][l], d[3][l] - 4.0 * d[1][l]);
        let (near, twice) = (d[4][l] - d[2][l], 2.0 * (d[3][l] - d[1][l]));
        t[0][l] = 4.0 * d[0][l] - 5.0 * d[2][l] + d[4][l];
        t[1][l] = even + odd;
        t[2][l] = even - odd;
        t[3][l] = near + twice;
        t[4][l] = near - twice;
        t[5][l] = 4.0 * d[1][l] - 5.0 * d[3][l] + d[5][l];
    }
    t
}

/// `B v`
#[inline(always)]
pub fn b(v: [Lanes; IN]) -> [Lanes; IN] {
    let mut d = [ZERO; IN];
    for l in 0..LANES {
        let (s, m) = (v[1][l] + v[2][l], v[1][l] - v[2][l]);
        let (p, q) = (v[3][l] + v[4][l], 2.0 * (v[3][l] - v[4][l]));
        d[0][l] = 4.0 * v[0][l];
        d[1][l] = 4.0 * (v[5][l] - m) - q;
        d[2][l] = -5.0 * v[0][l] - 4.0 * s - p;
        d[3][l] = m + q - 5.0 * v[5][l];
        d[4][l] = v[0][l] + s + p;
        d[5][l] = v[5][l];
    }
    d
}

/// `A^T m`
#[inline(always)]
pub fn at(m: [Lanes; IN]) -> [Lanes; OUT] {
    let mut y = [ZERO; OUT];
    for l in 0..LANES {
        let (s, d) = (m[1][l] + m[2][l], m[1][l] - m[2][l]);
        let (p, q) = (m[3][l] + m[4][l], m[3][l] - m[4][l]);
        y[0][l] = m[0][l] + s + p;
        y[1][l] = d + 2.0 * q;
        y[2][l] = s + 4.0 * p;
        y[3][l] = d + 8.0 * q + m[5][l];
    }
    y
}

/// `A g`
#[inline(always)]
pub fn a(g: [Lanes; OUT]) -> [Lanes; IN] {
    let mut t = [ZERO; IN];
    for l in 0..LANES {
        let (even, odd) = (g[0][l] + g[2][l], g[1][l] + g[3][l]);
        let (far, rest) = (g[0][l] + 4.0 * g[2][l], 2.0 * g[1][l] + 8.0 * g[3][l]);
        t[0][l] = g[0][l];
        t[1][l] = even + odd;
        t[2][l] = even - odd;
        t[3][l] = far + rest;
        t[4][l] = far - rest;
        t[5][l] = g[3][l];
    }
    t
}

const SIXTH: f32 = 1.0 / 6.0;

/// `G w`
#[inline(always)]
pub fn g(w: [Lanes; 3]) -> [Lanes; IN] {
    let mut u = [ZERO; IN];
    for l in 0..LANES {
        let (even, odd) = ((w[0][l] + w[2][l]) * SIXTH, w[1][l] * SIXTH);
        let (far, half) = ((0.25 * w[0][l] + w[2][l]) * SIXTH, 0.5 * odd);
        u[0][l] = 0.25 * w[0][l];
        u[1][l] = -even - odd;
        u[2][l] = odd - even;
        u[3][l] = far + half;
        u[4][l] = far - half;
        u[5][l] = w[2][l];
    }
    u
}

/// `G^T u`
#[inline(always)]
pub fn gt(u: [Lanes; IN]) -> [Lanes; 3] {
    let mut w = [ZERO; 3];
    for l in 0..LANES {
        let (s, d) = ((u[1][l] + u[2][l]) * SIXTH, (u[2][l] - u[1][l]) * SIXTH);
        let (p, q) = ((u[3][l] + u[4][l]) * SIXTH, (u[3][l] - u[4][l]) * SIXTH);
        w[0][l] = 0.25 * (u[0][l] + p) - s;
        w[1][l] = d + 0.5 * q;
        w[2][l] = p - s + u[5][l];
    }
    w
}
