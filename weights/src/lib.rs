//! Files of GoogLeNet's weights: Caffe's `.caffemodel` and `.safetensors`.
//!
//! The coordinator checks a file before it stores it ([`check`]), the client shows what it found, and workers read it
//! into a run's first state ([`load`]). Nothing here computes with tensors, so libtorch is not needed.
//!
//! Weights are copied **by layer name**, as Caffe's fine-tuning does: layers that the network does not
//! have are ignored, a layer that the network has must be in the file with the same shape, and the
//! replaced layer (the classifier) is left out of it. A file whose network computes something else between those layers, such
//! as batch normalisation, is refused. Files are streamed one layer at a time, and no memory is allocated
//! for a length that a file only declares, so a damaged or hostile file gives an error that names the layer, in bounded
//! memory.

mod caffe;
mod check;
mod error;
mod foreign;
mod header;
mod load;
mod recognise;
mod source;
mod tensors;

pub use check::{Checked, Ignored, Layer, Why, check};
pub use error::{LayerProblem, WeightsError};
pub use header::header;
pub use load::{Loaded, load};
pub use source::{Blob, Format, Head, MOST_BYTES, Source, Visit};

#[cfg(test)]
mod caffe_tests;
#[cfg(test)]
mod tensors_tests;
#[cfg(test)]
mod testing;
