//! Names of event files. TensorBoard reads the files of a folder in the order of their names, and never goes back to an earlier
//! one.

/// `events.out.tfevents.SECONDS.LINEAGE.NUMBER.fovea`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName {
    /// When it was begun, seconds since the Unix epoch; never before the file before it.
    pub seconds: u64,
    /// The run's lineage, which grows with each rewind.
    pub lineage: u64,
    /// Tells files of the same second apart.
    pub number: u32,
}

const HEAD: &str = "events.out.tfevents.";
const TAIL: &str = ".fovea";

impl FileName {
    /// Of the file that follows on `last`, the last one of the folder, begun at `seconds`.
    pub fn after(last: Option<Self>, seconds: u64, lineage: u64) -> Self {
        let Some(last) = last else {
            return Self {
                seconds,
                lineage,
                number: 0,
            };
        };
        let first = Self {
            // A clock may have been set back.
            seconds: seconds.max(last.seconds),
            lineage,
            number: 0,
        };
        match first > last {
            true => first,
            false if lineage == last.lineage => Self {
                number: last.number + 1,
                ..first
            },
            // Of an older journal that was restored.
            false => Self {
                seconds: last.seconds + 1,
                ..first
            },
        }
    }

    /// What a file name says; None if it is not of this form.
    pub fn parse(name: &str) -> Option<Self> {
        let middle = name.strip_prefix(HEAD)?.strip_suffix(TAIL)?;
        let mut parts = middle.split('.');
        let name = Self {
            seconds: parts.next()?.parse().ok()?,
            lineage: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(name)
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            seconds,
            lineage,
            number,
        } = self;
        write!(f, "{HEAD}{seconds:010}.{lineage:020}.{number:04}{TAIL}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_grow_as_files_follow_each_other() {
        let mut last = None;
        let mut names = Vec::new();
        for (seconds, lineage) in [
            (1_700_000_000, 5),
            (1_700_000_000, 5),
            (1_699_999_999, 6),
            (1_700_000_000, 6),
            (1_700_000_001, 6),
            (1_700_000_001, 2),
        ] {
            let next = FileName::after(last, seconds, lineage);
            assert_eq!(FileName::parse(&next.to_string()), Some(next));
            names.push(next.to_string());
            last = Some(next);
        }
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        assert!(names[0].contains("tfevents"));
        for other in [
            "events.out.tfevents.17.host",
            "x",
            "events.out.tfevents.1.2.3.4.fovea",
        ] {
            assert_eq!(FileName::parse(other), None);
        }
    }
}
