//! Which eye, and what names of images and patients may hold.

/// Which eye of the patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Eye {
    /// Left eye (OS).
    Left,
    /// Right eye (OD).
    Right,
    /// Unknown: the name does not contain it.
    Unknown,
}

impl Eye {
    /// The name used in `index.csv`: `left`, `right`, or nothing.
    pub fn as_str(self) -> &'static str {
        match self {
            Eye::Left => "left",
            Eye::Right => "right",
            Eye::Unknown => "",
        }
    }

    /// Parses that name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "left" => Some(Eye::Left),
            "right" => Some(Eye::Right),
            "" => Some(Eye::Unknown),
            _ => None,
        }
    }
}

/// The longest image or patient name that is accepted, in bytes.
pub(crate) const MAX_NAME: usize = 200;

/// Why `name` cannot name an image or a patient; `None` if it can. Names become file names and CSV
/// cells, so they must not contain path separators or line breaks.
pub(crate) fn name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("the name is empty")
    } else if name.len() > MAX_NAME {
        Some("the name is longer than 200 bytes")
    } else if name.chars().any(|c| c.is_control()) {
        Some("the name holds a control character")
    } else if name.contains(['/', '\\']) || name == "." || name == ".." {
        Some("the name holds a folder; give plain names of files in the images folder")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for bad in ["", "..", "a/b", "a\\b", "a\nb", &"x".repeat(201)] {
            assert!(name_problem(bad).is_some(), "{bad:?}");
        }
        for good in ["a", "10_left", "Bild 1 é", "a.b"] {
            assert!(name_problem(good).is_none(), "{good:?}");
        }
    }
}
