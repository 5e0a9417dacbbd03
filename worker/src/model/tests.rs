//! The network against published outputs, slow references and numerical derivatives.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fovea_core::googlenet::{
    AUXILIARY_UNITS, AuxiliaryHead, FlatLayout, HEAD, LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE,
    Network, Op, fill, layers, output_shapes,
};
use fovea_core::spec::{Head, Init};
use fovea_weights::{Source, load};
use tch::{Device, Kind, Tensor, no_grad};

use super::{Net, Pass, Sink, channels_last, loss_sum, lrn};

/// How often the losses of auxiliary heads count here.
const AUXILIARY_WEIGHT: f64 = 0.3;
pub(super) const STEM: [&str; 3] = ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"];

/// Numbers that look random, the same for ever, in channels-last order.
pub(super) fn noise(shape: &[i64], scale: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let line = Tensor::arange(count, (Kind::Double, Device::Cpu));
    let x = ((&line * 12.9898).sin() * 43758.5453).frac() * scale;
    let x = x.to_kind(Kind::Float).view(shape);
    if shape.len() == 4 {
        channels_last(&x)
    } else {
        x
    }
}

/// With fresh parameters.
pub(super) fn net(network: impl Into<Network>, frozen: &[&str]) -> Net {
    tch::set_num_threads(1);
    let net = Net::new(&FlatLayout::new(network, frozen).unwrap(), Device::Cpu);
    for entry in net.entries() {
        let mut values = vec![0.0; entry.spec.len()];
        fill(&entry.spec, Init::Msra, 3, &mut values);
        net.set_param(&entry.spec.name, &values);
    }
    net
}

/// With the published weights, which lie beside the repository.
fn published_net() -> (Net, PathBuf) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/weights");
    let net = net(1000, &[]);
    let specs: Vec<_> = net.entries().map(|entry| entry.spec.clone()).collect();
    let file = folder.join("bvlc_googlenet_trunk_v1.caffemodel");
    load(
        &mut Source::open(&file).unwrap(),
        &specs,
        &[],
        &mut |spec, values| net.set_param(&spec.name, values),
    )
    .unwrap();
    (net, folder)
}

fn largest(x: &Tensor) -> f64 {
    x.abs().max().double_value(&[])
}

/// The largest difference, relative to the largest value.
pub(super) fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    largest(&(a.to_kind(Kind::Double) - b.to_kind(Kind::Double))) / largest(b)
}

/// Takes gradients into one flat tensor, and sees that no bucket changes once it is finished.
struct Whole<'a> {
    layout: &'a FlatLayout,
    out: Tensor,
    finished: Vec<usize>,
}

impl Sink for Whole<'_> {
    fn put(&mut self, bucket: usize, at: usize, gradient: &Tensor) {
        assert!(
            !self.finished.contains(&bucket),
            "bucket {bucket} is finished"
        );
        let at = self.layout.buckets()[bucket].start + at;
        let place = self.out.narrow(0, at as i64, gradient.numel() as i64);
        place.view(&gradient.size()[..]).copy_(gradient);
    }

    fn finished(&mut self, bucket: usize) {
        self.finished.push(bucket);
    }
}

/// The backward pass of a training pass.
pub(super) fn backward(net: &Net, pass: Pass, labels: &[i64]) -> Tensor {
    let len = net.layout().trainable_len() as i64;
    let mut whole = Whole {
        layout: net.layout(),
        out: Tensor::full([len], f64::NAN, (Kind::Float, Device::Cpu)),
        finished: Vec::new(),
    };
    let labels = Tensor::from_slice(labels);
    let loss_of = |logits: &Tensor| loss_sum(Head::Softmax, logits, &labels, None);
    let loss = loss_of(pass.logits());
    let auxiliary: Vec<Tensor> = pass
        .auxiliary()
        .iter()
        .map(|head| loss_of(&head.logits) * AUXILIARY_WEIGHT)
        .collect();
    pass.gradient(net, &loss, &auxiliary, &mut whole).unwrap();
    assert_eq!(whole.finished, [3, 2, 1, 0, 4]);
    whole.out
}

pub(super) fn gradient(net: &Net, x: &Tensor, labels: &[i64], dropout: Option<&Tensor>) -> Tensor {
    backward(net, net.train(x, dropout), labels)
}

