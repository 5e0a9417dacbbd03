//! Grades as tables write them.

/// What a table's grades mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scale {
    /// The international scale: 0 (none) to 4 (proliferative).
    #[default]
    Icdr,
    /// Messidor's: R0 to R3, by numbers of lesions. R2 and R3 are referable.
    Messidor,
}

impl Scale {
    /// The highest grade.
    fn most(self) -> u8 {
        match self {
            Scale::Icdr => 4,
            Scale::Messidor => 3,
        }
    }
}

/// Why a text is no grade.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum GradeError {
    /// No text.
    #[error("the grade is empty")]
    Empty,
    /// A number that is no grade.
    #[error("grade {grade} is outside 0 to {most}")]
    Outside { grade: i64, most: u8 },
    /// `R0` to `R3` where the scale was not said.
    #[error("grade {0:?} is of Messidor's scale; give --from messidor if all grades are")]
    Messidor(String),
    /// A text that is no number, shortened.
    #[error("grade {text:?} is not a whole number from 0 to {most}")]
    Text { text: String, most: u8 },
}

/// A whole number, also with decimals that are zero (`2.`, `2.00`, `2,0`), as spreadsheets and tables
/// with empty cells write it.
pub(super) fn parse(cell: &str, scale: Scale) -> Result<u8, GradeError> {
    let text = cell.trim();
    if text.is_empty() {
        return Err(GradeError::Empty);
    }
    let shown = || text.chars().take(40).collect::<String>();
    let most = scale.most();
    let digits = match (text.strip_prefix(['R', 'r']), scale) {
        (Some(digits), Scale::Messidor) => digits,
        (Some("0" | "1" | "2" | "3"), Scale::Icdr) => return Err(GradeError::Messidor(shown())),
        _ => text,
    };
    let whole = match digits.split_once(['.', ',']) {
        Some((whole, decimals)) if decimals.bytes().all(|b| b == b'0') => whole,
        _ => digits,
    };
    match whole.parse::<i64>() {
        Ok(grade) => u8::try_from(grade)
            .ok()
            .filter(|grade| *grade <= most)
            .ok_or(GradeError::Outside { grade, most }),
        Err(_) => Err(GradeError::Text {
            text: shown(),
            most,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        for text in ["2", " 2 ", "2.", "2.0", "2.00", "2,0", "02", "+2"] {
            assert_eq!(parse(text, Scale::Icdr), Ok(2), "{text}");
        }
        for text in ["R2", "r2", "2", "2.0"] {
            assert_eq!(parse(text, Scale::Messidor), Ok(2), "{text}");
        }
        let message = |text: &str, scale| parse(text, scale).expect_err(text).to_string();
        for (text, scale, expected) in [
            ("", Scale::Icdr, "the grade is empty"),
            ("5", Scale::Icdr, "grade 5 is outside 0 to 4"),
            ("5.0", Scale::Icdr, "grade 5 is outside 0 to 4"),
            ("-1", Scale::Icdr, "grade -1 is outside 0 to 4"),
            ("4", Scale::Messidor, "grade 4 is outside 0 to 3"),
            (
                "1.5",
                Scale::Icdr,
                "grade \"1.5\" is not a whole number from 0 to 4",
            ),
            (
                "1.000.0",
                Scale::Icdr,
                "grade \"1.000.0\" is not a whole number from 0 to 4",
            ),
            (
                ".",
                Scale::Icdr,
                "grade \".\" is not a whole number from 0 to 4",
            ),
        ] {
            assert_eq!(message(text, scale), expected);
        }
        assert!(message("R2", Scale::Icdr).contains("--from messidor"));
    }
}
