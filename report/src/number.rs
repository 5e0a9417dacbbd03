//! Numbers as people read them.

use fovea_evaluation::{Estimate, Method};
use time::OffsetDateTime;
use time::macros::format_description;

/// What stands where a figure is not defined.
pub const DASH: &str = "–";

/// How a figure is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Three decimals.
    Plain,
    /// A share of 1, in per cent with one decimal.
    Percent,
}

impl Unit {
    /// The figure, with its unit.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Plain => decimals(value, 3),
            Self::Percent => format!("{}\u{202f}%", decimals(100.0 * value, 1)),
        }
    }

    /// The figure, or a dash.
    pub(crate) fn show_some(self, value: Option<&Estimate>) -> String {
        value.map_or_else(|| DASH.into(), |e| self.show(e.value))
    }

    /// "0.931–0.954", with a mark where the interval is not from the bootstrap.
    pub fn range(self, estimate: &Estimate) -> String {
        let show = |value: f64| match self {
            Self::Plain => decimals(value, 3),
            Self::Percent => decimals(100.0 * value, 1),
        };
        let (low, high) = (show(estimate.low), show(estimate.high));
        // A dash before a minus sign is hard to read.
        let between = if estimate.low < 0.0 { " to " } else { "–" };
        match estimate.method {
            Method::Bootstrap => format!("{low}{between}{high}"),
            Method::Wilson => format!("{low}{between}{high}{WILSON}"),
            Method::None => format!("no interval{NO_INTERVAL}"),
            Method::Same => format!("no interval{SAME}"),
        }
    }

    /// "0.943 (0.931–0.954)", or a dash.
    pub fn with_range(self, estimate: Option<&Estimate>) -> String {
        let both = |e: &Estimate| format!("{} ({})", self.show(e.value), self.range(e));
        estimate.map_or_else(|| DASH.into(), both)
    }
}

/// Marks an interval of Wilson's.
pub(crate) const WILSON: &str = "†";
/// Marks a figure without an interval that was defined in too few draws.
pub(crate) const NO_INTERVAL: &str = "‡";
/// Marks a figure without an interval that was the same in all draws.
pub(crate) const SAME: &str = "§";

/// With a minus sign of the width of a plus sign, and never "-0".
pub fn decimals(value: f64, places: usize) -> String {
    let text = format!("{value:.places$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|b| matches!(b, b'0' | b'.')) => rest.into(),
        Some(rest) => format!("\u{2212}{rest}"),
        None => text,
    }
}

/// A figure that can be of any size, such as a loss: with these decimals, or as `6.68e12` where these would take too much room or
/// say nothing.
pub fn figure(value: f64, places: usize) -> String {
    let size = value.abs();
    let is_lost = size > 0.0 && size < 0.5 * 0.1f64.powi(places as i32);
    match value.is_finite() && (size >= LARGE || is_lost) {
        true => scientific(value, 2),
        false => decimals(value, places),
    }
}

/// From here on numbers are written with an exponent.
const LARGE: f64 = 1e6;

/// `6.68e12`, with a minus sign of the width of a plus sign.
pub(crate) fn scientific(value: f64, places: usize) -> String {
    let text = format!("{value:.places$e}");
    match text.strip_prefix('-') {
        Some(rest) => format!("\u{2212}{rest}"),
        None => text,
    }
}

/// A threshold or a rate: three digits that count, so that small ones do not become 0.
pub fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return decimals(value, 0);
    }
    let places = 2 - value.abs().log10().floor() as i64;
    if places > 7 || value.abs() >= LARGE {
        return scientific(value, 2);
    }
    decimals(value, places.clamp(0, 9) as usize)
}

/// A threshold of a probability: three digits that count of it and of what it lacks to 1, so that 0.99998 does not become 1.
pub fn threshold(value: f64) -> String {
    let rest = 1.0 - value;
    match value > 0.5 && rest > 0.0 {
        true => decimals(
            value,
            (2 - rest.log10().floor() as i64).clamp(3, 9) as usize,
        ),
        false => significant(value),
    }
}