#[test]
fn every_layer_has_caffes_shape() {
    let net = net(5, &STEM);
    for (height, width) in [(224, 224), (96, 131), (33, 64)] {
        let expected = output_shapes(5, height, width).unwrap();
        let mut seen = Vec::new();
        let x = noise(&[2, 3, height as i64, width as i64], 100.0);
        let _ = net.forward_observed(&x, &mut |name, y| seen.push((name.to_string(), y.size())));
        // Dropout does nothing in evaluation, and the last two layers are flat.
        let expected = expected
            .into_iter()
            .filter(|(n, _)| !n.starts_with("pool5/drop"));
        let expected: Vec<_> = expected
            .map(|(name, [c, h, w])| match name.as_str() {
                "pool5/7x7_s1" | HEAD => (name, vec![2, c as i64]),
                _ => (name, vec![2, c as i64, h as i64, w as i64]),
            })
            .collect();
        let sorted = |mut list: Vec<(String, Vec<i64>)>| {
            list.sort();
            list
        };
        assert_eq!(sorted(seen), sorted(expected));
    }
}

#[test]
fn activations_stay_channels_last() {
    let net = net(2, &STEM);
    let _ = net.forward_observed(&noise(&[2, 3, 224, 224], 100.0), &mut |name, y| {
        if y.dim() == 4 {
            assert!(y.permute([0, 2, 3, 1]).is_contiguous(), "{name}");
        }
    });
}

/// OpenCV's Caffe importer computed these outputs from the published weights.
#[cfg_attr(
    not(has_shared),
    ignore = "needs ../shared: real photographs and weights"
)]
#[test]
fn forward_is_caffes_at_every_given_layer() {
    let (net, folder) = published_net();
    let golden = Tensor::read_safetensors(folder.join("golden_cat.safetensors")).unwrap();
    let find = |name: &str| &golden.iter().find(|(n, _)| n == name).unwrap().1;
    let mut compared = 0;
    let logits = net.forward_observed(find("input"), &mut |name, y| {
        if let Some((_, expected)) = golden.iter().find(|(n, _)| n == name) {
            let off = apart(&y.view(&expected.size()[..]), expected);
            assert!(off < 1e-4, "{name} is off by {off}");
            compared += 1;
        }
    });
    assert_eq!(compared, 5);
    let off = apart(&logits.softmax(-1, None), find("prob"));
    assert!(off < 1e-4, "prob is off by {off}");
    // And with the fused kernels.
    let off = apart(&net.forward(find("input")).softmax(-1, None), find("prob"));
    assert!(off < 1e-4, "prob, fused, is off by {off}");
}

#[test]
fn kernels_compute_what_they_fuse() {
    tch::set_num_threads(1);
    // Large values, so that the normalisation matters; odd and even sizes.
    for shape in [[3, 64, 12, 13], [2, 7, 9, 2], [1, 2, 3, 5], [2, 192, 8, 8]] {
        let x = noise(&shape, 2000.0);
        let pool = |x: &Tensor| x.max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], true);
        let near = |ours: Tensor, reference: Tensor| {
            let off = apart(&ours, &reference);
            assert!(off < 1e-6, "{shape:?}: {off}");
        };
        near(lrn::lrn(&x), lrn_by_definition(&x));
        near(lrn::composed(&x), lrn_by_definition(&x));
        near(lrn::relu_pool_lrn(&x), lrn_by_definition(&pool(&x.relu())));
        near(lrn::relu_lrn_pool(&x), pool(&lrn_by_definition(&x.relu())));
    }
}

#[test]
fn kernels_keep_what_is_not_a_number() {
    tch::set_num_threads(1);
    let x = noise(&[1, 8, 4, 4], 1.0);
    let _ = x
        .narrow(1, 3, 1)
        .narrow(2, 1, 1)
        .narrow(3, 1, 1)
        .fill_(f64::NAN);
    for y in [lrn::relu_pool_lrn(&x), lrn::relu_lrn_pool(&x)] {
        assert!(y.isnan().any().int64_value(&[]) != 0);
    }
}

/// The normalisation's definition, channel by channel in f64.
fn lrn_by_definition(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Double);
    let channels = x.size()[1];
    let reach = (LRN_SIZE / 2) as i64;
    let rows: Vec<Tensor> = (0..channels)
        .map(|c| {
            let (low, high) = ((c - reach).max(0), (c + reach).min(channels - 1));
            let window = x.narrow(1, low, high - low + 1);
            let sum = window
                .square()
                .sum_dim_intlist([1i64].as_slice(), true, None);
            let scale = sum * (LRN_ALPHA / LRN_SIZE as f64) + LRN_K;
            x.narrow(1, c, 1) * scale.pow_tensor_scalar(-LRN_BETA)
        })
        .collect();
    Tensor::cat(&rows, 1)
}

#[test]
fn normalisation_backward_is_autograds() {
    let x = noise(&[2, 12, 5, 4], 300.0).set_requires_grad(true);
    let weights = (noise(&[2, 12, 5, 4], 1.0) * 7.0)
        .cos()
        .to_kind(Kind::Double);
    let loss = (lrn_by_definition(&x) * &weights).sum(None);
    let reference = Tensor::run_backward(&[loss], &[&x], false, false).remove(0);
    let ours = no_grad(|| lrn::lrn_backward(&x, &weights.to_kind(Kind::Float)));
    let off = apart(&ours, &reference);
    assert!(off < 1e-5, "{off}");
}

