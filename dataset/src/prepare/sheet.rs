//! A contact sheet: one picture of what became of the photographs, the worst first, with a legend and a caption below each.

use std::cmp::Reverse;

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::spool::{Record, Spool};
use super::{PrepareError, PrepareOptions};
use crate::canvas::{Canvas, LETTER, LINE, wrapped};
use crate::crop::CropMethod;
use crate::labels::LabelRow;

/// Photographs in a row, and rows.
const ACROSS: u32 = 8;
/// Photographs that the legend is wide.
const LEAST_ACROSS: u32 = 4;
/// Side of one, in pixels, with its frame.
const TILE: u32 = 144;
/// Width of the frame around each.
const FRAME: u32 = 4;
/// Height of the caption below each: two lines.
const CAPTION: u32 = 2 * LINE + 4;
/// Around the legend.
const MARGIN: u32 = 8;
/// The sheet's ground, and the frames: nothing to say, a note on its quality, no circle found.
const GROUND: Rgb<u8> = Rgb([48, 48, 48]);
const NOTHING: Rgb<u8> = Rgb([96, 96, 96]);
const NOTED: Rgb<u8> = Rgb([240, 180, 0]);
const NO_CIRCLE: Rgb<u8> = Rgb([230, 40, 40]);

/// Why a photograph is on the sheet: the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    LeastContrast,
    Noted,
    NoCircle,
}

impl Why {
    const ALL: [Self; 3] = [Self::NoCircle, Self::Noted, Self::LeastContrast];

    fn of(record: &Record) -> Self {
        match record.method {
            CropMethod::BoundingBox => Self::NoCircle,
            _ if !record.quality.flaws().is_empty() => Self::Noted,
            CropMethod::Circle | CropMethod::Frame => Self::LeastContrast,
        }
    }

    fn colour(self) -> Rgb<u8> {
        match self {
            Self::LeastContrast => NOTHING,
            Self::Noted => NOTED,
            Self::NoCircle => NO_CIRCLE,
        }
    }

    fn explained(self) -> &'static str {
        match self {
            Self::LeastContrast => {
                "nothing noted: here because its optic disc has the least contrast of the rest (the number: the \
                 brightest hundredth above the mean, in standard deviations)"
            }
            Self::Noted => {
                "a note on its quality: dark, blurred, no disc, not red; nothing is left out because of it"
            }
            Self::NoCircle => {
                "no circle found: cut out around all that is bright; look whether the whole fundus is there"
            }
        }
    }
}

/// Draws the 64 worst photographs (or all, if there are fewer): those without a circle first, then those with a note on
/// their quality, then those with the least contrast of the optic disc. Returns the rows shown, too, in reading order.
pub(super) fn draw(
    options: &PrepareOptions,
    rows: &[LabelRow],
    spool: &Spool,
) -> Result<(RgbImage, Vec<usize>), PrepareError> {
    let mut all: Vec<(usize, &Record)> = spool.usable().collect();
    let usable = all.len();
    let rank = |record: &Record| {
        (
            Reverse((record.method == CropMethod::BoundingBox) as u8),
            Reverse(record.quality.flaws().len()),
        )
    };
    all.sort_by(|(_, a), (_, b)| {
        let peaks = a.quality.peak.total_cmp(&b.quality.peak);
        rank(a).cmp(&rank(b)).then(peaks)
    });
    all.truncate((ACROSS * ACROSS) as usize);
    let count = all.len() as u32;
    let width = count.clamp(LEAST_ACROSS, ACROSS) * TILE;
    let legend = legend(options, count, usable, (width - 2 * MARGIN) / LETTER);
    let top = legend.len() as u32 * LINE + 2 * MARGIN;
    let down = count.div_ceil(ACROSS);
    let mut sheet = Canvas(RgbImage::from_pixel(
        width,
        top + down * (TILE + CAPTION),
        GROUND,
    ));
    for (line, (why, text)) in (0..).zip(&legend) {
        let y = MARGIN + line * LINE;
        if let Some(why) = why {
            sheet.fill(MARGIN, y, LINE - 3, LINE - 3, why.colour());
        }
        sheet.text(MARGIN, y, text);
    }
    for (place, &(row, record)) in (0..).zip(&all) {
        let why = Why::of(record);
        let (x, y) = (
            place % ACROSS * TILE,
            top + place / ACROSS * (TILE + CAPTION),
        );
        sheet.fill(x, y, TILE, TILE, why.colour());
        let side = TILE - 2 * FRAME;
        let stored = spool.processed(row, &options.preprocess)?;
        let picture = imageops::resize(&stored, side, side, FilterType::Triangle);
        imageops::replace(
            &mut sheet.0,
            &picture,
            (x + FRAME).into(),
            (y + FRAME).into(),
        );
        let most = (TILE / LETTER - 1) as usize;
        for (line, text) in (0..).zip(caption(place + 1, &rows[row], record)) {
            sheet.text(x + FRAME, y + TILE + line * LINE, &shortened(&text, most));
        }
    }
    Ok((sheet.0, all.into_iter().map(|(row, _)| row).collect()))
}

