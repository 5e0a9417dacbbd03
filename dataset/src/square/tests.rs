//! Squares of reduced pictures against those of whole ones.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{ImageEncoder, Rgb};

use super::*;

/// A disc with a gradient, fine lines and a frame that may cut it.
fn fundus(width: u32, height: u32, x: f64, y: f64, radius: f64) -> RgbImage {
    RgbImage::from_fn(width, height, |px, py| {
        let (dx, dy) = (f64::from(px) + 0.5 - x, f64::from(py) + 0.5 - y);
        let at = dx.hypot(dy) / radius;
        if at > 1.0 {
            return Rgb([2, 2, 2]);
        }
        let light = 1.0 - 0.5 * at * at;
        let line = 20.0 * ((dx * 0.05).sin() * (dy * 0.08).cos()).abs();
        Rgb([170.0 * light, 90.0 * light + line, 40.0 * light].map(|c| c as u8))
    })
}

fn jpeg(picture: &RgbImage, exif: Option<u8>) -> Encoded {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 90);
    if let Some(orientation) = exif {
        encoder
            .set_exif_metadata(exif_with(orientation))
            .expect("Exif");
    }
    encoder.encode_image(picture).expect("encode");
    Encoded::from_bytes(bytes).expect("a JPEG")
}

/// An Exif segment that holds an orientation and nothing else.
fn exif_with(orientation: u8) -> Vec<u8> {
    let mut exif = b"MM\0\x2a\0\0\0\x08\0\x01".to_vec();
    exif.extend([
        0x01,
        0x12,
        0,
        3,
        0,
        0,
        0,
        1,
        0,
        orientation,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    exif
}

fn png(picture: &RgbImage) -> Encoded {
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, image::ImageFormat::Png)
        .expect("encode");
    Encoded::from_bytes(bytes.into_inner()).expect("a PNG")
}

#[test]
fn the_square_of_a_reduced_picture_is_that_of_the_whole_one() {
    for (width, height, x, y, radius, size, reduction) in [
        (2400, 1800, 1200.0, 900.0, 850.0, 64, 2), // the outline needs more than the size does
        (2400, 1800, 1150.0, 930.0, 1000.0, 224, 2),
        (3872, 2592, 1900.0, 1300.0, 1500.0, 224, 4), // cut at top and bottom
        (3872, 2592, 1900.0, 1300.0, 1500.0, 512, 2),
        (3872, 2592, 1900.0, 1300.0, 520.0, 224, 2), // far smaller than its frame
        (3872, 2592, 2900.0, 1700.0, 420.0, 299, 1),
        (900, 800, 450.0, 400.0, 380.0, 224, 1),
    ] {
        let case = format!("{width} x {height}, radius {radius}, size {size}");
        let picture = fundus(width, height, x, y, radius);
        let (reduced, whole) = (jpeg(&picture, None), png(&picture));
        let reduced = Square::of(&reduced, size).expect(&case);
        let whole = Square::of(&whole, size).expect(&case);
        assert_eq!(
            (reduced.reduction, whole.reduction),
            (reduction, 1),
            "{case}"
        );
        // In pixels of what is stored.
        let scale = f64::from(size) / f64::from(whole.crop.side);
        let parts = |square: &Square| {
            let f = f64::from(square.reduction) * scale;
            [
                square.crop.left as f64,
                square.crop.top as f64,
                f64::from(square.crop.side),
            ]
            .map(|v| v * f)
        };
        for (a, b) in parts(&reduced).into_iter().zip(parts(&whole)) {
            assert!(
                (a - b).abs() <= 1.0,
                "{case}: {:?}, {:?}",
                reduced.crop,
                whole.crop
            );
        }
        let off = difference(&reduced.pixels, &whole.pixels);
        assert!(off < 2.5, "{case}: mean difference {off}");
    }
}

/// Mean absolute difference of two pictures, in levels.
fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
    let sum: u64 = a
        .as_raw()
        .iter()
        .zip(b.as_raw())
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    sum as f64 / a.as_raw().len() as f64
}

#[test]
fn the_orientation_of_the_file_is_applied() {
    // A bright corner at the upper left of the disc.
    let mut picture = fundus(400, 300, 200.0, 150.0, 140.0);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        if (120..160).contains(&x) && (80..120).contains(&y) {
            *pixel = Rgb([250, 240, 200]);
        }
    }
    let corners = |square: &Square| {
        let level = |x: u32, y: u32| square.pixels.get_pixel(x, y).0[1];
        let all = [level(18, 20), level(45, 20), level(18, 43), level(45, 43)];
        all.iter().position(|&l| l > 180).expect("a bright corner")
    };
    // 0 upper left, 1 upper right, 2 lower left, 3 lower right.
    for (exif, corner) in [
        (1, 0),
        (2, 1),
        (3, 3),
        (4, 2),
        (5, 0),
        (6, 1),
        (7, 3),
        (8, 2),
    ] {
        let square = Square::of(&jpeg(&picture, Some(exif)), 64).expect("a fundus");
        assert_eq!(corners(&square), corner, "orientation {exif}");
        assert_eq!(square.turned, exif != 1);
    }
    let nothing = Square::of(&jpeg(&picture, Some(77)), 64).expect("a fundus");
    assert!(!nothing.turned);
}
