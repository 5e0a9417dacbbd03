//! Masks of a drawn fundus whose lesions are known, and invariance under rotation.

use image::GrayImage;
use serde_json::Value;

use super::mask::{area, where_pixels};
use super::texture::Texture;
use super::*;
use crate::photograph::DIAMETER;
use crate::testing::turned;

type Place = (f64, f64);

/// What is drawn, in pixels.
#[derive(Default)]
struct Drawing {
    /// Ends of lines and their width.
    vessels: Vec<(Place, Place, f64)>,
    /// Centres and radii.
    exudates: Vec<(Place, f64)>,
    microaneurysms: Vec<(Place, f64)>,
    haemorrhages: Vec<(Place, f64)>,
    optic_disc: Option<(Place, f64)>,
}

/// How far `p` is from the segment from `a` to `b`.
fn distance(p: Place, a: Place, b: Place) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let square = dx * dx + dy * dy;
    let t = match square > 0.0 {
        true => (((p.0 - a.0) * dx + (p.1 - a.1) * dy) / square).clamp(0.0, 1.0),
        false => 0.0,
    };
    (p.0 - a.0 - t * dx).hypot(p.1 - a.1 - t * dy)
}

impl Drawing {
    /// Of everything the reader of this test can see: a tree of four arcades, lesions between them.
    fn eye() -> Self {
        let disc = (110.0, 250.0);
        let mut eye = Self {
            optic_disc: Some((disc, 38.0)),
            ..Self::default()
        };
        for (to, width) in [
            ((260.0, 90.0), 8.0),
            ((250.0, 420.0), 8.0),
            ((60.0, 110.0), 6.0),
            ((70.0, 400.0), 6.0),
        ] {
            eye.vessels.push((disc, to, width));
        }
        eye.vessels.push(((260.0, 90.0), (440.0, 110.0), 6.0));
        eye.vessels.push(((250.0, 420.0), (420.0, 400.0), 6.0));
        eye.vessels.push(((260.0, 90.0), (330.0, 160.0), 4.0));
        eye.exudates = vec![
            ((330.0, 330.0), 9.0),
            ((365.0, 310.0), 6.0),
            ((300.0, 300.0), 5.0),
            ((400.0, 330.0), 7.0),
        ];
        eye.haemorrhages = vec![
            ((400.0, 200.0), 9.0),
            ((240.0, 200.0), 7.0),
            ((200.0, 310.0), 11.0),
            ((450.0, 260.0), 5.0),
        ];
        for at in 0..12 {
            let (column, row) = (f64::from(at % 4), f64::from(at / 4));
            eye.microaneurysms
                .push(((290.0 + 31.3 * column, 205.0 + 27.7 * row), 2.3));
        }
        eye
    }

    /// How much of the pixel at `p` is covered by discs, from samples of it.
    fn cover(p: Place, holds: impl Fn(Place) -> bool) -> f64 {
        let offsets = [-0.375, -0.125, 0.125, 0.375];
        let inside = offsets
            .iter()
            .flat_map(|dy| offsets.iter().map(move |dx| (*dx, *dy)));
        inside
            .filter(|(dx, dy)| holds((p.0 + dx, p.1 + dy)))
            .count() as f64
            / 16.0
    }

    fn in_discs(discs: &[(Place, f64)], p: Place) -> bool {
        discs
            .iter()
            .any(|(at, radius)| distance(p, *at, *at) <= *radius)
    }

    fn in_vessels(&self, p: Place) -> bool {
        self.vessels
            .iter()
            .any(|(a, b, width)| distance(p, *a, *b) <= width / 2.0)
    }

