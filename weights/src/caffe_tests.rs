//! Crafted .caffemodel files: every variant that is in use, and every way of being broken.

use std::io::Write;
use std::path::Path;

use fovea_core::googlenet::{ParamSpec, param_specs};
use tempfile::NamedTempFile;

use super::*;

fn open(path: &Path) -> Result<Source, WeightsError> {
    Source::open(path)
}

/// A protobuf message under construction.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn varint(mut self, mut value: u64) -> Bytes {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn int(self, field: u64, value: i64) -> Bytes {
        self.varint(field << 3).varint(value as u64)
    }

    fn bytes(self, field: u64, value: &[u8]) -> Bytes {
        let mut out = self.varint(field << 3 | 2).varint(value.len() as u64);
        out.0.extend(value);
        out
    }

    fn packed(self, field: u64, values: &[f32]) -> Bytes {
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(field, &raw)
    }

    fn unpacked(mut self, field: u64, values: &[f32]) -> Bytes {
        for value in values {
            self = self.varint(field << 3 | 5);
            self.0.extend(value.to_le_bytes());
        }
        self
    }

    fn doubles(self, field: u64, values: &[f32]) -> Bytes {
        let raw = values.iter().flat_map(|&v| f64::from(v).to_le_bytes());
        self.bytes(field, &raw.collect::<Vec<u8>>())
    }

    fn shape(self, dims: &[i64]) -> Bytes {
        let run = dims
            .iter()
            .fold(Bytes::default(), |b, &n| b.varint(n as u64));
        self.bytes(7, &Bytes::default().bytes(1, &run.0).0)
    }

    fn legacy(self, [n, c, h, w]: [i64; 4]) -> Bytes {
        self.int(1, n).int(2, c).int(3, h).int(4, w)
    }
}

fn v1(name: &str, blobs: &[Bytes]) -> Bytes {
    // With the fields that real files have around the ones of interest.
    let layer = Bytes::default()
        .bytes(2, b"bottom")
        .bytes(3, b"top")
        .bytes(4, name.as_bytes())
        .int(5, 4);
    let layer = blobs
        .iter()
        .fold(layer, |layer, blob| layer.bytes(6, &blob.0));
    layer.unpacked(7, &[1.0, 2.0]).unpacked(8, &[1.0, 0.0])
}

fn v2(name: &str, blobs: &[Bytes]) -> Bytes {
    let layer = Bytes::default()
        .bytes(1, name.as_bytes())
        .bytes(2, b"Convolution")
        .bytes(3, b"bottom")
        .bytes(106, &[8, 64, 18, 0]);
    blobs
        .iter()
        .fold(layer, |layer, blob| layer.bytes(7, &blob.0))
}

/// A network of two small layers instead of GoogLeNet's 58.
fn specs() -> Vec<ParamSpec> {
    let like = |name: &str, of: &str, shape: &[usize]| ParamSpec {
        name: name.to_string(),
        layer: of.to_string(),
        shape: shape.to_vec(),
        ..param_specs(2)[usize::from(name.ends_with("bias"))].clone()
    };
    vec![
        like("conv.weight", "conv", &[2, 3, 1, 1]),
        like("conv.bias", "conv", &[2]),
        like("fc.weight", "fc", &[2, 4]),
        like("fc.bias", "fc", &[2]),
    ]
}

const CONV: [f32; 6] = [1.0, -2.0, 3.5, 4.0, 5.0, 6.25];
const FC: [f32; 8] = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5];
const BIAS: [f32; 2] = [9.0, -9.0];

fn conv_blobs() -> [Bytes; 2] {
    [
        Bytes::default().shape(&[2, 3, 1, 1]).packed(5, &CONV),
        Bytes::default().shape(&[2]).packed(5, &BIAS),
    ]
}

fn fc_blobs() -> [Bytes; 2] {
    [
        Bytes::default().legacy([1, 1, 2, 4]).packed(5, &FC),
        Bytes::default().legacy([1, 1, 1, 2]).packed(5, &BIAS),
    ]
}

fn v1_net(layers: &[Bytes]) -> Vec<u8> {
    let net = Bytes::default().bytes(1, b"net").int(5, 0);
    layers
        .iter()
        .fold(net, |net, layer| net.bytes(2, &layer.0))
        .0
}

fn v2_net(layers: &[Bytes]) -> Vec<u8> {
    let net = Bytes::default().bytes(1, b"net");
    let net = layers
        .iter()
        .fold(net, |net, layer| net.bytes(100, &layer.0));
    net.bytes(3, b"data").0
}

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

type Set = Vec<(String, Vec<f32>)>;

