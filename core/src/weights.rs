//! How a run names the weights that it starts from: `model.weights`.

use crate::ids::WeightsName;

/// What a file of weights ends with, in lower case.
const ENDS: [&str; 2] = [".caffemodel", ".safetensors"];
/// What a digest begins with.
const DIGEST: &str = "sha256:";

/// The text of `model.weights`, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightsRef {
    /// None: the run trains from scratch.
    None,
    /// The SHA-256 of weights that the coordinator stores, 64 hexadecimal digits in lower case.
    Digest(String),
    /// The name of weights that the coordinator stores.
    Name(WeightsName),
    /// The path of a file. The client adds the file; coordinator and workers never open it.
    Path(String),
}

/// A text is no name, digest or path of weights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WeightsRefError(String);

impl WeightsRef {
    /// Understands a text: `sha256:` and a digest; a path, which has a slash in it or ends in `.caffemodel` or
    /// `.safetensors`; anything else is a name.
    ///
    /// # Errors
    /// Says what was wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, WeightsRefError> {
        if text.is_empty() {
            return Ok(Self::None);
        }
        if text.len() > 4096 {
            return Err(WeightsRefError("is longer than 4096 bytes".into()));
        }
        if let Some(digits) = text.strip_prefix(DIGEST) {
            if !is_sha256(digits) {
                return Err(WeightsRefError(format!(
                    "{text:?} is not sha256: and 64 hexadecimal digits; `fovea weights list` shows digests"
                )));
            }
            return Ok(Self::Digest(digits.to_ascii_lowercase()));
        }
        if is_path(text) {
            return Ok(Self::Path(text.to_owned()));
        }
        WeightsName::new(text).map(Self::Name).map_err(|error| {
            WeightsRefError(format!(
                "{error}; a path has a '/' in it (./FILE) or ends in .caffemodel or .safetensors"
            ))
        })
    }
}

/// Whether a text is 64 hexadecimal digits.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The name `text` for weights, as a person gives it.
///
/// # Errors
/// It is no name, or one that `model.weights` would take for a path or a digest.
pub fn name(text: &str) -> Result<WeightsName, WeightsRefError> {
    if is_path(text) {
        return Err(WeightsRefError(format!(
            "{text:?} would be taken for a path; give a name without '/' that does not end in .caffemodel or .safetensors"
        )));
    }
    if is_sha256(text) {
        return Err(WeightsRefError(format!(
            "{text:?} would be taken for a digest; give another name"
        )));
    }
    WeightsName::new(text).map_err(|error| WeightsRefError(error.to_string()))
}

/// A name made of a file's: without its folder and its end, and with `-` for what a name must not hold. `weights` where
/// nothing is left.
pub fn name_of_file(file: &str) -> WeightsName {
    let base = file.rsplit('/').next().unwrap_or_default();
    let lower = base.to_ascii_lowercase();
    let end = ENDS.iter().find(|end| lower.ends_with(**end));
    let stem = &base[..base.len() - end.map_or(0, |end| end.len())];
    let text: String = stem
        .chars()
        .map(|c| match c.is_ascii_alphanumeric() || "._-".contains(c) {
            true => c,
            false => '-',
        })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(48)
        .collect();
    name(&text)
        .or_else(|_| name("weights"))
        .expect("\"weights\" is a name")
}

fn is_path(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    text.contains('/') || ENDS.iter().any(|end| lower.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_digests_and_paths_are_told_apart() {
        let digest = "aB".repeat(32);
        let name = |text: &str| WeightsRef::Name(WeightsName::new(text).unwrap());
        for (text, expected) in [
            ("", WeightsRef::None),
            ("bvlc_googlenet", name("bvlc_googlenet")),
            ("v1.2", name("v1.2")),
            ("w.safetensors", WeightsRef::Path("w.safetensors".into())),
            ("W.CAFFEMODEL", WeightsRef::Path("W.CAFFEMODEL".into())),
            ("./w", WeightsRef::Path("./w".into())),
            ("/models/a b", WeightsRef::Path("/models/a b".into())),
        ] {
            assert_eq!(WeightsRef::parse(text).unwrap(), expected, "{text}");
        }
        assert_eq!(
            WeightsRef::parse(&format!("sha256:{digest}")).unwrap(),
            WeightsRef::Digest(digest.to_lowercase())
        );
        for (text, said) in [
            ("sha256:", "64 hexadecimal digits"),
            ("sha256:xyz", "64 hexadecimal digits"),
            ("a b", "a path has a '/'"),
            (&"w".repeat(5000), "longer than 4096"),
        ] {
            let error = WeightsRef::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_file_gives_a_name_and_what_is_given_is_one() {
        for (file, expected) in [
            ("/a/bvlc_googlenet.caffemodel", "bvlc_googlenet"),
            ("dr 7 (best).Safetensors", "dr-7--best-"),
            (".safetensors", "weights"),
            ("__", "weights"),
            ("é.caffemodel", "weights"),
            ("a.caffemodel.caffemodel", "weights"),
            (&format!("{}.caffemodel", "x".repeat(99)), &"x".repeat(48)),
        ] {
            let name = name_of_file(file);
            assert_eq!(name.as_str(), expected, "{file}");
            assert_eq!(
                WeightsRef::parse(name.as_str()).unwrap(),
                WeightsRef::Name(name)
            );
        }
        for bad in ["a/b", "a.safetensors", "", "a b", &"0".repeat(64)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
