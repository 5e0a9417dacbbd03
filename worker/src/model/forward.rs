//! The forward pass, layer by layer in Caffe's order and with Caffe's names.

use fovea_core::googlenet::{AUXILIARY_UNITS, AuxiliaryHead, DENSE_KERNEL, HEAD, Pooling};
use fovea_kernels::pool::Stride;
use tch::{Device, Kind, Tensor, no_grad};

use super::conv3x3;
use super::inception::{self, Layer, Layers};
use super::lrn::{lrn, relu_lrn_pool, relu_pool_lrn};
use super::net::{Net, WeightLayer, channels_last};
use super::pass::{Auxiliary, Pass};
use super::pool::max_pool;
use super::stage::Stage;

/// What a training pass has beyond an evaluation.
struct Training<'a> {
    /// Multipliers of the inputs of all classifiers.
    dropout: Option<&'a Tensor>,
    /// The auxiliary heads that were computed.
    auxiliary: Vec<Auxiliary>,
}

/// A function that receives the name and output of every layer (after its ReLU, where it has one), or none.
struct Observer<'a>(Option<Observe<'a>>);

type Observe<'a> = &'a mut dyn FnMut(&str, &Tensor);

impl Observer<'_> {
    fn absent() -> Self {
        Observer(None)
    }

    /// Whether nobody observes, so that layers can be computed together.
    fn is_absent(&self) -> bool {
        self.0.is_none()
    }

    fn layer(&mut self, name: &str, output: &Tensor) {
        if let Some(observe) = &mut self.0 {
            observe(name, output);
        }
    }
}

