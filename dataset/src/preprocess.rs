//! What is done with photographs before they are stored: by name, with parameters, and described in the manifest so that a
//! model is given the same later.

mod ben_graham;
mod clahe;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::square::Disc;

/// A preprocessing's name.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The whole photograph in the middle of a black square: for photographs that were cropped before.
    None,
    /// The square around the fundus ([`crate::crop`]).
    #[default]
    Crop,
    /// The same, relative to its local mean.
    BenGraham,
    /// The same with equalized lightness (CLAHE).
    Clahe,
}

/// A number that a method takes.
struct Parameter {
    name: &'static str,
    default: f64,
    least: f64,
    most: f64,
    whole: bool,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Crop, Self::BenGraham, Self::Clahe];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Crop => "crop",
            Self::BenGraham => "ben-graham",
            Self::Clahe => "clahe",
        }
    }

    /// Whether the fundus is sought and cut out.
    pub fn crops(self) -> bool {
        self != Self::None
    }

    fn parameters(self) -> &'static [Parameter] {
        match self {
            Self::None | Self::Crop => &[],
            Self::BenGraham => &[
                Parameter {
                    name: "gain",
                    default: 4.0,
                    least: 1.0,
                    most: 16.0,
                    whole: true,
                },
                Parameter {
                    name: "kept",
                    default: 0.9,
                    least: 0.1,
                    most: 1.0,
                    whole: false,
                },
                Parameter {
                    name: "radius_per_sigma",
                    default: 30.0,
                    least: 4.0,
                    most: 200.0,
                    whole: false,
                },
            ],
            Self::Clahe => &[
                Parameter {
                    name: "clip",
                    default: 2.0,
                    least: 1.0,
                    most: 40.0,
                    whole: false,
                },
                Parameter {
                    name: "tiles",
                    default: 8.0,
                    least: 2.0,
                    most: 16.0,
                    whole: true,
                },
            ],
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A method with its parameters. Written `crop`, `clahe` or `clahe:clip=3,tiles=4`.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessing {
    method: Method,
    /// All that the method takes, by name.
    parameters: BTreeMap<String, f64>,
}

impl Default for Preprocessing {
    fn default() -> Self {
        Method::default().into()
    }
}

impl From<Method> for Preprocessing {
    /// The method with its usual parameters.
    fn from(method: Method) -> Self {
        let usual = method.parameters().iter();
        Self {
            method,
            parameters: usual.map(|p| (p.name.to_owned(), p.default)).collect(),
        }
    }
}

impl Preprocessing {
    /// A method with these parameters; those that are absent have their usual values.
    pub fn new(method: Method, given: &BTreeMap<String, f64>) -> Result<Self, PreprocessingError> {
        let mut new = Self::from(method);
        for (name, &value) in given {
            let known = method.parameters().iter().find(|p| p.name == name);
            let Some(parameter) = known else {
                return Err(PreprocessingError::Unknown {
                    method,
                    name: name.chars().take(40).collect(),
                });
            };
            let range = parameter.least..=parameter.most;
            if !range.contains(&value) || (parameter.whole && value.fract() != 0.0) {
                return Err(PreprocessingError::Value {
                    method,
                    name: parameter.name,
                    value,
                    kind: if parameter.whole {
                        "a whole number"
                    } else {
                        "a number"
                    },
                    least: parameter.least,
                    most: parameter.most,
                });
            }
            new.parameters.insert(name.clone(), value);
        }
        Ok(new)
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Its parameters by name: all that it takes.
    pub fn parameters(&self) -> &BTreeMap<String, f64> {
        &self.parameters
    }

    /// It as text that is read again to the bit: `crop`, `clahe:clip=2,tiles=8`.
    pub fn recipe(&self) -> String {
        let given = self.parameters.iter();
        let given: Vec<String> = given
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        match given.is_empty() {
            true => self.method.to_string(),
            false => format!("{}:{}", self.method, given.join(",")),
        }
    }

    /// Whether [`Self::apply`] does anything.
    pub fn changes_pixels(&self) -> bool {
        matches!(self.method, Method::BenGraham | Method::Clahe)
    }

    /// What is done with the square after it was cut out and resized. `disc` is where the fundus lies in it.
    pub fn apply(&self, square: &mut RgbImage, disc: Disc) {
        match self.method {
            Method::None | Method::Crop => {}
            Method::BenGraham => {
                let settings = ben_graham::Settings {
                    gain: self.parameters["gain"] as i64,
                    kept: self.parameters["kept"],
                    radius_per_sigma: self.parameters["radius_per_sigma"],
                };
                ben_graham::apply(square, disc, settings);
            }
            Method::Clahe => {
                let tiles = self.parameters["tiles"] as usize;
                clahe::apply(square, self.parameters["clip"], tiles);
            }
        }
    }
}

impl fmt::Display for Preprocessing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.method)?;
        if self.parameters.is_empty() {
            return Ok(());
        }
        let listed: Vec<String> = self
            .parameters
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        write!(f, " ({})", listed.join(", "))
    }
}

/// A text or values that make no [`Preprocessing`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PreprocessingError {
    /// No such method.
    #[error("{text:?} is none of none, crop, ben-graham and clahe")]
    Method {
        /// The text.
        text: String,
    },
    /// Not `name=number`.
    #[error("{text:?} is not of the form name=number, such as clip=3")]
    Form {
        /// The text.
        text: String,
    },
    /// The method has no such parameter.
    #[error("{method} has no parameter {name:?}; {}", parameters_of(*method))]
    Unknown {
        /// The method.
        method: Method,
        /// The name.
        name: String,
    },
    /// A parameter is out of its range.
    #[error("{name} of {method} is {value}; it must be {kind} from {least} to {most}")]
    Value {
        /// The method.
        method: Method,
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        kind: &'static str,
        /// The least that it may be.
        least: f64,
        /// The most that it may be.
        most: f64,
    },
}

fn parameters_of(method: Method) -> String {
    let names: Vec<&str> = method.parameters().iter().map(|p| p.name).collect();
    match names.is_empty() {
        true => "it has none".to_owned(),
        false => format!("it has {}", names.join(", ")),
    }
}

impl FromStr for Preprocessing {
    type Err = PreprocessingError;

    fn from_str(text: &str) -> Result<Self, PreprocessingError> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let known = Method::ALL.into_iter().find(|m| m.as_str() == name);
        let method = known.ok_or_else(|| PreprocessingError::Method {
            text: name.to_owned(),
        })?;
        let mut given = BTreeMap::new();
        for part in rest.split(',').filter(|part| !part.is_empty()) {
            let pair = part.split_once('=');
            let pair = pair.and_then(|(name, value)| Some((name, value.parse::<f64>().ok()?)));
            let (name, value) = pair.ok_or_else(|| PreprocessingError::Form {
                text: part.to_owned(),
            })?;
            given.insert(name.to_owned(), value);
        }
        Self::new(method, &given)
    }
}

#[cfg(test)]
mod tests;
