//! Which networks the fused path computes, and where it finds each parameter. Pure: from the layout alone.

use fovea_core::googlenet::{Entry, FlatLayout, GroupKind, HEAD, Network, ParamKind, Pooling, Tap};
use fovea_kernels::cuda::module::Widths;
use fovea_kernels::cuda::weights::Parameter;

/// The modules, each with whether a pooling with stride 2 follows it.
const MODULES: [(&str, bool); 9] = [
    ("inception_3a", false),
    ("inception_3b", true),
    ("inception_4a", false),
    ("inception_4b", false),
    ("inception_4c", false),
    ("inception_4d", false),
    ("inception_4e", true),
    ("inception_5a", false),
    ("inception_5b", false),
];

/// The layers of a module, in the order of the layout.
const LAYERS: [&str; 6] = ["1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj"];

/// The layers before the modules.
const STEM: [&str; 3] = [CONV1, REDUCE, CONV2];
const CONV1: &str = "conv1/7x7_s2";
const REDUCE: &str = "conv2/3x3_reduce";
const CONV2: &str = "conv2/3x3";

/// Why a network is computed layer by layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCovered {
    /// It is not the whole trunk with one classifier behind a global average.
    #[error("the network ends early, averages densely, or has auxiliary heads")]
    Network,
    /// The first convolution is trained.
    #[error("{CONV1} is trained")]
    Conv1,
    /// A layer that is frozen behind one that is trained.
    #[error("{layer} is frozen behind a layer that is trained")]
    Behind {
        /// The layer, or module.
        layer: &'static str,
    },
    /// Some layers of a module are trained, others are not.
    #[error("{module} is trained in part")]
    Module {
        /// The module.
        module: &'static str,
    },
    /// Only the classifier is trained.
    #[error("only the classifier is trained")]
    ClassifierOnly,
}

/// A trained convolution of the stem.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Convolution {
    /// Channels of its input and output.
    pub channels: [usize; 2],
    /// Place of its weights in the flat buffer.
    pub weight: usize,
    /// Place of its biases.
    pub bias: usize,
    /// First element of its filters.
    pub filters: usize,
}

/// A trained module.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// Its name.
    pub name: &'static str,
    /// Channels of its convolutions.
    pub widths: Widths,
    /// Channels of its input.
    pub input: usize,
    /// Number of the part of the network, which is that of its weights' bucket.
    pub part: usize,
    /// Whether a pooling with stride 2 follows.
    pub pooled: bool,
    /// First elements of its filters: of the three 1x1 convolutions together, 3x3, 5x5, pool_proj.
    pub filters: [usize; 4],
    /// Places of its weights in the flat buffer, in the order of the layout.
    pub weights: [usize; 6],
    /// Places of its biases, likewise.
    pub biases: [usize; 6],
}

/// What the fused path computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// conv2/3x3_reduce, if it is trained.
    pub reduce: Option<Convolution>,
    /// conv2/3x3, if it is trained, with the normalisation and the pooling behind it.
    pub conv2: Option<Convolution>,
    /// The trained modules, in the order of the forward pass.
    pub modules: Vec<Module>,
    /// Number of elements of the filters.
    pub filters: usize,
    /// The trained parameters, by bucket.
    pub parameters: Vec<Vec<Parameter>>,
    /// Places of the classifier's weights and biases in the flat buffer.
    pub classifier: [usize; 2],
    /// The network's outputs.
    pub outputs: usize,
    /// First element of each bucket.
    pub starts: [usize; FlatLayout::OTHERS + 1],
}

