//! Class activation maps: what the classifier would put out for each place of a photograph ([`fovea_core::class_map`]).

use fovea_core::googlenet::HEAD;
use tch::{Kind, Tensor, no_grad};

use super::net::Net;

impl Net {
    /// The logits of [`Net::forward_features`], to the bit, and the map of each output, f32 `[batch, height, width, outputs]`,
    /// whose mean over height and width is the logit.
    pub fn class_maps(&self, features: &Tensor) -> (Tensor, Tensor) {
        let (logits, places) = self.forward_places(features);
        let head = &self.weight_layers[HEAD];
        let maps = no_grad(|| {
            let places = places.to_kind(Kind::Float).permute([0, 2, 3, 1]);
            places.linear(&head.weight, Some(&head.bias))
        });
        (logits, maps)
    }
}

#[cfg(test)]
mod tests {
    use fovea_core::spec::Precision;

    use super::super::tests::{net, noise};
    use super::*;

    #[test]
    fn the_mean_of_each_map_is_its_logit() {
        for (outputs, frozen, precision, most) in [
            (2, &[][..], Precision::Float32, 1e-5),
            (
                4,
                &["conv1/7x7_s2", "conv2/3x3_reduce"][..],
                Precision::Float32,
                1e-5,
            ),
            // The mean of places in bf16 is taken in f32, too.
            (2, &[][..], Precision::Bf16, 1e-5),
        ] {
            let net = net(outputs, frozen).with_precision(precision);
            let x = noise(&[2, 3, 96, 160], 100.0);
            let features = net.features(&x);
            let features = match net.has_frozen_prefix() {
                true => features,
                false => x,
            };
            let (logits, maps) = net.class_maps(&features);
            assert_eq!(maps.size(), [2, 3, 5, i64::from(outputs)]);
            let expected = net.forward_features(&features);
            assert_eq!(logits, expected, "other bits with maps");
            let mean = maps.mean_dim([1i64, 2].as_slice(), false, Kind::Float);
            let scale = maps.abs().max().double_value(&[]).max(1.0);
            let apart = (mean - logits).abs().max().double_value(&[]);
            assert!(apart < most * scale, "{apart} of {scale}");
            // The places differ: a constant map would pass, too.
            let spread = maps.std(false).double_value(&[]);
            assert!(spread > 1e-3 * scale, "{spread} of {scale}");
        }
    }
}