impl Net {
    /// Logits for evaluation: no dropout, no gradient.
    ///
    /// `x` is f32 `[batch, 3, height, width]`, blue, green, red, means subtracted, channels-last in
    /// memory for speed; the result is f32 `[batch, classes]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        no_grad(|| self.run(x, &self.stages, None, &mut Observer::absent()))
    }

    /// Like [`Net::forward`], but calls `observe` with every layer's name and output. It computes layer by layer, without
    /// the fused kernels: for tests and for debugging.
    pub fn forward_observed(&self, x: &Tensor, observe: &mut dyn FnMut(&str, &Tensor)) -> Tensor {
        no_grad(|| self.run(x, &self.stages, None, &mut Observer(Some(observe))))
    }

    /// A training pass: logits, and what the backward pass needs.
    ///
    /// `x` as for [`Net::forward`]. `dropout` is f32 `[batch, network().dropout_units()]`: what the inputs of the classifier,
    /// then those of the auxiliary classifiers are multiplied by, 0 or 1/(1-ratio) (see
    /// [`fovea_core::random::dropout_mask`]); without it nothing is dropped. The pass itself has no randomness.
    pub fn train(&self, x: &Tensor, dropout: Option<&Tensor>) -> Pass {
        self.pass(x, &self.stages, dropout)
    }

    /// The output of the frozen stages, which are those before the first one with a trained parameter. It stays the same
    /// for the whole run, so it can be cached and given to [`Net::train_features`] instead of the image.
    ///
    /// It is channels-last, and of the kind that convolutions are computed in, so it is rounded already; a linear probe's is the
    /// averaged map, `[batch, channels, 1, 1]` in f32. Its bits may
    /// depend on how many images `x` holds (see [`crate::device::FeatureCache`]): pass one image at a time where they
    /// must not.
    pub fn features(&self, x: &Tensor) -> Tensor {
        let stages = &self.stages[..self.frozen_stages()];
        no_grad(|| self.run(x, stages, None, &mut Observer::absent()))
    }

    /// Whether there are frozen stages. Without any, [`Net::features`] is the image.
    pub fn has_frozen_prefix(&self) -> bool {
        self.frozen_stages() > 0
    }

    /// [`Net::train`] from the output of [`Net::features`].
    pub fn train_features(&self, features: &Tensor, dropout: Option<&Tensor>) -> Pass {
        let stages = &self.stages[self.frozen_stages()..];
        self.pass(features, stages, dropout)
    }

    /// [`Net::forward`] from the output of [`Net::features`].
    pub fn forward_features(&self, features: &Tensor) -> Tensor {
        let stages = &self.stages[self.frozen_stages()..];
        no_grad(|| self.run(features, stages, None, &mut Observer::absent()))
    }

    /// Whether the frozen stages end with the average, as a linear probe's do: then [`Net::features`] has no places any more.
    pub fn averages_frozen(&self) -> bool {
        self.frozen_stages() > self.average_stage()
    }

    /// What the average is taken of, from images, without a gradient: the outputs of the last module, `[batch, channels, height,
    /// width]`.
    pub fn places(&self, x: &Tensor) -> Tensor {
        let stages = &self.stages[..self.average_stage()];
        no_grad(|| self.run(x, stages, None, &mut Observer::absent()))
    }

    /// [`Net::forward_features`], and with the logits what the average is taken of. Where [`Net::averages_frozen`], `features` are
    /// these places already.
    pub(super) fn forward_places(&self, features: &Tensor) -> (Tensor, Tensor) {
        let average = self.average_stage();
        let (before, rest) = self.stages.split_at(average);
        let before = &before[self.frozen_stages().min(average)..];
        no_grad(|| {
            let places = self.run(features, before, None, &mut Observer::absent());
            let logits = self.run(&places, rest, None, &mut Observer::absent());
            (logits, places)
        })
    }

    /// Where the average is among the stages.
    fn average_stage(&self) -> usize {
        self.stages.len() - 2
    }

    /// How many leading stages have no trained parameter, nor an auxiliary head behind them that must see their output. The
    /// classifier never counts, because its output depends on the dropout, too.
    fn frozen_stages(&self) -> usize {
        let trained = |stage: &Stage| {
            let mut layers = self.weight_layers.iter();
            layers.any(|(name, layer)| stage.owns(name) && layer.weight.requires_grad())
        };
        let watched = |stage: &Stage| self.network().auxiliary && stage.auxiliary().is_some();
        let before_classifier = &self.stages[..self.stages.len() - 1];
        before_classifier
            .iter()
            .take_while(|stage| !trained(stage) && !watched(stage))
            .count()
    }

    /// Computes some stages of a training pass, and keeps the inputs of the parts that its backward pass is taken in.
    fn pass(&self, x: &Tensor, stages: &[Stage], dropout: Option<&Tensor>) -> Pass {
        let mut x = x.shallow_clone();
        let mut inputs = Vec::new();
        let mut training = Training {
            dropout,
            auxiliary: Vec::new(),
        };
        for part in stages.chunk_by(|_, next| !next.starts_bucket()) {
            inputs.push(x.shallow_clone());
            x = self.run(&x, part, Some(&mut training), &mut Observer::absent());
        }
        Pass::new(x, training.auxiliary, inputs)
    }

    fn run(
        &self,
        x: &Tensor,
        stages: &[Stage],
        mut training: Option<&mut Training>,
        see: &mut Observer,
    ) -> Tensor {
        let mut x = match stages.first() {
            // The average is in f32, whatever it is of.
            Some(Stage::Classifier) => x.shallow_clone(),
            _ => channels_last(&x.to_kind(self.compute)),
        };
        for stage in stages {
            x = match *stage {
                Stage::Conv1 => self.conv1(&x, see),
                Stage::Conv2Reduce => self.conv("conv2/3x3_reduce", &x, see),
                Stage::Conv2 => self.conv2(&x, see),
                Stage::Inception { module, pooled } => self.inception(module, pooled, &x, see),
                Stage::Average => self.average(&x, see),
                Stage::Classifier => {
                    let dropout = training.as_ref().and_then(|training| training.dropout);
                    self.classifier(&x, dropout, see)
                }
            };
            if let (Some(training), Some(head)) = (&mut training, stage.auxiliary())
                && self.network().auxiliary
            {
                let mask = training
                    .dropout
                    .map(|masks| self.auxiliary_mask(masks, head));
                let logits = self.auxiliary(head, &x, mask.as_ref());
                training.auxiliary.push(Auxiliary { head, logits });
            }
        }
        x
    }

    /// Convolution, pooling, *then* normalisation.
    fn conv1(&self, x: &Tensor, see: &mut Observer) -> Tensor {
        let y = self.conv_only("conv1/7x7_s2", x).to_kind(Kind::Float);
        if see.is_absent() && fusible(&y) {
            return relu_pool_lrn(&y).to_kind(self.compute);
        }
        let y = relu(y);
        see.layer("conv1/7x7_s2", &y);
        let y = max_pool(&y, Stride::Two);
        see.layer("pool1/3x3_s2", &y);
        let y = lrn(&y);
        see.layer("pool1/norm1", &y);
        y.to_kind(self.compute)
    }

    /// Convolution, normalisation, *then* pooling.
    fn conv2(&self, x: &Tensor, see: &mut Observer) -> Tensor {
        let y = self.conv("conv2/3x3", x, see).to_kind(Kind::Float);
        if see.is_absent() && fusible(&y) {
            // It is rectified already, and a second ReLU changes nothing.
            return relu_lrn_pool(&y).to_kind(self.compute);
        }
        let y = lrn(&y);
        see.layer("conv2/norm2", &y);
        let y = max_pool(&y.to_kind(self.compute), Stride::Two);
        see.layer("pool2/3x3_s2", &y);
        y
    }

    fn inception(&self, module: &str, pooled: bool, x: &Tensor, see: &mut Observer) -> Tensor {
        let pooling = pooling_after(module).filter(|_| pooled);
        let name = |part: &str| format!("{module}/{part}");
        let layer = |part: &str| {
            let WeightLayer { weight, bias, .. } = &self.weight_layers[&name(part)];
            Layer { weight, bias }
        };
        if see.is_absent()
            && let Some(y) = inception::inception(
                &self.filters,
                x,
                Layers {
                    one: layer("1x1"),
                    three_reduce: layer("3x3_reduce"),
                    three: layer("3x3"),
                    five_reduce: layer("5x5_reduce"),
                    five: layer("5x5"),
                    pool_proj: layer("pool_proj"),
                },
            )
        {
            return match pooling {
                Some(_) => max_pool(&y, Stride::Two),
                None => y,
            };
        }
        let one = self.conv(&name("1x1"), x, see);
        let three = self.conv(&name("3x3_reduce"), x, see);
        let three = self.conv(&name("3x3"), &three, see);
        let five = self.conv(&name("5x5_reduce"), x, see);
        let five = self.conv(&name("5x5"), &five, see);
        let pool = max_pool(x, Stride::One);
        see.layer(&name("pool"), &pool);
        let pool = self.conv(&name("pool_proj"), &pool, see);
        let y = Tensor::cat(&[one, three, five, pool], 1);
        see.layer(&name("output"), &y);
        let Some(pooling) = pooling else {
            return y;
        };
        let y = max_pool(&y, Stride::Two);
        see.layer(pooling, &y);
        y
    }

    /// The average over the map: f32 `[batch, channels, 1, 1]`. There are few numbers from here on, and they decide.
    fn average(&self, x: &Tensor, see: &mut Observer) -> Tensor {
        let over = [2i64, 3];
        let (height, width) = (x.size()[2], x.size()[3]);
        let kernel = DENSE_KERNEL as i64;
        let y = match self.network().pooling {
            Pooling::Dense if (height, width) != (kernel, kernel) => {
                let windows = x.to_kind(Kind::Float).avg_pool2d(
                    [kernel; 2],
                    [1, 1],
                    [0, 0],
                    false,
                    true,
                    None::<i64>,
                );
                windows.mean_dim(over.as_slice(), true, Kind::Float)
            }
            // Of one window both are the same, to the bit.
            Pooling::Dense | Pooling::Global => x.mean_dim(over.as_slice(), true, Kind::Float),
        };
        see.layer(&self.network().tap.pool(), &y.flatten(1, -1));
        y
    }

    /// Dropout, inner product.
    fn classifier(&self, x: &Tensor, dropout: Option<&Tensor>, see: &mut Observer) -> Tensor {
        let y = x.flatten(1, -1);
        let y = match dropout {
            Some(masks) => &y * masks.narrow(1, 0, y.size()[1]),
            None => y,
        };
        let head = &self.weight_layers[HEAD];
        let y = y.linear(&head.weight, Some(&head.bias));
        see.layer(HEAD, &y);
        y
    }

    /// The columns of an auxiliary head in the multipliers of all classifiers.
    fn auxiliary_mask(&self, masks: &Tensor, head: AuxiliaryHead) -> Tensor {
        let start = self.network().head_input() + head as usize * AUXILIARY_UNITS;
        masks.narrow(1, start as i64, AUXILIARY_UNITS as i64)
    }

    /// A convolution and its ReLU.
    fn conv(&self, name: &str, x: &Tensor, see: &mut Observer) -> Tensor {
        let layer = &self.weight_layers[name];
        let y = match conv3x3::fits(x, &layer.weight, layer.stride, layer.pad) {
            true => conv3x3::conv_relu(&self.filters, x, &layer.weight, &layer.bias),
            false => relu(self.conv_only(name, x)),
        };
        see.layer(name, &y);
        y
    }

    fn conv_only(&self, name: &str, x: &Tensor) -> Tensor {
        let layer = &self.weight_layers[name];
        let (stride, pad) = ([layer.stride; 2], [layer.pad; 2]);
        // The casts are part of the graph, so that the gradients are f32. They cost nothing where the kind is the same.
        let [weight, bias] = [&layer.weight, &layer.bias].map(|p| p.to_kind(self.compute));
        x.conv2d(&weight, Some(&bias), stride, pad, [1, 1], 1)
    }
}

/// The pooling that follows a module.
fn pooling_after(module: &str) -> Option<&'static str> {
    match module {
        "inception_3b" => Some("pool3/3x3_s2"),
        "inception_4e" => Some("pool4/3x3_s2"),
        _ => None,
    }
}

/// Whether the fused kernels can take `y`: they run on the CPU and keep nothing for a backward pass.
fn fusible(y: &Tensor) -> bool {
    y.device() == Device::Cpu && !y.requires_grad()
}

/// ReLU in place, which autograd allows after a convolution.
fn relu(mut x: Tensor) -> Tensor {
    x.relu_()
}
