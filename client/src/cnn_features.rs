//! The file of `fovea-worker features`: what a layer of a frozen network puts out for each photograph of a dataset.
//!
//! It is a safetensors file with one tensor, `features`, float32 [photographs, numbers], in the order of the dataset's index
//! (training, validation, test), and metadata: `fovea_features` (the version, 1), `dataset_digest`, `layer`, `weights_sha256`.

use std::collections::HashMap;
use std::path::Path;

use fovea_core::spec::Part;
use fovea_judging::Described;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::error::Error;

/// The features of all photographs of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct CnnFeatures {
    /// Photograph by photograph in the order of the index.
    pub rows: Vec<Vec<f64>>,
    /// The layer that they are of, such as `pool5/7x7_s1`.
    pub layer: String,
}

impl CnnFeatures {
    /// Reads a file.
    ///
    /// # Errors
    /// It is none, or of another dataset.
    pub fn read(file: &Path, dataset: &Described) -> Result<Self, Error> {
        let broken = |what: String| Error::Usage(format!("{}: {what}", file.display()));
        if file.is_dir() {
            return Err(broken(
                "it is a folder; name a file of `fovea-worker features`".into(),
            ));
        }
        let bytes = std::fs::read(file).map_err(|e| Error::io(file, e))?;
        Self::parse(&bytes, dataset).map_err(broken)
    }

    fn parse(bytes: &[u8], dataset: &Described) -> Result<Self, String> {
        let metadata = metadata(bytes)?;
        let of = |key: &str| metadata.get(key).map(String::as_str).unwrap_or_default();
        if of("dataset_digest") != dataset.manifest.digest {
            return Err(format!(
                "it is of the dataset with digest {}, and this one has {}: make it again with `fovea-worker features`",
                of("dataset_digest"),
                dataset.manifest.digest
            ));
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let tensor = tensors.tensor("features").map_err(|e| e.to_string())?;
        let samples = dataset.index.part(Part::All).len();
        let (Dtype::F32, &[found, numbers]) = (tensor.dtype(), tensor.shape()) else {
            return Err("features are not float32 [photographs, numbers]".into());
        };
        if found != samples || numbers == 0 {
            return Err(format!(
                "it has {found} rows of {numbers} numbers for {samples} photographs"
            ));
        }
        let number = |bytes: &[u8]| match bytes {
            &[a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
            _ => f64::NAN,
        };
        let values: Vec<f64> = tensor.data().chunks_exact(4).map(number).collect();
        Ok(Self {
            rows: values.chunks_exact(numbers).map(<[f64]>::to_vec).collect(),
            layer: of("layer").to_owned(),
        })
    }
}

/// What a file says of itself.
fn metadata(bytes: &[u8]) -> Result<HashMap<String, String>, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| match e {
        SafeTensorError::MetadataIncompleteBuffer => {
            "it is damaged, or was not copied to its end: make it again with `fovea-worker features`".to_owned()
        }
        _ => "it is no file of `fovea-worker features`".to_owned(),
    })?;
    let metadata = header.metadata().clone().unwrap_or_default();
    match metadata.get("fovea_features").map(String::as_str) {
        Some("1") => Ok(metadata),
        Some(version) => Err(format!(
            "it is of version {version} of `fovea-worker features`, and this program reads version 1: make it again"
        )),
        None => Err("it is no file of `fovea-worker features`".into()),
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    fn file(more: &[(&str, &str)]) -> Vec<u8> {
        let tensor = TensorView::new(Dtype::F32, vec![1, 2], &[0; 8]).unwrap();
        let more = more.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        safetensors::serialize([("features", tensor)], Some(more.collect())).unwrap()
    }

    #[test]
    fn files_of_other_programs_are_told_from_damaged_ones() {
        let good = file(&[("fovea_features", "1"), ("layer", "a")]);
        assert_eq!(metadata(&good).unwrap()["layer"], "a");
        let none = "it is no file of `fovea-worker features`";
        let caffemodel = b"\x0a\x09GoogleNet\x12\x04data";
        for other in [&caffemodel[..], b"{\"format_version\": 1}", b"", &file(&[])] {
            assert_eq!(metadata(other).unwrap_err(), none);
        }
        let cut = metadata(&good[..good.len() - 3]).unwrap_err();
        assert!(cut.starts_with("it is damaged"), "{cut}");
        let newer = metadata(&file(&[("fovea_features", "2")])).unwrap_err();
        assert!(newer.starts_with("it is of version 2"), "{newer}");
    }
}
