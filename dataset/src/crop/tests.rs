//! Crops of drawn discs whose place is known.

use super::*;
use image::Rgb;

/// A disc with a darker rim and a bright spot on a nearly black ground.
fn disc(width: u32, height: u32, x: f64, y: f64, radius: f64) -> RgbImage {
    RgbImage::from_fn(width, height, |px, py| {
        let (dx, dy) = (f64::from(px) + 0.5 - x, f64::from(py) + 0.5 - y);
        let at = (dx * dx + dy * dy).sqrt() / radius;
        if at > 1.0 {
            return Rgb([1, 1, 1]);
        }
        let light = 1.0 - 0.6 * at * at;
        let spot = if (at - 0.5).abs() < 0.1 && dx > 0.0 {
            60.0
        } else {
            0.0
        };
        Rgb([
            (150.0 * light + spot) as u8,
            (80.0 * light + spot) as u8,
            (30.0 * light) as u8,
        ])
    })
}

fn assert_near(crop: Crop, x: f64, y: f64, radius: f64) {
    let tolerance = 0.01 * radius + 1.0;
    let half = f64::from(crop.side) / 2.0;
    let center = (crop.left as f64 + half, crop.top as f64 + half);
    assert!(
        (half - radius).abs() <= tolerance,
        "{crop:?}, radius {radius}"
    );
    assert!((center.0 - x).abs() <= tolerance, "{crop:?}, x {x}");
    assert!((center.1 - y).abs() <= tolerance, "{crop:?}, y {y}");
    assert_eq!(crop.method, CropMethod::Circle);
}

#[test]
fn the_circle_is_found_whole_and_cut_by_the_frame() {
    for (width, height, x, y, radius) in [
        (600, 400, 300.0, 200.0, 150.0), // whole
        (765, 512, 345.0, 260.0, 299.0), // cut at top and bottom
        (400, 400, 200.0, 200.0, 200.0), // touches all sides
        (500, 400, 200.0, 200.0, 230.0), // cut on three sides
        (600, 400, 300.0, 200.0, 290.0), // more of the outline is frame than circle
        (3000, 2000, 1400.0, 1000.0, 1150.0),
        (64, 64, 32.0, 32.0, 30.0),
    ] {
        let crop = find(&disc(width, height, x, y, radius)).expect("a fundus");
        assert_near(crop, x, y, radius);
    }
}

#[test]
fn a_square_is_narrowed_to_what_the_frame_shows() {
    let square = |left, top, side| Crop {
        left,
        top,
        side,
        method: CropMethod::Circle,
    };
    for (given, wanted) in [
        (square(150, 50, 300), square(150, 50, 300)), // wholly inside
        (square(46, -39, 598), square(89, 0, 512)),   // cut at top and bottom
        (square(-20, 10, 400), square(0, 20, 380)),   // cut at the left
    ] {
        assert_eq!(given.within(765, 512), wanted);
    }
    // No bars: the corners of the middle row's ends and of the middle column's are retina.
    let (picture, _) = crop_and_resize(&disc(765, 512, 345.0, 260.0, 299.0), 64).expect("a fundus");
    for (x, y) in [(0, 32), (63, 32), (32, 0), (32, 63)] {
        assert!(picture.get_pixel(x, y).0[0] > 40, "black at {x}, {y}");
    }
}

#[test]
fn notches_text_and_a_grey_ground_do_not_move_it() {
    let mut picture = disc(600, 500, 300.0, 250.0, 220.0);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        if pixel.0 == [1, 1, 1] {
            // Uneven noise as of a dark sensor.
            *pixel = Rgb([((x * 7 + y * 13) % 9) as u8 + 8; 3]);
        }
        if (505..540).contains(&x) && (150..200).contains(&y) {
            *pixel = Rgb([100, 60, 30]); // a notch that grows out of the disc
        }
        if (10..100).contains(&x) && (470..490).contains(&y) && x % 4 < 2 {
            *pixel = Rgb([255, 255, 255]); // text
        }
    }
    assert_near(find(&picture).expect("a fundus"), 300.0, 250.0, 220.0);
}

