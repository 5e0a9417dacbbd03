//! Transfer strategies: what is used of a trained network, and what is trained.
//!
//! The four scenarios of transfer learning (few or many images, like or unlike those that the network was trained on) come
//! down to three strategies and a layer: a linear classifier on the features of the last layer or of an earlier one,
//! fine-tuning, and training from scratch.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ModelSpec, Problems};
use crate::googlenet::{FlatLayout, HEAD, LayoutError, Network, POOL5, Pooling, Tap, param_specs};

/// What is used of a trained network, and what is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The weights are the start, and all layers but the frozen ones are trained.
    FineTune,
    /// The weights stay as they are. Only a linear classifier on the features of a layer is trained.
    LinearProbe,
    /// All layers are trained from random weights.
    FromScratch,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::FineTune, Self::LinearProbe, Self::FromScratch];

    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FineTune => "fine_tune",
            Self::LinearProbe => "linear_probe",
            Self::FromScratch => "from_scratch",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ModelSpec {
    /// The strategy. A spec that names none fine-tunes its weights, or has none and starts from scratch.
    pub fn strategy(&self) -> Strategy {
        self.strategy.unwrap_or(match self.weights.is_empty() {
            true => Strategy::FromScratch,
            false => Strategy::FineTune,
        })
    }

    /// Leaves out the weights that the training started from, which an evaluation does not need. The strategy stays: a spec that names
    /// none would be read as a start from scratch.
    pub fn forget_weights(&mut self) {
        if self.strategy() == Strategy::FineTune {
            self.strategy = Some(Strategy::FineTune);
        }
        self.weights.clear();
        self.weights_sha256.clear();
    }

    /// The strategy with what belongs to it, for people: `linear_probe on inception_4d/output`.
    pub fn strategy_in_words(&self) -> String {
        let mut words = self.strategy().to_string();
        if self.strategy() == Strategy::LinearProbe {
            let tap = Tap::named(&self.tap).unwrap_or(Tap::TOP);
            words += &format!(" on {}", if tap == Tap::TOP { POOL5 } else { tap.layer() });
        }
        if self.auxiliary > 0.0 {
            words += &format!(", auxiliary heads count {}", self.auxiliary);
        }
        if self.pooling == Pooling::Dense {
            words += ", dense pooling";
        }
        words
    }

    /// The network that is trained.
    ///
    /// # Errors
    /// `tap` names no layer that a classifier can read.
    pub fn network(&self) -> Result<Network, LayoutError> {
        Ok(Network {
            outputs: self.outputs() as usize,
            tap: Tap::named(&self.tap)?,
            pooling: self.pooling,
            auxiliary: self.auxiliary > 0.0,
        })
    }

    /// The flat layout of the network's parameters.
    ///
    /// # Errors
    /// `tap`, `frozen` or `classes` make no network.
    pub fn layout(&self) -> Result<FlatLayout, LayoutError> {
        let network = self.network()?;
        match self.strategy() {
            Strategy::FineTune | Strategy::FromScratch => FlatLayout::new(network, &self.frozen),
            Strategy::LinearProbe => {
                let mut features: Vec<String> = param_specs(network)
                    .into_iter()
                    .map(|parameter| parameter.layer)
                    .filter(|layer| layer != HEAD)
                    .collect();
                // A layer has a weight and a bias.
                features.dedup();
                FlatLayout::new(network, &features)
            }
        }
    }

    /// `evaluated`: only a checkpoint is scored, and no weights are needed.
    pub(super) fn check_strategy(&self, evaluated: bool, problems: &mut Problems) {
        let strategy = self.strategy();
        if let Err(e) = Tap::named(&self.tap) {
            problems.add("model.tap", e.to_string());
            return;
        }
        let named = self.strategy.is_some();
        problems.check(
            "model.weights",
            evaluated || !(named && strategy == Strategy::FineTune && self.weights.is_empty()),
            || "fine_tune starts from weights: name some, or give model.strategy = \"from_scratch\"".into(),
        );
        problems.check(
            "model.weights",
            evaluated || !(strategy == Strategy::LinearProbe && self.weights.is_empty()),
            || "linear_probe reads the features of trained weights: name some; random features tell little".into(),
        );
        problems.check(
            "model.weights",
            !(named && strategy == Strategy::FromScratch && !self.weights.is_empty()),
            || "from_scratch starts from random weights: leave it out, or give model.strategy = \"fine_tune\"".into(),
        );
        let frozen = !self.frozen.is_empty();
        problems.check(
            "model.frozen",
            !(strategy == Strategy::LinearProbe && frozen),
            || "linear_probe trains nothing but the classifier: leave it out, or give []".into(),
        );
        problems.check(
            "model.frozen",
            !(named && strategy == Strategy::FromScratch && frozen),
            || "from_scratch trains every layer, and a frozen one would keep its random weights: leave it out, or give []".into(),
        );
        let top = Tap::named(&self.tap) == Ok(Tap::TOP);
        problems.check(
            "model.tap",
            top || strategy == Strategy::LinearProbe,
            || format!("only a linear probe reads an earlier layer, and this run is {strategy}: leave it out, or give model.strategy = \"linear_probe\""),
        );
        problems.check(
            "model.pooling",
            top || self.pooling == Pooling::Global,
            || "an earlier layer is averaged over its whole map: leave it out, or leave model.tap out".into(),
        );
        // No head counts more than that of the network itself.
        problems.range("model.auxiliary", self.auxiliary, 0.0, 1.0);
        problems.check(
            "model.auxiliary",
            self.auxiliary == 0.0 || strategy != Strategy::LinearProbe,
            || "the auxiliary heads train the layers below them, and linear_probe trains none: leave it out".into(),
        );
        // Without a network there is nothing that could be frozen.
        if problems.0.iter().all(|p| !p.key.starts_with("model."))
            && let Err(e) = self.layout()
        {
            problems.add("model.frozen", e.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RunSpec;
    use super::*;

    fn of(model: &str) -> RunSpec {
        toml::from_str(&format!("name = 'dr'\ndataset = 'd'\n[model]\n{model}")).unwrap()
    }

    #[test]
    fn a_spec_without_a_strategy_has_the_one_that_its_weights_say() {
        assert_eq!(of("").model.strategy(), Strategy::FromScratch);
        let spec = of("weights = 'bvlc'");
        spec.validate().unwrap();
        assert_eq!(spec.model.strategy(), Strategy::FineTune);
        // It is written as before there were strategies.
        let json = serde_json::to_string(&spec).unwrap();
        for key in ["strategy", "tap", "pooling", "auxiliary"] {
            assert!(!json.contains(key), "{json}");
        }
        for strategy in Strategy::ALL {
            let json = serde_json::to_string(&strategy).unwrap();
            assert_eq!(json, format!("\"{strategy}\""));
        }
    }

    #[test]
    fn an_evaluation_has_the_strategy_of_its_run() {
        for model in [
            "weights = 'bvlc'",
            "strategy = 'linear_probe'\nweights = 'bvlc'\nfrozen = []",
            "",
            "strategy = 'from_scratch'\nfrozen = []",
        ] {
            let mut spec = of(model);
            let strategy = spec.model.strategy();
            spec.model.forget_weights();
            assert_eq!(spec.model.strategy(), strategy, "{model}");
            assert_eq!(spec.model.weights, "");
            let mut problems = Problems::default();
            spec.model.check_strategy(true, &mut problems);
            assert!(problems.0.is_empty(), "{model}: {:?}", problems.0);
        }
    }

    #[test]
    fn a_linear_probe_trains_the_classifier_alone() {
        for (tap, inputs, frozen) in [
            ("", 1024, 5_975_602 - 2_050),
            ("pool5/7x7_s1", 1024, 5_975_602 - 2_050),
            ("inception_4d/output", 528, 2_617_664),
            ("pool2/3x3_s2", 192, 124_416),
        ] {
            let spec = of(&format!(
                "strategy = 'linear_probe'\nweights = 'bvlc'\nfrozen = []\ntap = '{tap}'"
            ));
            spec.validate().unwrap();
            let layout = spec.model.layout().unwrap();
            assert_eq!(layout.trainable_len(), 2 * inputs + 2, "{tap}");
            assert_eq!(layout.frozen_len(), frozen, "{tap}");
            assert_eq!(layout.network().dropout_units(), inputs);
        }
    }

    /// 2 x (65,664 or 67,712 + 2,098,176) + two classifiers of 1024 x 2 + 2.
    #[test]
    fn auxiliary_heads_are_trained_with_the_trunk() {
        let spec = of("strategy = 'from_scratch'\nfrozen = []\nauxiliary = 0.3");
        spec.validate().unwrap();
        let layout = spec.model.layout().unwrap();
        let heads = 65_664 + 67_712 + 2 * 2_098_176 + 2 * 2_050;
        assert_eq!(layout.trainable_len(), 5_975_602 + heads);
        assert_eq!(layout.network().dropout_units(), 3 * 1024);
        let deployed = layout.network().deployed();
        assert_eq!(crate::googlenet::param_count(deployed), 5_975_602);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_key() {
        for (model, key) in [
            ("strategy = 'fine_tune'", "model.weights"),
            ("strategy = 'linear_probe'\nfrozen = []", "model.weights"),
            ("strategy = 'linear_probe'\nweights = 'w'", "model.frozen"),
            ("strategy = 'from_scratch'", "model.frozen"),
            (
                "strategy = 'from_scratch'\nfrozen = []\nweights = 'w'",
                "model.weights",
            ),
            ("tap = 'inception_4a/1x1'", "model.tap"),
            ("weights = 'w'\ntap = 'inception_4a/output'", "model.tap"),
            (
                "strategy = 'linear_probe'\nweights = 'w'\nfrozen = []\ntap = 'inception_4a/output'\npooling = 'dense'",
                "model.pooling",
            ),
            (
                "strategy = 'linear_probe'\nweights = 'w'\nfrozen = []\nauxiliary = 0.3",
                "model.auxiliary",
            ),
            ("auxiliary = -1.0", "model.auxiliary"),
            ("auxiliary = 3", "model.auxiliary"),
            ("frozen = ['conv9']", "model.frozen"),
        ] {
            let error = of(model).validate().unwrap_err();
            assert_eq!(error.0[0].key, key, "{model}: {error}");
            assert_eq!(error.0.len(), 1, "{model}: {error}");
        }
    }
}