/// What the sheet shows, in lines of at most `letters`; a line that explains a colour begins with room for a sample of it.
fn legend(
    options: &PrepareOptions,
    shown: u32,
    usable: usize,
    letters: u32,
) -> Vec<(Option<Why>, String)> {
    let title = format!(
        "{}: {} of {usable} photographs as they are stored, {} px, preprocessing {}",
        options.name,
        match shown as usize == usable {
            true => format!("all {shown}, worst first,"),
            false => format!("the {shown} worst"),
        },
        options.image_size,
        options.preprocess
    );
    let below = "Below each: its number in the column sheet of quality.csv and its name; its grade, and why it is here.";
    let mut lines: Vec<(Option<Why>, String)> = Vec::new();
    for text in [title.as_str(), below] {
        lines.extend(wrapped(text, letters).into_iter().map(|line| (None, line)));
    }
    for why in Why::ALL {
        let indent = 3;
        let parts = wrapped(why.explained(), letters - indent as u32);
        lines.extend(parts.into_iter().enumerate().map(|(i, part)| {
            let sample = (i == 0).then_some(why);
            (sample, format!("{}{part}", " ".repeat(indent)))
        }));
    }
    lines
}

fn caption(number: u32, row: &LabelRow, record: &Record) -> [String; 2] {
    let flaws: Vec<String> = record
        .quality
        .flaws()
        .iter()
        .map(ToString::to_string)
        .collect();
    let why = match Why::of(record) {
        Why::NoCircle if flaws.is_empty() => "no circle".to_owned(),
        Why::NoCircle => format!("no circle, {}", flaws.join(", ")),
        Why::Noted => flaws.join(", "),
        Why::LeastContrast => format!("contrast {:.2}", record.quality.peak),
    };
    [
        format!("{number} {}", row.image),
        format!("grade {}: {why}", row.grade),
    ]
}

/// The text, or its start and two dots.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 2).chain("..".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_core::ids::DatasetName;

    #[test]
    fn the_legend_says_what_is_shown_and_fits() {
        let mut options = PrepareOptions::new(
            "l.csv".into(),
            "images".into(),
            "out".into(),
            DatasetName::new("eyepacs").expect("name"),
        );
        options.preprocess = "clahe".parse().expect("name");
        for letters in [94, 190] {
            let lines = legend(&options, 64, 35_126, letters);
            assert!(lines.iter().all(|(_, text)| text.len() <= letters as usize));
            let text: Vec<&str> = lines.iter().map(|(_, text)| text.trim()).collect();
            let text = text.join(" ");
            for part in [
                "eyepacs: the 64 worst of 35126 photographs as they are stored, 224 px, preprocessing clahe (clip 2, tiles 8)",
                "number in the column sheet of quality.csv",
                "no circle found",
                "a note on its quality",
                "nothing noted",
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
            let samples: Vec<Why> = lines.iter().filter_map(|(why, _)| *why).collect();
            assert_eq!(samples, Why::ALL);
        }
        let all = legend(&options, 12, 12, 190);
        assert!(
            all[0].1.contains("all 12, worst first, of 12"),
            "{}",
            all[0].1
        );
    }

    #[test]
    fn long_names_are_shortened() {
        assert_eq!(shortened("10_left", 8), "10_left");
        assert_eq!(shortened("10_left_eye", 8), "10_lef..");
    }
}
