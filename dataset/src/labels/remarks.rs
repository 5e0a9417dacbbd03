//! What a person should know about a label file that can be read.

use std::collections::HashSet;
use std::fmt;

use crate::GRADES;
use crate::table::EncodingRemark;
use fovea_core::count::count;

use super::importer::{Holds, Recipe};
use super::rows::PatientFindings;
use super::{Importer, LabelOptions, Labels, Scale};

/// Something that does not prevent reading the labels but that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelRemark {
    /// The text is in none of Unicode's encodings.
    Encoding(EncodingRemark),
    /// Images that tell no patient count as a patient each.
    Untold {
        /// How many.
        untold: usize,
        /// Usable rows.
        total: usize,
        /// Some of their names.
        examples: Vec<String>,
    },
    /// Images without a patient in the column were given that of the fellow eye.
    Filled {
        /// How many.
        images: usize,
    },
    /// The values of a column are eyes: those of a patient were put together.
    EyesInColumn {
        /// Two values of one patient.
        values: [String; 2],
    },
    /// A column that nobody has named as the patient's gives each image another.
    EachImageAnother {
        /// The column.
        column: String,
        /// Images.
        images: usize,
    },
    /// A column gives eyes that are of one patient by their names to several, and a person said so.
    ColumnSplitsPatients {
        /// Patients by name.
        patients: usize,
        /// Two images of one.
        images: [String; 2],
    },
    /// Grades that no image has.
    GradesAbsent {
        /// Usable rows of each grade.
        counts: [u64; GRADES],
    },
    /// The grades are Messidor's.
    MessidorScale,
    /// The data set tells no patients, and has a part of other patients, which is held out.
    HeldOutPart {
        /// The data set.
        title: &'static str,
    },
    /// The data set is known to hold something else.
    Counts {
        /// The data set.
        title: &'static str,
        /// Usable rows of each grade.
        found: [u64; GRADES],
        /// The part of the data set that comes nearest.
        part: &'static str,
        /// Its images of each grade, if they are known.
        grades: Option<[u64; GRADES]>,
        /// Its images.
        images: u64,
    },
}

/// All remarks about a file.
pub(super) fn of(
    labels: &Labels,
    findings: &PatientFindings,
    column: Option<&str>,
    encoding: Option<EncodingRemark>,
    options: &LabelOptions,
) -> Vec<LabelRemark> {
    let mut remarks: Vec<LabelRemark> = Vec::new();
    remarks.extend(encoding.map(LabelRemark::Encoding));
    if findings.filled > 0 {
        remarks.push(LabelRemark::Filled {
            images: findings.filled,
        });
    }
    if let Some(values) = findings.eyes_in_column.clone() {
        remarks.push(LabelRemark::EyesInColumn { values });
    }
    if let Some(column) = column.filter(|_| each_image_another(labels)) {
        remarks.push(LabelRemark::EachImageAnother {
            column: column.to_owned(),
            images: labels.rows.len(),
        });
    }
    if let Some((patients, images)) = &findings.split_by_column {
        remarks.push(LabelRemark::ColumnSplitsPatients {
            patients: *patients,
            images: images.clone(),
        });
    }
    let counts = counts(labels);
    let recipe = options.from.map(Importer::recipe);
    let scale = recipe.map_or(Scale::Icdr, |recipe| recipe.scale);
    match scale {
        Scale::Messidor => remarks.push(LabelRemark::MessidorScale),
        Scale::Icdr if !labels.rows.is_empty() && counts.contains(&0) => {
            remarks.push(LabelRemark::GradesAbsent { counts });
        }
        Scale::Icdr => {}
    }
    if options.from == Some(Importer::Retinamnist) {
        let title = Importer::Retinamnist.recipe().title;
        remarks.push(LabelRemark::HeldOutPart { title });
    }
    remarks.extend(recipe.and_then(|recipe| unexpected(recipe, counts)));
    remarks
}

/// Whether each of more than a few images has a patient of its own.
fn each_image_another(labels: &Labels) -> bool {
    let patients: HashSet<&str> = labels.rows.iter().map(|row| &*row.patient).collect();
    labels.rows.len() >= super::columns::ENOUGH && patients.len() == labels.rows.len()
}

/// Adds a remark on the images that tell no patient.
pub(super) fn remark_untold(labels: &mut Labels, options: &LabelOptions) {
    let untold = untold(labels);
    // Where the split is by parts it does not matter.
    if untold == 0 || options.from == Some(Importer::Retinamnist) {
        return;
    }
    let remark = LabelRemark::Untold {
        untold,
        total: labels.rows.len(),
        examples: untold_examples(labels),
    };
    let is_encoding = |remark: &LabelRemark| matches!(remark, LabelRemark::Encoding(_));
    let behind = labels.remarks.iter().take_while(|r| is_encoding(r)).count();
    labels.remarks.insert(behind, remark);
}

