//! A training pass between its forward and its backward pass.

use fovea_core::googlenet::{AuxiliaryHead, BUCKET_STARTS, Entry, FlatLayout, part_of};
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
    auxiliary: Vec<Auxiliary>,
    /// Inputs of the parts that the backward pass is taken in, in the order of the forward pass. The last part is always
    /// there; of the others, those that are not frozen.
    inputs: Vec<Tensor>,
}

/// The logits of an auxiliary head.
#[derive(Debug)]
pub struct Auxiliary {
    /// Which head.
    pub head: AuxiliaryHead,
    /// f32 `[batch, outputs]`, with the graph attached.
    pub logits: Tensor,
}

impl Pass {
    pub(super) fn new(logits: Tensor, auxiliary: Vec<Auxiliary>, inputs: Vec<Tensor>) -> Pass {
        Pass {
            logits,
            auxiliary,
            inputs,
        }
    }

    /// f32 `[batch, classes]`, with the graph attached.
    pub fn logits(&self) -> &Tensor {
        &self.logits
    }

    /// The auxiliary heads' logits, in the order of the forward pass; none if the network has no such heads.
    pub fn auxiliary(&self) -> &[Auxiliary] {
        &self.auxiliary
    }

    /// Puts the gradient of the sum of `loss` (a scalar computed from the logits) and `auxiliary` (one computed from each
    /// auxiliary head's) into `sink`, part by part, so that a bucket can be used while the rest is computed.
    ///
    /// # Errors
    /// If libtorch cannot compute it: because the parameters were changed since the forward pass, say, or a GPU failed.
    pub fn gradient(
        self,
        net: &Net,
        loss: &Tensor,
        auxiliary: &[Tensor],
        sink: &mut dyn Sink,
    ) -> Result<(), ShimError> {
        let layout = net.layout();
        let buckets = layout.buckets();
        let last = BUCKET_STARTS.len();
        // What the part's outputs are: what the part behind it reads, with its gradient, and auxiliary losses.
        let mut output = Some((loss.shallow_clone(), None));
        let mut inputs = self.inputs.into_iter().rev();
        for part in (0..=last).rev() {
            let leaves = net.leaves().filter(|(entry, _)| entry.part() == part);
            let (entries, mut wanted): (Vec<&Entry>, Vec<&Tensor>) = leaves.unzip();
            let before = inputs.next();
            let goes_on = before.as_ref().filter(|input| input.requires_grad());
            wanted.extend(goes_on);
            let of_part = |(head, _): &(&Auxiliary, &Tensor)| part_of(head.head.module()) == part;
            let losses = self.auxiliary.iter().zip(auxiliary).filter(of_part);
            let mut outputs: Vec<(&Tensor, Option<&Tensor>)> = output
                .iter()
                .map(|(output, by)| (output, by.as_ref()))
                .collect();
            outputs.extend(losses.map(|(_, loss)| (loss, None)));
            let mut by_input = None;
            if !wanted.is_empty() && !outputs.is_empty() {
                let gradients = autograd::gradients(&outputs, &wanted)?;
                for (entry, gradient) in entries.iter().zip(&gradients) {
                    let bucket = layout.bucket(entry);
                    sink.put(bucket, entry.offset - buckets[bucket].start, gradient);
                }
                by_input = gradients.into_iter().nth(entries.len());
            }
            sink.finished(part);
            output = before.zip(by_input).map(|(input, by)| (input, Some(by)));
        }
        sink.finished(FlatLayout::OTHERS);
        Ok(())
    }
}
