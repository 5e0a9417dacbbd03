//! The file of `fovea-worker features`: what a layer of a frozen network puts out for each photograph of a dataset.
//!
//! It is a safetensors file with one tensor, `features`, float32 [photographs, numbers], in the order of the dataset's index
//! (training, validation, test), and metadata: `fovea_features` (the version, 1), `dataset_digest`, `layer`, `weights_sha256`.

use std::path::Path;

use fovea_core::spec::Part;
use fovea_judging::Described;
use safetensors::{Dtype, SafeTensors};

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
        let bytes = std::fs::read(file).map_err(|e| Error::io(file, e))?;
        Self::parse(&bytes, dataset)
            .map_err(|what| Error::Usage(format!("{}: {what}", file.display())))
    }

    fn parse(bytes: &[u8], dataset: &Described) -> Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let of = |key: &str| metadata.get(key).map(String::as_str).unwrap_or_default();
        if of("fovea_features") != "1" {
            return Err("it is no file of `fovea-worker features`, or of another version".into());
        }
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
