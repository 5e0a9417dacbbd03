//! The parameters of the network: names, shapes, fan-in.

use super::layers::{HEAD, Op, layers};
use super::network::{AuxiliaryHead, Network};

/// Every parameter in the order of computation, a layer's weight before its bias.
///
/// With 1000 classes the trunk's have 6,998,552 elements, with 2 classes 5,975,602.
pub fn param_specs(network: impl Into<Network>) -> Vec<ParamSpec> {
    let mut specs = Vec::new();
    for layer in layers(network) {
        let shape = match layer.op {
            Op::Convolution { input, kernel, .. } => vec![layer.out, input, kernel, kernel],
            Op::InnerProduct { input } => vec![layer.out, input],
            Op::MaxPool { .. }
            | Op::Lrn
            | Op::Concat
            | Op::GlobalAveragePool
            | Op::DenseAveragePool { .. }
            | Op::AuxiliaryAveragePool
            | Op::Dropout { .. } => continue,
        };
        let fan_in = shape[1..].iter().product();
        let head = is_classifier(&layer.name);
        let mut push = |kind, shape| {
            specs.push(ParamSpec {
                name: format!("{}.{}", layer.name, ParamKind::suffix(kind)),
                layer: layer.name.clone(),
                kind,
                shape,
                fan_in,
                head,
            })
        };
        push(ParamKind::Weight, shape);
        push(ParamKind::Bias, vec![layer.out]);
    }
    specs
}

/// Number of elements of all parameters.
pub fn param_count(network: impl Into<Network>) -> usize {
    param_specs(network).iter().map(ParamSpec::len).sum()
}

/// Whether a layer is a classifier: that of the trunk or of an auxiliary head.
pub fn is_classifier(layer: &str) -> bool {
    let auxiliary = AuxiliaryHead::ALL.map(AuxiliaryHead::classifier);
    layer == HEAD || auxiliary.iter().any(|name| name == layer)
}

/// One parameter tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamSpec {
    /// `<layer>.weight` or `<layer>.bias`, such as `inception_3a/1x1.weight`.
    pub name: String,
    pub layer: String,
    pub kind: ParamKind,
    /// Shape. Weights of a convolution: out, in, height, width; of the classifier: out, in; a bias: out.
    pub shape: Vec<usize>,
    /// Number of inputs that one output of the layer is the sum over.
    pub fan_in: usize,
    /// Whether it belongs to a classifier, which fine-tuning replaces.
    pub head: bool,
}

impl ParamSpec {
    /// Number of its elements.
    #[allow(clippy::len_without_is_empty)] // No parameter is empty.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Weight or bias. In Caffe's files they are blobs 0 and 1 of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParamKind {
    Weight,
    Bias,
}

impl ParamKind {
    /// `weight` or `bias`.
    pub fn suffix(self) -> &'static str {
        match self {
            ParamKind::Weight => "weight",
            ParamKind::Bias => "bias",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Elements of weight and bias together, by layer, as published for 1000 classes.
    #[rustfmt::skip]
    const PER_LAYER: [(&str, usize); 58] = [
        ("conv1/7x7_s2", 9472), ("conv2/3x3_reduce", 4160), ("conv2/3x3", 110784),
        ("inception_3a/1x1", 12352), ("inception_3a/3x3_reduce", 18528), ("inception_3a/3x3", 110720),
        ("inception_3a/5x5_reduce", 3088), ("inception_3a/5x5", 12832), ("inception_3a/pool_proj", 6176),
        ("inception_3b/1x1", 32896), ("inception_3b/3x3_reduce", 32896), ("inception_3b/3x3", 221376),
        ("inception_3b/5x5_reduce", 8224), ("inception_3b/5x5", 76896), ("inception_3b/pool_proj", 16448),
        ("inception_4a/1x1", 92352), ("inception_4a/3x3_reduce", 46176), ("inception_4a/3x3", 179920),
        ("inception_4a/5x5_reduce", 7696), ("inception_4a/5x5", 19248), ("inception_4a/pool_proj", 30784),
        ("inception_4b/1x1", 82080), ("inception_4b/3x3_reduce", 57456), ("inception_4b/3x3", 226016),
        ("inception_4b/5x5_reduce", 12312), ("inception_4b/5x5", 38464), ("inception_4b/pool_proj", 32832),
        ("inception_4c/1x1", 65664), ("inception_4c/3x3_reduce", 65664), ("inception_4c/3x3", 295168),
        ("inception_4c/5x5_reduce", 12312), ("inception_4c/5x5", 38464), ("inception_4c/pool_proj", 32832),
        ("inception_4d/1x1", 57456), ("inception_4d/3x3_reduce", 73872), ("inception_4d/3x3", 373536),
        ("inception_4d/5x5_reduce", 16416), ("inception_4d/5x5", 51264), ("inception_4d/pool_proj", 32832),
        ("inception_4e/1x1", 135424), ("inception_4e/3x3_reduce", 84640), ("inception_4e/3x3", 461120),
        ("inception_4e/5x5_reduce", 16928), ("inception_4e/5x5", 102528), ("inception_4e/pool_proj", 67712),
        ("inception_5a/1x1", 213248), ("inception_5a/3x3_reduce", 133280), ("inception_5a/3x3", 461120),
        ("inception_5a/5x5_reduce", 26656), ("inception_5a/5x5", 102528), ("inception_5a/pool_proj", 106624),
        ("inception_5b/1x1", 319872), ("inception_5b/3x3_reduce", 159936), ("inception_5b/3x3", 663936),
        ("inception_5b/5x5_reduce", 39984), ("inception_5b/5x5", 153728), ("inception_5b/pool_proj", 106624),
        ("loss3/classifier", 1025000),
    ];

    #[test]
    fn counts_are_the_published_ones() {
        assert_eq!(param_count(1000), 6_998_552);
        assert_eq!(param_count(2), 5_975_602);
        assert_eq!(param_count(4), 5_977_652);
        assert_eq!(param_count(5), 5_978_677);
        let head = |p: &ParamSpec| if p.head { p.len() } else { 0 };
        assert_eq!(param_specs(2).iter().map(head).sum::<usize>(), 2_050);
    }

    #[test]
    fn counts_of_every_layer_are_the_published_ones() {
        let specs = param_specs(1000);
        assert_eq!(specs.len(), 2 * PER_LAYER.len());
        for (pair, (layer, count)) in specs.chunks(2).zip(PER_LAYER) {
            assert_eq!(pair[0].name, format!("{layer}.weight"));
            assert_eq!(pair[1].name, format!("{layer}.bias"));
            assert_eq!(pair[0].len() + pair[1].len(), count, "{layer}");
        }
    }

    #[test]
    fn shapes_and_fan_in() {
        let specs = param_specs(5);
        let find = |name: &str| specs.iter().find(|p| p.name == name).unwrap();
        let conv = find("inception_5b/5x5.weight");
        assert_eq!((&conv.shape[..], conv.fan_in), (&[128, 48, 5, 5][..], 1200));
        assert!(!conv.head);
        let head = find("loss3/classifier.weight");
        assert_eq!((&head.shape[..], head.fan_in), (&[5, 1024][..], 1024));
        assert!(head.head);
        assert_eq!(find("conv1/7x7_s2.bias").shape, [64]);
    }
}
