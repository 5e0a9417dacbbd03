//! Which networks the fused path computes, and where it finds each parameter. Pure: from the layout alone.

use fovea_core::googlenet::{Entry, FlatLayout, HEAD, Network, ParamKind, Pooling, Tap};
use fovea_kernels::cuda::input::BLOCK_FILTER;
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

/// A convolution of the stem.
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

/// A module.
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

/// Layers that are all trained, or all frozen, and where their parameters are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Layers {
    /// conv1/7x7_s2, with the pooling and the normalisation behind it. It is computed over blocks of pixels.
    pub conv1: Option<Convolution>,
    /// conv2/3x3_reduce
    pub reduce: Option<Convolution>,
    /// conv2/3x3, with the normalisation and the pooling behind it.
    pub conv2: Option<Convolution>,
    /// The modules, in the order of the forward pass.
    pub modules: Vec<Module>,
    /// Number of elements of the filters.
    pub filters: usize,
}

/// What the fused path computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The layers behind the frozen ones.
    pub trained: Layers,
    /// The first layers.
    pub frozen: Layers,
    /// The trained parameters, by bucket.
    pub parameters: Vec<Vec<Parameter>>,
    /// The frozen ones.
    pub frozen_parameters: Vec<Parameter>,
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
        let trained = Layers::of(layout.trainable())?;
        let frozen = Layers::of(layout.frozen())?;
        check_order(&trained)?;
        let entry = |kind| entry(layout.trainable(), HEAD, kind);
        let mut plan = Plan {
            trained,
            frozen,
            parameters: vec![Vec::new(); FlatLayout::OTHERS + 1],
            frozen_parameters: Vec::new(),
            classifier: [ParamKind::Weight, ParamKind::Bias]
                .map(|kind| entry(kind).map_or(0, |entry| entry.offset)),
            outputs,
            starts: layout.buckets().map(|range| range.start),
        };
        for entry in layout.trainable() {
            let group = entry.group.map(|kind| &layout.groups()[kind as usize]);
            let rates = group.map_or([1.0; 2], |group| {
                [group.lr_mult(head_rate), group.decay_mult()]
            });
            let parameter = plan.trained.parameter(entry, rates);
            plan.parameters[layout.bucket(entry)].push(parameter);
        }
        for entry in layout.frozen() {
            let parameter = plan.frozen.parameter(entry, [0.0; 2]);
            plan.frozen_parameters.push(parameter);
        }
        Ok(plan)
    }
}

/// Whether nothing is frozen behind a trained layer.
fn check_order(trained: &Layers) -> Result<(), NotCovered> {
    if trained.conv1.is_some() && trained.reduce.is_none() {
        return Err(NotCovered::Behind { layer: REDUCE });
    }
    if trained.reduce.is_some() && trained.conv2.is_none() {
        return Err(NotCovered::Behind { layer: CONV2 });
    }
    let Some(first) = trained.modules.first() else {
        return Err(match trained.conv2 {
            Some(_) => NotCovered::Behind {
                layer: MODULES[0].0,
            },
            None => NotCovered::ClassifierOnly,
        });
    };
    let first = MODULES.iter().position(|(name, _)| *name == first.name);
    let expected = match trained.conv2 {
        Some(_) => &MODULES[..],
        None => &MODULES[first.unwrap_or(0)..],
    };
    let is_there = |name: &str| trained.modules.iter().any(|module| module.name == name);
    match expected.iter().find(|(name, _)| !is_there(name)) {
        Some((layer, _)) => Err(NotCovered::Behind { layer }),
        None => Ok(()),
    }
}

impl Layers {
    /// The layers whose parameters are among `entries`.
    fn of(entries: &[Entry]) -> Result<Self, NotCovered> {
        let mut layers = Layers::default();
        let [conv1, reduce, conv2] = STEM.map(|layer| both(entries, layer));
        layers.conv1 = conv1.map(|layer| layers.convolution(layer, BLOCK_FILTER));
        let len = |[weight, _]: [&Entry; 2]| weight.spec.len() / weight.spec.shape[0];
        layers.reduce = reduce.map(|layer| layers.convolution(layer, len(layer)));
        layers.conv2 = conv2.map(|layer| layers.convolution(layer, len(layer)));
        for (name, pooled) in MODULES {
            let names = LAYERS.map(|layer| format!("{name}/{layer}"));
            let found = names.each_ref().map(|layer| both(entries, layer));
            if found.iter().all(Option::is_none) {
                continue;
            }
            let found = all(found).ok_or(NotCovered::Module { module: name })?;
            let module = layers.module(name, pooled, found);
            layers.modules.push(module);
        }
        Ok(layers)
    }

    /// A convolution whose filters, of `len` elements each, lie behind those of the layers before.
    fn convolution(&mut self, [weight, bias]: [&Entry; 2], len: usize) -> Convolution {
        let filters = self.filters;
        let shape = &weight.spec.shape;
        self.filters += shape[0] * len;
        Convolution {
            channels: [shape[1], shape[0]],
            weight: weight.offset,
            bias: bias.offset,
            filters,
        }
    }

