//! Class activation maps: what the classifier would put out for each place of a photograph ([`fovea_core::class_map`]).

use fovea_core::googlenet::{DENSE_KERNEL, HEAD, Pooling};
use tch::{Device, Kind, Tensor, no_grad};

use super::net::Net;

impl Net {
    /// The logits of [`Net::forward_features`], to the bit, and the map of each output, f32 `[batch, height, width, outputs]`,
    /// whose mean over height and width is the logit. Where [`Net::averages_frozen`], `features` are [`Net::places`].
    ///
    /// With dense pooling a place counts as often as it is in a window, so the maps are smaller near the border.
    pub fn class_maps(&self, features: &Tensor) -> (Tensor, Tensor) {
        let (logits, places) = self.forward_places(features);
        let head = &self.weight_layers[HEAD];
        let maps = no_grad(|| {
            let places = places.to_kind(Kind::Float).permute([0, 2, 3, 1]);
            let places = match self.network().pooling {
                Pooling::Global => places,
                Pooling::Dense => {
                    let (height, width) = (places.size()[1], places.size()[2]);
                    let device = places.device();
                    places
                        * counted(height, device).view([1, -1, 1, 1])
                        * counted(width, device).view([1, 1, -1, 1])
                }
            };
            places.linear(&head.weight, Some(&head.bias))
        });
        (logits, maps)
    }
}

/// In how many of the windows of dense pooling each place along a side is, relative to the mean over all places.
fn counted(length: i64, device: Device) -> Tensor {
    let kernel = DENSE_KERNEL as i64;
    let windows = length - kernel + 1;
    let count = |i: i64| (i + 1).min(length - i).min(kernel).min(windows);
    let mean = (kernel * windows) as f32 / length as f32;
    let counts: Vec<f32> = (0..length).map(|i| count(i) as f32 / mean).collect();
    Tensor::from_slice(&counts).to_device(device)
}

#[cfg(test)]
mod tests {
    use fovea_core::googlenet::{Network, Tap, param_specs};
    use fovea_core::spec::Precision;

    use super::super::tests::{net, noise};
    use super::*;

    #[test]
    fn maps_of_dense_pooling_and_of_probes_have_the_logit_for_mean() {
        let dense = Network {
            pooling: Pooling::Dense,
            ..Network::trunk(2)
        };
        let tapped = Network {
            tap: Tap::named("inception_4d/output").unwrap(),
            ..Network::trunk(2)
        };
        let mut layers: Vec<String> = param_specs(tapped)
            .into_iter()
            .map(|spec| spec.layer)
            .collect();
        layers.retain(|layer| layer != HEAD);
        layers.dedup();
        let frozen: Vec<&str> = layers.iter().map(String::as_str).collect();
        for (net, size) in [
            (net(dense, &[]), [256, 320]),
            (net(tapped, &frozen), [64, 96]),
        ] {
            let x = noise(&[2, 3, size[0], size[1]], 100.0);
            let features = match net.averages_frozen() {
                true => net.places(&x),
                false => x.shallow_clone(),
            };
            let (logits, maps) = net.class_maps(&features);
            let expected = net.forward(&x);
            let mean = maps.mean_dim([1i64, 2].as_slice(), false, Kind::Float);
            let scale = maps.abs().max().double_value(&[]).max(1.0);
            for found in [mean, logits] {
                let apart = (found - &expected).abs().max().double_value(&[]);
                assert!(apart < 1e-5 * scale, "{apart} of {scale}");
            }
        }
    }

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
            let net = net(outputs as usize, frozen).with_precision(precision);
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
