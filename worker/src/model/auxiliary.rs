//! The auxiliary heads of training: a classifier on the output of a module in the middle of the trunk.
//!
//! Source: BVLC/caffe `models/bvlc_googlenet/train_val.prototxt`, layers `loss1/*` and `loss2/*`: average pooling to 4x4, 1x1
//! convolution, inner product, both with ReLU, dropout, inner product. Caffe's pooling gives 4x4 at 224 px only; at other sizes
//! the map is cut into 4x4 windows, so that the inner product fits.

use std::ops::Range;

use fovea_core::googlenet::{AUXILIARY_MAP, AuxiliaryHead, auxiliary_windows};
use tch::{Device, Kind, Tensor};

use super::net::Net;

impl Net {
    /// The logits of an auxiliary head, f32 `[batch, outputs]`, of the output of its module. `dropout`: f32 `[batch, 1024]`, what
    /// its classifier's inputs are multiplied by.
    pub(super) fn auxiliary(
        &self,
        head: AuxiliaryHead,
        x: &Tensor,
        dropout: Option<&Tensor>,
    ) -> Tensor {
        let layer = |part: &str| &self.weight_layers[&format!("{}/{part}", head.name())];
        let pooled = pooled(x).to_kind(self.compute);
        let conv = layer("conv");
        let [weight, bias] = [&conv.weight, &conv.bias].map(|p| p.to_kind(self.compute));
        let maps = pooled.conv2d(&weight, Some(&bias), [1, 1], [0, 0], [1, 1], 1);
        // As Caffe flattens them: channel, row, column.
        let units = maps.relu().to_kind(Kind::Float).contiguous().flatten(1, -1);
        let fc = layer("fc");
        let units = units.linear(&fc.weight, Some(&fc.bias)).relu();
        let units = match dropout {
            Some(mask) => units * mask,
            None => units,
        };
        let classifier = layer("classifier");
        units.linear(&classifier.weight, Some(&classifier.bias))
    }
}

/// The means over the windows of a map, `[batch, channels, 4, 4]` in f32. As two products with matrices, because libtorch's
/// adaptive pooling has no deterministic gradient on a GPU.
fn pooled(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    let (height, width) = (x.size()[2], x.size()[3]);
    let rows = averaging(height as usize, x.device());
    let columns = averaging(width as usize, x.device()).transpose(0, 1);
    rows.matmul(&x).matmul(&columns)
}

/// `[4, length]`: each row takes the mean over a window.
fn averaging(length: usize, device: Device) -> Tensor {
    let mut values = vec![0f32; AUXILIARY_MAP * length];
    let rows = values.chunks_exact_mut(length);
    for (row, window) in rows.zip(auxiliary_windows(length)) {
        let Range { start, end } = window;
        row[start..end].fill(1.0 / (end - start) as f32);
    }
    let shape = [AUXILIARY_MAP as i64, length as i64];
    Tensor::from_slice(&values).view(shape).to_device(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Caffe's pooling at 224 px, and adaptive pooling elsewhere.
    #[test]
    fn pooling_is_that_of_libtorch() {
        tch::manual_seed(3);
        for (height, width) in [(14, 14), (4, 4), (19, 28), (3, 2)] {
            let x = Tensor::randn([2, 5, height, width], (Kind::Float, Device::Cpu));
            let expected = match (height, width) {
                (14, 14) => x.avg_pool2d([5, 5], [3, 3], [0, 0], true, true, None::<i64>),
                _ => x.adaptive_avg_pool2d([4, 4]),
            };
            let found = pooled(&x);
            assert_eq!(found.size(), [2, 5, 4, 4]);
            let off = (found - expected).abs().max().double_value(&[]);
            assert!(off < 1e-5, "{height}x{width}: {off}");
        }
    }
}
