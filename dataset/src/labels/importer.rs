//! What is known of the public data sets: columns, patients, scale, counts.

use std::fmt;
use std::str::FromStr;

use crate::GRADES;

use super::Scale;

/// A public data set, or a layout, that is known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Importer {
    /// EyePACS (Kaggle 2015).
    Eyepacs,
    /// APTOS 2019.
    Aptos,
    /// IDRiD, disease grading.
    Idrid,
    /// Messidor, with its own scale.
    Messidor,
    /// Messidor-2 with the adjudicated grades.
    Messidor2,
    /// DeepDRiD, regular fundus images.
    Deepdrid,
    /// DDR, grading.
    Ddr,
    /// BRSET.
    Brset,
    /// RetinaMNIST, an archive of NumPy arrays.
    Retinamnist,
    /// A folder for each grade, with the photographs in it.
    Folders,
}

/// Who the patient is, where no column tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patients {
    /// The names tell.
    Names,
    /// Nothing tells: each image counts as a patient.
    EachImage,
    /// A table `left;right` of this name, beside the labels, tells which images are of one patient.
    Pairs(&'static str),
}

/// Rows that the data set itself says have no grade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ungradable {
    /// There are none.
    None,
    /// Those of this grade.
    Grade(&'static str),
    /// Those with an empty grade.
    Empty,
}

/// What a data set, or one of its parts, holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Gradable images of each grade.
    Grades([u64; GRADES]),
    /// Images.
    Images(u64),
}

/// How a data set is read.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// The name that `--from` takes.
    pub name: &'static str,
    /// The name that people read.
    pub title: &'static str,
    /// Names of the column with the images, the usual first.
    pub images: &'static [&'static str],
    /// Columns with the grades, the usual first: of each set one is filled in every row.
    pub grades: &'static [&'static [&'static str]],
    /// The column with the patient.
    pub patient: Option<&'static str>,
    /// The column with the eye.
    pub eye: Option<&'static str>,
    /// Columns that no other data set has together.
    pub telltale: &'static [&'static str],
    pub patients: Patients,
    pub scale: Scale,
    pub ungradable: Ungradable,
    /// Whether there are tables of its without a header: name and grade, separated by a space.
    pub headless: bool,
    /// Its parts and what they hold.
    pub parts: &'static [(&'static str, Holds)],
    /// Where its labels and photographs are, within its folder.
    pub places: &'static [(&'static str, &'static str)],
}

/// What most recipes have.
const USUAL: Recipe = Recipe {
    name: "",
    title: "",
    images: &["image"],
    grades: &[&["level"]],
    patient: None,
    eye: None,
    telltale: &[],
    patients: Patients::EachImage,
    scale: Scale::Icdr,
    ungradable: Ungradable::None,
    headless: false,
    parts: &[],
    places: &[],
};

static EYEPACS: Recipe = Recipe {
    name: "eyepacs",
    title: "EyePACS (Kaggle 2015)",
    patients: Patients::Names,
    parts: &[
        (
            "the training set",
            Holds::Grades([25_810, 2_443, 5_292, 873, 708]),
        ),
        (
            "the test set",
            Holds::Grades([39_533, 3_762, 7_861, 1_214, 1_206]),
        ),
        (
            "the private test set",
            Holds::Grades([31_403, 3_042, 6_282, 977, 966]),
        ),
        (
            "the public test set",
            Holds::Grades([8_130, 720, 1_579, 237, 240]),
        ),
    ],
    places: &[
        ("trainLabels.csv", "images"),
        ("trainLabels.csv", "train"),
        (
            "trainLabels_cropped.csv",
            "resized_train_cropped/resized_train_cropped",
        ),
        ("testLabels.csv", "test"),
        ("retinopathy_solution.csv", "test"),
    ],
    ..USUAL
};

static APTOS: Recipe = Recipe {
    name: "aptos",
    title: "APTOS 2019",
    images: &["id_code"],
    grades: &[&["diagnosis"]],
    parts: &[(
        "the training set",
        Holds::Grades([1_805, 370, 999, 193, 295]),
    )],
    places: &[("train.csv", "train_images"), ("train.csv", "images")],
    ..USUAL
};

static IDRID: Recipe = Recipe {
    name: "idrid",
    title: "IDRiD",
    images: &["image name"],
    grades: &[&["retinopathy grade"]],
    parts: &[
        ("the training set", Holds::Grades([134, 20, 136, 74, 49])),
        ("the test set", Holds::Grades([34, 5, 32, 19, 13])),
    ],
    places: &[
        (
            "2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv",
            "1. Original Images/a. Training Set",
        ),
        (
            "B. Disease Grading/2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv",
            "B. Disease Grading/1. Original Images/a. Training Set",
        ),
    ],
    ..USUAL
};

static MESSIDOR: Recipe = Recipe {
    name: "messidor",
    title: "Messidor",
    images: &["image name"],
    grades: &[&["retinopathy grade"]],
    telltale: &["ophthalmologic department"],
    scale: Scale::Messidor,
    parts: &[("the whole set", Holds::Images(1_200))],
    ..USUAL
};

