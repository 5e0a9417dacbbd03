//! The network as an ONNX graph.
//!
//! The graph takes photographs as they are, RGB from 0 to 255: the mean is subtracted inside, and the first convolution's
//! filters have their input channels in the order red, green, blue. Batch, height and width are free, because the last
//! pooling is over the whole map. Operators are those of ONNX's own domain, in their meaning of opset 13.

pub(crate) mod messages;

use fovea_core::googlenet::{LRN_ALPHA, LRN_BETA, LRN_K, LRN_SIZE, Layer, Op, layers};
use fovea_core::spec::Head;
use prost::Message as _;

use crate::model::Model;
use crate::plain::described;
use messages::{
    Attribute, AttributeKind, Dimension, FLOAT, Graph, Kind, Length, Node, OperatorSet, Property,
    Shape, Tensor, TensorKind, Value,
};

/// The version of ONNX's operators that the graph uses.
pub const OPSET: i64 = 13;
/// Name of the graph's input: float32 `[batch, 3, height, width]`, red, green, blue, 0 to 255.
pub const INPUT: &str = "image";
/// Name of an output: float32 `[batch, outputs]`, the classifier's outputs.
pub const LOGITS: &str = "logits";
/// Name of an output: float32 `[batch, classes]`, the probability of each class.
pub const PROBABILITIES: &str = "probabilities";

/// ONNX's version of the file format.
const IR_VERSION: i64 = 8;
/// Subtracted from red, green, blue: the mean that BVLC GoogLeNet was trained with.
const MEAN: [f32; 3] = [123.0, 117.0, 104.0];
/// The network's input in the layer table.
const DATA: &str = "data";

/// The bytes of an ONNX file. Equal models give equal files.
///
/// # Errors
/// A text of the metadata cannot be written as JSON.
pub fn onnx(model: &Model) -> serde_json::Result<Vec<u8>> {
    let mut properties = described(model)?;
    properties.remove("format");
    let input = format!(
        "{INPUT}: float32 [batch, 3, height, width], red, green, blue, 0 to 255; the mean is subtracted in the graph. \
         Height and width are {} or more{}",
        model.network().least_size(),
        model
            .pipeline()
            .map_or_else(String::new, |pipeline| format!(
                "; photographs were prepared as {pipeline}"
            ))
    );
    properties.insert("input", input.clone());
    let file = messages::Model {
        ir_version: IR_VERSION,
        producer_name: "fovea".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: format!(
            "GoogLeNet, fine-tuned by Fovea on fundus photographs. Input {input}. Outputs {LOGITS} and {PROBABILITIES}: \
             [batch, {}]. Research software, not a medical device.",
            model.class_names().join(", ")
        ),
        graph: Some(graph(model, &input)),
        opset_import: vec![OperatorSet {
            domain: String::new(),
            version: OPSET,
        }],
        metadata_props: properties
            .into_iter()
            .map(|(key, value)| Property {
                key: key.to_owned(),
                value,
            })
            .collect(),
    };
    Ok(file.encode_to_vec())
}

fn graph(model: &Model, input: &str) -> Graph {
    let mut node = vec![operation(
        "Sub",
        [INPUT, "mean"].map(str::to_owned).to_vec(),
        DATA,
        Vec::new(),
    )];
    for layer in layers(model.network()) {
        computed(&layer, &mut node);
    }
    match model.spec().model.head {
        Head::Softmax => node.push(operation(
            "Softmax",
            vec![LOGITS.into()],
            PROBABILITIES,
            vec![int("axis", 1)],
        )),
        Head::Ordinal => node.extend(ordinal(model.outputs())),
    }
    let free = |name: &str| Length::Free(name.into());
    let fixed = |n: usize| Length::Fixed(n as i64);
    let output = |name: &str, length: usize| {
        let shape = [free("batch"), fixed(length)];
        value(name, shape.to_vec(), &model.class_names().join(", "))
    };
    let shape = vec![free("batch"), fixed(3), free("height"), free("width")];
    Graph {
        node,
        name: "fovea".into(),
        initializer: initializers(model),
        input: vec![value(INPUT, shape, input)],
        output: vec![
            output(LOGITS, model.outputs()),
            output(PROBABILITIES, model.classes()),
        ],
    }
}

/// From the logits of an ordinal head to the probability of each class. Logit k is of going beyond class k, once there, so
/// P(class = c) is the product of sigmoid(logit k) over k < c, times sigmoid(-logit c) where there is one.
fn ordinal(outputs: usize) -> Vec<Node> {
    let parts = |of: &str| -> Vec<String> { (0..outputs).map(|k| format!("{of}/{k}")).collect() };
    let split = |of: &str| Node {
        output: parts(of),
        name: format!("{of}/split"),
        ..operation("Split", vec![of.into()], of, vec![int("axis", 1)])
    };
    let product =
        |a: &str, b: &str, into: &str| operation("Mul", vec![a.into(), b.into()], into, Vec::new());
    let mut nodes = vec![
        operation("Neg", vec![LOGITS.into()], "negated", Vec::new()),
        operation("Sigmoid", vec![LOGITS.into()], "beyond", Vec::new()),
        operation("Sigmoid", vec!["negated".into()], "stays", Vec::new()),
        split("beyond"),
        split("stays"),
    ];
    let [beyond, stays] = ["beyond", "stays"].map(parts);
    let mut classes = vec![stays[0].clone()];
    let mut reached = beyond[0].clone();
    for k in 1..outputs {
        let [class, next] = [format!("class/{k}"), format!("reached/{}", k + 1)];
        nodes.push(product(&reached, &stays[k], &class));
        nodes.push(product(&reached, &beyond[k], &next));
        classes.push(class);
        reached = next;
    }
    classes.push(reached);
    let joined = operation("Concat", classes, PROBABILITIES, vec![int("axis", 1)]);
    nodes.push(joined);
    nodes
}

