//! The spec of a run for TensorBoard's table of hyperparameters.
//!
//! Source: tensorboard/plugins/hparams/plugin_data.proto and summary_v2.py, which makes the same event.

use std::collections::BTreeMap;

use fovea_core::spec::RunSpec;
use prost::{Message, Oneof};
use prost_types::Value as Any;
use prost_types::value::Kind;

use crate::event::{Dim, Event, Metadata, PluginData, Shape, Summary, Tensor, Value, What};

/// HParamsPluginData.
#[derive(Clone, PartialEq, Message)]
struct Data {
    #[prost(int32, tag = "1")]
    version: i32,
    #[prost(oneof = "Content", tags = "3")]
    content: Option<Content>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Content {
    #[prost(message, tag = "3")]
    Start(Start),
}

/// SessionStartInfo.
#[derive(Clone, PartialEq, Message)]
struct Start {
    #[prost(btree_map = "string, message", tag = "1")]
    hparams: BTreeMap<String, Any>,
    #[prost(double, tag = "5")]
    start_time_secs: f64,
}

/// The numbers, texts and switches of a spec, by their keys as in a run file.
pub fn hparams(spec: &RunSpec, wall_time: f64) -> Event {
    let mut hparams = BTreeMap::new();
    if let Ok(spec) = serde_json::to_value(spec) {
        flatten("", &spec, &mut hparams);
    }
    let start = Start {
        hparams,
        start_time_secs: wall_time,
    };
    let data = Data {
        version: 0,
        content: Some(Content::Start(start)),
    };
    let metadata = Metadata {
        plugin_data: Some(PluginData {
            plugin_name: "hparams".into(),
            content: data.encode_to_vec(),
        }),
    };
    // The plugin reads the metadata alone; the value must be there.
    let tensor = Tensor {
        dtype: 1,
        shape: Some(Shape {
            dim: vec![Dim { size: 1 }],
        }),
        float_val: vec![0.0],
    };
    let value = Value {
        tag: "_hparams_/session_start_info".into(),
        simple_value: None,
        tensor: Some(tensor),
        metadata: Some(metadata),
    };
    Event {
        wall_time,
        step: 0,
        what: Some(What::Summary(Summary { value: vec![value] })),
    }
}

fn flatten(key: &str, value: &serde_json::Value, into: &mut BTreeMap<String, Any>) {
    use serde_json::Value::{Array, Bool, Null, Number, Object, String};
    let kind = match value {
        Null | Array(_) => return,
        Bool(value) => Kind::BoolValue(*value),
        Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        String(value) => Kind::StringValue(value.clone()),
        Object(fields) => {
            for (name, value) in fields {
                let key = match key {
                    "" => name.clone(),
                    key => format!("{key}.{name}"),
                };
                flatten(&key, value, into);
            }
            return;
        }
    };
    into.insert(key.to_owned(), Any { kind: Some(kind) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_a_flat_table() {
        let nested = serde_json::json!({"seed": 3, "train": {"rate": 0.5, "rotate": true}, "name": "dr", "x": null});
        let mut flat = BTreeMap::new();
        flatten("", &nested, &mut flat);
        let keys: Vec<&str> = flat.keys().map(String::as_str).collect();
        assert_eq!(keys, ["name", "seed", "train.rate", "train.rotate"]);
        assert_eq!(flat["train.rate"].kind, Some(Kind::NumberValue(0.5)));
        assert_eq!(flat["train.rotate"].kind, Some(Kind::BoolValue(true)));
    }
}
