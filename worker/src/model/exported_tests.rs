//! The network against what other programs compute from its export.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use fovea_core::spec::RunSpec;
use fovea_export::{Model, onnx};
use tch::Tensor;

use super::net::Net;
use super::tests::{net, noise};
use super::{channels_last, log_probabilities};

/// Subtracted from blue, green, red.
const MEAN: [f32; 3] = [104.0, 117.0, 123.0];

/// The bytes of a file with the parameters of `net`, which a run of this spec has trained.
fn file(net: &Net, spec: &RunSpec) -> Vec<u8> {
    let metadata = BTreeMap::from([
        ("format", fovea_export::FORMAT.to_owned()),
        ("spec", serde_json::to_string(spec).unwrap()),
    ]);
    let entries: Vec<_> = net.entries().collect();
    let tensors = entries
        .iter()
        .map(|entry| (entry.spec.name.as_str(), &*entry.spec.shape));
    let mut bytes = fovea_weights::header(&metadata, tensors).unwrap();
    for entry in &entries {
        bytes.extend(floats(&net.param(&entry.spec.name)));
    }
    bytes
}

/// The values, little-endian, in the order of the dimensions.
fn floats(x: &Tensor) -> Vec<u8> {
    let values: Vec<f32> = x.contiguous().view([-1]).try_into().unwrap();
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// Has both programs run the export of a network with these lines in [model] on photographs of several sizes.
fn compare(model: &str) {
    let text = format!("name = 'dr'\ndataset = 'eyes'\n[model]\n{model}");
    let spec: RunSpec = toml::from_str(&text).unwrap();
    let head = spec.model.head;
    let network = spec.model.network().unwrap().deployed();
    let net = net(network, &[]);
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    let exported = onnx(&Model::read(&file(&net, &spec)).unwrap()).unwrap();
    std::fs::write(&model, exported).unwrap();
    // Caffe's rounding of lengths matters in some of these sizes.
    let sizes = [
        (3, 64, 64),
        (2, 224, 224),
        (1, 225, 227),
        (1, 299, 299),
        (1, 448, 448),
    ]
    .into_iter()
    .filter(|(_, height, _)| *height >= network.least_size() as i64);
    let sizes: Vec<(i64, i64, i64)> = sizes.collect();
    for &(batch, height, width) in &sizes {
        // Blue, green, red.
        let images = ((noise(&[batch, 3, height, width], 1.0) + 1.0) * 127.5).round();
        let mean = Tensor::from_slice(&MEAN).view([1, 3, 1, 1]);
        let logits = tch::no_grad(|| net.forward(&channels_last(&(&images - mean))));
        let name = folder.path().join(format!("{batch}-{height}-{width}"));
        for (what, values) in [
            ("images", &images.flip([1])),
            ("logits", &logits),
            ("probabilities", &log_probabilities(head, &logits).exp()),
        ] {
            std::fs::write(name.with_extension(what), floats(values)).unwrap();
        }
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(repository.join(".model-tools/bin/python"))
        .arg(repository.join("scripts/run_onnx.py"))
        .args([&model, folder.path()])
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .expect("make model-tools fetches the programs");
    let text = String::from_utf8_lossy(&output.stdout);
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{problem}");
    let mut compared = 0;
    for line in text.lines() {
        let compare: serde_json::Value = serde_json::from_str(line).unwrap();
        let number = |key: &str| compare[key].as_f64().unwrap();
        assert!(number("largest") > 0.1, "{line}");
        assert!(
            number("logits") < 1e-4 * number("largest").max(1.0),
            "{line}"
        );
        assert!(number("probabilities") < 1e-4, "{line}");
        compared += 1;
    }
    assert_eq!(compared, 2 * sizes.len(), "{text}");
}

#[cfg_attr(not(has_models), ignore = "needs .model-tools: run `make model-tools`")]
#[test]
fn other_programs_compute_the_same_from_the_exported_graph() {
    compare("");
    compare("classes = 5\nhead = 'ordinal'");
    compare("pooling = 'dense'\nauxiliary = 0.3");
    compare("strategy = 'linear_probe'\ntap = 'inception_4d/output'");
}