impl Plan {
    /// For a layout whose multiplier of the classifier's learning rate is `head_rate`.
    ///
    /// # Errors
    /// If the fused path does not compute such a network.
    pub fn of(layout: &FlatLayout, head_rate: f64) -> Result<Self, NotCovered> {
        let Network {
            outputs,
            tap,
            pooling,
            auxiliary,
        } = layout.network();
        if tap != Tap::TOP || pooling != Pooling::Global || auxiliary {
            return Err(NotCovered::Network);
        }
        let [conv1, reduce, conv2] = STEM.map(|layer| trained(layout, layer));
        if conv1.is_some() {
            return Err(NotCovered::Conv1);
        }
        if reduce.is_some() && conv2.is_none() {
            return Err(NotCovered::Behind { layer: CONV2 });
        }
        let mut plan = Plan {
            reduce: None,
            conv2: None,
            modules: Vec::new(),
            filters: 0,
            parameters: vec![Vec::new(); FlatLayout::OTHERS + 1],
            classifier: [ParamKind::Weight, ParamKind::Bias]
                .map(|kind| entry(layout, HEAD, kind).map_or(0, |entry| entry.offset)),
            outputs,
            starts: layout.buckets().map(|range| range.start),
        };
        plan.reduce = reduce.map(|layer| plan.convolution(layer));
        plan.conv2 = conv2.map(|layer| plan.convolution(layer));
        for (name, pooled) in MODULES {
            let layers = LAYERS.map(|layer| format!("{name}/{layer}"));
            let found = layers.each_ref().map(|layer| trained(layout, layer));
            if found.iter().all(Option::is_none) {
                if plan.modules.is_empty() && plan.conv2.is_none() {
                    continue;
                }
                return Err(NotCovered::Behind { layer: name });
            }
            let Some(found) = all(found) else {
                return Err(NotCovered::Module { module: name });
            };
            let module = plan.place(name, pooled, found);
            plan.modules.push(module);
        }
        if plan.modules.is_empty() {
            return Err(NotCovered::ClassifierOnly);
        }
        plan.list_parameters(layout, head_rate);
        Ok(plan)
    }

    /// A convolution whose filters lie behind those of the layers before.
    fn convolution(&mut self, [weight, bias]: [&Entry; 2]) -> Convolution {
        let filters = self.filters;
        self.filters += weight.spec.len();
        let shape = &weight.spec.shape;
        Convolution {
            channels: [shape[1], shape[0]],
            weight: weight.offset,
            bias: bias.offset,
            filters,
        }
    }

    /// A module whose filters lie behind those of the modules before.
    fn place(&mut self, name: &'static str, pooled: bool, layers: [[&Entry; 2]; 6]) -> Module {
        let [one, reduce3, three, reduce5, five, pool] =
            layers.map(|[weight, _]| weight.spec.shape[0]);
        let widths = Widths {
            one,
            reduce3,
            three,
            reduce5,
            five,
            pool,
        };
        let input = layers[0][0].spec.shape[1];
        let lens = [
            widths.joint() * input,
            layers[2][0].spec.len(),
            layers[4][0].spec.len(),
            layers[5][0].spec.len(),
        ];
        let filters = lens.map(|len| {
            let start = self.filters;
            self.filters += len;
            start
        });
        Module {
            name,
            widths,
            input,
            part: layers[0][0].part(),
            pooled,
            filters,
            weights: layers.map(|[weight, _]| weight.offset),
            biases: layers.map(|[_, bias]| bias.offset),
        }
    }

    fn list_parameters(&mut self, layout: &FlatLayout, head_rate: f64) {
        for entry in layout.trainable() {
            let group = entry.group.map(|kind| &layout.groups()[kind as usize]);
            let rate = group.map_or(1.0, |group| group.lr_mult(head_rate));
            let decay = group.map_or(1.0, |group| group.decay_mult());
            let shape = &entry.spec.shape;
            let (inputs, taps) = match (entry.group, &shape[..]) {
                (Some(GroupKind::Weights), &[_, inputs, height, width]) => (inputs, height * width),
                _ => (1, 1),
            };
            self.parameters[layout.bucket(entry)].push(Parameter {
                from: entry.offset,
                length: entry.spec.len(),
                to: self.filter_of(entry),
                inputs,
                taps,
                rate: rate as f32,
                decay: decay as f32,
            });
        }
    }

    /// Where the filters of a parameter begin, if it has any.
    fn filter_of(&self, entry: &Entry) -> Option<usize> {
        if entry.group != Some(GroupKind::Weights) {
            return None;
        }
        let mut stem = self.reduce.iter().chain(&self.conv2);
        if let Some(convolution) = stem.find(|c| c.weight == entry.offset) {
            return Some(convolution.filters);
        }
        let of_it = |module: &&Module| module.weights.contains(&entry.offset);
        let module = self.modules.iter().find(of_it)?;
        let at = module.weights.iter().position(|w| *w == entry.offset)?;
        let [joint, three, five, pool] = module.filters;
        let Widths { one, reduce3, .. } = module.widths;
        Some(match at {
            0 => joint,
            1 => joint + one * module.input,
            2 => three,
            3 => joint + (one + reduce3) * module.input,
            4 => five,
            _ => pool,
        })
    }
}

fn entry<'a>(layout: &'a FlatLayout, layer: &str, kind: ParamKind) -> Option<&'a Entry> {
    let is_it = |entry: &&Entry| entry.spec.layer == layer && entry.spec.kind == kind;
    layout.trainable().iter().find(is_it)
}