    /// A module whose filters lie behind those of the layers before.
    fn module(&mut self, name: &'static str, pooled: bool, layers: [[&Entry; 2]; 6]) -> Module {
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

    /// A parameter with its multipliers of learning rate and weight decay.
    fn parameter(&self, entry: &Entry, [rate, decay]: [f64; 2]) -> Parameter {
        let to = self.filter_of(entry);
        let (inputs, taps) = match (to, &entry.spec.shape[..]) {
            (Some(_), &[_, inputs, height, width]) => (inputs, height * width),
            _ => (1, 1),
        };
        Parameter {
            from: entry.offset,
            length: entry.spec.len(),
            to,
            inputs,
            taps,
            rate: rate as f32,
            decay: decay as f32,
        }
    }

    /// Where the filters of a parameter begin, if it has any that are only put into another order.
    fn filter_of(&self, entry: &Entry) -> Option<usize> {
        if entry.spec.kind != ParamKind::Weight {
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

fn entry<'a>(entries: &'a [Entry], layer: &str, kind: ParamKind) -> Option<&'a Entry> {
    let is_it = |entry: &&Entry| entry.spec.layer == layer && entry.spec.kind == kind;
    entries.iter().find(is_it)
}

/// Weight and bias of a layer, if they are there.
fn both<'a>(entries: &'a [Entry], layer: &str) -> Option<[&'a Entry; 2]> {
    let weight = entry(entries, layer, ParamKind::Weight)?;
    Some([weight, entry(entries, layer, ParamKind::Bias)?])
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
            (&[][..], 9),
            (&["conv1"], 9),
            (&["conv1", "conv2/3x3_reduce"], 9),
            (&["conv"], 9),
            (&["conv", "inception_3"], 7),
            (&["conv", "inception_3", "inception_4"], 2),
        ] {
            let plan = plan(frozen).unwrap();
            let places = |parameters: &[Parameter]| {
                let places = parameters.iter().filter_map(|p| Some((p.to?, p.length)));
                let mut places: Vec<(usize, usize)> = places.collect();
                places.sort_unstable();
                places
            };
            // conv1's filters over blocks are longer than its weights.
            let blocks = 64 * BLOCK_FILTER;
            for (parameters, layers) in [
                (plan.parameters.concat(), &plan.trained),
                (plan.frozen_parameters.clone(), &plan.frozen),
            ] {
                let mut end = layers.conv1.map_or(0, |_| blocks);
                for (start, length) in places(&parameters) {
                    assert_eq!(start, end, "{frozen:?}");
                    end += length;
                }
                assert_eq!(end, layers.filters);
            }
            let found = [&plan.trained, &plan.frozen].map(|layers| layers.modules.len());
            assert_eq!(found, [modules, 9 - modules]);
            assert_eq!(plan.trained.conv1.is_some(), frozen.is_empty());
            assert_eq!(plan.frozen.conv1.is_some(), !frozen.is_empty());
        }
    }

    #[test]
    fn parameters_cover_each_bucket_and_carry_its_multipliers() {
        let layout = FlatLayout::new(5, &STEM).unwrap();
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
        let first = &plan.trained.modules[0];
        let found = (first.name, first.input, first.widths.out());
        assert_eq!(found, ("inception_3a", 192, 256));
        assert_eq!(first.widths.joint(), 64 + 96 + 16);
    }

    #[test]
    fn what_is_not_covered_says_why() {
        let none: [&str; 0] = [];
        let error = plan(&["conv", "inception_4c/1x1"]).unwrap_err();
        assert_eq!(error.to_string(), "inception_4c is trained in part");
        for (frozen, layer) in [
            (&["conv2/3x3_reduce"][..], REDUCE),
            (&["inception_3a"], "inception_3a"),
            (&["conv", "inception_5a"], "inception_5a"),
            (&["conv1", "inception_3a"], "inception_3a"),
            (&["conv1", "conv2/3x3_reduce", "inception"], "inception_3a"),
        ] {
            assert_eq!(plan(frozen).unwrap_err(), NotCovered::Behind { layer });
        }
        let only_reduce = FlatLayout::new(2, &[CONV1, CONV2]).unwrap();
        let error = Plan::of(&only_reduce, 1.0).unwrap_err();
        assert_eq!(error, NotCovered::Behind { layer: CONV2 });
        let error = plan(&["conv", "inception"]).unwrap_err();
        assert_eq!(error, NotCovered::ClassifierOnly);
        let probe = Network {
            tap: Tap::named("inception_4d/output").unwrap(),
            ..Network::trunk(2)
        };
        let layout = FlatLayout::new(probe, &none).unwrap();
        assert_eq!(Plan::of(&layout, 1.0).unwrap_err(), NotCovered::Network);
    }
}
