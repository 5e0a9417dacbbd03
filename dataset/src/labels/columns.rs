//! Which column of a table holds what.

use std::fmt;
use std::str::FromStr;

use crate::names::composed;
use crate::table::Table;

use super::importer::{Importer, Recipe};
use super::likeness::{Likeness, all_differ, is_property, likeness, repeats};

/// Columns of a table, by name. What is left out is found by the header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnNames {
    /// The column with the images' names.
    pub image: Option<String>,
    /// The column with the grades.
    pub grade: Option<String>,
    /// The column with the patients, or that there is none.
    pub patient: Option<PatientColumn>,
    /// The column with the eyes (`left`, `OD` ...).
    pub eye: Option<String>,
}

/// Where a table tells the patient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatientColumn {
    /// In the column of this name.
    Named(String),
    /// In none, whatever the columns are called.
    None,
}

/// A text that is no [`ColumnNames`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{part:?}: {problem}; write image=NAME,grade=NAME,patient=NAME (or patient=none),eye=NAME, those \
     that are needed"
)]
pub struct ColumnNamesError {
    /// The part that is wrong.
    pub part: String,
    /// What is wrong.
    pub problem: &'static str,
}

impl FromStr for ColumnNames {
    type Err = ColumnNamesError;

    fn from_str(text: &str) -> Result<Self, ColumnNamesError> {
        let mut names = ColumnNames::default();
        for part in text.split(',') {
            let fail = |problem| ColumnNamesError {
                part: part.to_owned(),
                problem,
            };
            let (role, name) = part.split_once('=').ok_or(fail("a '=' is missing"))?;
            let name = name.trim().to_owned();
            if name.is_empty() {
                return Err(fail("the column's name is missing"));
            }
            let twice = match role.trim() {
                "image" => names.image.replace(name).is_some(),
                "grade" => names.grade.replace(name).is_some(),
                "eye" => names.eye.replace(name).is_some(),
                "patient" => {
                    let column = if name == "none" {
                        PatientColumn::None
                    } else {
                        PatientColumn::Named(name)
                    };
                    names.patient.replace(column).is_some()
                }
                _ => return Err(fail("it is neither image, grade, patient nor eye")),
            };
            if twice {
                return Err(fail("it is given twice"));
            }
        }
        Ok(names)
    }
}

/// The columns that are read.
pub(super) struct Columns {
    pub image: usize,
    /// One of these is filled in every row.
    pub grades: Vec<usize>,
    pub patient: Option<usize>,
    /// Whether a person or an importer has said that `patient` is the patient.
    pub patient_is_sure: bool,
    pub eye: Option<usize>,
    /// A column that is not read, and whose values repeat as those of patients do.
    pub repeating: Option<String>,
}

/// Why the columns of a table are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    /// A column is missing.
    #[error("no column {wanted} in its header ({header}){hint}")]
    Missing {
        /// What is missing.
        wanted: String,
        /// The header as it stands.
        header: String,
        /// What to do.
        hint: String,
    },
    /// Two columns have the name of one that is needed.
    #[error("two columns are called {column:?}; rename one")]
    Twice {
        /// Their name.
        column: String,
    },
    /// Several columns may be the patient.
    #[error(
        "several columns may be the patient: {}; say which with --columns patient=NAME, or \
         patient=none", columns.join(", ")
    )]
    Patients {
        /// Their names.
        columns: Vec<String>,
    },
    /// A column may be the patient.
    #[error(
        "column {column:?} {reason}: if it is the patient, give --columns \"patient={column}\", else \
         --columns patient=none"
    )]
    PerhapsPatient {
        /// Its name.
        column: String,
        /// Why.
        reason: String,
    },
    /// The columns are those of a data set whose grades mean something else.
    #[error(
        "its columns are those of {title}, whose grades are not the international scale's: give --from \
         {name}"
    )]
    OtherScale {
        /// The data set.
        title: &'static str,
        /// The importer's name.
        name: &'static str,
    },
}

/// Known names of the (image, grade) columns, in lower case.
const KNOWN_HEADERS: [(&str, &str); 4] = [
    ("image", "level"),
    ("id_code", "diagnosis"),
    ("image name", "retinopathy grade"),
    ("image_id", "adjudicated_dr_grade"),
];

