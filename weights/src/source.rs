//! An open file of weights, and its arrays of numbers one after the other.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{LayerProblem, WeightsError};
use super::{caffe, recognise, tensors};

/// The largest file that a coordinator takes, in bytes. BVLC's GoogLeNet has 51 MiB with its auxiliary classifiers.
pub const MOST_BYTES: u64 = 256 << 20;

/// An open file of weights.
#[derive(Debug)]
pub struct Source {
    file: File,
    name: String,
}

/// How the numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Caffe's binary `NetParameter`.
    Caffemodel,
    /// The format of Fovea's checkpoints.
    Safetensors,
}

impl Format {
    /// Its name, which is the usual end of a file's name, too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caffemodel => "caffemodel",
            Self::Safetensors => "safetensors",
        }
    }
}

/// What a file says of a layer, before its numbers.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Its name.
    pub layer: &'a str,
    /// What it computes, as Caffe calls it, such as `Convolution`, or the end of a tensor's name, such as `running_mean`;
    /// empty if the file does not say.
    pub kind: &'a str,
    /// Names of its inputs and outputs; empty if the file does not say.
    pub bottoms: &'a [String],
    pub tops: &'a [String],
    /// How many arrays of numbers it has.
    pub blobs: usize,
}

/// What is done with the layers of a file.
pub trait Visit {
    /// A layer begins. The answer is whether its numbers are wanted; those of others are not decoded.
    ///
    /// # Errors
    /// The file is refused because of this layer.
    fn head(&mut self, head: Head) -> Result<bool, LayerProblem>;

    /// One array of numbers of a wanted layer.
    ///
    /// # Errors
    /// The file is refused because of this layer.
    fn blob(&mut self, blob: Blob) -> Result<(), LayerProblem>;

    /// What the file says of itself, before its layers; not all formats can.
    fn metadata(&mut self, _: &HashMap<String, String>) {}
}

/// One array of numbers in a file.
#[derive(Debug, Clone, Copy)]
pub struct Blob<'a> {
    /// The layer that it belongs to.
    pub layer: &'a str,
    /// 0 is the weight, 1 the bias.
    pub index: usize,
    /// As the file gives it; Caffe's older files have four dimensions throughout.
    pub shape: &'a [usize],
    /// As many as the product of `shape`.
    pub values: &'a [f32],
}

impl Source {
    /// A file that is open already; `name` is what messages call it. Its position does not matter.
    pub fn new(file: File, name: impl Into<String>) -> Self {
        Self {
            file,
            name: name.into(),
        }
    }

    /// Opens the file `path`. Anything but a regular file is refused at once: opening or reading a FIFO, a socket or a
    /// device could block for ever.
    ///
    /// # Errors
    /// `Io` or `NotRegular`.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let name = path.display().to_string();
        let in_file = |source| WeightsError::Io {
            file: name.clone(),
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
            return Ok(Self { file, name });
        } else if kind.is_fifo() {
            "a FIFO"
        } else if kind.is_dir() {
            "a folder"
        } else if kind.is_socket() {
            "a socket"
        } else {
            "a device"
        };
        Err(WeightsError::NotRegular { file: name, kind })
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Streams the layers to `visit`, in the order of the file. The format is recognized by the first bytes.
    ///
    /// # Errors
    /// The file cannot be read, is of no known format, or `visit` refused a layer.
    pub fn read(&mut self, visit: &mut dyn Visit) -> Result<Format, WeightsError> {
        let in_file = |source| WeightsError::Io {
            file: self.name.clone(),
            source,
        };
        let size = self.file.metadata().map_err(in_file)?.len();
        let mut reader = BufReader::with_capacity(1 << 16, &self.file);
        reader.rewind().map_err(in_file)?;
        let mut start = Vec::new();
        (&mut reader)
            .take(recognise::START)
            .read_to_end(&mut start)
            .map_err(in_file)?;
        reader.rewind().map_err(in_file)?;
        if let Some((kind, advice)) = recognise::other_kind(&start) {
            return Err(WeightsError::OtherKind {
                file: self.name.clone(),
                kind,
                advice,
            });
        }
        let (format, result) = if start.get(8) == Some(&b'{') {
            let read = tensors::read(&mut reader, size, visit);
            (Format::Safetensors, read)
        } else {
            (Format::Caffemodel, caffe::read(&mut reader, size, visit))
        };
        match result {
            Ok(()) => Ok(format),
            Err(problem) => Err(problem.of(&self.name)),
        }
    }
}