    fn photograph(&self) -> Photograph {
        let mut photograph = Photograph {
            red: GrayImage::new(DIAMETER, DIAMETER),
            green: GrayImage::new(DIAMETER, DIAMETER),
            blue: GrayImage::new(DIAMETER, DIAMETER),
        };
        let middle = f64::from(DIAMETER) / 2.0;
        for y in 0..DIAMETER {
            for x in 0..DIAMETER {
                let p = (f64::from(x) + 0.5, f64::from(y) + 0.5);
                let from_middle = (p.0 - middle).hypot(p.1 - middle) / middle;
                if from_middle > 0.99 {
                    continue;
                }
                // Light falls off to one side, and the retina is not even.
                let light = 1.0 - 0.25 * p.0 / f64::from(DIAMETER)
                    + 0.04 * (p.0 / 9.0).sin() * (p.1 / 11.0).cos();
                let [mut red, mut green, mut blue] = [170.0, 96.0, 48.0].map(|v| v * light);
                let mut mix = |share: f64, to: [f64; 3]| {
                    for (v, to) in [&mut red, &mut green, &mut blue].into_iter().zip(to) {
                        *v += share * (*v * to - *v);
                    }
                };
                if let Some(disc) = self.optic_disc {
                    mix(
                        Self::cover(p, |p| Self::in_discs(&[disc], p)),
                        [1.35, 1.9, 1.8],
                    );
                }
                mix(Self::cover(p, |p| self.in_vessels(p)), [0.85, 0.7, 0.8]);
                mix(
                    Self::cover(p, |p| Self::in_discs(&self.exudates, p)),
                    [1.2, 1.55, 1.1],
                );
                mix(
                    Self::cover(p, |p| Self::in_discs(&self.haemorrhages, p)),
                    [0.8, 0.6, 0.7],
                );
                mix(
                    Self::cover(p, |p| Self::in_discs(&self.microaneurysms, p)),
                    [0.8, 0.6, 0.7],
                );
                for (channel, v) in [
                    (&mut photograph.red, red),
                    (&mut photograph.green, green),
                    (&mut photograph.blue, blue),
                ] {
                    channel.get_pixel_mut(x, y)[0] = v.round().clamp(0.0, 255.0) as u8;
                }
            }
        }
        photograph
    }

    /// Pixels whose middle is on what `holds` says, and not where features are not looked for.
    fn truth(&self, masks: &Masks, holds: impl Fn(Place) -> bool) -> u64 {
        let looked_for = masks.field.enumerate_pixels().zip(masks.optic_disc.iter());
        looked_for
            .filter(|((x, y, field), disc)| {
                field[0] == SET
                    && **disc != SET
                    && holds((f64::from(*x) + 0.5, f64::from(*y) + 0.5))
            })
            .count() as u64
    }
}

#[track_caller]
fn assert_close(what: &str, found: u64, expected: u64) {
    let ratio = found as f64 / expected as f64;
    assert!(
        (0.95..=1.05).contains(&ratio),
        "{what}: {found} pixels, {expected} were drawn"
    );
}

#[test]
fn areas_of_what_was_drawn_are_found() {
    let eye = Drawing::eye();
    let (features, masks) = measure(&eye.photograph());
    let outside_disc = super::mask::without(&masks.vessels, &masks.optic_disc);
    assert_close(
        "vessels",
        area(&outside_disc),
        eye.truth(&masks, |p| eye.in_vessels(p)),
    );
    for (what, found, discs) in [
        ("exudates", &masks.exudates, &eye.exudates),
        ("haemorrhages", &masks.haemorrhages, &eye.haemorrhages),
        ("microaneurysms", &masks.microaneurysms, &eye.microaneurysms),
    ] {
        assert_close(
            what,
            area(found),
            eye.truth(&masks, |p| Drawing::in_discs(discs, p)),
        );
    }
    assert_eq!(features.microaneurysms, 12.0);
    let field = area(&masks.field) as f64;
    assert_eq!(features.exudate_area, area(&masks.exudates) as f64 / field);
    assert!(
        (field / (std::f64::consts::PI * 246.0 * 246.0) - 1.0).abs() < 0.02,
        "{field}"
    );
    let (centre, _) = eye.optic_disc.unwrap();
    let middle = (centre.0 as u32, centre.1 as u32);
    assert_eq!(masks.optic_disc.get_pixel(middle.0, middle.1)[0], SET);
    // As large as the mask of the disc is, it is around this place and no other.
    let off = masks.optic_disc.enumerate_pixels().filter(|(x, y, pixel)| {
        let away = distance((f64::from(*x), f64::from(*y)), centre, centre);
        pixel[0] == SET && away > 60.0
    });
    assert_eq!(off.count(), 0);
}

#[test]
fn a_retina_without_lesions_has_none() {
    let healthy = Drawing {
        exudates: Vec::new(),
        microaneurysms: Vec::new(),
        haemorrhages: Vec::new(),
        ..Drawing::eye()
    };
    let (features, _) = measure(&healthy.photograph());
    let lesions = [
        features.exudate_area,
        features.microaneurysm_area,
        features.haemorrhage_area,
    ];
    assert_eq!(lesions, [0.0; 3], "{features:?}");
    assert!(features.vessel_area > 0.02);
}