fn loaded(bytes: &[u8], replaced: &[&str]) -> Result<(Loaded, Set), WeightsError> {
    let mut set = Vec::new();
    let loaded = load(
        &mut open(file(bytes).path())?,
        &specs(),
        replaced,
        &mut |spec, values| set.push((spec.name.clone(), values.to_vec())),
    )?;
    Ok((loaded, set))
}

fn assert_all(bytes: &[u8]) {
    let (report, mut set) = loaded(bytes, &[]).unwrap();
    set.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("conv.bias".to_string(), BIAS.to_vec()),
        ("conv.weight".to_string(), CONV.to_vec()),
        ("fc.bias".to_string(), BIAS.to_vec()),
        ("fc.weight".to_string(), FC.to_vec()),
    ];
    assert_eq!(set, expected);
    assert_eq!(report.copied, ["conv", "fc"]);
}

fn message(bytes: &[u8]) -> String {
    loaded(bytes, &[]).unwrap_err().to_string()
}

#[test]
fn both_generations_and_both_kinds_of_shape() {
    assert_all(&v1_net(&[v1("conv", &conv_blobs()), v1("fc", &fc_blobs())]));
    assert_all(&v2_net(&[v2("conv", &conv_blobs()), v2("fc", &fc_blobs())]));
    // Both in one file, and in another order than the network's.
    let mut mixed = v2_net(&[v2("fc", &fc_blobs())]);
    mixed.extend(v1_net(&[v1("conv", &conv_blobs())]));
    assert_all(&mixed);
}

#[test]
fn floats_packed_unpacked_and_in_pieces() {
    let weights = [
        Bytes::default().shape(&[2, 3, 1, 1]).unpacked(5, &CONV),
        Bytes::default()
            .packed(5, &CONV[..4])
            .packed(5, &CONV[4..])
            .shape(&[2, 3, 1, 1]),
        Bytes::default()
            .unpacked(5, &CONV[..1])
            .packed(5, &CONV[1..])
            .shape(&[2, 3, 1, 1]),
        Bytes::default().shape(&[2, 3, 1, 1]).doubles(8, &CONV),
        // A shape in two pieces, which protobuf puts together.
        Bytes::default()
            .shape(&[2, 3])
            .packed(5, &CONV)
            .shape(&[1, 1]),
        // The gradient that a snapshot may hold, and an unknown field.
        Bytes::default()
            .shape(&[2, 3, 1, 1])
            .packed(6, &BIAS)
            .int(99, 1)
            .packed(5, &CONV),
    ];
    for weight in weights {
        let blobs = [weight, conv_blobs()[1].clone()];
        assert_all(&v1_net(&[v1("conv", &blobs), v1("fc", &fc_blobs())]));
        assert_all(&v2_net(&[v2("conv", &blobs), v2("fc", &fc_blobs())]));
    }
}

/// As NVIDIA's Caffe and DIGITS write a blob.
fn raw(shape: &[i64], kind: i64, values: &[f32]) -> Bytes {
    let bytes: Vec<u8> = match kind {
        0 => values
            .iter()
            .flat_map(|&v| f64::from(v).to_le_bytes())
            .collect(),
        1 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        _ => values
            .iter()
            .flat_map(|&v| half::f16::from_f32(v).to_le_bytes())
            .collect(),
    };
    Bytes::default()
        .shape(shape)
        .int(10, kind)
        .bytes(12, &bytes)
}

#[test]
fn raw_numbers_of_every_type_are_read() {
    for kind in [0, 1, 2] {
        let conv = [raw(&[2, 3, 1, 1], kind, &CONV), raw(&[2], kind, &BIAS)];
        let fc = [raw(&[2, 4], kind, &FC), raw(&[1, 1, 1, 2], kind, &BIAS)];
        assert_all(&v2_net(&[v2("conv", &conv), v2("fc", &fc)]));
        assert_all(&v1_net(&[v1("conv", &conv), v1("fc", &fc)]));
    }
    let of = |weight: Bytes| message(&v2_net(&[v2("conv", &[weight])]));
    let error = of(raw(&[2, 3, 1, 1], 1, &CONV[..5]));
    assert!(
        error.contains("layer conv: its blob 0") && error.contains("holds 5 numbers"),
        "{error}"
    );
    let error = of(Bytes::default().shape(&[1]).int(10, 1).bytes(12, &[0; 7]));
    assert!(
        error.contains("layer conv") && error.contains("ends 3 bytes after a number"),
        "{error}"
    );
    let error = of(Bytes::default().shape(&[1]).int(10, 3).bytes(12, &[0; 4]));
    assert!(
        error.contains("layer conv: its numbers are of type 3"),
        "{error}"
    );
}

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