/// Finds the columns of a table.
pub(super) fn find(
    table: &Table,
    names: &ColumnNames,
    importer: Option<Importer>,
) -> Result<Columns, ColumnsError> {
    let header = HeaderNames::of(table);
    let recipe = importer.map(Importer::recipe);
    let (image, grades) = header.image_and_grades(names, recipe)?;
    let eye = match (&names.eye, recipe.and_then(|r| r.eye)) {
        (Some(name), _) => Some(header.need("eye", name)?),
        (None, Some(name)) => header.find(name)?,
        (None, None) => header.find_any(&EYES)?,
    };
    let mut used = grades.clone();
    used.push(image);
    used.extend(eye);
    let (patient, patient_is_sure) = match (&names.patient, recipe.and_then(|r| r.patient)) {
        (Some(PatientColumn::Named(name)), _) => (Some(header.need("patient", name)?), true),
        (Some(PatientColumn::None), _) => (None, true),
        (None, Some(name)) => (Some(header.need("patient", name)?), true),
        (None, None) => (header.patient(table, &used)?, false),
    };
    Ok(Columns {
        repeating: header.repeating(table, &used),
        image,
        grades,
        patient,
        patient_is_sure,
        eye,
    })
}

/// So many rows tell whether a column's values differ by chance.
pub(super) const ENOUGH: usize = 8;

/// Names of a column that tells the eye.
const EYES: [&str; 5] = ["eye", "laterality", "image laterality", "eye side", "side"];

struct HeaderNames<'a> {
    table: &'a Table,
    /// As they are compared.
    names: Vec<String>,
}

impl<'a> HeaderNames<'a> {
    fn of(table: &'a Table) -> Self {
        Self {
            table,
            names: table.header.iter().map(|name| plain(name)).collect(),
        }
    }

    fn find(&self, wanted: &str) -> Result<Option<usize>, ColumnsError> {
        let wanted = plain(wanted);
        let mut all = (0..self.names.len()).filter(|&i| self.names[i] == wanted);
        let first = all.next();
        match (first, all.next()) {
            (Some(first), Some(_)) => Err(ColumnsError::Twice {
                column: self.table.header[first].clone(),
            }),
            (first, _) => Ok(first),
        }
    }

    fn find_any(&self, wanted: &[&str]) -> Result<Option<usize>, ColumnsError> {
        for name in wanted {
            if let Some(column) = self.find(name)? {
                return Ok(Some(column));
            }
        }
        Ok(None)
    }

    fn need(&self, role: &str, wanted: &str) -> Result<usize, ColumnsError> {
        let missing = || self.missing(format!("{wanted:?} ({role})"), String::new());
        self.find(wanted)?.ok_or_else(missing)
    }

    fn image_and_grades(
        &self,
        names: &ColumnNames,
        recipe: Option<&Recipe>,
    ) -> Result<(usize, Vec<usize>), ColumnsError> {
        let image = match (&names.image, recipe) {
            (Some(name), _) => Some(self.need("image", name)?),
            (None, Some(recipe)) => self.find_any(recipe.images)?,
            (None, None) => None,
        };
        let grades = match (&names.grade, recipe) {
            (Some(name), _) => Some(vec![self.need("grade", name)?]),
            (None, Some(recipe)) => self.first_complete(recipe.grades)?,
            (None, None) => None,
        };
        if let (Some(image), Some(grades)) = (image, &grades) {
            return Ok((image, grades.clone()));
        }
        if let Some(recipe) = recipe {
            let wanted = if image.is_none() {
                format!("{:?} (image)", recipe.images[0])
            } else {
                format!("{:?} (grade)", recipe.grades[0].join(", "))
            };
            let hint = format!(
                ", which {} has; name the columns with --columns image=...,grade=...",
                recipe.title
            );
            return Err(self.missing(wanted, hint));
        }
        for (known_image, known_grade) in KNOWN_HEADERS {
            let image = image.map_or_else(|| self.find(known_image), |image| Ok(Some(image)))?;
            let grades = match &grades {
                Some(grades) => Some(grades.clone()),
                None => self.find(known_grade)?.map(|grade| vec![grade]),
            };
            if let (Some(image), Some(grades)) = (image, grades) {
                if let Some(recipe) = self.other_scale()
                    && names == &ColumnNames::default()
                {
                    return Err(ColumnsError::OtherScale {
                        title: recipe.title,
                        name: recipe.name,
                    });
                }
                return Ok((image, grades));
            }
        }
        let wanted = match (image, grades) {
            (Some(_), _) => "of the grades",
            (_, Some(_)) => "of the images' names",
            _ => "of the images' names and none of the grades",
        };
        Err(self.missing(format!("{wanted} that is known"), self.hint()))
    }

    fn first_complete(&self, sets: &[&[&str]]) -> Result<Option<Vec<usize>>, ColumnsError> {
        for set in sets {
            let found: Vec<Option<usize>> = set
                .iter()
                .map(|name| self.find(name))
                .collect::<Result<_, _>>()?;
            if let Some(all) = found.into_iter().collect::<Option<Vec<usize>>>() {
                return Ok(Some(all));
            }
        }
        Ok(None)
    }

