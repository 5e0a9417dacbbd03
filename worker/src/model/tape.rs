//! The backward pass, cut at the normalisations.
//!
//! libtorch's own LRN takes a quarter of a training step, because it is composed of pooling over an extra
//! dimension and of `pow`. Ours is one pass over the data each way, but tch offers no way to hang a
//! function of one's own into autograd. So the graph is *cut* where a normalisation has a gradient to
//! pass on: its output becomes a leaf of a new graph, and the backward pass goes segment by segment, last
//! first, with our kernel between.

use std::ops::Range;

use tch::{Device, Tensor, no_grad};

use super::forward::segment_of;
use super::net::{Net, channels_last};
use super::{kernels, lrn};

/// A training pass that waits for its backward pass.
#[derive(Debug)]
pub struct Pass {
    logits: Tensor,
    tape: Tape,
}

impl Pass {
    pub(super) fn new(logits: Tensor, tape: Tape) -> Pass {
        Pass { logits, tape }
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
        let mut from = loss.shallow_clone();
        let mut end = usize::MAX;
        for cut in self.tape.cuts.into_iter().rev() {
            let start = cut.norm + 1;
            let above = backward(net, &from, start..end, Some(&cut.output), out);
            let above = above.expect("a gradient of the cut was asked for");
            let below = no_grad(|| kernels::lrn_backward(&cut.input, &above));
            from = functional(&cut.input, &below);
            end = start;
        }
        backward(net, &from, 0..end, None, out);
    }
}

/// Where the graph of a pass was cut.
#[derive(Debug)]
pub(super) struct Tape {
    /// First normalisation first.
    cuts: Vec<Cut>,
    fuse: bool,
}

#[derive(Debug)]
struct Cut {
    /// 0 is pool1/norm1, 1 is conv2/norm2.
    norm: usize,
    /// What the normalisation took: the end of a graph.
    input: Tensor,
    /// What it gave: a leaf of the next one.
    output: Tensor,
}

impl Tape {
    pub fn new() -> Tape {
        Tape {
            cuts: Vec::new(),
            fuse: true,
        }
    }

    /// A tape under which every layer is computed by itself.
    pub fn layer_by_layer() -> Tape {
        Tape {
            cuts: Vec::new(),
            fuse: false,
        }
    }

    pub fn may_fuse(&self) -> bool {
        self.fuse
    }

    /// Local response normalisation number `norm`.
    pub fn lrn(&mut self, x: &Tensor, norm: usize) -> Tensor {
        if x.device() != Device::Cpu {
            return lrn::composed(x);
        }
        let y = no_grad(|| kernels::lrn(x));
        if !x.requires_grad() {
            return y;
        }
        let output = y.detach().set_requires_grad(true);
        self.cuts.push(Cut {
            norm,
            input: x.shallow_clone(),
            output: output.shallow_clone(),
        });
        output
    }
}

/// Runs autograd from `from` to the parameters of the layers in `segments`, and to `cut`, whose gradient
/// it returns; the parameters' go to their places in `out`.
fn backward(
    net: &Net,
    from: &Tensor,
    segments: Range<usize>,
    cut: Option<&Tensor>,
    out: &Tensor,
) -> Option<Tensor> {
    let (entries, mut inputs): (Vec<_>, Vec<_>) = net
        .leaves()
        .filter(|(entry, _)| segments.contains(&segment_of(&entry.spec.layer)))
        .unzip();
    inputs.extend(cut);
    let mut grads = Tensor::run_backward(&[from], &inputs, false, false);
    let cut = cut.map(|_| grads.pop().expect("one gradient for each input"));
    no_grad(|| {
        for (entry, grad) in entries.iter().zip(grads) {
            // The gradient of a convolution's weight may come in channels-last order: copied by index,
            // not by memory.
            out.narrow(0, entry.offset as i64, entry.spec.len() as i64)
                .view(&grad.size()[..])
                .copy_(&grad);
        }
    });
    cut
}

/// A scalar whose gradient by `x` is `gradient`: how a backward pass is begun in the middle of a network.
fn functional(x: &Tensor, gradient: &Tensor) -> Tensor {
    let flat = |t: &Tensor| channels_last(t).permute([0, 2, 3, 1]).reshape([-1]);
    flat(x).dot(&no_grad(|| flat(gradient)))
}
