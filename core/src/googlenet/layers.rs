//! The layer table of the network, and the shapes and amounts of work that follow from it.
//!
//! Source: BVLC/caffe `models/bvlc_googlenet/train_val.prototxt` (settings) and `src/caffe/layers`
//! (rules for shapes: a convolution rounds down, a pooling rounds up).

use std::collections::HashMap;

use super::network::{
    AUXILIARY_DROPOUT, AUXILIARY_FILTERS, AUXILIARY_MAP, AUXILIARY_UNITS, AuxiliaryHead, Network,
    Pooling,
};

/// Every layer of the network in the order of computation. `network` may be a number: the trunk with a head of so many outputs.
///
/// An in-place ReLU follows every convolution, and the inner product that is not a classifier; it is the layer's `relu` flag
/// and not a layer of its own. The average before the classifier is over the whole map ([`Pooling::Global`]), so the network
/// accepts inputs of any size; at 224 px it equals Caffe's `pool5/7x7_s1`.
pub fn layers(network: impl Into<Network>) -> Vec<Layer> {
    let network = network.into();
    let mut net = Trunk::new();
    net.conv("conv1/7x7_s2", 64, 7, 2, 3);
    net.max_pool("pool1/3x3_s2", 3, 2, 0);
    net.same_shape("pool1/norm1", Op::Lrn);
    net.conv("conv2/3x3_reduce", 64, 1, 1, 0);
    net.conv("conv2/3x3", 192, 3, 1, 1);
    net.same_shape("conv2/norm2", Op::Lrn);
    net.max_pool("pool2/3x3_s2", 3, 2, 0);
    for module in &INCEPTIONS {
        net.inception(module);
        let auxiliary = AuxiliaryHead::after(&format!("inception_{}", module.name));
        if let Some(head) = auxiliary.filter(|_| network.auxiliary) {
            net.auxiliary(head, network.outputs);
        }
        match module.name {
            "3b" => net.max_pool("pool3/3x3_s2", 3, 2, 0),
            "4e" => net.max_pool("pool4/3x3_s2", 3, 2, 0),
            _ => {}
        }
    }
    net.end_at(network.tap.layer());
    let average = match network.pooling {
        Pooling::Global => Op::GlobalAveragePool,
        Pooling::Dense => Op::DenseAveragePool {
            kernel: DENSE_KERNEL,
        },
    };
    net.same_shape(&network.tap.pool(), average);
    net.same_shape(
        "pool5/drop_7x7_s1",
        Op::Dropout {
            ratio: DROPOUT_RATIO,
        },
    );
    let input = network.head_input();
    net.push(HEAD, Op::InnerProduct { input }, network.outputs, false);
    net.layers
}

/// One layer of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Caffe's name, such as `inception_3a/1x1`.
    pub name: String,
    pub op: Op,
    /// Names of the layers whose outputs are its inputs; `data` is the network's input.
    pub bottoms: Vec<String>,
    /// Number of output channels.
    pub out: usize,
    /// Whether an in-place ReLU follows.
    pub relu: bool,
}

/// The operation of a layer. Lengths are in pixels of its input; kernels are square, groups and dilation are 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    Convolution {
        input: usize,
        kernel: usize,
        stride: usize,
        pad: usize,
    },
    MaxPool {
        kernel: usize,
        stride: usize,
        pad: usize,
    },
    /// Local response normalisation across channels, see [`LRN_SIZE`].
    Lrn,
    /// Concatenation along the channels.
    Concat,
    /// Mean over the whole map: output 1x1.
    GlobalAveragePool,
    /// Mean over the means of all windows, at a step of 1: output 1x1. The same as the mean of a classifier's scores at every
    /// place, because a classifier is linear.
    DenseAveragePool {
        kernel: usize,
    },
    /// Means over the windows of [`auxiliary_windows`]: output 4x4.
    ///
    /// [`auxiliary_windows`]: super::network::auxiliary_windows
    AuxiliaryAveragePool,
    /// In training, sets this share of the values to zero and multiplies the others by 1/(1-ratio).
    Dropout {
        ratio: f64,
    },
    InnerProduct {
        input: usize,
    },
}

/// Name of the classifier, the layer that fine-tuning replaces.
pub const HEAD: &str = "loss3/classifier";
/// Number of the classifier's inputs at the end of the trunk: channels of `inception_5b/output`.
pub const HEAD_INPUT: usize = 1024;
/// Number of the classifier's outputs as BVLC released it (ImageNet).
pub const TRUNK_CLASSES: usize = 1000;
/// Width and height of the windows of [`Op::DenseAveragePool`].
pub const DENSE_KERNEL: usize = 7;
/// Share of the classifier's inputs that dropout sets to zero in training.
pub const DROPOUT_RATIO: f64 = 0.4;
/// Local response normalisation: `out = x / (k + alpha/size * sum of x^2 over size neighbouring channels)^beta`. Channels
/// outside the tensor count as zero.
pub const LRN_SIZE: usize = 5;
/// See [`LRN_SIZE`].
pub const LRN_ALPHA: f64 = 1e-4;
/// See [`LRN_SIZE`].
pub const LRN_BETA: f64 = 0.75;
/// See [`LRN_SIZE`].
pub const LRN_K: f64 = 1.0;

