//! The parameters and the metadata in the file of a checkpoint.

use std::collections::BTreeMap;

use fovea_core::googlenet::{LayoutError, Network, ParamSpec, param_specs};
use fovea_core::pipeline::Pipeline;
use fovea_core::spec::RunSpec;
use safetensors::{Dtype, SafeTensors};

use crate::plain;

/// The value of `format` in a checkpoint's metadata.
const CHECKPOINT: &str = "fovea-checkpoint-1";

/// Why a file is not a model of Fovea.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Not a safetensors file, or a damaged one.
    #[error(
        "it is not a safetensors file, or it is damaged: {0}; `fovea export RUN -o FILE.safetensors` writes one"
    )]
    Format(#[from] safetensors::SafeTensorError),
    /// A safetensors file of another program.
    #[error(
        "it is a safetensors file, but none that Fovea has written: `format` in its metadata is {found}, not {CHECKPOINT} \
         or {}; give a checkpoint (`fovea checkpoint get`)",
        plain::FORMAT
    )]
    Foreign {
        /// What the metadata have instead.
        found: String,
    },
    /// A tensor that the network has is missing.
    #[error("tensor {name} is missing")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A tensor does not fit.
    #[error("tensor {name} has shape {found:?} of {dtype}; {expected:?} of F32 is expected")]
    Shape {
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// Its number format.
        dtype: String,
        /// The shape that the network has.
        expected: Vec<usize>,
    },
    /// A value that is no number: training has gone astray.
    #[error(
        "tensor {name} holds a value that is not finite (infinite, or not a number): the training has diverged, take an earlier \
         checkpoint"
    )]
    NotFinite {
        /// Its name.
        name: String,
    },
    /// The run's spec in the metadata.
    #[error("the run's spec in its metadata cannot be read: {0}")]
    Spec(serde_json::Error),
    /// The spec describes no network.
    #[error("the run's spec in its metadata describes no network: {0}")]
    Network(#[from] LayoutError),
}

/// A trained network.
#[derive(Debug, Clone)]
pub struct Model {
    /// Each parameter with its values, in the order of computation.
    pub(crate) parameters: Vec<(ParamSpec, Vec<f32>)>,
    /// What the file says of itself: the run, its spec, the dataset's digest, the numeric fingerprint.
    pub(crate) metadata: BTreeMap<String, String>,
    /// The spec of the run that trained it.
    pub(crate) spec: RunSpec,
    /// The network, without auxiliary heads: these only help training.
    pub(crate) network: Network,
}

impl Model {
    /// Reads the bytes of a checkpoint, or of an exported model ([`crate::safetensors`]).
    ///
    /// # Errors
    /// They are no such file, or a tensor is missing or has another shape.
    pub fn read(bytes: &[u8]) -> Result<Self, ModelError> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let metadata: BTreeMap<String, String> = header
            .metadata()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        let format = metadata.get("format").map(String::as_str);
        if !matches!(format, Some(CHECKPOINT | plain::FORMAT)) {
            return Err(ModelError::Foreign {
                found: format.map_or("absent".into(), |found| format!("{found:?}")),
            });
        }
        let spec = metadata.get("spec").map_or("", String::as_str);
        let spec: RunSpec = serde_json::from_str(spec).map_err(ModelError::Spec)?;
        let tensors = SafeTensors::deserialize(bytes)?;
        let network = spec.model.network()?.deployed();
        let parameters = param_specs(network)
            .into_iter()
            .map(|parameter| {
                let values = values(&tensors, &parameter)?;
                Ok((parameter, values))
            })
            .collect::<Result<_, ModelError>>()?;
        Ok(Self {
            parameters,
            metadata,
            spec,
            network,
        })
    }

    /// The spec of the run that trained it.
    pub fn spec(&self) -> &RunSpec {
        &self.spec
    }

    /// Each parameter with its values, in the order of computation.
    pub fn parameters(&self) -> impl Iterator<Item = (&ParamSpec, &[f32])> {
        self.parameters
            .iter()
            .map(|(spec, values)| (spec, &**values))
    }

    /// How the photographs of its training were prepared. None: the file does not say.
    pub fn pipeline(&self) -> Option<Pipeline> {
        Pipeline::from_metadata(self.metadata.get(Pipeline::KEY)?)
    }

    /// The network, without auxiliary heads.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.spec.model.classes as usize
    }

    /// Number of the classifier's outputs.
    pub fn outputs(&self) -> usize {
        self.spec.model.outputs() as usize
    }

    /// Number of elements of all parameters.
    pub fn elements(&self) -> usize {
        self.parameters.iter().map(|(spec, _)| spec.len()).sum()
    }

    /// What each class is, in their order.
    pub fn class_names(&self) -> Vec<String> {
        match self.classes() {
            2 => {
                let from = self.spec.model.positive_from;
                vec![
                    format!("DR grade below {from}"),
                    format!("DR grade {from} or more"),
                ]
            }
            n => (0..n as u32)
                .map(|class| format!("DR {}", self.spec.model.class_name(class)))
                .collect(),
        }
    }
}

/// The values of a parameter, if the file has it in its shape.
fn values(tensors: &SafeTensors<'_>, parameter: &ParamSpec) -> Result<Vec<f32>, ModelError> {
    let name = || parameter.name.clone();
    let tensor = tensors
        .tensor(&parameter.name)
        .map_err(|_| ModelError::Missing { name: name() })?;
    if tensor.dtype() != Dtype::F32 || tensor.shape() != parameter.shape {
        return Err(ModelError::Shape {
            name: name(),
            found: tensor.shape().to_vec(),
            dtype: format!("{:?}", tensor.dtype()),
            expected: parameter.shape.clone(),
        });
    }
    let (words, _) = tensor.data().as_chunks::<4>();
    let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    if !values.iter().all(|value| value.is_finite()) {
        return Err(ModelError::NotFinite { name: name() });
    }
    Ok(values)
}
