//! Networks that end at an earlier layer, average otherwise, or have auxiliary heads.

use std::collections::HashMap;

use fovea_core::googlenet::{HEAD, Network, Pooling, Tap, param_specs};
use fovea_core::spec::Precision;
use tch::{Device, Kind, Tensor};

use super::Net;
use super::tests::{
    STEM, apart, assert_gradient_is_plain, backward, gradient, net, noise, plain_gradient,
};

/// The layers that a linear probe freezes.
fn all_frozen(network: Network) -> Vec<String> {
    let mut layers: Vec<String> = param_specs(network)
        .into_iter()
        .map(|spec| spec.layer)
        .filter(|layer| layer != HEAD)
        .collect();
    layers.dedup();
    layers
}

fn probe(tap: Tap) -> Net {
    let network = Network {
        tap,
        ..Network::trunk(2)
    };
    let frozen = all_frozen(network);
    let names: Vec<&str> = frozen.iter().map(String::as_str).collect();
    net(network, &names)
}

#[test]
fn a_probe_reads_the_average_of_its_layer() {
    let x = noise(&[2, 3, 64, 96], 200.0);
    let mut outputs = HashMap::new();
    let trunk = net(2, &[]);
    let _ = trunk.forward_observed(&x, &mut |name, y| {
        outputs.insert(name.to_string(), y.shallow_clone());
    });
    for tap in Tap::all() {
        let probe = probe(tap);
        let average = outputs[tap.layer()].mean_dim([2i64, 3].as_slice(), false, Kind::Float);
        let expected = average.linear(
            &probe.param("loss3/classifier.weight"),
            Some(&probe.param("loss3/classifier.bias")),
        );
        let off = apart(&probe.forward(&x), &expected);
        assert!(off < 1e-5, "{}: {off}", tap.layer());
        // What is kept of an image is the average, and training goes on from it.
        let features = probe.features(&x);
        assert_eq!(features.size(), [2, tap.channels() as i64, 1, 1]);
        assert_eq!(features.kind(), Kind::Float);
        let pass = probe.train_features(&features, None);
        assert_eq!(pass.logits().detach(), probe.forward(&x));
        let ones = Tensor::ones([2, tap.channels() as i64], (Kind::Float, Device::Cpu));
        let _ = assert_gradient_is_plain(&probe, &x, &ones);
    }
}

/// The average is in f32 whatever the map is in, and is not rounded when it is read again.
#[test]
fn a_probe_in_bfloat16_keeps_averages_in_single_precision() {
    let probe = probe(Tap::TOP).with_precision(Precision::Bf16);
    let x = noise(&[1, 3, 64, 64], 200.0);
    let features = probe.features(&x);
    assert_eq!(features.kind(), Kind::Float);
    let rounded = features.to_kind(Kind::BFloat16).to_kind(Kind::Float);
    assert_ne!(rounded, features);
    assert_eq!(probe.forward_features(&features), probe.forward(&x));
    assert_ne!(probe.forward_features(&rounded), probe.forward(&x));
}

/// Both ways are the same at 224 px, to the bit, and elsewhere dense pooling is the mean of the classifier's scores.
#[test]
fn dense_pooling_is_the_mean_of_the_score_map() {
    let networks = [Pooling::Global, Pooling::Dense].map(|pooling| Network {
        pooling,
        ..Network::trunk(2)
    });
    let [global, dense] = networks.map(|network| net(network, &STEM));
    let small = noise(&[1, 3, 224, 224], 200.0);
    assert_eq!(dense.forward(&small), global.forward(&small));
    let x = noise(&[2, 3, 256, 299], 200.0);
    let mut map = None;
    let logits = dense.forward_observed(&x, &mut |name, y| {
        if name == "inception_5b/output" {
            map = Some(y.shallow_clone());
        }
    });
    let windows = map
        .unwrap()
        .avg_pool2d([7, 7], [1, 1], [0, 0], false, true, None::<i64>);
    assert_eq!(windows.size()[2..], [2, 3]);
    let weight = dense.param("loss3/classifier.weight").view([2, 1024, 1, 1]);
    let bias = dense.param("loss3/classifier.bias");
    let scores = windows.conv2d(&weight, Some(&bias), [1, 1], [0, 0], [1, 1], 1);
    let expected = scores.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
    assert!(apart(&logits, &expected) < 1e-5);
    assert!(apart(&global.forward(&x), &expected) > 1e-4);
    let dropout = Tensor::ones([2, 1024], (Kind::Float, Device::Cpu));
    // As a whole: some maximum or ReLU of so large a map may go another way in single precision.
    let found = gradient(&dense, &x, &[0, 1], Some(&dropout));
    let off = apart(&found, &plain_gradient(&dense, &x, &[0, 1], &dropout));
    assert!(off < 1e-3, "{off}");
}

/// Parameter by parameter, with the trunk trained from the first layer on, from below or above a head, or not at all.
#[test]
fn auxiliary_heads_add_to_the_gradient_of_what_is_below_them() {
    let network = Network {
        auxiliary: true,
        ..Network::trunk(2)
    };
    let frozen = all_frozen(Network::trunk(2));
    let until = |module: &str| -> Vec<&str> {
        let names = frozen.iter().map(String::as_str);
        names
            .take_while(|layer| !layer.starts_with(module))
            .collect()
    };
    let below_first = until("inception_4a");
    let above_first = until("inception_4b");
    let whole = until("none");
    for frozen in [&STEM[..0], &below_first, &above_first, &whole] {
        let net = net(network, frozen);
        // So small that no softmax is saturated: then a gradient would be too small to compare.
        let x = noise(&[2, 3, 64, 80], 2.0);
        let units = network.dropout_units() as i64;
        let dropout = (noise(&[2, units], 1.0) - 0.4).ge(0.0).to_kind(Kind::Float) / 0.6;
        let ours = assert_gradient_is_plain(&net, &x, &dropout);
        // From kept features the same: they end below the first head.
        let pass = net.train_features(&net.features(&x), Some(&dropout));
        assert_eq!(pass.auxiliary().len(), 2);
        let kept = backward(&net, pass, &[0, 1]);
        assert_eq!(kept, ours);
        // Evaluation knows nothing of them.
        assert_eq!(net.forward(&x).size(), [2, 2]);
    }
}
