//! A picture with text on it.

use std::convert::Infallible;

use embedded_graphics::Drawable;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::FONT_6X10;
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::text::{Baseline, Text};
use image::{Rgb, RgbImage};

/// Width of a letter, in pixels.
pub const LETTER: u32 = 6;
/// From one line to the next, in pixels.
pub const LINE: u32 = 12;

/// A picture that is drawn on.
pub struct Canvas(pub RgbImage);

impl Canvas {
    /// Writes a line whose upper left corner is at a place, in white. What stands beyond the picture is left out.
    pub fn text(&mut self, x: u32, y: u32, text: &str) {
        let style = MonoTextStyle::new(&FONT_6X10, Rgb888::WHITE);
        let at = Point::new(x as i32, y as i32);
        let drawn = Text::with_baseline(text, at, style, Baseline::Top).draw(self);
        drawn.unwrap_or_else(|never| match never {});
    }

    /// Fills a rectangle, which must lie inside.
    pub fn fill(&mut self, left: u32, top: u32, width: u32, height: u32, colour: Rgb<u8>) {
        for y in top..top + height {
            for x in left..left + width {
                self.0.put_pixel(x, y, colour);
            }
        }
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        for Pixel(at, colour) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(at.x), u32::try_from(at.y)) else {
                continue;
            };
            if let Some(pixel) = self.0.get_pixel_mut_checked(x, y) {
                *pixel = Rgb([colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

/// The words of a text in lines of at most so many letters, unless a word is longer.
pub fn wrapped(text: &str, letters: u32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= letters as usize => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_and_cut_at_the_edge() {
        let mut canvas = Canvas(RgbImage::new(40, 12));
        canvas.text(2, 1, "a very long text: \u{e9}\u{4e2d}");
        let white = canvas.0.pixels().filter(|p| p.0 == [255; 3]).count();
        assert!((30..200).contains(&white), "{white} white pixels");
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(
            wrapped("one two three four", 9),
            ["one two", "three", "four"]
        );
        assert_eq!(
            wrapped("incomprehensibilities of", 9),
            ["incomprehensibilities", "of"]
        );
    }
}
