//! BVLC GoogLeNet as pure data: layers, shapes, sizes, the flat layout of its parameters, and the initial values of new
//! parameters.
//!
//! The network is the main trunk of BVLC's `bvlc_googlenet` (57 convolutions and `loss3/classifier`; the
//! auxiliary heads exist for training from scratch and are not part of it). Layer names are Caffe's, and
//! parameters are called `<layer>.weight` and `<layer>.bias`. Nothing here computes with tensors, so the coordinator can
//! name the tensors of a checkpoint without linking libtorch.

mod init;
mod layers;
mod layout;
mod params;

pub use init::fill;
pub use layers::{
    DROPOUT_RATIO, HEAD, HEAD_INPUT, LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE, Layer, Op, ShapeError,
    TRUNK_CLASSES, layers, macs, output_shapes, weight_layer_names,
};
pub use layout::{
    BUCKET_STARTS, Entry, FlatLayout, Group, GroupKind, LayoutError, StateEntry, VELOCITY_PREFIX,
    nearest_layers,
};
pub use params::{ParamKind, ParamSpec, param_count, param_specs};