#[test]
fn other_files_are_named_for_what_they_are() {
    let error = message(b"\x89HDF\r\n\x1a\n\0\0\0\0");
    assert!(
        error.contains("is an HDF5 file") && error.contains("save it as .caffemodel"),
        "{error}"
    );
    let error = message(b"name: \"GoogleNet\"\nlayer {");
    assert!(error.contains("is a .prototxt"), "{error}");
}

#[test]
fn unpacked_dimensions_are_read() {
    let dims = Bytes::default().int(1, 2).int(1, 3).int(1, 1).int(1, 1);
    let weight = Bytes::default().bytes(7, &dims.0).packed(5, &CONV);
    let blobs = [weight, conv_blobs()[1].clone()];
    assert_all(&v2_net(&[v2("conv", &blobs), v2("fc", &fc_blobs())]));
}

#[test]
fn unknown_layers_are_ignored_and_replaced_ones_left_out() {
    let odd = Bytes::default().shape(&[1]).packed(5, &[1.0]);
    let net = v1_net(&[
        v1("data", &[]),
        v1("loss1/conv", &[odd.clone(), odd.clone(), odd]),
        v1("conv", &conv_blobs()),
        v1("fc", &[Bytes::default().shape(&[1]).packed(5, &[1.0])]),
    ]);
    let (report, set) = loaded(&net, &["fc"]).unwrap();
    assert_eq!(set.len(), 2);
    assert_eq!(report.copied, ["conv"]);
    assert_eq!(report.ignored, ["loss1/conv", "fc"]);
    assert!(message(&net).contains("layer fc: its weight has the shape [1]"));
}

#[test]
fn another_shape_names_the_layer_and_both_shapes() {
    for shape in [&[3, 2, 1, 1][..], &[6], &[2, 3, 1, 1, 1]] {
        let blobs = [
            Bytes::default().shape(shape).packed(5, &CONV),
            conv_blobs()[1].clone(),
        ];
        let error = message(&v2_net(&[v2("conv", &blobs), v2("fc", &fc_blobs())]));
        let expected = format!("layer conv: its weight has the shape {shape:?}");
        assert!(error.contains(&expected), "{error}");
        assert!(error.contains("the network's has [2, 3, 1, 1]"), "{error}");
    }
}

#[test]
fn a_missing_layer_or_bias_is_named() {
    let error = message(&v1_net(&[v1("conv", &conv_blobs())]));
    assert!(error.contains("has no weight of layer fc"), "{error}");
    let error = message(&v1_net(&[
        v1("conv", &conv_blobs()[..1]),
        v1("fc", &fc_blobs()),
    ]));
    assert!(error.contains("has no bias of layer conv"), "{error}");
}

#[test]
fn count_and_shape_must_agree() {
    let shapes: [&[i64]; 6] = [
        &[2, 3, 1, 2],
        &[2, 3, 0, 1],
        &[],
        &[i64::MAX, 4],
        &[1 << 62, 1 << 62],
        &[7],
    ];
    for shape in shapes {
        let blobs = [Bytes::default().shape(shape).packed(5, &CONV)];
        let error = message(&v2_net(&[v2("conv", &blobs)]));
        assert!(error.contains("layer conv: its blob 0"), "{error}");
        assert!(error.contains("holds 6 numbers"), "{error}");
    }
    let blobs = [Bytes::default().legacy([2, -3, 1, 1]).packed(5, &CONV)];
    let error = message(&v2_net(&[v2("conv", &blobs)]));
    assert!(
        error.contains("layer conv: its bytes") && error.contains("dimension of -3"),
        "{error}"
    );
    // A run of floats that ends within one.
    let blobs = [Bytes::default().shape(&[1]).bytes(5, &[0, 0, 128])];
    let error = message(&v2_net(&[v2("conv", &blobs)]));
    assert!(error.contains("layer conv: its bytes"), "{error}");
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let mut values = CONV;
    values[3] = f32::NAN;
    let blobs = [Bytes::default().shape(&[2, 3, 1, 1]).packed(5, &values)];
    let error = message(&v1_net(&[v1("conv", &blobs)]));
    assert!(
        error.contains("layer conv: its weight holds a number that is not finite"),
        "{error}"
    );
}

#[test]
fn a_layer_that_stands_twice_is_refused() {
    let conv = v1("conv", &conv_blobs());
    let error = message(&v1_net(&[conv.clone(), conv]));
    assert!(
        error.contains("layer conv: its weight is in the file twice"),
        "{error}"
    );
}

