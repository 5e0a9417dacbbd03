//! PNG, TIFF, BMP and WebP, by the image crate.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};

use super::error::DecodeError;
use super::{MAX_DECODED_BYTES, MAX_SIDE};

/// Decodes a picture to 8-bit RGB: transparent parts become black, as the ground of a fundus photograph is, and of more
/// than 8 bits the upper 8 that are used are kept.
pub(super) fn decode(bytes: &[u8]) -> Result<(RgbImage, Orientation), DecodeError> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    // A decoder that panics on a malformed file must not end the whole preparation.
    let decode = move || {
        let mut decoder = reader.into_decoder()?;
        let orientation = decoder.orientation()?;
        limits.reserve(decoder.total_bytes())?;
        decoder.set_limits(limits)?;
        Ok::<_, image::ImageError>((DynamicImage::from_decoder(decoder)?, orientation))
    };
    let decoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode));
    let (picture, orientation) = decoded
        .map_err(|_| DecodeError::Malformed)?
        .map_err(|error| match error {
            image::ImageError::Unsupported(_) => DecodeError::Unsupported(error),
            _ => DecodeError::Image(error),
        })?;
    Ok((to_rgb(picture, None), orientation))
}

/// The same for pixels; `bits` is how many of 16 are used, if that is known.
pub(super) fn to_rgb(picture: DynamicImage, bits: Option<u32>) -> RgbImage {
    match picture {
        DynamicImage::ImageRgb8(picture) => picture,
        DynamicImage::ImageLuma8(_) => picture.into_rgb8(),
        DynamicImage::ImageLumaA8(_) | DynamicImage::ImageRgba8(_) => {
            let picture = picture.into_rgba8();
            RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
                let [red, green, blue, alpha] = picture.get_pixel(x, y).0;
                let on_black = |c: u8| ((u32::from(c) * u32::from(alpha) + 127) / 255) as u8;
                image::Rgb([red, green, blue].map(on_black))
            })
        }
        deep => {
            let picture = deep.into_rgba16();
            let colours = picture.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]]);
            let bits = bits.unwrap_or_else(|| used_bits(colours.max().unwrap_or(0)));
            let shift = bits - 8;
            RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
                let [red, green, blue, alpha] = picture.get_pixel(x, y).0;
                let on_black = |c: u16| {
                    let seen = (u32::from(c) * u32::from(alpha) + 32_767) / 65_535;
                    (seen >> shift).min(255) as u8
                };
                image::Rgb([red, green, blue].map(on_black))
            })
        }
    }
}

/// How many bits a camera used of 16, by the largest value: 8, 10, 12, 14 or 16. A sensor of 12 bits stored in 16 would
/// otherwise be 16 times too dark.
fn used_bits(largest: u16) -> u32 {
    let bits = 16 - largest.leading_zeros();
    bits.next_multiple_of(2).clamp(8, 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, ImageFormat, Luma, Rgb, Rgba};

    fn round_trip(picture: &DynamicImage, format: ImageFormat) -> RgbImage {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("encode");
        decode(bytes.get_ref()).expect("decode").0
    }

    #[test]
    fn what_is_transparent_is_black() {
        let picture = ImageBuffer::from_fn(8, 8, |x, _| {
            Rgba([200u8, 100, 50, if x < 4 { 0 } else { 128 }])
        });
        let decoded = round_trip(&picture.into(), ImageFormat::Png);
        assert_eq!(decoded.get_pixel(0, 0), &Rgb([0, 0, 0]));
        assert_eq!(decoded.get_pixel(7, 0), &Rgb([100, 50, 25]));
    }

    #[test]
    fn of_sixteen_bits_the_used_ones_count() {
        for (largest, expected) in [
            (0, 8),
            (255, 8),
            (256, 10),
            (1023, 10),
            (1024, 12),
            (4095, 12),
            (4096, 14),
            (16_384, 16),
            (65_535, 16),
        ] {
            assert_eq!(used_bits(largest), expected, "{largest}");
        }
        let twelve = ImageBuffer::from_fn(8, 8, |x, y| Rgb([4000u16, 16 * x as u16, y as u16]));
        for format in [ImageFormat::Png, ImageFormat::Tiff] {
            let decoded = round_trip(&DynamicImage::ImageRgb16(twelve.clone()), format);
            assert_eq!(decoded.get_pixel(7, 0), &Rgb([250, 7, 0]), "{format:?}");
        }
        let sixteen = ImageBuffer::from_fn(8, 8, |_, _| Luma([0x8040u16]));
        let decoded = round_trip(&DynamicImage::ImageLuma16(sixteen), ImageFormat::Png);
        assert_eq!(decoded.get_pixel(0, 0), &Rgb([0x80; 3]));
    }

    #[test]
    fn bmp_and_grey_are_read() {
        let grey = ImageBuffer::from_fn(9, 5, |x, y| Luma([(x * 20 + y) as u8]));
        for format in [
            ImageFormat::Bmp,
            ImageFormat::Png,
            ImageFormat::Tiff,
            ImageFormat::WebP,
        ] {
            let decoded = round_trip(&DynamicImage::ImageLuma8(grey.clone()), format);
            assert_eq!(decoded.dimensions(), (9, 5));
            assert_eq!(decoded.get_pixel(8, 4), &Rgb([164; 3]), "{format:?}");
        }
    }
}