/// 12,345.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// "1 patient", "2 patients".
pub fn counted(number: u64, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{}\u{a0}{noun}{s}", count(number))
}

/// "1,812 photographs of 906 patients".
pub(crate) fn basis(samples: u64, patients: u64) -> String {
    format!(
        "{} of {}",
        counted(samples, "photograph"),
        counted(patients, "patient")
    )
}

/// A part of a whole in per cent, or a dash.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return DASH.into();
    }
    Unit::Percent.show(part as f64 / whole as f64)
}

/// A note as a sentence of its own, which begins in upper case and ends in a full stop.
pub fn sentence(note: &str) -> String {
    let mut letters = note.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

/// "2026-11-27 09:12 UTC".
pub fn date(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).ok();
    let at = seconds.and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    let form = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    at.and_then(|at| at.format(form).ok())
        .unwrap_or_else(|| DASH.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!(Unit::Percent.show(0.9615), "96.2\u{202f}%");
        assert_eq!(Unit::Plain.show(-0.0004), "0.000");
        assert_eq!(Unit::Plain.show(-0.25), "\u{2212}0.250");
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(counted(1, "patient"), "1\u{a0}patient");
        assert_eq!(
            [
                0.0,
                0.212_34,
                0.000_41,
                1.0,
                12.3,
                1e-9,
                6_680_647_041_024.0
            ]
            .map(significant),
            [
                "0", "0.212", "0.000410", "1.00", "12.3", "1.00e-9", "6.68e12"
            ]
        );
        assert_eq!(
            [0.0, 0.731, 12_345.6, 6_680_647_041_024.0, -2e6, 0.000_31].map(|v| figure(v, 3)),
            [
                "0.000",
                "0.731",
                "12345.600",
                "6.68e12",
                "\u{2212}2.00e6",
                "3.10e-4"
            ]
        );
        assert_eq!(figure(f64::NAN, 3), "NaN");
        assert_eq!(sentence("3 eyes"), "3 eyes.");
        assert_eq!(sentence("the eye"), "The eye.");
        assert_eq!(share(0, 0), DASH);
        assert_eq!(date(1_795_770_720_000), "2026-11-27 09:12 UTC");
        assert_eq!(date(u64::MAX), DASH);
    }

    #[test]
    fn a_range_says_where_it_is_from() {
        let estimate = |low, high, method| Estimate {
            value: 0.5,
            low,
            high,
            method,
            undefined: 0,
        };
        let range = |low, high, method| Unit::Plain.range(&estimate(low, high, method));
        assert_eq!(range(0.25, 0.75, Method::Bootstrap), "0.250–0.750");
        assert_eq!(
            range(-0.25, 0.75, Method::Bootstrap),
            "\u{2212}0.250 to 0.750"
        );
        assert_eq!(range(0.25, 0.75, Method::Wilson), "0.250–0.750†");
        assert_eq!(range(0.5, 0.5, Method::None), "no interval‡");
        assert_eq!(range(0.5, 0.5, Method::Same), "no interval§");
        assert_eq!(Unit::Plain.with_range(None), DASH);
    }

    #[test]
    fn thresholds_near_either_end_stay_apart_from_it() {
        let shown = |value, text| assert_eq!(threshold(value), text);
        shown(0.5, "0.500");
        shown(0.1234, "0.123");
        shown(0.87654, "0.877");
        shown(0.99954, "0.999540");
        shown(0.9999834, "0.9999834");
        shown(f64::from(1.0 - f32::EPSILON / 2.0), "0.999999940");
        shown(0.0000123, "0.0000123");
        shown(1.0, "1.00");
        shown(0.0, "0");
        shown(f64::INFINITY, "inf");
    }
}
