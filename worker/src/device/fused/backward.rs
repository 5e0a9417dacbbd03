//! The backward pass, from the classifier to the first trained module. A bucket of weights is finished when the first module
//! of its part is.

use fovea_kernels::cuda::Address;
use fovea_kernels::cuda::gradient::{
    Bias, Branches, Reductions, Source, Sums, bias_gradients, branches, plain_same, reductions,
};
use fovea_kernels::cuda::head::{Classifier, classifier_gradient, mean_gradient};
use fovea_kernels::cuda::module::Widths;
use fovea_kernels::cuda::weights::{self, collect};
use tch::Tensor;

use super::forward::{Forward, Kept, Map, batch, by_pixel, rows};
use super::plan::{Convolution, Module};
use super::{Fused, at, element_of};
use crate::device::DeviceError;
use crate::device::gradients::{IntoBuckets, over};
use crate::model::{Sink, convolution};

/// Gradients by a module's weights, each as it was computed.
struct ByWeights {
    /// `[joint][input]`
    joint: Tensor,
    /// `[out, in, k, k]` of 3x3 and 5x5.
    spatial: [Tensor; 2],
    /// `[pool][input]`
    pool: Tensor,
}

/// The gradient by a module's input, as the module before takes it.
struct ByInput {
    direct: Tensor,
    pooled: Tensor,
}

/// Sums for biases, and which biases they are: first column, number of columns, place in the flat buffer.
pub(super) struct BiasSums {
    pub sums: Tensor,
    pub shape: Sums,
    pub biases: Vec<(usize, usize, usize)>,
}

impl Fused {
    /// Puts the gradients of a batch that has images into the buckets.
    ///
    /// # Errors
    /// If the GPU refuses.
    pub(in crate::device) fn backward(
        &self,
        pass: Forward,
        sink: &mut IntoBuckets,
    ) -> Result<(), DeviceError> {
        let mean = self.by_mean(&pass, sink)?;
        let mut source = Source::Mean(at(&mean));
        // What `source` points to.
        let mut _held: Vec<Tensor> = vec![mean];
        let mut sums = Vec::new();
        let mut gradients: Vec<(&Module, ByWeights)> = Vec::new();
        let modules = self.plan.trained.modules.iter().zip(&pass.modules);
        let mut modules = modules.rev().peekable();
        let mut unfinished = Self::OTHERS;
        while let Some((module, kept)) = modules.next() {
            let before = modules.peek();
            let wants_input = before.is_some() || pass.stem.is_some();
            let (by_weights, by_input) =
                self.module_back(module, kept, source, wants_input, &mut sums)?;
            gradients.push((module, by_weights));
            let mut stem = Vec::new();
            match (before, by_input) {
                (Some((_, before)), Some(by_input)) => {
                    (source, _held) = self.source(module, kept, before, by_input)?;
                }
                (None, Some(by_input)) => {
                    if let Some(of_stem) = &pass.stem {
                        let by_x = self.by_x(module, kept, &by_input)?;
                        stem = self.stem_back(of_stem, &by_x, &mut sums)?;
                    }
                }
                (_, None) => {}
            }
            if before.is_none_or(|(before, _)| before.part != module.part) {
                self.collect(&gradients, &stem, module.part, sink)?;
                gradients.clear();
                unfinished = module.part;
                sink.finished(module.part);
            }
        }
        // Frozen parts have empty buckets.
        for part in (0..unfinished).rev() {
            sink.finished(part);
        }
        self.biases(&sums, sink)?;
        sink.finished(Self::OTHERS);
        Ok(())
    }

    /// The classifier's gradients into their bucket; gives the gradient by each pixel of the averaged map.
    fn by_mean(&self, pass: &Forward, sink: &mut IntoBuckets) -> Result<Tensor, DeviceError> {
        let images = pass.map[0];
        let inputs = pass.averaged.numel() / images;
        let start = self.plan.starts[Self::OTHERS];
        let [weights, bias] = self.plan.classifier.map(|at| at - start);
        let outputs = self.plan.outputs;
        let bucket = over(sink.buckets.bucket(Self::OTHERS), bias + outputs);
        let into = Classifier {
            weights: element_of(&bucket, weights),
            bias: element_of(&bucket, bias),
            inputs,
            outputs,
        };
        let by_logits = at(&pass.by_logits);
        self.run(&classifier_gradient(
            into,
            by_logits,
            at(&pass.averaged),
            images,
        ))?;
        let mean = self.floats(images * inputs);
        let classifier = self.classifier(inputs);
        let dropout = pass.dropout.as_ref().map(at);
        let shape = [images, pass.map[1] * pass.map[2]];
        self.run(&mean_gradient(
            classifier,
            by_logits,
            dropout,
            at(&mean),
            shape,
        ))?;
        Ok(mean)
    }

