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

/// A disc is turned as its picture is.
#[test]
fn a_disc_turns_with_its_picture() {
    let mut picture = RgbImage::new(8, 8);
    picture.put_pixel(6, 1, Rgb([255; 3]));
    let disc = Disc {
        x: 6.5 / 8.0,
        y: 1.5 / 8.0,
        radius: 0.3,
    };
    for exif in 1..=8 {
        let orientation = Orientation::from_exif(exif).expect("1 to 8");
        let turned = upright(picture.clone(), orientation);
        let Disc { x, y, radius } = disc.upright(orientation);
        let at = |part: f64| (part * 8.0) as u32;
        assert_eq!(turned.get_pixel(at(x), at(y)).0, [255; 3], "{exif}");
        assert_eq!(radius, 0.3);
    }
}

/// The disc of a photograph whose frame cuts it lies where it is drawn.
#[test]
fn a_disc_is_placed_in_its_square() {
    let file = jpeg(&fundus(900, 600, 430.0, 320.0, 350.0), None);
    let square = Square::of(&file, 128).expect("square");
    let (left, top, side) = (
        square.crop.left as f64,
        square.crop.top as f64,
        f64::from(square.crop.side),
    );
    let factor = f64::from(square.reduction);
    for (found, drawn) in [
        (left + square.disc.x * side, 430.0 / factor),
        (top + square.disc.y * side, 320.0 / factor),
        (square.disc.radius * side, 350.0 / factor),
    ] {
        assert!((found - drawn).abs() < 3.0, "{found} for {drawn}");
    }
}

/// The whole photograph, in a black square; a blank one is an error.
#[test]
fn a_framed_photograph_is_not_cut() {
    let file = jpeg(&fundus(640, 480, 320.0, 240.0, 200.0), None);
    let square = Square::framed(&file, 64).expect("square");
    assert_eq!(square.crop.method, crop::CropMethod::Frame);
    assert_eq!(square.crop.side * square.reduction, 640);
    assert_eq!(
        square.pixels.get_pixel(32, 2).0,
        [0; 3],
        "above the photograph"
    );
    assert!(square.pixels.get_pixel(32, 32).0[0] > 100, "the fundus");
    // No disc is needed, but something to see.
    let bars = RgbImage::from_fn(
        640,
        480,
        |x, _| Rgb([if x % 160 < 20 { 200 } else { 0 }; 3]),
    );
    assert!(Square::of(&jpeg(&bars, None), 64).is_err());
    assert!(Square::framed(&jpeg(&bars, None), 64).is_ok());
    let blank = jpeg(&RgbImage::new(640, 480), None);
    assert!(Square::framed(&blank, 64).is_err());
}
