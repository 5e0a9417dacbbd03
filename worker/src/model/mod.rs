//! BVLC GoogLeNet on libtorch.
//!
//! [`Net`] keeps all trainable parameters in one flat tensor, laid out by
//! [`fovea_core::googlenet::FlatLayout`]; the layers' weights are views of it, so the optimizer, the
//! reduction and checkpoints work on one array and nothing is copied. Activations are channels-last
//! (in memory: image, row, column, channel) throughout, which is the fast form on CPUs and GPUs.
//!
//! On the CPU the 3x3 convolutions, pooling and normalisation are computed by `fovea_kernels` ([`conv3x3`], [`pool`],
//! [`lrn`]), and an inception module is one operation ([`inception`]). [`autograd`] makes them functions of libtorch's
//! autograd. Where no gradient flows (the frozen stem, evaluation), ReLU, normalisation and pooling run fused. [`raw`] is
//! where tensors become slices.
//!
//! Activations are f32 or bfloat16, and convolutions, ReLU, pooling and concatenation are computed in the same (on most
//! CPUs 3x3 convolutions in f32, see [`conv3x3`]; [`Net::with_precision`]). Normalisation, classifier and loss are always
//! in f32, and so are parameters and their gradients. The casts are written out, because tch's autocast is for CUDA only.

mod autograd;
mod auxiliary;
mod conv3x3;
pub(crate) mod convolution;
mod forward;
mod inception;
mod loss;
pub mod lrn;
mod maps;
mod memory;
mod net;
mod pass;
mod pool;
pub(crate) mod raw;
mod stage;

pub use loss::{log_probabilities, loss_sum};
pub use net::{Net, channels_last};
pub use pass::{Auxiliary, Pass, Sink};

#[cfg(test)]
mod bf16_tests;
#[cfg(test)]
mod conv3x3_tests;
#[cfg(test)]
mod exported_tests;
#[cfg(test)]
mod network_tests;
#[cfg(test)]
mod tests;
