//! Sizes, spans and moments as people read them.

use fovea_report::number::{DASH, date, decimals, figure};
use maud::{Markup, html};

/// Bytes in decimal units with three digits that count: `41.2 MB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let places = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{}\u{a0}{}", decimals(value, places), UNITS[unit])
}

/// A span as its two largest units: `2 h 05 min`.
pub(crate) fn span(ms: u64) -> String {
    let s = ms / 1000;
    let (days, hours, minutes, seconds) = (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}\u{a0}s"),
        (0, 0, _) => format!("{minutes}\u{a0}min {seconds:02}\u{a0}s"),
        (0, _, _) => format!("{hours}\u{a0}h {minutes:02}\u{a0}min"),
        _ => format!("{days}\u{a0}d {hours:02}\u{a0}h"),
    }
}

/// How long ago, with one unit, so that it changes rarely: `3 min ago`.
fn age(ms: u64) -> String {
    match ms / 1000 {
        0..=9 => "just now".into(),
        s @ 10..=59 => format!("{}\u{a0}s ago", s / 10 * 10),
        s @ 60..=3599 => format!("{}\u{a0}min ago", s / 60),
        s @ 3600..=86_399 => format!("{}\u{a0}h ago", s / 3600),
        s => format!("{}\u{a0}d ago", s / 86_400),
    }
}

/// A moment as its age, with the date for those who ask.
pub(crate) fn ago(at_ms: u64, now_ms: u64) -> Markup {
    html! { time datetime=(machine(at_ms)) title=(date(at_ms)) { (age(now_ms.saturating_sub(at_ms))) } }
}

/// A moment as its date.
pub(crate) fn moment(at_ms: u64) -> Markup {
    html! { time datetime=(machine(at_ms)) { (date(at_ms)) } }
}

/// `2026-11-27T09:12Z`.
fn machine(at_ms: u64) -> String {
    let text = date(at_ms);
    match text.strip_suffix(" UTC") {
        Some(text) => format!("{}Z", text.replace(' ', "T")),
        None => text,
    }
}

/// A figure with these decimals, or a dash. What is too large or too small for that has an exponent.
pub(crate) fn some(value: Option<f64>, places: usize) -> String {
    value.map_or_else(|| DASH.into(), |value| figure(value, places))
}

/// Images in a second.
pub(crate) fn rate(images_per_s: f64) -> String {
    let places = if images_per_s < 100.0 { 1 } else { 0 };
    match places {
        0 => fovea_report::number::count(images_per_s.round() as u64),
        _ => decimals(images_per_s, places),
    }
}

/// Milliseconds, or seconds where there are many.
pub(crate) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms >= 9_950.0 => format!("{}\u{a0}s", decimals(ms / 1000.0, 1)),
        ms if ms >= 99.5 => format!("{}\u{a0}ms", decimals(ms, 0)),
        ms => format!("{}\u{a0}ms", decimals(ms, 1)),
    }
}

/// The first characters of a digest.
pub(crate) fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_of_any_size_fits_its_place() {
        assert_eq!(some(Some(6_680_647_041_024.0), 3), "6.68e12");
        assert_eq!(some(Some(0.731), 3), "0.731");
        assert_eq!(some(None, 3), DASH);
    }

    #[test]
    fn sizes_spans_and_ages() {
        let plain = |text: String| text.replace('\u{a0}', " ");
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (41_234_567, "41.2 MB"),
            (999_600_000, "1.00 GB"),
            (123_000_000_000, "123 GB"),
        ] {
            assert_eq!(plain(bytes(n)), text);
        }
        for (s, text) in [
            (7, "7 s"),
            (65, "1 min 05 s"),
            (7_500, "2 h 05 min"),
            (90_000, "1 d 01 h"),
        ] {
            assert_eq!(plain(span(s * 1000)), text);
        }
        for (s, text) in [
            (3, "just now"),
            (34, "30 s ago"),
            (185, "3 min ago"),
            (90_000, "1 d ago"),
        ] {
            assert_eq!(plain(age(s * 1000)), text);
        }
        assert_eq!(machine(1_795_770_720_000), "2026-11-27T09:12Z");
        assert_eq!(plain(milliseconds(929.4)), "929 ms");
        assert_eq!(plain(milliseconds(12_340.0)), "12.3 s");
        assert_eq!(rate(12.34), "12.3");
        assert_eq!(rate(27_857.4), "27,857");
    }
}