/// With nothing frozen: every cut of the tape, and every parameter's place in the flat gradient.
#[test]
fn gradient_is_that_of_plain_autograd() {
    for frozen in [
        &[][..],
        &STEM[..1],
        &STEM[..2],
        &STEM,
        &["conv2/3x3", "inception_3a/5x5"],
    ] {
        let net = net(2, frozen);
        let x = noise(&[2, 3, 64, 64], 200.0);
        let dropout = (noise(&[2, 1024], 1.0) - 0.4).ge(0.0).to_kind(Kind::Float) / 0.6;
        let _ = assert_gradient_is_plain(&net, &x, &dropout);
    }
}

/// Compares parameter by parameter; returns the gradient.
pub(super) fn assert_gradient_is_plain(net: &Net, x: &Tensor, dropout: &Tensor) -> Tensor {
    let ours = gradient(net, x, &[0, 1], Some(dropout));
    let reference = plain_gradient(net, x, &[0, 1], dropout);
    for entry in net.layout().trainable() {
        let part = |flat: &Tensor| flat.narrow(0, entry.offset as i64, entry.spec.len() as i64);
        let off = apart(&part(&ours), &part(&reference));
        assert!(off < 1e-3, "{} is off by {off}", entry.spec.name);
    }
    ours
}

type Named = HashMap<String, Tensor>;

/// The network's parameters in f64.
fn plain_params(net: &Net) -> Named {
    net.entries()
        .map(|entry| {
            let name = entry.spec.name.clone();
            (name.clone(), net.param(&name).to_kind(Kind::Double))
        })
        .collect()
}

/// The loss of a network written anew from the layer table, in f64 and in one graph.
fn plain_loss(
    network: Network,
    params: &Named,
    x: &Tensor,
    labels: &[i64],
    dropout: Option<&Tensor>,
) -> Tensor {
    let mut tops = Named::from([("data".to_string(), x.to_kind(Kind::Double))]);
    let width = network.head_input() as i64;
    let units = AUXILIARY_UNITS as i64;
    for layer in layers(network) {
        let bottoms: Vec<&Tensor> = layer.bottoms.iter().map(|name| &tops[name]).collect();
        let x = bottoms[0];
        let param = |kind: &str| &params[&format!("{}.{kind}", layer.name)];
        let y = match layer.op {
            Op::Convolution { stride, pad, .. } => {
                let (stride, pad) = ([stride as i64; 2], [pad as i64; 2]);
                let bias = Some(param("bias"));
                x.conv2d(param("weight"), bias, stride, pad, [1, 1], 1)
            }
            Op::MaxPool {
                kernel,
                stride,
                pad,
            } => {
                let [kernel, stride, pad] = [kernel, stride, pad].map(|n| [n as i64; 2]);
                x.max_pool2d(kernel, stride, pad, [1, 1], true)
            }
            Op::Lrn => lrn_by_definition(x),
            Op::Concat => Tensor::cat(&bottoms, 1),
            Op::GlobalAveragePool => x.mean_dim([2i64, 3].as_slice(), false, None),
            Op::DenseAveragePool { kernel } => x
                .avg_pool2d([kernel as i64; 2], [1, 1], [0, 0], false, true, None::<i64>)
                .mean_dim([2i64, 3].as_slice(), false, None),
            Op::AuxiliaryAveragePool => match x.size()[2..] {
                [14, 14] => x.avg_pool2d([5, 5], [3, 3], [0, 0], true, true, None::<i64>),
                _ => x.adaptive_avg_pool2d([4, 4]),
            },
            Op::Dropout { .. } => {
                let masked = |masks: &Tensor| match AuxiliaryHead::of_layer(&layer.name) {
                    None => x * masks.narrow(1, 0, width),
                    Some(head) => x * masks.narrow(1, width + units * head as i64, units),
                };
                dropout.map_or_else(|| x.shallow_clone(), masked)
            }
            Op::InnerProduct { .. } => {
                let x = x.flatten(1, -1);
                x.linear(param("weight"), Some(param("bias")))
            }
        };
        let y = if layer.relu { y.relu() } else { y };
        tops.insert(layer.name, y);
    }
    let labels = Tensor::from_slice(labels);
    let loss = |classifier: &str| loss_sum(Head::Softmax, &tops[classifier], &labels, None);
    let auxiliary = AuxiliaryHead::ALL
        .into_iter()
        .filter(|_| network.auxiliary)
        .map(|head| loss(&head.classifier()) * AUXILIARY_WEIGHT);
    auxiliary.fold(loss(HEAD), |sum, loss| sum + loss)
}