/// The 58 layers that have parameters, in the order of computation.
pub fn weight_layer_names() -> Vec<String> {
    layers(TRUNK_CLASSES)
        .into_iter()
        .filter(|layer| matches!(layer.op, Op::Convolution { .. } | Op::InnerProduct { .. }))
        .map(|layer| layer.name)
        .collect()
}

/// Name and output shape `[channels, height, width]` of every layer, for an input of `height` x `width`
/// pixels.
///
/// # Errors
/// A layer would have an empty output.
pub fn output_shapes(
    network: impl Into<Network>,
    height: usize,
    width: usize,
) -> Result<Vec<(String, [usize; 3])>, ShapeError> {
    let network = network.into();
    let mut known = HashMap::from([("data".to_string(), [3, height, width])]);
    let mut shapes = Vec::new();
    for layer in layers(network) {
        let [_, h, w] = known[&layer.bottoms[0]];
        let [h, w] = match layer.op {
            Op::Convolution {
                kernel,
                stride,
                pad,
                ..
            } => [h, w].map(|n| convolved(n, kernel, stride, pad)),
            Op::MaxPool {
                kernel,
                stride,
                pad,
            } => [h, w].map(|n| pooled(n, kernel, stride, pad)),
            Op::GlobalAveragePool | Op::InnerProduct { .. } => [1, 1],
            Op::DenseAveragePool { kernel } => [h, w].map(|n| usize::from(n >= kernel)),
            Op::AuxiliaryAveragePool => [AUXILIARY_MAP; 2],
            Op::Lrn | Op::Concat | Op::Dropout { .. } => [h, w],
        };
        if h == 0 || w == 0 {
            return Err(ShapeError {
                height,
                width,
                layer: layer.name,
                least: network.least_size(),
            });
        }
        let shape = [layer.out, h, w];
        known.insert(layer.name.clone(), shape);
        shapes.push((layer.name, shape));
    }
    Ok(shapes)
}

/// Multiply-adds of all convolutions and inner products for one image of `height` x `width` pixels.
///
/// # Errors
/// As for [`output_shapes`].
pub fn macs(network: impl Into<Network>, height: usize, width: usize) -> Result<u64, ShapeError> {
    let network = network.into();
    let shapes = output_shapes(network, height, width)?;
    let work = layers(network)
        .iter()
        .zip(&shapes)
        .map(|(layer, (_, [c, h, w]))| {
            let outputs = (c * h * w) as u64;
            match layer.op {
                Op::Convolution { input, kernel, .. } => outputs * (input * kernel * kernel) as u64,
                Op::InnerProduct { input } => outputs * input as u64,
                Op::MaxPool { .. }
                | Op::Lrn
                | Op::Concat
                | Op::GlobalAveragePool
                | Op::DenseAveragePool { .. }
                | Op::AuxiliaryAveragePool
                | Op::Dropout { .. } => 0,
            }
        })
        .sum();
    Ok(work)
}

/// The input is so small that a layer would have an empty output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an input of {height}x{width} px is too small for the network: layer {layer} would be empty; use {least} px or more"
)]
pub struct ShapeError {
    pub height: usize,
    pub width: usize,
    pub layer: String,
    /// The least height and width, in pixels.
    pub least: usize,
}

impl Network {
    /// The least height and width of its input, in pixels.
    pub fn least_size(&self) -> usize {
        match self.pooling {
            // Below, a kernel of 3 pixels meets a map that a whole one does not fit in.
            Pooling::Global => 32,
            // Below, the last map is smaller than the windows.
            Pooling::Dense => 223,
        }
    }
}

/// Caffe's convolution rule: floor((n + 2 pad - kernel) / stride) + 1.
fn convolved(n: usize, kernel: usize, stride: usize, pad: usize) -> usize {
    match (n + 2 * pad).checked_sub(kernel) {
        Some(room) => room / stride + 1,
        None => 0,
    }
}

/// Caffe's pooling rule: ceil((n + 2 pad - kernel) / stride) + 1, less a last window that would start in
/// the padding.
fn pooled(n: usize, kernel: usize, stride: usize, pad: usize) -> usize {
    let (n, kernel, stride, pad) = (n as i64, kernel as i64, stride as i64, pad as i64);
    let room = n + 2 * pad - kernel;
    let mut out = -(-room).div_euclid(stride) + 1;
    if pad > 0 && (out - 1) * stride >= n + pad {
        out -= 1;
    }
    out.max(0) as usize
}

/// Numbers of output channels of an inception module's branches.
struct Inception {
    name: &'static str,
    one: usize,
    three_reduce: usize,
    three: usize,
    five_reduce: usize,
    five: usize,
    pool: usize,
}

