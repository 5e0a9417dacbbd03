//! BVLC GoogLeNet as pure data: layers, shapes, sizes, the flat layout of its parameters, and the initial values of new
//! parameters.
//!
//! The network is BVLC's `bvlc_googlenet`: its main trunk (57 convolutions and `loss3/classifier`), or the trunk up to an
//! earlier layer, with or without the auxiliary heads (see [`Network`]). Layer names are Caffe's, and parameters are called `<layer>.weight` and `<layer>.bias`. Nothing here computes with tensors, so the coordinator can
//! name the tensors of a checkpoint without linking libtorch.

mod init;
mod layers;
mod layout;
mod network;
mod params;

pub use init::fill;
pub use layers::{
    DENSE_KERNEL, DROPOUT_RATIO, HEAD, HEAD_INPUT, LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE, Layer, Op,
    ShapeError, TRUNK_CLASSES, layers, macs, output_shapes, weight_layer_names,
};
pub use layout::{
    BUCKET_STARTS, Entry, FlatLayout, Group, GroupKind, LayoutError, StateEntry, VELOCITY_PREFIX,
    nearest_layers, part_of,
};
pub use network::{
    AUXILIARY_DROPOUT, AUXILIARY_MAP, AUXILIARY_UNITS, AuxiliaryHead, Network, POOL5, Pooling, Tap,
    UnknownTap, auxiliary_windows,
};
pub use params::{ParamKind, ParamSpec, is_classifier, param_count, param_specs};
