//! Reading given weights: Caffe's `.caffemodel` and `.safetensors`.
//!
//! Weights are copied **by layer name**, as Caffe's fine-tuning does: layers that the network does not
//! have are ignored, a layer that the network has must be in the file with the same shape, and the
//! replaced layer (the classifier) is left out of it. Files are streamed one layer at a time, and no memory is allocated
//! for a length that a file only declares, so a damaged or hostile file gives an error that names the layer, in bounded
//! memory.

mod caffe;
mod error;
mod tensors;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use fovea_core::googlenet::{ParamKind, ParamSpec};

pub use error::{LayerProblem, WeightsError};

/// Copies the weights in the file `path` to the parameters `specs`, leaving out the layers named in
/// `replaced`. `set` is given each parameter once, with its numbers in the order of its shape.
///
/// On an error some parameters may have been set already.
pub fn load(
    path: &Path,
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
    read(path, &mut |blob| {
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
    let mut layers = Vec::new();
    for spec in specs
        .iter()
        .filter(|s| wanted.contains_key(s.layer.as_str()))
    {
        if !copied.contains(spec.name.as_str()) {
            return Err(WeightsError::Missing {
                path: path.to_path_buf(),
                layer: spec.layer.clone(),
                kind: spec.kind.suffix(),
            });
        }
        if spec.kind == ParamKind::Weight {
            layers.push(spec.layer.clone());
        }
    }
    Ok(Loaded {
        copied: layers,
        ignored,
    })
}

/// What [`load`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Layers whose weight and bias were copied, in the order of the network.
    pub copied: Vec<String>,
    /// Layers with weights in the file that the network does not have, or has replaced.
    pub ignored: Vec<String>,
}

/// One array of numbers in a file.
#[derive(Debug, Clone, Copy)]
pub struct Blob<'a> {
    pub layer: &'a str,
    /// 0 is the weight, 1 the bias.
    pub index: usize,
    /// As the file gives it; Caffe's older files have four dimensions throughout.
    pub shape: &'a [usize],
    /// As many as the product of `shape`.
    pub values: &'a [f32],
}

/// Streams every array of numbers in the file `path` to `visit`, in the order of the file. The format is
/// recognized by the first bytes.
pub fn read(
    path: &Path,
    visit: &mut dyn FnMut(Blob) -> Result<(), LayerProblem>,
) -> Result<(), WeightsError> {
    let in_file = |source| WeightsError::Io {
        path: path.to_path_buf(),
        source,
    };
    let file = open(path)?;
    let size = file.metadata().map_err(in_file)?.len();
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut start = Vec::new();
    (&mut reader)
        .take(9)
        .read_to_end(&mut start)
        .map_err(in_file)?;
    reader.rewind().map_err(in_file)?;
    let result = if start.get(8) == Some(&b'{') {
        tensors::read(&mut reader, size, visit)
    } else {
        caffe::read(&mut reader, size, visit)
    };
    result.map_err(|problem| problem.of(path))
}

/// Opens a file of weights. Anything but a regular file is refused at once: opening or reading a FIFO, a socket or a
/// device could block for ever.
pub fn open(path: &Path) -> Result<File, WeightsError> {
    let in_file = |source| WeightsError::Io {
        path: path.to_path_buf(),
        source,
    };
    // Without O_NONBLOCK the open of a FIFO blocks until somebody writes to it. It has no effect on regular files.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(in_file)?;
    let kind = file.metadata().map_err(in_file)?.file_type();
    let kind = if kind.is_file() {
        return Ok(file);
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(WeightsError::NotRegular {
        path: path.to_path_buf(),
        kind,
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

#[cfg(test)]
mod caffe_tests;
#[cfg(test)]
mod tensors_tests;
