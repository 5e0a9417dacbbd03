//! Whole, damaged and unusual files.

use image::codecs::jpeg::JpegEncoder;

use super::*;

/// A picture with detail everywhere, so that every part of the file matters.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let noise = (x * 7919 + y * 104_729) % 251 % 37;
        image::Rgb([
            (x * 3 % 200 + noise) as u8,
            (y * 5 % 180 + noise) as u8,
            (x * y % 220) as u8,
        ])
    })
}

fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90)
        .encode_image(picture)
        .expect("encode");
    bytes
}

fn decoded(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    let file = Encoded::from_bytes(bytes.to_vec())?;
    Ok(file.decode(1)?.pixels)
}

/// Where the data of the first scan begin.
fn data(bytes: &[u8]) -> usize {
    segments::headers(bytes).last().expect("a scan").end
}

#[test]
fn a_truncated_jpeg_is_refused_wherever_it_is_cut() {
    let whole = jpeg(&picture(64, 48));
    assert_eq!(decoded(&whole).expect("whole").dimensions(), (64, 48));
    for keep in 1..whole.len() {
        assert!(decoded(&whole[..keep]).is_err(), "{keep} bytes passed");
    }
    let cut = decoded(&whole[..whole.len() * 3 / 4]);
    assert!(matches!(cut, Err(DecodeError::Truncated)));
}

#[test]
fn a_cut_jpeg_with_an_end_marker_put_behind_is_refused() {
    let whole = jpeg(&picture(256, 256));
    for percent in [20, 40, 60, 80, 95, 99] {
        let mut cut = whole[..whole.len() * percent / 100].to_vec();
        while cut.last() == Some(&0xff) {
            cut.pop();
        }
        cut.extend([0xff, 0xd9]);
        let error = decoded(&cut).expect_err("cut").to_string();
        assert!(
            error.contains("damaged") || percent == 20,
            "{percent} %: {error}"
        );
    }
}

#[test]
fn overwritten_bytes_are_noticed() {
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(13);
    let whole = jpeg(&picture(512, 512));
    let data = data(&whole);
    for (length, most_missed) in [(512, 1), (2000, 0)] {
        let mut missed = 0;
        for _ in 0..100 {
            let room = (whole.len() - 2 - length - data) as u64;
            let at = data + (random.next_u64() % room) as usize;
            let mut damaged = whole.clone();
            for byte in &mut damaged[at..at + length] {
                *byte = (random.next_u32() % 255) as u8;
            }
            missed += usize::from(decoded(&damaged).is_ok());
        }
        assert!(
            missed <= most_missed,
            "{missed} of 100 with {length} bytes passed"
        );
    }
}

#[test]
fn a_tail_of_zeros_is_truncation_but_padding_is_not() {
    let whole = jpeg(&picture(64, 48));
    let mut holed = whole.clone();
    let half = holed.len() / 2;
    holed[half..].fill(0);
    assert!(matches!(decoded(&holed), Err(DecodeError::Truncated)));
    let mut padded = whole;
    padded.extend([0; 100]);
    assert!(decoded(&padded).is_ok());
}

/// A thumbnail inside EXIF data is a whole JPEG: its end must not be taken for the picture's.
#[test]
fn the_end_of_a_thumbnail_is_not_the_end_of_the_picture() {
    let whole = jpeg(&picture(64, 48));
    let thumbnail = jpeg(&picture(32, 24));
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xe1];
    bytes.extend(
        u16::try_from(thumbnail.len() + 2)
            .expect("small")
            .to_be_bytes(),
    );
    bytes.extend(&thumbnail);
    bytes.extend(&whole[2..]);
    assert!(decoded(&bytes).is_ok());
    let cut = &bytes[..bytes.len() - 40];
    assert!(matches!(decoded(cut), Err(DecodeError::Truncated)));
}

#[test]
fn odd_headers_are_no_damage() {
    let whole = jpeg(&picture(64, 48));
    let expected = decoded(&whole).expect("whole");
    // Another revision of JFIF.
    let mut jfif = whole.clone();
    let at = jfif.windows(5).position(|w| w == b"JFIF\0").expect("JFIF");
    jfif[at + 5] = 7;
    assert_eq!(decoded(&jfif).expect("JFIF 7"), expected);
    // A spectral selection in a sequential scan, which must be ignored.
    let mut selection = whole.clone();
    let behind = data(&selection);
    selection[behind - 3..behind].copy_from_slice(&[0, 0, 0]);
    assert_eq!(decoded(&selection).expect("selection"), expected);
    // The second of two parts of a colour profile, without the first.
    let mut profile = whole[..2].to_vec();
    profile.extend([0xff, 0xe2, 0, 20]);
    profile.extend(b"ICC_PROFILE\0\x02\x02abcd");
    profile.extend(&whole[2..]);
    assert_eq!(decoded(&profile).expect("profile"), expected);
}

#[test]
fn reductions_keep_the_picture() {
    let whole = picture(250, 130);
    let file = Encoded::from_bytes(jpeg(&whole)).expect("read");
    for reduction in [1, 2, 4, 8] {
        let small = file.decode(reduction).expect("decode");
        let sides = (250u32.div_ceil(reduction), 130u32.div_ceil(reduction));
        assert_eq!(
            (small.pixels.dimensions(), small.reduction),
            (sides, reduction)
        );
        let mean = |p: &RgbImage| {
            p.as_raw().iter().map(|&b| f64::from(b)).sum::<f64>() / p.as_raw().len() as f64
        };
        let off = (mean(&small.pixels) - mean(&whole)).abs();
        assert!(off < 2.0, "1/{reduction}: the mean is off by {off}");
    }
    assert_eq!(file.reduction(130), 1);
    assert_eq!(file.reduction(65), 2);
    assert_eq!(file.reduction(33), 2);
    assert_eq!(file.reduction(16), 8);
}

#[test]
fn garbage_is_an_error() {
    assert!(matches!(decoded(b""), Err(DecodeError::Empty)));
    assert!(decoded(b"image,level\n").is_err());
    assert!(decoded(&[0xff, 0xd8, 0xff]).is_err());
}

/// The pixels of a JPEG must not depend on the processor. libjpeg-turbo goes without SIMD where JSIMD_FORCENONE is
/// set, which it reads once: hence another process.
#[test]
fn the_same_file_gives_the_same_pixels_with_and_without_simd() {
    const MARK: &str = "pixels ";
    let file = Encoded::from_bytes(jpeg(&picture(403, 299))).expect("read");
    let digests: Vec<String> = [1, 2, 4, 8]
        .map(|reduction| crate::sha256_hex(file.decode(reduction).expect("decode").pixels.as_raw()))
        .into();
    println!("{MARK}{}", digests.join(" "));
    if std::env::var_os("JSIMD_FORCENONE").is_some() {
        return;
    }
    let name = std::thread::current().name().expect("named").to_owned();
    let plain = std::process::Command::new(std::env::current_exe().expect("test"))
        .args([&name, "--exact", "--nocapture"])
        .env("JSIMD_FORCENONE", "1")
        .output()
        .expect("run");
    let text = String::from_utf8_lossy(&plain.stdout);
    let line = text.split(MARK).nth(1).expect("digests").lines().next();
    assert_eq!(line, Some(digests.join(" ").as_str()), "{text}");
}
