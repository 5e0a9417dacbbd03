//! The layer table of the main trunk, and the shapes and amounts of work that follow from it.
//!
//! Source: BVLC/caffe `models/bvlc_googlenet/train_val.prototxt` (settings) and `src/caffe/layers`
//! (rules for shapes: a convolution rounds down, a pooling rounds up).

use std::collections::HashMap;

/// Every layer of the trunk in the order of computation, for a head of `classes` outputs.
///
/// An in-place ReLU follows every convolution; it is the layer's `relu` flag and not a layer of its own. The last average
/// pooling is over the whole map, so the network accepts inputs of any size; at 224 px it equals Caffe's
/// `pool5/7x7_s1`.
pub fn layers(classes: usize) -> Vec<Layer> {
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
        match module.name {
            "3b" => net.max_pool("pool3/3x3_s2", 3, 2, 0),
            "4e" => net.max_pool("pool4/3x3_s2", 3, 2, 0),
            _ => {}
        }
    }
    net.same_shape("pool5/7x7_s1", Op::GlobalAveragePool);
    net.same_shape(
        "pool5/drop_7x7_s1",
        Op::Dropout {
            ratio: DROPOUT_RATIO,
        },
    );
    net.push(HEAD, Op::InnerProduct { input: HEAD_INPUT }, classes, false);
    net.layers
}

/// One layer of the trunk.
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
/// Number of the classifier's inputs: channels of `inception_5b/output`.
pub const HEAD_INPUT: usize = 1024;
/// Number of the classifier's outputs as BVLC released it (ImageNet).
pub const TRUNK_CLASSES: usize = 1000;
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
pub fn output_shapes(
    classes: usize,
    height: usize,
    width: usize,
) -> Result<Vec<(String, [usize; 3])>, ShapeError> {
    let mut known = HashMap::from([("data".to_string(), [3, height, width])]);
    let mut shapes = Vec::new();
    for layer in layers(classes) {
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
            Op::Lrn | Op::Concat | Op::Dropout { .. } => [h, w],
        };
        if h == 0 || w == 0 {
            return Err(ShapeError {
                height,
                width,
                layer: layer.name,
            });
        }
        let shape = [layer.out, h, w];
        known.insert(layer.name.clone(), shape);
        shapes.push((layer.name, shape));
    }
    Ok(shapes)
}

/// Multiply-adds of all convolutions and inner products for one image of `height` x `width` pixels.
pub fn macs(classes: usize, height: usize, width: usize) -> Result<u64, ShapeError> {
    let shapes = output_shapes(classes, height, width)?;
    let work = layers(classes)
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
                | Op::Dropout { .. } => 0,
            }
        })
        .sum();
    Ok(work)
}

/// The input is so small that a layer would have an empty output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an input of {height}x{width} px is too small for GoogLeNet: layer {layer} would be empty; use 32 px or more"
)]
pub struct ShapeError {
    pub height: usize,
    pub width: usize,
    pub layer: String,
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
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
