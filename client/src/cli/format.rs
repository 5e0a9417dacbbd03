//! Numbers as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes in decimal units: `41.2 MB`.
pub fn bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = n as f64;
    let mut unit = 0;
    // 999.95 would round to 1000.0, which belongs to the next unit.
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// A span of time as `0:07`, `12:34` or `1:02:03`.
pub fn clock(span: Duration) -> String {
    let s = span.as_secs();
    if s < 3600 {
        format!("{}:{:02}", s / 60, s % 60)
    } else {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    }
}

/// How long ago a moment was, given in milliseconds since the Unix epoch: `3 min ago`.
pub fn ago(then_ms: u64, now_ms: u64) -> String {
    let s = now_ms.saturating_sub(then_ms) / 1000;
    match s {
        0..=59 => format!("{s} s ago"),
        60..=3599 => format!("{} min ago", s / 60),
        3600..=172_799 => format!("{} h ago", s / 3600),
        _ => format!("{} days ago", s / 86_400),
    }
}

/// Now, in milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

/// Images a second: two digits that mean something.
pub fn rate(images_per_s: f64) -> String {
    if images_per_s < 10.0 {
        format!("{images_per_s:.1} images/s")
    } else {
        format!("{images_per_s:.0} images/s")
    }
}

/// A metric between 0 and 1, or a dash where it is not defined.
pub fn share(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |v| format!("{v:.3}"))
}

/// `1 image`, `2 images`.
pub fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (41_234_567, "41.2 MB"),
            (999_960_000, "1.0 GB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        for (s, text) in [(7, "0:07"), (754, "12:34"), (3723, "1:02:03")] {
            assert_eq!(clock(Duration::from_secs(s)), text);
        }
        for (s, text) in [
            (5, "5 s ago"),
            (185, "3 min ago"),
            (90_000, "25 h ago"),
            (200_000, "2 days ago"),
        ] {
            assert_eq!(ago(1000, 1000 + s * 1000), text);
        }
        assert_eq!(ago(5000, 1000), "0 s ago", "a clock that is behind");
    }
}
