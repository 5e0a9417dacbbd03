//! Numbers as people read them. Sizes and durations come from indicatif, so that they look the same
//! in tables as in progress bars.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use fovea_predict::pace::rate;
use indicatif::{DecimalBytes, FormattedDuration, HumanDuration};

/// Bytes in decimal units: `41.20 MB`.
pub fn bytes(n: u64) -> String {
    DecimalBytes(n).to_string()
}

/// A duration as `00:12:34`, with days in front where there are any.
pub fn clock(span: Duration) -> String {
    FormattedDuration(span).to_string()
}

/// The age of a moment given in milliseconds since the Unix epoch: `3 minutes ago`.
pub fn ago(then_ms: u64, now_ms: u64) -> String {
    let age = Duration::from_millis(now_ms.saturating_sub(then_ms));
    format!("{} ago", HumanDuration(age))
}

/// The day and minute of a moment given in milliseconds since the Unix epoch: `2026-11-27 10:15 UTC`.
pub fn date(ms: u64) -> String {
    let then = time::OffsetDateTime::from(UNIX_EPOCH + Duration::from_millis(ms));
    let (day, minute) = (then.date(), then.time());
    format!("{day} {:02}:{:02} UTC", minute.hour(), minute.minute())
}

/// Now, in milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

/// A metric between 0 and 1, or a dash where it is not defined.
pub fn share(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |v| format!("{v:.3}"))
}

/// Splits a message that begins with an event name, such as `worker.evicted: w1 made no progress`,
/// into the name and the text. A message without one is all text; so is one that begins with the
/// name of a file, such as `index.csv: line 3: ...`.
pub fn split_event(message: &str) -> (Option<&str>, &str) {
    const FILES: [&str; 6] = ["csv", "json", "toml", "pack", "safetensors", "caffemodel"];
    let is_event = |name: &str| {
        let parts: Vec<&str> = name.split('.').collect();
        let valid = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        };
        parts.len() > 1
            && parts.iter().all(valid)
            && !parts.last().is_some_and(|last| FILES.contains(last))
    };
    match message.split_once(": ") {
        Some((name, text)) if is_event(name) => (Some(name), text),
        _ => (None, message),
    }
}

/// A message without its event name, for the middle of a sentence.
pub fn without_event(message: &str) -> &str {
    split_event(message).1
}

/// Lines as one, for a cell of a table.
pub fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        assert_eq!(date(1_795_774_500_000), "2026-11-27 10:15 UTC");
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (41_234_567, "41.23 MB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        for (s, text) in [(7, "00:00:07"), (754, "00:12:34"), (90_061, "1d 01:01:01")] {
            assert_eq!(clock(Duration::from_secs(s)), text);
        }
        for (s, text) in [
            (5, "5 seconds ago"),
            (185, "3 minutes ago"),
            (90_000, "25 hours ago"),
            (200_000, "2 days ago"),
        ] {
            assert_eq!(ago(1000, 1000 + s * 1000), text);
        }
        assert_eq!(ago(5000, 1000), "0 seconds ago", "a clock that is behind");
    }

    #[test]
    fn event_names_are_recognized() {
        for (message, event, text) in [
            (
                "worker.evicted: w1 stopped",
                Some("worker.evicted"),
                "w1 stopped",
            ),
            ("a.b_c.d: x: y", Some("a.b_c.d"), "x: y"),
            (
                "worker a: the loss is not finite",
                None,
                "worker a: the loss is not finite",
            ),
            ("http://h.x: refused", None, "http://h.x: refused"),
            ("index.csv: line 3", None, "index.csv: line 3"),
            ("plain", None, "plain"),
            ("a..b: x", None, "a..b: x"),
            ("conv1.x: y", None, "conv1.x: y"),
        ] {
            assert_eq!(split_event(message), (event, text));
        }
    }
}