#[test]
fn a_photograph_that_shows_nothing_has_no_areas() {
    let black = Photograph::from_record(&[0; 3 * 64 * 64], 64).unwrap();
    let (features, _) = measure(&black);
    let finite = serde_json::to_value(features).unwrap();
    assert!(
        finite.as_object().unwrap().values().all(|v| v.is_number()),
        "{finite}"
    );
    assert_eq!(features.vessel_area, 0.0);
}

#[test]
fn a_record_of_another_length_is_refused() {
    let error = Photograph::from_record(&[0; 100], 6).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a photograph of 6 x 6 pixels has 108 bytes and not 100"
    );
}

/// The record that a dataset would hold, with noise, of another size.
fn record(size: u32) -> Vec<u8> {
    let photograph = Drawing::eye().photograph();
    let scaled = |channel: &GrayImage| crate::resample::resized(channel, DIAMETER, size);
    let [blue, green, red] = [&photograph.blue, &photograph.green, &photograph.red].map(scaled);
    let noise = |at: usize| ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61) as u8;
    let pixels = blue.iter().zip(&green).zip(&red).enumerate();
    pixels
        .flat_map(|(at, ((b, g), r))| {
            [b, g, r].map(|v| {
                if *v > 30 {
                    v.saturating_add(noise(at))
                } else {
                    *v
                }
            })
        })
        .collect()
}

#[test]
fn turning_a_photograph_changes_no_bit_of_its_features() {
    for (size, turns) in [(DIAMETER, 3), (400, 1)] {
        let mut record = record(size);
        let (expected, masks) = measure(&Photograph::from_record(&record, size).unwrap());
        assert!(
            expected.exudate_area > 0.0
                && expected.haemorrhage_area > 0.0
                && area(&masks.optic_disc) > 0
        );
        let mut vessels = masks.vessels.into_raw();
        for turn in 1..=turns {
            let channels: Vec<Vec<u8>> = (0..3)
                .map(|of| {
                    let channel: Vec<u8> = record.iter().skip(of).step_by(3).copied().collect();
                    turned(&channel, size as usize)
                })
                .collect();
            record = (0..(size * size) as usize)
                .flat_map(|at| [channels[0][at], channels[1][at], channels[2][at]])
                .collect();
            let (found, masks) = measure(&Photograph::from_record(&record, size).unwrap());
            assert_eq!(found, expected, "{size} pixels, turned {turn} times");
            vessels = turned(&vessels, DIAMETER as usize);
            assert_eq!(masks.vessels.into_raw(), vessels);
        }
    }
}

#[test]
fn texture_agrees_with_scikit_image() {
    let all: Value = serde_json::from_str(include_str!("../../tests/reference.json")).unwrap();
    let case = &all["texture"];
    let side = case["side"].as_u64().unwrap() as u32;
    let picture = case["picture"].as_array().unwrap();
    let picture: Vec<u8> = picture.iter().map(|v| v.as_u64().unwrap() as u8).collect();
    let picture = GrayImage::from_raw(side, side, picture).unwrap();
    let found = Texture::of(&picture, &where_pixels(&picture, |_| true));
    for (name, found) in [
        ("contrast", found.contrast),
        ("homogeneity", found.homogeneity),
        ("energy", found.energy),
        ("correlation", found.correlation),
        ("entropy", found.entropy),
    ] {
        let expected = case["figures"][name].as_f64().unwrap();
        assert!(
            (found - expected).abs() < 1e-9,
            "{name}: {found}, expected {expected}"
        );
    }
}

#[test]
fn the_overlay_shows_the_photograph_and_outlines() {
    let photograph = Drawing::eye().photograph();
    let (_, masks) = measure(&photograph);
    let picture = overlay(&photograph, &masks);
    assert_eq!(picture.dimensions(), (2 * DIAMETER, DIAMETER));
    let has = |colour: [u8; 3]| picture.pixels().any(|p| p.0 == colour);
    for colour in [
        [0, 255, 0],
        [255, 255, 0],
        [0, 255, 255],
        [255, 0, 255],
        [255, 255, 255],
    ] {
        assert!(has(colour), "{colour:?}");
    }
}
