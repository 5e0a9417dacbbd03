//! Layers that GoogLeNet does not have.

use super::*;

/// A layer of the second generation with what stands around it.
fn between(name: &str, kind: &str, bottom: &str, top: &str, blobs: &[Bytes]) -> Bytes {
    let layer = Bytes::default()
        .bytes(1, name.as_bytes())
        .bytes(2, kind.as_bytes())
        .bytes(3, bottom.as_bytes())
        .bytes(4, top.as_bytes());
    blobs
        .iter()
        .fold(layer, |layer, blob| layer.bytes(7, &blob.0))
}

#[test]
fn a_layer_that_changes_what_others_compute_is_refused() {
    let one = || Bytes::default().shape(&[2]).packed(5, &BIAS);
    let net = |middle: &[Bytes]| {
        let mut layers = vec![between(
            "conv",
            "Convolution",
            "data",
            "conv",
            &conv_blobs(),
        )];
        layers.extend(middle.iter().cloned());
        layers.push(between("fc", "InnerProduct", "conv", "fc", &fc_blobs()));
        layers
    };
    assert_all(&v2_net(&net(&[])));
    // In place, passed on by layers without numbers.
    let error = message(&v2_net(&net(&[
        between("norm", "BatchNorm", "conv", "conv", &[one(), one(), one()]),
        between("relu", "ReLU", "conv", "conv", &[]),
    ])));
    assert!(
        error.contains("layer fc: its input depends on layer norm (BatchNorm), which BVLC GoogLeNet does not have"),
        "{error}"
    );
    // Without numbers of their own.
    for (kind, at) in [
        ("MVN", "conv"),
        ("elu", "conv"),
        ("Sigmoid", "conv"),
        ("Power", "conv"),
    ] {
        let error = message(&v2_net(&net(&[between("other", kind, at, at, &[])])));
        let expected = format!("layer fc: its input depends on layer other ({kind})");
        assert!(error.contains(&expected), "{error}");
    }
    // On branches that no layer of the network reads.
    assert_all(&v2_net(&net(&[
        between("loss1/conv", "Convolution", "conv", "loss1/conv", &[one()]),
        between("my/classifier", "InnerProduct", "conv", "my", &[one()]),
        between("softmax", "Softmax", "my", "prob", &[]),
    ])));
    // Written anew before it is read.
    assert_all(&v2_net(&net(&[
        between("aside", "Convolution", "data", "conv", &[one()]),
        between("pool", "Pooling", "data", "conv", &[]),
    ])));
    // The replaced classifier may depend on anything.
    let mut layers = net(&[between("more", "InnerProduct", "conv", "conv", &[one()])]);
    layers[2] = between("fc", "InnerProduct", "conv", "fc", &[one()]);
    assert_eq!(
        loaded(&v2_net(&layers), &["fc"]).unwrap().0.copied,
        ["conv"]
    );
}

/// The first generation numbers its kinds.
#[test]
fn kinds_of_the_first_generation_are_known() {
    let layer = |name: &str, kind: i64, bottom: &str, top: &str, blobs: &[Bytes]| {
        let layer = Bytes::default()
            .bytes(2, bottom.as_bytes())
            .bytes(3, top.as_bytes())
            .bytes(4, name.as_bytes())
            .int(5, kind);
        blobs
            .iter()
            .fold(layer, |layer, blob| layer.bytes(6, &blob.0))
    };
    let net = |kind: i64| {
        v1_net(&[
            layer("conv", 4, "data", "conv", &conv_blobs()),
            layer("middle", kind, "conv", "conv", &[]),
            layer("fc", 14, "conv", "fc", &fc_blobs()),
        ])
    };
    // ReLU, pooling, LRN, dropout.
    for kind in [18, 17, 15, 6] {
        assert_all(&net(kind));
    }
    for (kind, name) in [(34, "MVN"), (26, "Power"), (19, "Sigmoid"), (25, "Eltwise")] {
        let error = message(&net(kind));
        let expected = format!("its input depends on layer middle ({name})");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_layer_of_unknown_place_is_judged_by_its_kind_name_and_arrays() {
    let one = || Bytes::default().shape(&[2]).packed(5, &BIAS);
    let with = |layer: Bytes| v2_net(&[v2("conv", &conv_blobs()), layer, v2("fc", &fc_blobs())]);
    let layer = |name: &str, kind: &str, blobs: &[Bytes]| {
        let layer = Bytes::default()
            .bytes(1, name.as_bytes())
            .bytes(2, kind.as_bytes());
        blobs
            .iter()
            .fold(layer, |layer, blob| layer.bytes(7, &blob.0))
    };
    for (name, kind, blobs) in [
        ("conv/bn", "", 1),
        ("conv_scale", "", 2),
        ("x", "BatchNorm", 1),
        ("x", "PReLU", 1),
        ("x", "", 3),
        ("inception/bn2/norm", "", 1),
        ("x", "MVN", 0),
        ("x", "BatchNorm", 0),
    ] {
        let error = message(&with(layer(name, kind, &vec![one(); blobs])));
        let expected = format!("layer {name}: BVLC GoogLeNet has no such layer");
        assert!(error.contains(&expected), "{error}");
    }
    for (name, kind, blobs) in [
        ("my_classifier", "InnerProduct", 2),
        ("loss1/bn", "BatchNorm", 3),
        ("conv/relu", "ReLU", 0),
        ("convolution", "", 2),
    ] {
        assert_all(&with(layer(name, kind, &vec![one(); blobs])));
    }
}
