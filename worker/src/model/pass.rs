//! A training pass that waits for its backward pass.

use tch::{Tensor, no_grad};

use super::net::Net;

/// The logits, with all that the backward pass needs behind them.
#[derive(Debug)]
pub struct Pass {
    logits: Tensor,
}

impl Pass {
    pub(super) fn new(logits: Tensor) -> Pass {
        Pass { logits }
    }

    /// f32 `[batch, classes]`, with the graph attached.
    pub fn logits(&self) -> &Tensor {
        &self.logits
    }

    /// Writes the gradient of `loss` (a scalar computed from the logits) into `out`: f32
    /// `[layout.trainable_len()]`, laid out as the parameters are. What `out` held is overwritten.
    ///
    /// # Panics
    /// If `out` has another length, or the parameters were changed since the forward pass.
    pub fn gradient(self, net: &Net, loss: &Tensor, out: &Tensor) {
        let len = net.layout().trainable_len() as i64;
        assert_eq!(out.size(), [len], "shape of the flat gradient");
        let (entries, leaves): (Vec<_>, Vec<_>) = net.leaves().unzip();
        let gradients = Tensor::run_backward(&[loss], &leaves, false, false);
        no_grad(|| {
            for (entry, gradient) in entries.iter().zip(gradients) {
                // The gradient of a convolution's weight may come in channels-last order: copied by
                // index, not by memory.
                out.narrow(0, entry.offset as i64, entry.spec.len() as i64)
                    .view(&gradient.size()[..])
                    .copy_(&gradient);
            }
        });
    }
}