pub(super) fn plain_gradient(net: &Net, x: &Tensor, labels: &[i64], dropout: &Tensor) -> Tensor {
    let params = plain_params(net);
    let leaves: Vec<Tensor> = (net.layout().trainable().iter())
        .map(|entry| params[&entry.spec.name].set_requires_grad(true))
        .collect();
    let loss = plain_loss(net.network(), &params, x, labels, Some(dropout));
    let grads = Tensor::run_backward(&[loss], &leaves, false, false);
    let flat: Vec<Tensor> = grads.iter().map(|g| g.reshape([-1])).collect();
    Tensor::cat(&flat, 0)
}

/// Central differences along a few parameters.
#[test]
fn gradient_is_the_slope_of_the_loss() {
    let net = net(2, &STEM[..2]);
    let x = noise(&[2, 3, 64, 64], 200.0);
    let ours = gradient(&net, &x, &[0, 1], None);
    let params = plain_params(&net);
    for name in [
        "conv2/3x3.weight",
        "conv2/3x3.bias",
        "inception_3a/1x1.weight",
        "inception_4e/5x5.weight",
        "inception_5b/pool_proj.bias",
        "loss3/classifier.weight",
        "loss3/classifier.bias",
    ] {
        let entry = net.entries().find(|e| e.spec.name == name).unwrap();
        let part = ours.narrow(0, entry.offset as i64, entry.spec.len() as i64);
        let steepest = part.abs().argmax(0, false).int64_value(&[]);
        let slope = part.double_value(&[steepest]);
        let mut place = params[name].view(-1).narrow(0, steepest, 1);
        let mut loss_after = |step: f64| {
            place += step;
            plain_loss(net.network(), &params, &x, &[0, 1], None).double_value(&[])
        };
        // Small enough that hardly a ReLU switches.
        let step = 1e-7;
        let (above, below) = (loss_after(step), loss_after(-2.0 * step));
        loss_after(step);
        let numerical = (above - below) / (2.0 * step);
        let off = (numerical - slope).abs() / slope.abs();
        assert!(off < 1e-3, "{name}: {slope}, numerically {numerical}");
    }
}

#[test]
fn two_passes_give_the_same_bits() {
    let net = net(2, &STEM[..2]);
    let x = noise(&[3, 3, 96, 96], 200.0);
    let first = gradient(&net, &x, &[0, 1, 1], None);
    assert_eq!(first, gradient(&net, &x, &[0, 1, 1], None));
    assert_eq!(net.forward(&x), net.forward(&x));
}

#[test]
fn training_from_kept_features_is_training_from_images() {
    for frozen in [&STEM[..1], &STEM[..2], &STEM] {
        let net = net(2, frozen);
        let x = noise(&[2, 3, 64, 64], 200.0);
        let direct = gradient(&net, &x, &[0, 1], None);
        let pass = net.train_features(&net.features(&x), None);
        let out = backward(&net, pass, &[0, 1]);
        assert_eq!(out, direct);
    }
}

#[test]
fn evaluation_and_training_agree_without_dropout() {
    let net = net(2, &STEM[..1]);
    let x = noise(&[2, 3, 224, 224], 200.0);
    let evaluated = net.forward(&x);
    assert!(apart(net.train(&x, None).logits(), &evaluated) < 1e-5);
    let by_layer = net.forward_observed(&x, &mut |_, _| {});
    assert!(apart(&by_layer, &evaluated) < 1e-5);
}

#[test]
fn dropout_multiplies_the_classifiers_inputs() {
    let net = net(2, &STEM);
    let x = noise(&[2, 3, 64, 64], 200.0);
    let none = Tensor::zeros([2, 1024], (Kind::Float, Device::Cpu));
    let bias = net.param("loss3/classifier.bias");
    let logits = net.train(&x, Some(&none)).logits().detach();
    assert_eq!(logits, bias.expand([2, 2], false).contiguous());
}

#[test]
fn layers_share_storage_with_the_flat_tensors() {
    let net = net(2, &STEM[..2]);
    let x = noise(&[1, 3, 64, 64], 200.0);
    let before = net.forward(&x);
    let _ = no_grad(|| net.flat_params().shallow_clone().g_mul_scalar_(0.5));
    let halved = net.forward(&x);
    assert!(apart(&halved, &before) > 0.1);
    let _ = no_grad(|| net.frozen().shallow_clone().g_mul_scalar_(0.5));
    assert_ne!(net.forward(&x), halved);
}

#[test]
fn parameters_are_found_by_name_frozen_or_not() {
    let all = net(2, &[]);
    let stem_frozen = net(2, &STEM);
    for entry in all.entries() {
        let name = &entry.spec.name;
        assert_eq!(all.param(name), stem_frozen.param(name), "{name}");
    }
}
