//! How a dataset was made, as its manifest describes it.

use std::collections::BTreeMap;

use fovea_core::pipeline::Pipeline;
use serde::{Deserialize, Serialize};

use super::canonical::write_canonical;
use super::error::{ManifestError, ensure};
use crate::{Method, Preprocessing, PreprocessingError};

/// How photographs became records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// The method. Datasets before version 3 do not name it: they were all made with `crop`.
    #[serde(default)]
    pub name: Method,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, f64>,
    /// `circle`: the square around the fundus ([`crate::crop`]); `frame`: the whole photograph.
    pub crop: String,
    /// `bilinear`: the resizing kernel, widened when shrinking.
    pub filter: String,
    /// Version of those rules.
    pub version: u32,
    /// Digest of all this and the size ([`Manifest::pipeline`]). Before version 3 it is not written, and follows as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
}

impl Preprocess {
    /// That of a dataset made now.
    pub(crate) fn new(preprocessing: &Preprocessing, size: u32) -> Self {
        let mut new = Self {
            name: preprocessing.method(),
            parameters: preprocessing.parameters().clone(),
            crop: match preprocessing.method().crops() {
                true => "circle",
                false => "frame",
            }
            .to_owned(),
            filter: "bilinear".to_owned(),
            version: crate::crop::CROP_VERSION,
            pipeline: None,
        };
        new.pipeline = Some(new.pipeline(size).digest);
        new
    }

    /// The method with its parameters.
    pub fn method(&self) -> Result<Preprocessing, PreprocessingError> {
        Preprocessing::new(self.name, &self.parameters)
    }

    /// All of it with the size of the images, and its digest: SHA-256 of the canonical JSON of `crop`, `filter`, `name`,
    /// `parameters`, `size` and `version`.
    pub fn pipeline(&self, size: u32) -> Pipeline {
        let Self {
            name,
            parameters,
            crop,
            filter,
            version,
            pipeline: _,
        } = self;
        let value = serde_json::json!({
            "crop": crop,
            "filter": filter,
            "name": name,
            "parameters": parameters,
            "size": size,
            "version": version,
        });
        let mut canonical = String::new();
        write_canonical(&value, &mut canonical);
        Pipeline {
            steps: format!("{}, {crop}, {filter}, rules {version}", self.shown()),
            size,
            digest: crate::sha256_hex(canonical.as_bytes()),
            recipe: self.method().ok().map(|method| method.recipe()),
        }
    }

    /// The method with its parameters, for people: `clahe (clip 2, tiles 8)`.
    pub fn shown(&self) -> String {
        match self.method() {
            Ok(method) => method.to_string(),
            Err(_) => self.name.to_string(),
        }
    }

    pub(super) fn check(&self, size: u32) -> Result<(), ManifestError> {
        let method = self.method();
        ensure(
            method.is_ok_and(|m| *m.parameters() == self.parameters),
            "preprocess.parameters",
            || format!("are not those of {}", self.name),
        )?;
        let short = |text: &str| text.len() <= 40;
        ensure(short(&self.crop), "preprocess.crop", too_long)?;
        ensure(short(&self.filter), "preprocess.filter", too_long)?;
        let actual = self.pipeline(size).digest;
        let stated = self.pipeline.as_ref();
        ensure(
            stated.is_none_or(|stated| *stated == actual),
            "preprocess.pipeline",
            || format!("is not {actual}, which the other fields make"),
        )
    }
}

fn too_long() -> String {
    "has more than 40 bytes".to_owned()
}

/// What the grades of a dataset mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GradeScale {
    /// The international scale (ICDR): 0, no retinopathy, to 4, proliferative. The importer knows it.
    Icdr,
    /// Messidor's: R0 to R3, by numbers of lesions.
    Messidor,
    /// Nobody said; they are taken for ICDR grades.
    Unstated,
    /// There are none: all are 0. Such photographs can be scored, and nothing else.
    None,
}

impl GradeScale {
    /// Its name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Icdr => "icdr",
            Self::Messidor => "messidor",
            Self::Unstated => "unstated",
            Self::None => "none",
        }
    }
}

impl std::fmt::Display for GradeScale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Icdr => "ICDR 0-4",
            Self::Messidor => "Messidor R0-R3",
            Self::Unstated => "not stated, taken for ICDR 0-4",
            Self::None => "none: photographs without grades",
        })
    }
}

/// What was found of copies of photographs: the same pixels, or saved again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Duplicates {
    /// Whether those that were saved again were sought, too: pictures below 96 pixels do not tell.
    pub resaved: bool,
    /// Whether copies of different patients, or on two sides of the split, were allowed.
    pub allowed: bool,
    /// Photographs that are there several times.
    pub found: u64,
    /// Those of them that are there under different patients.
    pub other_patients: u64,
    /// Those of them that are on several sides of the split, with the very same pixels.
    pub sides_exact: u64,
    /// Those of them that are on several sides of the split, at least one saved again.
    pub sides_resaved: u64,
}
