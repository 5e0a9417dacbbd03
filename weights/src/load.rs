//! Copying weights to parameters by the names of their layers.

use std::collections::{HashMap, HashSet};

use fovea_core::googlenet::{ParamKind, ParamSpec};

use super::error::{LayerProblem, WeightsError};
use super::source::{Format, Source};

/// What [`load`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// How the file is written.
    pub format: Format,
    /// Layers whose weight and bias were copied, in the order of the network.
    pub copied: Vec<String>,
    /// Layers with weights in the file that the network does not have, or has replaced.
    pub ignored: Vec<String>,
}

/// Copies the weights of `source` to the parameters `specs`, leaving out the layers named in `replaced`. `set` is given
/// each parameter once, with its numbers in the order of its shape.
///
/// On an error some parameters may have been set already.
///
/// # Errors
/// The file cannot be read, or does not fit the network; the message names the layer.
pub fn load(
    source: &mut Source,
    specs: &[ParamSpec],
    replaced: &[&str],
    set: &mut dyn FnMut(&ParamSpec, &[f32]),
) -> Result<Loaded, WeightsError> {
    let mut wanted: HashMap<&str, [Option<&ParamSpec>; 2]> = HashMap::new();
    for spec in specs {
        if !replaced.contains(&spec.layer.as_str()) {
            wanted.entry(&spec.layer).or_default()[blob_of(spec.kind)] = Some(spec);
        }
    }
    let mut copied = HashSet::new();
    let mut ignored = Vec::new();
    let format = source.read(&mut |blob| {
        let Some(of_layer) = wanted.get(blob.layer) else {
            if ignored.last().is_none_or(|last| last != blob.layer) {
                ignored.push(blob.layer.to_string());
            }
            return Ok(());
        };
        let Some(spec) = of_layer.get(blob.index).copied().flatten() else {
            return Err(LayerProblem::ExtraBlob { index: blob.index });
        };
        if !same_shape(blob.shape, &spec.shape) {
            return Err(LayerProblem::OtherShape {
                kind: spec.kind.suffix(),
                found: blob.shape.to_vec(),
                wanted: spec.shape.clone(),
            });
        }
        if !blob.values.iter().all(|value| value.is_finite()) {
            return Err(LayerProblem::NotFinite {
                kind: spec.kind.suffix(),
            });
        }
        if !copied.insert(spec.name.as_str()) {
            return Err(LayerProblem::Repeated {
                kind: spec.kind.suffix(),
            });
        }
        set(spec, blob.values);
        Ok(())
    })?;
    let needed = || {
        let of_file = |spec: &&ParamSpec| wanted.contains_key(spec.layer.as_str());
        specs.iter().filter(of_file)
    };
    let mut missing = needed().filter(|spec| !copied.contains(spec.name.as_str()));
    if let Some(first) = missing.next() {
        let layers: HashSet<&str> = missing.map(|spec| spec.layer.as_str()).collect();
        return Err(WeightsError::Missing {
            file: source.name().to_owned(),
            layer: first.layer.clone(),
            kind: first.kind.suffix(),
            others: layers.iter().filter(|layer| **layer != first.layer).count(),
            of: wanted.len(),
        });
    }
    let weights = needed().filter(|spec| spec.kind == ParamKind::Weight);
    Ok(Loaded {
        format,
        copied: weights.map(|spec| spec.layer.clone()).collect(),
        ignored,
    })
}

fn blob_of(kind: ParamKind) -> usize {
    match kind {
        ParamKind::Weight => 0,
        ParamKind::Bias => 1,
    }
}

/// Equal but for leading ones: Caffe's older files write a bias as 1x1x1xN.
fn same_shape(a: &[usize], b: &[usize]) -> bool {
    let trimmed = |shape: &[usize]| {
        let ones = shape.iter().take_while(|&&n| n == 1).count();
        shape[ones..].to_vec()
    };
    trimmed(a) == trimmed(b)
}