#[test]
fn declared_lengths_are_not_believed() {
    // A layer of 2^62 bytes, one of 4 GB in a short file, a blob longer than its layer.
    let huge = |declared: u64| {
        let mut net = v1_net(&[v1("conv", &conv_blobs())]);
        net = Bytes(net).varint(2 << 3 | 2).varint(declared).0;
        net.extend(Bytes::default().bytes(4, b"fc").0);
        net
    };
    for declared in [1 << 62, u64::MAX, 4 << 30, 100] {
        let error = message(&huge(declared));
        assert!(
            error.contains(&format!("layer fc: it declares {declared} bytes")),
            "{error}"
        );
    }
    let layer = Bytes::default()
        .bytes(4, b"conv")
        .varint(6 << 3 | 2)
        .varint(1 << 40);
    let error = message(&v1_net(&[layer]));
    assert!(
        error.contains("layer conv: its bytes cannot be decoded"),
        "{error}"
    );
    // Of a name that comes after the cut, at least the layer before is known.
    let mut net = v1_net(&[v1("conv", &conv_blobs())]);
    net = Bytes(net).varint(2 << 3 | 2).varint(1000).0;
    assert!(message(&net).contains("layer after conv"));
}

#[test]
fn a_shape_of_many_dimensions_and_many_blobs_are_refused_before_they_take_memory() {
    let dims = vec![1; 100_000];
    let error = message(&v1_net(&[v1("conv", &[Bytes::default().shape(&dims)])]));
    assert!(
        error.contains("layer conv") && error.contains("shape of blob 0 takes"),
        "{error}"
    );
    let error = message(&v1_net(&[v1("conv", &vec![Bytes::default(); 100_000])]));
    assert!(error.contains("layer conv: it has a blob 8"), "{error}");
}

#[test]
fn files_that_are_no_caffemodel_say_so() {
    for bytes in [
        &b""[..],
        b"\0\0\0\0",
        &[0xff; 64],
        b"\x0b\x0c",
        // A layer of 100 bytes without a name would begin here.
        b"\x12\x64, not",
    ] {
        let path = file(bytes);
        let error = load(
            &mut open(path.path()).unwrap(),
            &specs(),
            &[],
            &mut |_, _| {},
        );
        let error = error.unwrap_err().to_string();
        let expected = format!("{} is not a .caffemodel: ", path.path().display());
        assert!(error.starts_with(&expected), "{error}");
        assert!(!error.contains("none yet"), "{error}");
    }
    // What begins as one is damaged.
    let mut net = v1_net(&[v1("conv", &conv_blobs())]);
    net.extend(b"\x0b\x0c");
    let error = message(&net);
    assert!(
        error.contains("is damaged after layer conv: at byte "),
        "{error}"
    );
    let error = open(Path::new("no/such/file"));
    assert!(error.unwrap_err().to_string().contains("no/such/file"));
}

/// Counts all numbers.
struct Count(usize);

impl Visit for Count {
    fn head(&mut self, _: Head) -> Result<bool, LayerProblem> {
        Ok(true)
    }

    fn blob(&mut self, blob: Blob) -> Result<(), LayerProblem> {
        self.0 += blob.values.len();
        Ok(())
    }
}

/// Every prefix of a good file, and thousands of mutations of it: an error or a result, never a panic.
#[test]
fn damage_never_panics() {
    let good = v1_net(&[v1("conv", &conv_blobs()), v1("fc", &fc_blobs())]);
    for length in 0..good.len() {
        assert!(loaded(&good[..length], &[]).is_err(), "{length} bytes");
    }
    let mut state = 1u64;
    let mut random = move |n: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    for _ in 0..5000 {
        let mut bytes = good.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] ^= 1 << random(8),
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, [0xff, 0x80, 0x00, 0x7f][random(4)]),
            }
        }
        let mut count = Count(0);
        let _ = open(file(&bytes).path()).unwrap().read(&mut count);
        assert!(
            count.0 <= bytes.len(),
            "more numbers than the file has bytes"
        );
    }
}

/// The real file of BVLC's weights, where it is at hand.
#[cfg_attr(
    not(has_shared),
    ignore = "needs ../shared: real photographs and weights"
)]
#[test]
fn the_published_weights_are_read() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/weights/bvlc_googlenet_trunk_v1.caffemodel");
    let mut count = 0;
    let specs = param_specs(1000);
    let report = load(&mut open(&path).unwrap(), &specs, &[], &mut |_, values| {
        count += values.len()
    })
    .unwrap();
    assert_eq!(count, 6_998_552);
    assert_eq!(report.copied.len(), 58);
    assert_eq!(report.ignored, Vec::<String>::new());

    let mut count = 0;
    let report = load(
        &mut open(&path).unwrap(),
        &param_specs(2),
        &["loss3/classifier"],
        &mut |_, values| count += values.len(),
    );
    assert_eq!(report.unwrap().ignored, ["loss3/classifier"]);
    assert_eq!(count, 6_998_552 - 1_025_000);
    let error = load(
        &mut open(&path).unwrap(),
        &param_specs(2),
        &[],
        &mut |_, _| {},
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("layer loss3/classifier: its weight has the shape")
    );
}