#[test]
fn a_picture_cropped_before_is_kept_whole() {
    // Nothing but retina: no outline inside the frame.
    let picture = disc(300, 260, 150.0, 130.0, 400.0);
    let crop = find(&picture).expect("kept");
    let whole = Crop {
        left: 0,
        top: -20,
        side: 300,
        method: CropMethod::BoundingBox,
    };
    assert_eq!(crop, whole);
}

#[test]
fn a_frame_that_is_no_circle_is_bounded_by_a_box() {
    // Retina seen through a rectangular mask.
    let inside = |x, y| (60..260).contains(&x) && (40..200).contains(&y);
    let picture = disc(320, 240, 160.0, 120.0, 400.0);
    let picture = RgbImage::from_fn(320, 240, |x, y| {
        if inside(x, y) {
            *picture.get_pixel(x, y)
        } else {
            Rgb([2, 2, 2])
        }
    });
    let crop = find(&picture).expect("kept");
    assert_eq!(crop.method, CropMethod::BoundingBox);
    assert_eq!((crop.left, crop.top, crop.side), (60, 20, 200));
}

#[test]
fn blank_dark_and_empty_pictures_are_refused_with_the_reason() {
    let plain = |level: u8| RgbImage::from_pixel(200, 150, Rgb([level; 3]));
    assert_eq!(find(&plain(0)), Err(CropError::TooDark { level: 0 }));
    assert_eq!(find(&plain(12)), Err(CropError::TooDark { level: 12 }));
    for level in [90, 255] {
        let (low, high) = (level, level);
        assert_eq!(
            find(&plain(level)),
            Err(CropError::NoContrast { low, high })
        );
    }
    let tiny = RgbImage::new(31, 200);
    assert!(matches!(
        find(&tiny),
        Err(CropError::TooSmall { width: 31, .. })
    ));
    // A bright speck, and a bright cross: neither is a fundus.
    let speck = disc(600, 400, 300.0, 200.0, 40.0);
    assert!(matches!(find(&speck), Err(CropError::NoFundus { .. })));
    let cross = RgbImage::from_fn(300, 300, |x, y| {
        let on = (135..165).contains(&x) || (135..165).contains(&y);
        Rgb(if on { [200, 100, 50] } else { [0; 3] })
    });
    assert!(matches!(find(&cross), Err(CropError::NoFundus { .. })));
}

#[test]
fn the_square_is_padded_with_black_and_keeps_its_place() {
    let photograph = RgbImage::from_fn(40, 30, |x, y| Rgb([x as u8 + 100, y as u8 + 100, 7]));
    let crop = Crop {
        left: -5,
        top: 10,
        side: 50,
        method: CropMethod::Circle,
    };
    let square = cut(&photograph, &crop);
    assert_eq!(square.get_pixel(4, 0), &Rgb([0, 0, 0]));
    assert_eq!(square.get_pixel(5, 0), &Rgb([100, 110, 7]));
    assert_eq!(square.get_pixel(44, 19), &Rgb([139, 129, 7]));
    assert_eq!(square.get_pixel(45, 19), &Rgb([0, 0, 0]));
    assert_eq!(square.get_pixel(20, 20), &Rgb([0, 0, 0]));
    // Same size: the filter has nothing to do.
    assert_eq!(extract(&photograph, &crop, 50), square);
}

#[test]
fn shrinking_averages_and_does_not_skip() {
    // One bright line in four: a nearest-neighbour reduction by four would lose it or keep only it.
    let stripes = RgbImage::from_fn(400, 400, |x, _| Rgb([if x % 4 == 0 { 200 } else { 0 }; 3]));
    let crop = Crop {
        left: 0,
        top: 0,
        side: 400,
        method: CropMethod::Circle,
    };
    let small = extract(&stripes, &crop, 100);
    for x in 2..98 {
        let level = small.get_pixel(x, 50).0[0];
        assert!((45..=55).contains(&level), "column {x} has level {level}");
    }
}