/// Weight and bias of a layer, if it is trained.
fn trained<'a>(layout: &'a FlatLayout, layer: &str) -> Option<[&'a Entry; 2]> {
    let weight = entry(layout, layer, ParamKind::Weight)?;
    Some([weight, entry(layout, layer, ParamKind::Bias)?])
}

/// All of them, if all are there.
fn all<T: Copy, const N: usize>(options: [Option<T>; N]) -> Option<[T; N]> {
    let there: Vec<T> = options.into_iter().flatten().collect();
    there.try_into().ok()
}

#[cfg(test)]
mod tests {
    use fovea_core::googlenet::weight_layer_names;

    use super::*;

    /// Frozen: what begins with one of `frozen`.
    fn plan(frozen: &[&str]) -> Result<Plan, NotCovered> {
        let frozen: Vec<String> = weight_layer_names()
            .into_iter()
            .filter(|name| frozen.iter().any(|start| name.starts_with(start)))
            .collect();
        Plan::of(&FlatLayout::new(2, &frozen).unwrap(), 10.0)
    }

    #[test]
    fn every_weight_has_filters_and_they_lie_side_by_side() {
        for (frozen, modules) in [
            (&["conv1"][..], 9),
            (&["conv1", "conv2/3x3_reduce"], 9),
            (&["conv"], 9),
            (&["conv", "inception_3"], 7),
            (&["conv", "inception_3", "inception_4"], 2),
        ] {
            let plan = plan(frozen).unwrap();
            let mut places: Vec<(usize, usize)> = plan
                .parameters
                .iter()
                .flatten()
                .filter_map(|p| Some((p.to?, p.length)))
                .collect();
            places.sort_unstable();
            let mut end = 0;
            for (start, length) in places {
                assert_eq!(start, end, "{frozen:?}");
                end += length;
            }
            assert_eq!(end, plan.filters);
            assert_eq!(
                plan.modules.len(),
                9 - 2 * more.len().min(1) - 5 * (more.len() / 2)
            );
        }
    }

    #[test]
    fn parameters_cover_each_bucket_and_carry_its_multipliers() {
        let frozen = STEM.map(str::to_owned);
        let layout = FlatLayout::new(5, &frozen).unwrap();
        let plan = Plan::of(&layout, 10.0).unwrap();
        for (bucket, range) in layout.buckets().into_iter().enumerate() {
            let mut end = range.start;
            for parameter in &plan.parameters[bucket] {
                assert_eq!(parameter.from, end);
                end += parameter.length;
            }
            assert_eq!(end, range.end, "bucket {bucket}");
        }
        let others = &plan.parameters[FlatLayout::OTHERS];
        let multipliers = |p: &Parameter| (p.rate, p.decay, p.to);
        assert_eq!(multipliers(&others[0]), (2.0, 0.0, None));
        let [.., weight, bias] = &others[..] else {
            panic!("{others:?}")
        };
        assert_eq!(multipliers(weight), (10.0, 1.0, None));
        assert_eq!(multipliers(bias), (20.0, 0.0, None));
        assert_eq!([weight.from, bias.from], plan.classifier);
        let first = &plan.modules[0];
        assert_eq!(
            (first.name, first.input, first.widths.out()),
            ("inception_3a", 192, 256)
        );
        assert_eq!(first.widths.joint(), 64 + 96 + 16);
    }

    #[test]
    fn what_is_not_covered_says_why() {
        let none: [&str; 0] = [];
        let all = FlatLayout::new(2, &none).unwrap();
        let error = Plan::of(&all, 1.0).unwrap_err();
        assert_eq!(error.to_string(), "conv1/7x7_s2 is trained");
        let error = plan(&["inception_4c/1x1"]).unwrap_err();
        assert!(error.to_string().starts_with("inception_4c"), "{error}");
        let error = plan(&["inception_5a"]).unwrap_err();
        assert!(error.to_string().starts_with("inception_5a"), "{error}");
        assert_eq!(
            plan(&["inception"]).unwrap_err(),
            NotCovered::ClassifierOnly
        );
        let probe = Network {
            tap: Tap::named("inception_4d/output").unwrap(),
            ..Network::trunk(2)
        };
        let layout = FlatLayout::new(probe, &none).unwrap();
        assert_eq!(Plan::of(&layout, 1.0).unwrap_err(), NotCovered::Network);
    }
}