    fn module_back(
        &self,
        module: &Module,
        kept: &Kept,
        source: Source,
        wants_input: bool,
        sums: &mut Vec<BiasSums>,
    ) -> Result<(ByWeights, Option<ByInput>), DeviceError> {
        let Kept {
            map,
            x,
            pooled,
            reduced,
            y,
            ..
        } = kept;
        let widths = module.widths;
        let rows = rows(*map);
        let joint = self.room(rows, widths.joint());
        let out = [widths.three, widths.five, widths.pool].map(|width| self.room(rows, width));
        let shape = Sums::of_branches(batch(*map, widths.out()));
        let of_branches = self.floats(shape.len());
        let tensors = Branches {
            y: at(y),
            joint: at(&joint),
            out: out.each_ref().map(at),
            sums: at(&of_branches),
        };
        self.run(&branches(source, widths, *map, tensors))?;
        sums.push(BiasSums {
            sums: of_branches,
            shape,
            biases: branch_biases(module),
        });
        let [by_three, by_five, by_projected] = out;
        let [(by_reduced3, three), (by_reduced5, five)] =
            [(by_three, 0), (by_five, 1)].map(|(gradient, which)| {
                let filters = self.trained.spatial(module, which);
                convolution_back(&gradient, &reduced[which], &filters, *map)
            });
        let shape = Sums::of_rows(rows, widths.reduce3 + widths.reduce5);
        let of_reductions = self.floats(shape.len());
        let tensors = Reductions {
            gradients: [at(&by_reduced3), at(&by_reduced5)],
            outputs: reduced.each_ref().map(at),
            joint: at(&joint),
            sums: at(&of_reductions),
        };
        self.run(&reductions(widths, rows, tensors))?;
        sums.push(BiasSums {
            sums: of_reductions,
            shape,
            biases: reduction_biases(module),
        });
        let by_weights = ByWeights {
            joint: joint.tr().mm(x),
            spatial: [three, five],
            pool: by_projected.tr().mm(pooled),
        };
        let by_input = wants_input.then(|| ByInput {
            direct: joint.mm(&self.trained.joint(module)),
            pooled: by_projected.mm(&self.trained.pool_projection(module)),
        });
        Ok((by_weights, by_input))
    }

    /// Where the module before finds the gradient by its output, and the tensors that this points to.
    fn source(
        &self,
        module: &Module,
        kept: &Kept,
        before: &Kept,
        by_input: ByInput,
    ) -> Result<(Source, Vec<Tensor>), DeviceError> {
        let places = kept.places().shallow_clone();
        let Some(behind) = &before.behind else {
            let ByInput { direct, pooled } = by_input;
            let source = Source::Module {
                direct: at(&direct),
                pooled: at(&pooled),
                places: at(&places),
            };
            return Ok((source, vec![direct, pooled, places]));
        };
        // A pooling lies between the two.
        let by_x = self.by_x(module, kept, &by_input)?;
        let source = Source::Pool {
            pooled: at(&by_x),
            places: at(behind),
        };
        Ok((source, vec![by_x, behind.shallow_clone()]))
    }

    /// The gradient by a module's input itself.
    fn by_x(
        &self,
        module: &Module,
        kept: &Kept,
        by_input: &ByInput,
    ) -> Result<Tensor, DeviceError> {
        let ByInput { direct, pooled } = by_input;
        let by_x = self.room(rows(kept.map), module.input);
        let from = [at(direct), at(pooled), at(kept.places())];
        self.run(&plain_same(batch(kept.map, module.input), from, at(&by_x)))?;
        Ok(by_x)
    }