static MESSIDOR2: Recipe = Recipe {
    name: "messidor2",
    title: "Messidor-2",
    images: &["image_id", "image"],
    grades: &[&["adjudicated_dr_grade"]],
    patients: Patients::Pairs("messidor-2.csv"),
    ungradable: Ungradable::Empty,
    parts: &[(
        "the adjudicated set",
        Holds::Grades([1_017, 270, 347, 75, 35]),
    )],
    places: &[
        ("messidor_data.csv", "IMAGES"),
        ("messidor_data.csv", "images"),
    ],
    ..USUAL
};

static DEEPDRID: Recipe = Recipe {
    name: "deepdrid",
    title: "DeepDRiD",
    images: &["image_id"],
    // A left eye's row fills the first, a right eye's the second. Of a few rows the name says the other
    // eye; the grade that is filled counts.
    grades: &[&["left_eye_dr_level", "right_eye_dr_level"]],
    patient: Some("patient_id"),
    parts: &[
        ("the training set", Holds::Grades([540, 140, 234, 214, 72])),
        ("the validation set", Holds::Grades([174, 46, 92, 68, 20])),
    ],
    places: &[
        ("regular-fundus-training.csv", "Images"),
        ("regular-fundus-validation.csv", "Images"),
        (
            "regular_fundus_images/regular-fundus-training/regular-fundus-training.csv",
            "regular_fundus_images/regular-fundus-training/Images",
        ),
    ],
    ..USUAL
};

static DDR: Recipe = Recipe {
    name: "ddr",
    title: "DDR",
    images: &["image", "id_code"],
    grades: &[&["grade"], &["diagnosis"], &["label"]],
    ungradable: Ungradable::Grade("5"),
    headless: true,
    parts: &[(
        "the whole set",
        Holds::Grades([6_266, 630, 4_477, 236, 913]),
    )],
    places: &[
        ("DR_grading.csv", "DR_grading/DR_grading"),
        ("DR_grading.csv", "images"),
        ("train.txt", "train"),
        ("DR_grading/train.txt", "DR_grading/train"),
    ],
    ..USUAL
};

static BRSET: Recipe = Recipe {
    name: "brset",
    title: "BRSET",
    images: &["image_id"],
    grades: &[&["dr_icdr"]],
    patient: Some("patient_id"),
    eye: Some("exam_eye"),
    parts: &[("the whole set", Holds::Images(16_266))],
    places: &[
        ("labels_brset.csv", "fundus_photos"),
        ("labels.csv", "fundus_photos"),
    ],
    ..USUAL
};

static RETINAMNIST: Recipe = Recipe {
    name: "retinamnist",
    title: "RetinaMNIST",
    images: &[],
    grades: &[],
    parts: &[("the whole set", Holds::Grades([714, 186, 326, 282, 92]))],
    ..USUAL
};

static FOLDERS: Recipe = Recipe {
    name: "folders",
    title: "a folder for each grade",
    images: &[],
    grades: &[],
    patients: Patients::Names,
    ..USUAL
};

impl Importer {
    /// All of them.
    pub const ALL: [Importer; 10] = [
        Importer::Eyepacs,
        Importer::Aptos,
        Importer::Idrid,
        Importer::Messidor,
        Importer::Messidor2,
        Importer::Deepdrid,
        Importer::Ddr,
        Importer::Brset,
        Importer::Retinamnist,
        Importer::Folders,
    ];

    pub(crate) fn recipe(self) -> &'static Recipe {
        match self {
            Importer::Eyepacs => &EYEPACS,
            Importer::Aptos => &APTOS,
            Importer::Idrid => &IDRID,
            Importer::Messidor => &MESSIDOR,
            Importer::Messidor2 => &MESSIDOR2,
            Importer::Deepdrid => &DEEPDRID,
            Importer::Ddr => &DDR,
            Importer::Brset => &BRSET,
            Importer::Retinamnist => &RETINAMNIST,
            Importer::Folders => &FOLDERS,
        }
    }

    /// The name that `--from` takes.
    pub fn name(self) -> &'static str {
        self.recipe().name
    }

    /// Whether labels and photographs are in one place, a folder or a file, so that there is no label file
    /// of its own.
    pub fn is_one_place(self) -> bool {
        matches!(self, Importer::Retinamnist | Importer::Folders)
    }

    /// Where the data set's label file and photographs may be within its folder.
    pub fn places(self) -> &'static [(&'static str, &'static str)] {
        self.recipe().places
    }
}

impl fmt::Display for Importer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no [`Importer`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no known data set; known are {}", Importer::ALL.map(Importer::name).join(", ")
)]
pub struct ImporterError {
    /// The text.
    pub text: String,
}

impl FromStr for Importer {
    type Err = ImporterError;

    fn from_str(text: &str) -> Result<Self, ImporterError> {
        // Messidor-2, deepDRiD.
        let name = text.to_lowercase().replace(['-', '_', ' '], "");
        let found = Importer::ALL.into_iter().find(|i| i.name() == name);
        found.ok_or_else(|| ImporterError {
            text: text.to_owned(),
        })
    }
}
