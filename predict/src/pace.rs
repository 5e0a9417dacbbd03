//! How far long work is, in lines now and then, where no bar can be drawn.

use std::time::{Duration, Instant};

use indicatif::FormattedDuration;

/// Time between two lines.
pub const INTERVAL: Duration = Duration::from_secs(30);
/// Over which time before a line the speed is taken: what was slow an hour ago says nothing about the rest.
const WINDOW: usize = 4;

/// Decides when to say what.
#[derive(Debug)]
pub struct Pace {
    /// What is done with photographs: `read`.
    done: &'static str,
    /// When counting began, and what was done at each line since (the last few).
    marks: Vec<(Instant, u64)>,
}

impl Pace {
    /// Begins to count photographs at `now` with which `done` is done: `read`, say.
    pub fn new(now: Instant, done: &'static str) -> Self {
        Self {
            done,
            marks: vec![(now, 0)],
        }
    }

    /// The line that is due at `now`, if one is, with `done` of `total` items finished.
    pub fn line(&mut self, now: Instant, done: u64, total: u64) -> Option<String> {
        let &(last, _) = self.marks.last()?;
        if now.saturating_duration_since(last) < INTERVAL {
            return None;
        }
        let &(begin, before) = self.marks.first()?;
        let seconds = now.saturating_duration_since(begin).as_secs_f64();
        let speed = done.saturating_sub(before) as f64 / seconds;
        self.marks.push((now, done));
        if self.marks.len() > WINDOW {
            self.marks.remove(0);
        }
        let percent = 100.0 * done as f64 / total.max(1) as f64;
        let left = total.saturating_sub(done) as f64 / speed;
        let rest = if left.is_finite() {
            format!(
                "{} left",
                FormattedDuration(Duration::from_secs(left.min(1e9) as u64))
            )
        } else {
            "none since the last lines".to_owned()
        };
        Some(format!(
            "{done} of {total} photographs {} ({percent:.0} %), {}, {rest}",
            self.done,
            rate(speed)
        ))
    }
}

/// Images per second, with one decimal below 10.
pub fn rate(images_per_s: f64) -> String {
    if images_per_s < 10.0 {
        format!("{images_per_s:.1} images/s")
    } else {
        format!("{images_per_s:.0} images/s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_every_half_minute_says_how_long_it_takes() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut pace = Pace::new(begin, "read");
        assert_eq!(pace.line(at(29), 300, 2100), None);
        let line = pace.line(at(30), 300, 2100).expect("due");
        let expected = format!(
            "300 of 2100 photographs read (14 %), {}, 00:03:00 left",
            rate(10.0)
        );
        assert_eq!(line, expected);
        assert_eq!(pace.line(at(31), 310, 2100), None, "one was said just now");
        // Speed is that of the last minutes.
        for half_minute in 2..10 {
            pace.line(at(30 * half_minute), 300, 2100).expect("due");
        }
        let line = pace.line(at(300), 300, 2100).expect("due");
        assert!(line.ends_with("none since the last lines"), "{line}");
    }
}
