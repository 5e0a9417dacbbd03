//! Whether a file holds the weights of BVLC's GoogLeNet.

use std::collections::BTreeSet;

use fovea_core::googlenet::{HEAD, ParamKind, param_specs};
use fovea_core::pipeline::Pipeline;
use serde::{Deserialize, Serialize};

use super::error::WeightsError;
use super::foreign::is_auxiliary;
use super::load::load;
use super::source::{Format, Source};

/// What a file of weights holds. It fits: every layer of the network but the classifier is there, with its shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// How the file is written.
    pub format: Format,
    /// The layers that a run starts from, in the order of the network.
    pub layers: Vec<Layer>,
    /// The other layers in the file.
    pub ignored: Vec<Ignored>,
    /// How the photographs were prepared that they were learnt from; None if the file does not say, as only checkpoints of
    /// Fovea do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<Pipeline>,
}

/// A layer that a run starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Caffe's name.
    pub name: String,
    /// Of its weight: outputs, inputs, height, width.
    pub shape: Vec<usize>,
}

/// A layer in the file that a run does not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignored {
    /// Its name in the file.
    pub name: String,
    /// Why nothing is lost without it.
    pub why: Why,
}

/// Why a layer is not used, and why that is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// Of an auxiliary head, which only runs with `model.auxiliary` have.
    Auxiliary,
    /// The classifier, in whose place each run trains its own.
    Replaced,
    /// No layer of GoogLeNet.
    Unknown,
}

impl Why {
    fn of(layer: &str) -> Self {
        if layer == HEAD {
            Self::Replaced
        } else if is_auxiliary(layer) {
            Self::Auxiliary
        } else {
            Self::Unknown
        }
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auxiliary => {
                "of an auxiliary head: only a run with model.auxiliary starts from it"
            }
            Self::Replaced => {
                "the classifier: each run trains a new one in its place, whatever its classes"
            }
            Self::Unknown => "not a layer of GoogLeNet: no layer of the network reads it",
        }
    }
}

/// The most layers in a file whose names are kept. GoogLeNet with its auxiliary classifiers has 64.
const MOST_IGNORED: usize = 1000;

/// Reads all of `source` and checks that a run can start from it.
///
/// # Errors
/// The file cannot be read, or is not of BVLC's GoogLeNet; the message names the layer.
pub fn check(source: &mut Source) -> Result<Checked, WeightsError> {
    // Any number of classes: the classifier is not read.
    let specs = param_specs(2);
    let loaded = load(source, &specs, &[HEAD], &mut |_, _| {})?;
    let layers = specs
        .iter()
        .filter(|spec| spec.kind == ParamKind::Weight && spec.layer != HEAD)
        .map(|spec| Layer {
            name: spec.layer.clone(),
            shape: spec.shape.clone(),
        })
        .collect();
    let mut seen = BTreeSet::new();
    let ignored = loaded
        .ignored
        .into_iter()
        .filter(|name| seen.insert(name.clone()))
        .take(MOST_IGNORED)
        .map(|name| Ignored {
            why: Why::of(&name),
            name,
        })
        .collect();
    Ok(Checked {
        format: loaded.format,
        layers,
        ignored,
        pipeline: loaded.pipeline,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::testing::googlenet;

    fn source(bytes: &[u8]) -> Source {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Source::new(file, "w.safetensors")
    }

    #[test]
    fn a_checkpoint_says_how_its_photographs_were_prepared() {
        let pipeline = Pipeline {
            steps: "crop, circle, bilinear, rules 3".into(),
            size: 224,
            digest: "ab".repeat(32),
            recipe: Some("crop".into()),
        };
        let plain = googlenet(&[], |_| {});
        assert_eq!(check(&mut source(&plain)).unwrap().pipeline, None);
        for (said, read) in [
            (serde_json::to_string(&pipeline).unwrap(), Some(pipeline)),
            // Other programs may mean something else by the word.
            ("resize".to_owned(), None),
            (format!("{{\"steps\":\"{}\"", "x".repeat(2000)), None),
        ] {
            let file = crate::testing::with_metadata(&plain, &[(Pipeline::KEY, &said)]);
            assert_eq!(check(&mut source(&file)).unwrap().pipeline, read, "{said}");
        }
    }

    #[test]
    fn a_file_of_googlenet_is_described() {
        let file = googlenet(&["loss1/conv", "loss2/fc", "extra", HEAD], |_| {});
        let checked = check(&mut source(&file)).unwrap();
        assert_eq!(checked.format, Format::Safetensors);
        assert_eq!(checked.layers.len(), 57);
        assert_eq!(checked.layers[0].name, "conv1/7x7_s2");
        assert_eq!(checked.layers[0].shape, [64, 3, 7, 7]);
        let mut ignored: Vec<(&str, Why)> = checked
            .ignored
            .iter()
            .map(|layer| (layer.name.as_str(), layer.why))
            .collect();
        ignored.sort_unstable();
        assert_eq!(
            ignored,
            [
                ("extra", Why::Unknown),
                ("loss1/conv", Why::Auxiliary),
                ("loss2/fc", Why::Auxiliary),
                (HEAD, Why::Replaced),
            ]
        );
        // Without a classifier, too.
        assert!(check(&mut source(&googlenet(&[], |_| {}))).is_ok());
    }

    #[test]
    fn what_is_missing_or_misshapen_is_named() {
        let missing = googlenet(&[], |shapes| {
            shapes.retain(|(name, _)| !name.starts_with("inception_4c/"));
        });
        let error = check(&mut source(&missing)).unwrap_err().to_string();
        assert!(
            error
                .contains("has no weight of layer inception_4c/1x1, nor all of 5 others of the 57"),
            "{error}"
        );
        let misshapen = googlenet(&[], |shapes| {
            let of_layer = |(name, _): &&mut (String, Vec<usize>)| name == "conv2/3x3.weight";
            let (_, shape) = shapes.iter_mut().find(of_layer).unwrap();
            *shape = vec![64, 192, 3, 3];
        });
        let error = check(&mut source(&misshapen)).unwrap_err().to_string();
        assert!(
            error.contains("layer conv2/3x3: its weight has the shape [64, 192, 3, 3]"),
            "{error}"
        );
    }

    /// The real file of BVLC's weights, where it is at hand.
    #[cfg_attr(
        not(has_shared),
        ignore = "needs ../shared: real photographs and weights"
    )]
    #[test]
    fn the_published_weights_are_those_of_googlenet() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../shared/weights/bvlc_googlenet_trunk_v1.caffemodel");
        let checked = check(&mut Source::open(&path).unwrap()).unwrap();
        assert_eq!(checked.format, Format::Caffemodel);
        assert_eq!(checked.layers.len(), 57);
        let [head] = &checked.ignored[..] else {
            panic!("{:?}", checked.ignored);
        };
        assert_eq!((head.name.as_str(), head.why), (HEAD, Why::Replaced));
    }
}
