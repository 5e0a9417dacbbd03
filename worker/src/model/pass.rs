//! A training pass between its forward and its backward pass.

use fovea_core::googlenet::{BUCKET_STARTS, Entry, FlatLayout};
use tch::Tensor;

use super::autograd;
use super::net::Net;
use crate::shim::ShimError;

/// Where a backward pass puts gradients, bucket by bucket (see [`FlatLayout::buckets`]).
pub trait Sink {
    /// Stores the gradient of one parameter, in the parameter's shape, in the elements of a bucket from `at` on.
    fn put(&mut self, bucket: usize, at: usize, gradient: &Tensor);

    /// Called when all gradients of a bucket have been stored. Buckets of weights are finished from the last to the first,
    /// then the bucket of everything else. Empty buckets are finished, too.
    fn finished(&mut self, bucket: usize);
}

/// The logits, and the graph that the backward pass needs.
#[derive(Debug)]
pub struct Pass {
    logits: Tensor,
    /// Inputs of the parts that the backward pass is taken in, in the order of the forward pass. The last part is always
    /// there; of the others, those that are not frozen.
    inputs: Vec<Tensor>,
}

impl Pass {
    pub(super) fn new(logits: Tensor, inputs: Vec<Tensor>) -> Pass {
        Pass { logits, inputs }
    }

    /// f32 `[batch, classes]`, with the graph attached.
    pub fn logits(&self) -> &Tensor {
        &self.logits
    }

    /// Puts the gradient of `loss` (a scalar computed from the logits) into `sink`, part by part, so that a bucket can
    /// be used while the rest is computed.
    ///
    /// # Errors
    /// If libtorch cannot compute it: because the parameters were changed since the forward pass, say, or a GPU failed.
    pub fn gradient(self, net: &Net, loss: &Tensor, sink: &mut dyn Sink) -> Result<(), ShimError> {
        let layout = net.layout();
        let buckets = layout.buckets();
        let mut output = loss.shallow_clone();
        let mut by_output: Option<Tensor> = None;
        let parts = (0..=BUCKET_STARTS.len()).rev();
        let mut inputs = self.inputs.into_iter().rev();
        for part in parts {
            let leaves = net.leaves().filter(|(entry, _)| entry.part() == part);
            let (entries, mut wanted): (Vec<&Entry>, Vec<&Tensor>) = leaves.unzip();
            let before = inputs.next();
            let goes_on = before.as_ref().filter(|input| input.requires_grad());
            wanted.extend(goes_on);
            if !wanted.is_empty() {
                let gradients = autograd::gradients(&output, by_output.as_ref(), &wanted)?;
                for (entry, gradient) in entries.iter().zip(&gradients) {
                    let bucket = layout.bucket(entry);
                    sink.put(bucket, entry.offset - buckets[bucket].start, gradient);
                }
                by_output = gradients.into_iter().nth(entries.len());
            }
            sink.finished(part);
            if let Some(before) = before {
                output = before;
            }
        }
        sink.finished(FlatLayout::OTHERS);
        Ok(())
    }
}
