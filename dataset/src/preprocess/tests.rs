//! Names, parameters, and pixels that must never change.

use image::Rgb;

use super::*;

fn parsed(text: &str) -> Result<Preprocessing, String> {
    text.parse().map_err(|e: PreprocessingError| e.to_string())
}

#[test]
fn methods_are_written_with_their_parameters() {
    for (text, shown) in [
        ("none", "none"),
        ("crop", "crop"),
        (
            "ben-graham",
            "ben-graham (gain 4, kept 0.9, radius_per_sigma 30)",
        ),
        (
            "ben-graham:kept=0.95,radius_per_sigma=12.5",
            "ben-graham (gain 4, kept 0.95, radius_per_sigma 12.5)",
        ),
        ("clahe", "clahe (clip 2, tiles 8)"),
        ("clahe:clip=3,tiles=4", "clahe (clip 3, tiles 4)"),
    ] {
        assert_eq!(parsed(text).expect(text).to_string(), shown);
    }
    assert_eq!(Preprocessing::default().to_string(), "crop");
    for (text, problem) in [
        (
            "Crop",
            "\"Crop\" is none of none, crop, ben-graham and clahe",
        ),
        ("", "\"\" is none of none, crop, ben-graham and clahe"),
        ("crop:clip=2", "crop has no parameter \"clip\"; it has none"),
        (
            "clahe:gain=2",
            "clahe has no parameter \"gain\"; it has clip, tiles",
        ),
        (
            "clahe:clip",
            "\"clip\" is not of the form name=number, such as clip=3",
        ),
        (
            "clahe:tiles=2.5",
            "tiles of clahe is 2.5; it must be a whole number from 2 to 16",
        ),
        (
            "clahe:clip=NaN",
            "clip of clahe is NaN; it must be a number from 1 to 40",
        ),
        (
            "ben-graham:kept=0",
            "kept of ben-graham is 0; it must be a number from 0.1 to 1",
        ),
    ] {
        assert_eq!(parsed(text).expect_err(text), problem);
    }
}

/// A disc with a gradient, waves and two spots, made of whole numbers only.
pub(super) fn drawing(side: u32) -> RgbImage {
    let middle = i64::from(side);
    RgbImage::from_fn(side, side, |x, y| {
        let (dx, dy) = (2 * i64::from(x) + 1 - middle, 2 * i64::from(y) + 1 - middle);
        if dx * dx + dy * dy > middle * middle {
            return Rgb([0; 3]);
        }
        let wave = (i64::from(x) * 7 + i64::from(y) * 3) % 23 - 11;
        let light = 190 - 110 * (dx * dx + dy * dy) / (middle * middle);
        let spot = i64::from((dx - middle / 4).pow(2) + dy * dy < middle * middle / 100);
        let level = |base: i64| (base + wave + 50 * spot).clamp(0, 255) as u8;
        Rgb([level(light), level(light * 5 / 9), level(light / 4)])
    })
}

/// SHA-256 of the pixels after each method: the same on every machine, and of every later version with the same rules.
#[test]
fn pixels_are_those_of_the_first_version() {
    let disc = Disc {
        x: 0.5,
        y: 0.48,
        radius: 0.53,
    };
    let wanted = [
        ("none", "4658db944cbbd3cc"),
        ("crop", "4658db944cbbd3cc"),
        ("ben-graham", "dfe25aa25875486a"),
        (
            "ben-graham:gain=8,kept=1,radius_per_sigma=12",
            "52e2dbea42b095b8",
        ),
        ("clahe", "6baf472b4b119356"),
        ("clahe:clip=3.5,tiles=5", "822a7af79b4d7112"),
    ];
    let found = wanted.map(|(text, _)| {
        let mut picture = drawing(100);
        parsed(text).expect(text).apply(&mut picture, disc);
        (text, crate::sha256_hex(picture.as_raw()))
    });
    let found = found
        .each_ref()
        .map(|(text, digest)| (*text, &digest[..16]));
    assert_eq!(found, wanted);
}