const fn inception(
    name: &'static str,
    [one, three_reduce, three, five_reduce, five, pool]: [usize; 6],
) -> Inception {
    Inception {
        name,
        one,
        three_reduce,
        three,
        five_reduce,
        five,
        pool,
    }
}

const INCEPTIONS: [Inception; 9] = [
    inception("3a", [64, 96, 128, 16, 32, 32]),
    inception("3b", [128, 128, 192, 32, 96, 64]),
    inception("4a", [192, 96, 208, 16, 48, 64]),
    inception("4b", [160, 112, 224, 24, 64, 64]),
    inception("4c", [128, 128, 256, 24, 64, 64]),
    inception("4d", [112, 144, 288, 32, 64, 64]),
    inception("4e", [256, 160, 320, 32, 128, 128]),
    inception("5a", [256, 160, 320, 32, 128, 128]),
    inception("5b", [384, 192, 384, 48, 128, 128]),
];

/// Builds the list of layers. A layer's input is the layer before it, unless another one is named.
struct Trunk {
    layers: Vec<Layer>,
    top: String,
    channels: usize,
}

impl Trunk {
    fn new() -> Self {
        Trunk {
            layers: Vec::new(),
            top: "data".to_string(),
            channels: 3,
        }
    }

    fn push(&mut self, name: &str, op: Op, out: usize, relu: bool) {
        self.layers.push(Layer {
            name: name.to_string(),
            op,
            bottoms: vec![self.top.clone()],
            out,
            relu,
        });
        self.top = name.to_string();
        self.channels = out;
    }

    fn conv(&mut self, name: &str, out: usize, kernel: usize, stride: usize, pad: usize) {
        let input = self.channels;
        let op = Op::Convolution {
            input,
            kernel,
            stride,
            pad,
        };
        self.push(name, op, out, true);
    }

    fn max_pool(&mut self, name: &str, kernel: usize, stride: usize, pad: usize) {
        let op = Op::MaxPool {
            kernel,
            stride,
            pad,
        };
        self.same_shape(name, op);
    }

    /// Adds a layer whose output has as many channels as its input.
    fn same_shape(&mut self, name: &str, op: Op) {
        self.push(name, op, self.channels, false);
    }

    fn inception(&mut self, module: &Inception) {
        let (bottom, channels) = (self.top.clone(), self.channels);
        let name = |part: &str| format!("inception_{}/{part}", module.name);
        let mut tops = Vec::new();
        let mut branch = |net: &mut Trunk, build: &dyn Fn(&mut Trunk)| {
            (net.top, net.channels) = (bottom.clone(), channels);
            build(net);
            tops.push(net.top.clone());
        };
        branch(self, &|net| net.conv(&name("1x1"), module.one, 1, 1, 0));
        branch(self, &|net| {
            net.conv(&name("3x3_reduce"), module.three_reduce, 1, 1, 0);
            net.conv(&name("3x3"), module.three, 3, 1, 1);
        });
        branch(self, &|net| {
            net.conv(&name("5x5_reduce"), module.five_reduce, 1, 1, 0);
            net.conv(&name("5x5"), module.five, 5, 1, 2);
        });
        branch(self, &|net| {
            net.max_pool(&name("pool"), 3, 1, 1);
            net.conv(&name("pool_proj"), module.pool, 1, 1, 0);
        });
        let out = module.one + module.three + module.five + module.pool;
        self.push(&name("output"), Op::Concat, out, false);
        self.layers.last_mut().expect("just pushed").bottoms = tops;
    }

    /// Adds an auxiliary head beside the trunk, which goes on from where it was.
    fn auxiliary(&mut self, head: AuxiliaryHead, outputs: usize) {
        let (bottom, channels) = (self.top.clone(), self.channels);
        let name = |part: &str| format!("{}/{part}", head.name());
        self.same_shape(&name("ave_pool"), Op::AuxiliaryAveragePool);
        self.conv(&name("conv"), AUXILIARY_FILTERS, 1, 1, 0);
        let input = AUXILIARY_FILTERS * AUXILIARY_MAP * AUXILIARY_MAP;
        self.push(
            &name("fc"),
            Op::InnerProduct { input },
            AUXILIARY_UNITS,
            true,
        );
        let ratio = AUXILIARY_DROPOUT;
        self.same_shape(&name("drop_fc"), Op::Dropout { ratio });
        let input = AUXILIARY_UNITS;
        self.push(
            &head.classifier(),
            Op::InnerProduct { input },
            outputs,
            false,
        );
        (self.top, self.channels) = (bottom, channels);
    }

    /// Leaves out what comes after `layer`.
    fn end_at(&mut self, layer: &str) {
        let place = self.layers.iter().position(|known| known.name == layer);
        let place = place.expect("a layer that can be tapped is in the table");
        self.layers.truncate(place + 1);
        self.top = layer.to_string();
        self.channels = self.layers[place].out;
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
