//! Copying weights to parameters by the names of their layers.

use std::collections::{HashMap, HashSet};

use fovea_core::googlenet::{ParamKind, ParamSpec};
use fovea_core::pipeline::Pipeline;

use super::error::{LayerProblem, WeightsError};
use super::foreign::{Foreign, is_auxiliary};
use super::source::{Blob, Format, Head, Source, Visit};

/// What [`load`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// How the file is written.
    pub format: Format,
    /// Layers whose weight and bias were copied, in the order of the network.
    pub copied: Vec<String>,
    /// Layers with weights in the file that the network does not have, or has replaced.
    pub ignored: Vec<String>,
    /// How the photographs were prepared that they were learnt from, if the file says.
    pub pipeline: Option<Pipeline>,
}

/// Copies the weights of `source` to the parameters `specs`, leaving out the layers named in `replaced`. `set` is given
/// each parameter once, with its numbers in the order of its shape. Layers of the auxiliary heads are optional: most files of
/// GoogLeNet come without them.
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
    let mut copying = Copying {
        foreign: Foreign::new(wanted.keys().copied(), replaced),
        wanted,
        copied: HashSet::new(),
        ignored: Vec::new(),
        pipeline: None,
        set,
    };
    let format = source.read(&mut copying)?;
    let Copying {
        wanted,
        copied,
        ignored,
        pipeline,
        ..
    } = copying;
    let needed = || {
        let of_file = |spec: &&ParamSpec| wanted.contains_key(spec.layer.as_str());
        specs.iter().filter(of_file)
    };
    let begun: HashSet<&str> = specs
        .iter()
        .filter(|spec| copied.contains(spec.name.as_str()))
        .map(|spec| spec.layer.as_str())
        .collect();
    let absent = |spec: &&ParamSpec| {
        let optional = is_auxiliary(&spec.layer) && !begun.contains(spec.layer.as_str());
        !optional && !copied.contains(spec.name.as_str())
    };
    let mut missing = needed().filter(absent);
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
    let weights = needed()
        .filter(|spec| spec.kind == ParamKind::Weight && begun.contains(spec.layer.as_str()));
    Ok(Loaded {
        format,
        copied: weights.map(|spec| spec.layer.clone()).collect(),
        ignored,
        pipeline,
    })
}

struct Copying<'a> {
    /// Weight and bias of each layer that is copied.
    wanted: HashMap<&'a str, [Option<&'a ParamSpec>; 2]>,
    foreign: Foreign<'a>,
    /// Names of the parameters that were set.
    copied: HashSet<&'a str>,
    ignored: Vec<String>,
    pipeline: Option<Pipeline>,
    set: &'a mut dyn FnMut(&ParamSpec, &[f32]),
}

impl Visit for Copying<'_> {
    fn metadata(&mut self, said: &HashMap<String, String>) {
        let pipeline = said.get(Pipeline::KEY);
        self.pipeline = pipeline.and_then(|json| Pipeline::from_metadata(json));
    }

    fn head(&mut self, head: Head) -> Result<bool, LayerProblem> {
        self.foreign.follow(&head)?;
        let wanted = self.wanted.contains_key(head.layer);
        if !wanted && head.blobs > 0 && self.ignored.last().is_none_or(|l| l != head.layer) {
            self.ignored.push(head.layer.to_owned());
        }
        Ok(wanted)
    }

    fn blob(&mut self, blob: Blob) -> Result<(), LayerProblem> {
        let of_layer = self.wanted.get(blob.layer);
        let Some(spec) = of_layer.and_then(|of_layer| of_layer.get(blob.index).copied().flatten())
        else {
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
        if !self.copied.insert(spec.name.as_str()) {
            return Err(LayerProblem::Repeated {
                kind: spec.kind.suffix(),
            });
        }
        (self.set)(spec, blob.values);
        Ok(())
    }
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