    /// Gradients by the weights of some modules, and of the stem, into the bucket of their part.
    fn collect(
        &self,
        gradients: &[(&Module, ByWeights)],
        stem: &[(Convolution, Tensor)],
        part: usize,
        sink: &mut IntoBuckets,
    ) -> Result<(), DeviceError> {
        let start = self.plan.starts[part];
        let end = self.plan.starts[part + 1];
        let mut sources = Vec::new();
        for (convolution, gradient) in stem {
            let (from, [inputs, taps]) = in_memory(gradient);
            sources.push(weights::Source {
                from: Address(from),
                // conv1's.
                wide: gradient.kind() == tch::Kind::Float && self.kind != tch::Kind::Float,
                to: convolution.weight - start,
                length: gradient.numel(),
                inputs,
                taps,
            });
        }
        for (module, gradients) in gradients {
            let ByWeights {
                joint,
                spatial: [three, five],
                pool,
            } = gradients;
            let Widths {
                one,
                reduce3,
                reduce5,
                ..
            } = module.widths;
            let bytes = match self.kind {
                tch::Kind::BFloat16 => 2,
                _ => 4,
            };
            let mut add = |layer: usize, from: u64, length: usize, [inputs, taps]: [usize; 2]| {
                sources.push(weights::Source {
                    from: Address(from),
                    wide: false,
                    to: module.weights[layer] - start,
                    length,
                    inputs,
                    taps,
                });
            };
            let mut row = 0;
            for (layer, width) in [(0, one), (1, reduce3), (3, reduce5)] {
                let from = at(joint).0 + (row * module.input * bytes) as u64;
                add(layer, from, width * module.input, [1, 1]);
                row += width;
            }
            for (layer, gradient) in [(2, three), (4, five)] {
                let (from, order) = in_memory(gradient);
                add(layer, from, gradient.numel(), order);
            }
            add(5, at(pool).0, pool.numel(), [1, 1]);
        }
        let bucket = over(sink.buckets.bucket(part), end - start);
        self.run(&collect(&sources, at(&bucket)))
    }

    /// All gradients by biases into their bucket.
    fn biases(&self, sums: &[BiasSums], sink: &mut IntoBuckets) -> Result<(), DeviceError> {
        let start = self.plan.starts[Self::OTHERS];
        let bucket = over(
            sink.buckets.bucket(Self::OTHERS),
            self.trained.params.numel() - start,
        );
        let mut biases = Vec::new();
        for of in sums {
            for &(first, columns, to) in &of.biases {
                biases.push(Bias {
                    sums: at(&of.sums),
                    shape: of.shape,
                    columns: (first, columns),
                    to: to - start,
                });
            }
        }
        self.run(&bias_gradients(&biases, at(&bucket)))
    }
}

/// The biases behind the sums over a module's output, whose columns are its branches.
fn branch_biases(module: &Module) -> Vec<(usize, usize, usize)> {
    let Widths {
        one,
        three,
        five,
        pool,
        ..
    } = module.widths;
    in_a_row([(one, 0), (three, 2), (five, 4), (pool, 5)], module)
}

/// Those behind the sums over its reductions.
fn reduction_biases(module: &Module) -> Vec<(usize, usize, usize)> {
    let Widths {
        reduce3, reduce5, ..
    } = module.widths;
    in_a_row([(reduce3, 1), (reduce5, 3)], module)
}

fn in_a_row<const N: usize>(
    columns: [(usize, usize); N],
    module: &Module,
) -> Vec<(usize, usize, usize)> {
    let mut first = 0;
    let place = |(width, layer): (usize, usize)| {
        let bias = (first, width, module.biases[layer]);
        first += width;
        bias
    };
    columns.into_iter().map(place).collect()
}

/// Gradients by a convolution's input, `[rows][in]`, and by its filters.
pub(super) fn convolution_back(
    gradient: &Tensor,
    x: &Tensor,
    filters: &Tensor,
    map: Map,
) -> (Tensor, Tensor) {
    let [by_x, by_filters] = convolution::backward(
        &by_pixel(gradient, map),
        &by_pixel(x, map),
        filters,
        [true, true],
    );
    let requested = "a gradient that was requested";
    let by_x = by_x.expect(requested);
    let by_filters = by_filters.expect(requested);
    let columns = x.size()[1];
    // cuDNN gives the order of the filters or the plain one; any other is copied.
    let regular = by_filters.is_contiguous() || channels_last(&by_filters).is_contiguous();
    let by_filters = match regular {
        true => by_filters,
        false => by_filters.contiguous(),
    };
    (by_x.view([-1, columns]), by_filters)
}

fn channels_last(filters: &Tensor) -> Tensor {
    filters.permute([0, 2, 3, 1])
}

/// The address of a gradient by filters, and the channels and pixels of its order in memory: 1 and 1 if that is the flat one.
fn in_memory(gradient: &Tensor) -> (u64, [usize; 2]) {
    let size = gradient.size();
    match gradient.is_contiguous() {
        true => (at(gradient).0, [1, 1]),
        false => {
            let order = [size[1] as usize, (size[2] * size[3]) as usize];
            (at(&channels_last(gradient)).0, order)
        }
    }
}
