//! What is exported, read back.

use std::collections::{BTreeMap, HashMap, HashSet};

use fovea_core::googlenet::{LRN_SIZE, ParamSpec, param_specs};
use fovea_core::spec::RunSpec;
use prost::Message as _;

use super::onnx::messages;
use super::*;

/// A value that tells tensor and place.
fn value(tensor: usize, at: usize) -> f32 {
    tensor as f32 + (at % 1000) as f32 * 1e-3
}

/// The bytes of a checkpoint with these parameters and metadata.
fn file(parameters: &[ParamSpec], metadata: &[(&'static str, String)]) -> Vec<u8> {
    let metadata: BTreeMap<&str, String> = metadata.iter().cloned().collect();
    let tensors = parameters
        .iter()
        .map(|spec| (spec.name.as_str(), &*spec.shape));
    let mut bytes = fovea_weights::header(&metadata, tensors).unwrap();
    for (n, spec) in parameters.iter().enumerate() {
        bytes.extend((0..spec.len()).flat_map(|at| value(n, at).to_le_bytes()));
    }
    bytes
}

fn metadata(classes: u32) -> Vec<(&'static str, String)> {
    let mut spec: RunSpec =
        serde_json::from_str(r#"{"name": "dr", "dataset": "eyes", "model": {"weights": ""}}"#)
            .unwrap();
    spec.model.classes = classes;
    vec![
        ("format", "fovea-checkpoint-1".into()),
        ("run_id", "dr-7".into()),
        ("step", "40".into()),
        ("dataset_digest", "abc".into()),
        ("state_order", "[]".into()),
        ("spec", serde_json::to_string(&spec).unwrap()),
    ]
}

fn checkpoint(classes: u32) -> Vec<u8> {
    file(&param_specs(classes as usize), &metadata(classes))
}

fn as_onnx(model: &Model) -> (messages::Model, messages::Graph) {
    let mut file = messages::Model::decode(&*onnx(model).unwrap()).unwrap();
    let graph = file.graph.take().unwrap();
    (file, graph)
}

#[test]
fn the_graph_computes_each_layer_once_from_what_is_known_by_then() {
    let model = Model::read(&checkpoint(2)).unwrap();
    let (file, graph) = as_onnx(&model);
    assert_eq!((file.ir_version, file.opset_import[0].version), (8, OPSET));
    let mut known: HashSet<&str> = graph
        .input
        .iter()
        .map(|input| input.name.as_str())
        .collect();
    known.extend(graph.initializer.iter().map(|tensor| tensor.name.as_str()));
    let mut count: HashMap<&str, usize> = HashMap::new();
    let mut used = HashSet::new();
    for node in &graph.node {
        for input in &node.input {
            assert!(
                known.contains(input.as_str()),
                "{} reads {input} too early",
                node.name
            );
            used.insert(input.as_str());
        }
        for output in &node.output {
            assert!(known.insert(output), "{output} is computed twice");
        }
        *count.entry(&node.op_type).or_default() += 1;
    }
    let count = |op: &str| count.get(op).copied().unwrap_or_default();
    assert_eq!((count("Conv"), count("Relu"), count("Gemm")), (57, 57, 1));
    assert_eq!(
        (count("MaxPool"), count("LRN"), count("Concat")),
        (13, 2, 9)
    );
    for tensor in &graph.initializer {
        assert!(
            used.contains(tensor.name.as_str()),
            "{} is not used",
            tensor.name
        );
        let elements: i64 = tensor.dims.iter().product();
        assert_eq!(
            tensor.raw_data.len() as i64,
            elements * 4,
            "{}",
            tensor.name
        );
    }
    let outputs: Vec<&str> = graph
        .output
        .iter()
        .map(|output| output.name.as_str())
        .collect();
    assert_eq!(outputs, [LOGITS, PROBABILITIES]);
    assert!(outputs.iter().all(|output| known.contains(output)));

    let set = |op: &str, name: &str| {
        let node = graph.node.iter().find(|node| node.op_type == op).unwrap();
        node.attribute
            .iter()
            .find(|set| set.name == name)
            .unwrap()
            .clone()
    };
    assert_eq!(set("LRN", "size").i, Some(LRN_SIZE as i64));
    assert_eq!(set("LRN", "beta").f, Some(0.75));
    assert_eq!(set("MaxPool", "ceil_mode").i, Some(1));
    assert_eq!(set("Conv", "pads").ints, [3, 3, 3, 3]);
    assert_eq!(set("Gemm", "transB").i, Some(1));
}

#[test]
fn the_first_filters_see_red_green_blue_and_all_others_are_as_trained() {
    let model = Model::read(&checkpoint(2)).unwrap();
    let (_, graph) = as_onnx(&model);
    let floats = |name: &str| -> Vec<f32> {
        let tensor = graph
            .initializer
            .iter()
            .find(|tensor| tensor.name == name)
            .unwrap();
        let (words, _) = tensor.raw_data.as_chunks::<4>();
        words.iter().map(|word| f32::from_le_bytes(*word)).collect()
    };
    // Red, green, blue.
    assert_eq!(floats("mean"), [123.0, 117.0, 104.0]);
    let first = floats("conv1/7x7_s2.weight");
    let (map, filter) = (49, 3 * 49);
    for (out, input, at) in [(0, 0, 0), (0, 2, 48), (63, 1, 7), (63, 2, 3)] {
        let trained = value(0, out * filter + (2 - input) * map + at);
        assert_eq!(
            first[out * filter + input * map + at],
            trained,
            "{out} {input} {at}"
        );
    }
    let specs = param_specs(2);
    for (n, spec) in specs.iter().enumerate().skip(1) {
        let trained: Vec<f32> = (0..spec.len()).map(|at| value(n, at)).collect();
        assert!(floats(&spec.name) == trained, "{}", spec.name);
    }
}

#[test]
fn safetensors_hold_the_same_parameters_and_can_be_exported_again() {
    for classes in [2, 5] {
        let model = Model::read(&checkpoint(classes)).unwrap();
        let bytes = safetensors(&model).unwrap();
        assert!(bytes.len() < model.elements() * 4 + (20 << 10));
        let again = Model::read(&bytes).unwrap();
        assert_eq!(again.parameters, model.parameters);
        assert_eq!(again.metadata["run_id"], "dr-7");
        assert_eq!(again.metadata["format"], FORMAT);
        assert!(again.metadata["input"].contains("blue, green, red"));
        assert!(!again.metadata.contains_key("state_order"));
        // Equal models give equal files.
        assert!(safetensors(&again).unwrap() == bytes);
        assert!(onnx(&again).unwrap() == onnx(&model).unwrap());
        assert_eq!(again.class_names().len(), classes as usize);
    }
}

#[test]
fn what_is_no_model_is_refused_by_name() {
    let specs = param_specs(2);
    let refused = |bytes: &[u8]| Model::read(bytes).unwrap_err().to_string();
    let whole = checkpoint(2);
    for n in [0, 7, 100, whole.len() - 1] {
        assert!(refused(&whole[..n]).contains("not a safetensors file, or it is damaged"));
    }
    let text = refused(&file(&specs, &[]));
    assert!(
        text.contains("`format` in its metadata is absent"),
        "{text}"
    );
    let text = refused(&file(&specs, &[("format", "pt".into())]));
    assert!(text.contains("is \"pt\", not fovea-checkpoint-1"), "{text}");
    let text = refused(&file(&specs[..7], &metadata(2)));
    assert!(
        text.contains(&format!("tensor {} is missing", specs[7].name)),
        "{text}"
    );
    let text = refused(&file(&specs, &metadata(5)));
    assert!(
        text.contains("tensor loss3/classifier.weight has shape [2, 1024] of F32; [5, 1024]"),
        "{text}"
    );
    let mut without = metadata(2);
    without.retain(|(key, _)| *key != "spec");
    let text = refused(&file(&specs, &without));
    assert!(
        text.contains("the run's spec in its metadata cannot be read"),
        "{text}"
    );
}

/// What the operations behind the classifier make of its outputs for one photograph.
fn probabilities(graph: &messages::Graph, logits: &[f32]) -> Vec<f32> {
    let mut known: HashMap<&str, Vec<f32>> = HashMap::from([(LOGITS, logits.to_vec())]);
    let behind = graph.node.iter().skip_while(|n| n.op_type != "Gemm");
    for node in behind.skip(1) {
        let inputs: Vec<&[f32]> = node
            .input
            .iter()
            .map(|name| &*known[name.as_str()])
            .collect();
        let each = |f: fn(f32) -> f32| vec![inputs[0].iter().map(|x| f(*x)).collect::<Vec<f32>>()];
        let outputs = match node.op_type.as_str() {
            "Neg" => each(|x| -x),
            "Sigmoid" => each(|x| 1.0 / (1.0 + (-x).exp())),
            "Split" => inputs[0].iter().map(|x| vec![*x]).collect(),
            "Mul" => vec![vec![inputs[0][0] * inputs[1][0]]],
            "Concat" => vec![inputs.concat()],
            other => panic!("{other}"),
        };
        assert_eq!(outputs.len(), node.output.len(), "{}", node.name);
        known.extend(node.output.iter().map(String::as_str).zip(outputs));
    }
    known[PROBABILITIES].clone()
}

/// sigmoid(ln 3) = 3/4, sigmoid(0) = 1/2, sigmoid(-ln 3) = 1/4.
#[test]
fn an_ordinal_head_has_a_probability_for_each_class() {
    let mut about = metadata(4);
    let (_, spec) = about.last_mut().unwrap();
    let mut changed: RunSpec = serde_json::from_str(spec).unwrap();
    changed.model.head = fovea_core::spec::Head::Ordinal;
    *spec = serde_json::to_string(&changed).unwrap();
    let model = Model::read(&file(&param_specs(3), &about)).unwrap();
    assert_eq!((model.outputs(), model.classes()), (3, 4));
    assert_eq!(
        model.class_names()[2..],
        ["DR grade 2", "DR grades 3 and 4"]
    );
    let (_, graph) = as_onnx(&model);
    // Programs refuse a graph with two nodes of one name.
    let names: HashSet<&str> = graph.node.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names.len(), graph.node.len());
    let third = 3.0f32.ln();
    let found = probabilities(&graph, &[third, 0.0, -third]);
    let expected = [1.0 / 4.0, 3.0 / 8.0, 9.0 / 32.0, 3.0 / 32.0];
    assert_eq!(found.len(), 4);
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
    // A softmax's classifier of as many outputs is not taken for one.
    let mut softmax = changed.clone();
    softmax.model.head = fovea_core::spec::Head::Softmax;
    let (_, spec) = about.last_mut().unwrap();
    *spec = serde_json::to_string(&softmax).unwrap();
    assert!(Model::read(&file(&param_specs(3), &about)).is_err());
}

#[test]
fn a_model_says_how_photographs_are_prepared() {
    let mut metadata = metadata(2);
    metadata.push((
        "preprocessing",
        r#"{"steps": "crop, circle, bilinear, rules 3", "size": 224, "digest": "ab"}"#.into(),
    ));
    let model = Model::read(&file(&param_specs(2), &metadata)).unwrap();
    let again = Model::read(&safetensors(&model).unwrap()).unwrap();
    assert_eq!(again.metadata["image_size"], "224");
    let (onnx, _) = as_onnx(&model);
    let property = |key: &str| {
        let found = onnx.metadata_props.iter().find(|p| p.key == key);
        found.unwrap().value.clone()
    };
    assert_eq!(property("image_size"), "224");
    assert!(property("preprocessing").contains("circle"));
    let input = property("input");
    assert!(
        input.contains("32 or more; photographs were prepared as crop, circle"),
        "{input}"
    );
}

#[test]
fn a_value_that_is_not_finite_is_named() {
    let parameters = param_specs(2);
    let mut bytes = file(&parameters, &metadata(2));
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = Model::read(&bytes).unwrap_err().to_string();
    let name = &parameters.last().unwrap().name;
    assert!(
        error.starts_with(&format!("tensor {name} holds a value that is not finite")),
        "{error}"
    );
}