/// The mean and all parameters.
fn initializers(model: &Model) -> Vec<Tensor> {
    let mut tensors = vec![tensor("mean", &[1, 3, 1, 1], &MEAN)];
    // The filters that see the photograph have their inputs in the order blue, green, red.
    let first = model.parameters.first().map(|(spec, _)| spec.name.clone());
    for (spec, values) in &model.parameters {
        let reversed = match Some(&spec.name) == first.as_ref() {
            true => Some(with_inputs_reversed(values, &spec.shape)),
            false => None,
        };
        let values = reversed.as_deref().unwrap_or(values);
        tensors.push(tensor(&spec.name, &spec.shape, values));
    }
    tensors
}

/// Filters (out, in, height, width) with their inputs in the opposite order.
fn with_inputs_reversed(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let [_, inputs, height, width] = shape[..] else {
        unreachable!("the first layer is a convolution");
    };
    let filters = values.chunks_exact(inputs * height * width);
    let reversed = filters.flat_map(|filter| filter.chunks_exact(height * width).rev());
    reversed.flatten().copied().collect()
}

/// Adds the operations of a layer. The output of a layer has its name.
fn computed(layer: &Layer, nodes: &mut Vec<Node>) {
    let name = layer.name.as_str();
    let bottoms = || layer.bottoms.clone();
    let own = |kind: &str| format!("{name}.{kind}");
    let with_parameters = |bottom: String| vec![bottom, own("weight"), own("bias")];
    let before = format!("{name}/before_relu");
    let output = if layer.relu { before.as_str() } else { name };
    let node = match layer.op {
        Op::Convolution {
            kernel,
            stride,
            pad,
            ..
        } => operation(
            "Conv",
            with_parameters(layer.bottoms[0].clone()),
            output,
            window(kernel, stride, pad),
        ),
        Op::MaxPool {
            kernel,
            stride,
            pad,
        } => {
            let mut settings = window(kernel, stride, pad);
            // Caffe rounds the output's length up. Padded windows have stride 1 and end exactly.
            settings.push(int("ceil_mode", i64::from(pad == 0)));
            operation("MaxPool", bottoms(), output, settings)
        }
        Op::Lrn => operation(
            "LRN",
            bottoms(),
            output,
            vec![
                int("size", LRN_SIZE as i64),
                float("alpha", LRN_ALPHA),
                float("beta", LRN_BETA),
                float("bias", LRN_K),
            ],
        ),
        Op::Concat => operation("Concat", bottoms(), output, vec![int("axis", 1)]),
        Op::GlobalAveragePool => operation("GlobalAveragePool", bottoms(), output, Vec::new()),
        Op::DenseAveragePool { kernel } => {
            let windows = format!("{name}/windows");
            let each = operation("AveragePool", bottoms(), &windows, window(kernel, 1, 0));
            nodes.push(each);
            operation("GlobalAveragePool", vec![windows], output, Vec::new())
        }
        Op::AuxiliaryAveragePool => unreachable!("a deployed network has no auxiliary heads"),
        // Only in training it does something. Here it makes a row of each image's features.
        Op::Dropout { .. } => operation("Flatten", bottoms(), output, vec![int("axis", 1)]),
        Op::InnerProduct { .. } => operation(
            "Gemm",
            with_parameters(layer.bottoms[0].clone()),
            LOGITS,
            vec![int("transB", 1)],
        ),
    };
    nodes.push(node);
    if layer.relu {
        nodes.push(operation("Relu", vec![before], name, Vec::new()));
    }
}

/// The settings of a square window. Lengths in pixels.
fn window(kernel: usize, stride: usize, pad: usize) -> Vec<Attribute> {
    vec![
        ints("kernel_shape", [kernel; 2]),
        ints("strides", [stride; 2]),
        ints("pads", [pad; 4]),
    ]
}

fn operation(op: &str, input: Vec<String>, output: &str, attribute: Vec<Attribute>) -> Node {
    Node {
        input,
        output: vec![output.into()],
        name: output.into(),
        op_type: op.into(),
        attribute,
    }
}

fn attribute(name: &str, kind: AttributeKind) -> Attribute {
    Attribute {
        name: name.into(),
        kind: kind.into(),
        ..Attribute::default()
    }
}

fn int(name: &str, i: i64) -> Attribute {
    let i = Some(i);
    Attribute {
        i,
        ..attribute(name, AttributeKind::Int)
    }
}

fn ints<const N: usize>(name: &str, ints: [usize; N]) -> Attribute {
    let ints = ints.map(|n| n as i64).to_vec();
    Attribute {
        ints,
        ..attribute(name, AttributeKind::Ints)
    }
}

fn float(name: &str, f: f64) -> Attribute {
    let f = Some(f as f32);
    Attribute {
        f,
        ..attribute(name, AttributeKind::Float)
    }
}

fn tensor(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    Tensor {
        dims: shape.iter().map(|n| *n as i64).collect(),
        data_type: FLOAT,
        name: name.into(),
        raw_data: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    }
}

fn value(name: &str, shape: Vec<Length>, doc_string: &str) -> Value {
    let dim = shape.into_iter().map(|length| Dimension {
        length: Some(length),
    });
    Value {
        name: name.into(),
        kind: Some(Kind {
            tensor: Some(TensorKind {
                elem_type: FLOAT,
                shape: Some(Shape { dim: dim.collect() }),
            }),
        }),
        doc_string: doc_string.into(),
    }
}