/// How many images tell no patient.
pub(super) fn untold(labels: &Labels) -> usize {
    labels.rows.iter().filter(|row| !row.told).count()
}

/// The first of them.
pub(super) fn untold_examples(labels: &Labels) -> Vec<String> {
    let untold = labels.rows.iter().filter(|row| !row.told);
    untold.take(3).map(|row| row.image.clone()).collect()
}

fn counts(labels: &Labels) -> [u64; GRADES] {
    let mut counts = [0; GRADES];
    for row in &labels.rows {
        counts[usize::from(row.grade)] += 1;
    }
    counts
}

/// A remark if no part of the data set holds what was found.
fn unexpected(recipe: &Recipe, found: [u64; GRADES]) -> Option<LabelRemark> {
    let total: u64 = found.iter().sum();
    let images = |holds: &Holds| match holds {
        Holds::Grades(grades) => grades.iter().sum(),
        Holds::Images(images) => *images,
    };
    let as_known = |holds: &Holds| match holds {
        Holds::Grades(grades) => *grades == found,
        Holds::Images(images) => *images == total,
    };
    if recipe.parts.iter().any(|(_, holds)| as_known(holds)) {
        return None;
    }
    let nearest = recipe.parts.iter();
    let (part, holds) = nearest.min_by_key(|(_, holds)| images(holds).abs_diff(total))?;
    Some(LabelRemark::Counts {
        title: recipe.title,
        found,
        part,
        grades: match holds {
            Holds::Grades(grades) => Some(*grades),
            Holds::Images(_) => None,
        },
        images: images(holds),
    })
}

fn list(numbers: &[u64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    numbers.join("/")
}

impl fmt::Display for LabelRemark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LabelRemark::Encoding(EncodingRemark { line, text }) => write!(
                f,
                "the label file is not in UTF-8 and was read as Windows-1252 (line {line}: {text:?}); \
                 save it in UTF-8 if that is wrong"
            ),
            LabelRemark::Untold {
                untold,
                total,
                examples,
            } => write!(
                f,
                "{untold} of {total} images do not tell their patient and count as a patient each ({}): \
                 photographs of one patient may be both trained on and held out",
                examples.join(", ")
            ),
            LabelRemark::Filled { images } => write!(
                f,
                "{} no patient in the column and {} that of the fellow eye",
                count(*images, "image has", "images have"),
                if *images == 1 { "was given" } else { "were given" }
            ),
            LabelRemark::EyesInColumn { values } => write!(
                f,
                "the values of the patient column are eyes, such as {} and {}: both eyes count as one patient",
                values[0], values[1]
            ),
            LabelRemark::EachImageAnother { column, images } => write!(
                f,
                "the column {column:?} gives each of the {images} images another patient: if it numbers the images or the eyes, give \
                 --columns patient=none, since photographs of one patient may be both trained on and held out"
            ),
            LabelRemark::ColumnSplitsPatients { patients, images } => write!(
                f,
                "the patient column gives photographs that are of one patient by their names to several, \
                 for {} ({} and {})",
                count(*patients, "patient", "patients"),
                images[0],
                images[1]
            ),
            LabelRemark::GradesAbsent { counts } => {
                let absent: Vec<String> = (0..GRADES)
                    .filter(|&grade| counts[grade] == 0)
                    .map(|grade| grade.to_string())
                    .collect();
                write!(
                    f,
                    "no image has grade {} (images of grades 0 to 4: {})",
                    absent.join(" or "),
                    list(counts)
                )?;
                if counts[4] == 0 && counts[3] > 0 {
                    f.write_str(
                        "; if the grades are Messidor's, which end at 3 and mean something else, give \
                         --from messidor",
                    )?;
                } else if counts[2..].iter().all(|n| *n == 0) {
                    f.write_str("; if 1 means \"referable\", it is read here as mild retinopathy")?;
                }
                Ok(())
            }
            LabelRemark::MessidorScale => f.write_str(
                "the grades are Messidor's, 0 to 3 by numbers of lesions: 2 and 3 are referable, as on the \
                 international scale 2 to 4 are, but single grades are not comparable",
            ),
            LabelRemark::HeldOutPart { title } => write!(
                f,
                "{title} does not tell the patients: its parts train and val have patients in common and are \
                 trained on, its part test has others and is held out, unless a split file says otherwise"
            ),
            LabelRemark::Counts {
                title,
                found,
                part,
                grades,
                images,
            } => {
                write!(
                    f,
                    "{title}: {} usable rows, by grade {}; {part} has {images} images",
                    found.iter().sum::<u64>(),
                    list(found)
                )?;
                match grades {
                    Some(grades) => write!(f, ", by grade {}", list(grades)),
                    None => Ok(()),
                }
            }
        }
    }
}
