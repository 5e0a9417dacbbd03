//! A trained model for other programs: as ONNX, and as safetensors without the optimizer's state.
//!
//! Pure: bytes of a checkpoint in, bytes of a file out. The layers come from [`fovea_core::googlenet`], so what is exported
//! is the network that was trained, layer by layer.

mod model;
mod onnx;
mod plain;

pub use model::{Model, ModelError};
pub use onnx::{INPUT, LOGITS, OPSET, PROBABILITIES, onnx};
pub use plain::{FORMAT, safetensors};

#[cfg(test)]
mod tests;
