//! Compute kernels of the CPU: the parts of GoogLeNet that are faster here than in libtorch. And the kernels for NVIDIA GPUs, as
//! source and launches ([`cuda`]).
//!
//! | module | computes |
//! |---|---|
//! | [`conv3x3`] | 3x3 convolution with bias and ReLU by Winograd's minimal filtering, and its gradients |
//! | [`pool`] | 3x3 max pooling and its gradient |
//! | [`lrn`] | local response normalisation, its gradient, and its fusions with ReLU and pooling |
//! | [`relu`] | bias and ReLU into some channels of a wider tensor, and their gradients |
//! | [`pointwise`] | 1x1 convolution as a matrix product, and its gradients |
//! | [`matrix`] | f32 matrix products into memory that exists already |
//! | [`cuda`] | the same between products and convolutions, for GPUs |
//!
//! # Interface
//!
//! No public item is unsafe. Kernels take slices with a [`Shape`], or views of slices ([`Images`],
//! [`ImagesMut`], [`matrix::Matrix`], [`matrix::MatrixMut`]) that carry their shape and lifetime. Each public function compares
//! lengths and shapes once a call, in release builds too, and panics with the kernel's name and both
//! shapes where they differ: a wrong shape is a mistake in the calling program.
//!
//! Images are channels-last: `[images, height, width, channels]`, the last dimension contiguous. They hold
//! f32 or bfloat16 ([`Bf16`]); the arithmetic is f32 in both cases.
//!
//! # Bits
//!
//! A result does not depend on the number of [`Threads`]: work is divided by image or by matrix row, and each number
//! is computed by one thread in a fixed order. Vectorised code uses only additions, multiplications and comparisons,
//! never contracted into one, so the vector width does not change a bit either. Matrix products depend
//! on the processor and on the sizes of the matrices.

#![deny(unsafe_op_in_unsafe_fn, missing_docs)]

mod check;
pub mod conv3x3;
pub mod cuda;
mod images;
pub mod lrn;
pub mod matrix;
mod number;
pub mod pointwise;
pub mod pool;
pub mod relu;
mod shape;
mod simd;
mod threads;
mod winograd;

#[cfg(test)]
mod testing;

pub use images::{Images, ImagesMut};
pub use number::{Bf16, Number};
pub use shape::Shape;
pub use threads::Threads;