    /// The data set with another scale whose header this is.
    fn other_scale(&self) -> Option<&'static Recipe> {
        let has = |name: &&str| self.names.iter().any(|n| n == *name);
        let recipes = Importer::ALL.map(Importer::recipe);
        recipes
            .into_iter()
            .find(|recipe| !recipe.telltale.is_empty() && recipe.telltale.iter().all(has))
            .filter(|recipe| recipe.scale != super::Scale::Icdr)
    }

    fn hint(&self) -> String {
        let has = |name: &&str| self.names.contains(&plain(name));
        let fits = |recipe: &&Recipe| {
            recipe.images.iter().any(has) && recipe.grades.iter().any(|set| set.iter().all(has))
        };
        let looks = Importer::ALL
            .map(Importer::recipe)
            .into_iter()
            .find(fits)
            .map(|recipe| {
                format!(
                    "; it looks like {}: give --from {}",
                    recipe.title, recipe.name
                )
            });
        let first_is_row = self.names.iter().any(|name| {
            !name.is_empty() && name.len() <= 4 && name.trim_end_matches(".0").parse::<u8>().is_ok()
        });
        let row = if first_is_row {
            "; the first line must name the columns"
        } else {
            ""
        };
        format!(
            "{}{row}; name the columns with --columns image=NAME,grade=NAME,patient=NAME, or the data \
             set with --from ({})",
            looks.unwrap_or_default(),
            Importer::ALL
                .map(|importer| importer.recipe().name)
                .join(", ")
        )
    }

    fn missing(&self, wanted: String, hint: String) -> ColumnsError {
        let shown: Vec<String> = self
            .table
            .header
            .iter()
            .take(20)
            .map(|name| name.chars().take(40).collect())
            .collect();
        ColumnsError::Missing {
            wanted,
            header: shown.join(","),
            hint,
        }
    }

    /// The first column whose name says nothing and whose values repeat as those of patients do.
    fn repeating(&self, table: &Table, used: &[usize]) -> Option<String> {
        let mut unused = (0..self.names.len()).filter(|column| !used.contains(column));
        let found = unused.find(|&column| {
            likeness(&self.names[column]) == Likeness::Other
                && !is_property(&self.names[column])
                && repeats(&table.rows, column).is_some()
        });
        found.map(|column| table.header[column].clone())
    }

    /// The one column that is the patient; an error if several may be, or one perhaps.
    fn patient(&self, table: &Table, used: &[usize]) -> Result<Option<usize>, ColumnsError> {
        let candidates = (0..self.names.len())
            .filter(|column| !used.contains(column))
            .filter(|&column| table.rows.iter().any(|row| !row.cell(column).is_empty()));
        let (mut sure, mut perhaps) = (Vec::new(), None);
        for column in candidates {
            match likeness(&self.names[column]) {
                // A case may be a patient, an examination or a photograph.
                Likeness::Case if all_differ(&table.rows, column) => {
                    perhaps.get_or_insert((column, "has another value in every row".to_owned()));
                }
                Likeness::Patient | Likeness::Case => sure.push(column),
                Likeness::Perhaps => {
                    perhaps.get_or_insert((column, "looks like the patient".to_owned()));
                }
                Likeness::Number => {
                    if let Some(reason) = repeats(&table.rows, column) {
                        perhaps.get_or_insert((column, reason));
                    }
                }
                Likeness::Other => {}
            }
        }
        let name = |column: usize| self.table.header[column].clone();
        match (sure.as_slice(), perhaps) {
            ([column], _) => Ok(Some(*column)),
            ([], None) => Ok(None),
            ([], Some((column, reason))) => Err(ColumnsError::PerhapsPatient {
                column: name(column),
                reason,
            }),
            (several, _) => Err(ColumnsError::Patients {
                columns: several.iter().map(|&column| name(column)).collect(),
            }),
        }
    }
}

/// A column's name as it is compared: copies of IDRiD differ in the spaces of their header, even inside
/// a name.
fn plain(name: &str) -> String {
    let words: Vec<&str> = name.split_whitespace().collect();
    composed(&words.join(" ").to_lowercase())
}

impl fmt::Display for PatientColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatientColumn::Named(name) => f.write_str(name),
            PatientColumn::None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_named_in_a_list() {
        let names: ColumnNames = "image= file ,grade=DR=grade,patient=none"
            .parse()
            .expect("names");
        assert_eq!(names.image.as_deref(), Some("file"));
        assert_eq!(names.grade.as_deref(), Some("DR=grade"));
        assert_eq!(names.patient, Some(PatientColumn::None));
        for (bad, expected) in [
            ("image", "a '=' is missing"),
            ("image=", "name is missing"),
            ("label=x", "neither image"),
            ("image=a,image=b", "given twice"),
        ] {
            let message = bad.parse::<ColumnNames>().expect_err(bad).to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
