//! Initial values of new parameters: Caffe's fillers on a counter-based generator.
//!
//! The values depend only on the seed and the parameter's name. Only operations that IEEE 754 defines exactly are used (no
//! logarithm or cosine of a library), so every worker of every build draws the same bits.

use rand_chacha::rand_core::RngCore;

use super::params::{ParamKind, ParamSpec};
use crate::random::stream;
use crate::spec::Init;

/// Fills `out` with initial values of the parameter `spec`.
///
/// - `Xavier`: weights uniform in ±sqrt(3 / fan_in); biases 0.2, in the classifier 0. BVLC trained GoogLeNet with it, and
///   a replaced classifier gets it.
/// - `Msra`: weights normal with standard deviation sqrt(2 / fan_in); biases 0. It keeps the variance through ReLUs, so
///   that the trunk can be trained from scratch without its auxiliary heads (He et al. 2015).
///
/// The classifier is filled by `Xavier` in both cases.
///
/// # Panics
/// If the length of `out` differs from that of `spec`.
pub fn fill(spec: &ParamSpec, init: Init, seed: u64, out: &mut [f32]) {
    assert_eq!(out.len(), spec.len(), "{}", spec.name);
    let mut rng = stream(&format!("init/{}", spec.name), &[seed]);
    let fan_in = spec.fan_in as f64;
    let init = if spec.head { Init::Xavier } else { init };
    match (spec.kind, init) {
        (ParamKind::Bias, Init::Xavier) => out.fill(if spec.head { 0.0 } else { 0.2 }),
        (ParamKind::Bias, Init::Msra) => out.fill(0.0),
        (ParamKind::Weight, Init::Xavier) => {
            let bound = (3.0 / fan_in).sqrt();
            out.fill_with(|| ((2.0 * uniform(&mut rng) - 1.0) * bound) as f32);
        }
        (ParamKind::Weight, Init::Msra) => {
            let deviation = (2.0 / fan_in).sqrt();
            out.fill_with(|| (normal(&mut rng) * deviation) as f32);
        }
    }
}

/// A uniform number in [0, 1), a multiple of 2^-53.
fn uniform(rng: &mut impl RngCore) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// A standard normal number by Marsaglia's polar method. The second value of each pair is not used: that is simpler, and
/// a network is drawn only once.
fn normal(rng: &mut impl RngCore) -> f64 {
    loop {
        let x = 2.0 * uniform(rng) - 1.0;
        let y = 2.0 * uniform(rng) - 1.0;
        let s = x * x + y * y;
        if s > 0.0 && s < 1.0 {
            return x * (-2.0 * ln(s) / s).sqrt();
        }
    }
}

/// Natural logarithm of a positive normal number by + - * / alone: `x = m 2^e`, and `ln m = 2 artanh((m-1)/(m+1))` as a
/// series. The last bit of the C library's `ln` differs between systems.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut m = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if m > std::f64::consts::SQRT_2 {
        m /= 2.0;
        exponent += 1;
    }
    let t = (m - 1.0) / (m + 1.0);
    let square = t * t;
    // |t| <= 0.172, so the first omitted term is below 1e-18 of the sum.
    let mut sum = 0.0;
    for n in (0..12).rev() {
        sum = sum * square + 1.0 / (2 * n + 1) as f64;
    }
    2.0 * t * sum + exponent as f64 * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::super::params::param_specs;
    use super::*;

    fn drawn(name: &str, init: Init, seed: u64) -> Vec<f32> {
        let specs = param_specs(2);
        let spec = specs.iter().find(|p| p.name == name).unwrap();
        let mut out = vec![f32::NAN; spec.len()];
        fill(spec, init, seed, &mut out);
        out
    }

    fn moments(values: &[f32]) -> (f64, f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| v as f64).sum::<f64>() / n;
        let central = |p: i32| {
            values
                .iter()
                .map(|&v| (v as f64 - mean).powi(p))
                .sum::<f64>()
                / n
        };
        (mean, central(2), central(4))
    }

    #[test]
    fn xavier_is_uniform_within_its_bound() {
        let values = drawn("inception_3b/3x3.weight", Init::Xavier, 1);
        let bound = (3.0f64 / 1152.0).sqrt();
        assert!(values.iter().all(|v| (v.abs() as f64) <= bound));
        let (mean, variance, fourth) = moments(&values);
        assert!(mean.abs() < 0.01 * bound, "mean {mean}");
        assert!(
            (variance * 1152.0 - 1.0).abs() < 0.01,
            "variance {variance}"
        );
        // A uniform distribution has kurtosis 9/5.
        assert!((fourth / variance / variance - 1.8).abs() < 0.02);
    }

    #[test]
    fn msra_is_normal() {
        let values = drawn("inception_3b/3x3.weight", Init::Msra, 1);
        let (mean, variance, fourth) = moments(&values);
        assert!(mean.abs() < 0.01 * variance.sqrt(), "mean {mean}");
        assert!(
            (variance * 1152.0 / 2.0 - 1.0).abs() < 0.02,
            "variance {variance}"
        );
        // A normal distribution has kurtosis 3.
        assert!((fourth / variance / variance - 3.0).abs() < 0.1);
    }

    #[test]
    fn biases_are_caffes() {
        assert!(
            drawn("conv1/7x7_s2.bias", Init::Xavier, 1)
                .iter()
                .all(|&b| b == 0.2)
        );
        assert!(
            drawn("loss3/classifier.bias", Init::Xavier, 1)
                .iter()
                .all(|&b| b == 0.0)
        );
        assert_eq!(
            drawn("loss3/classifier.weight", Init::Msra, 1),
            drawn("loss3/classifier.weight", Init::Xavier, 1)
        );
        assert!(
            drawn("conv1/7x7_s2.bias", Init::Msra, 1)
                .iter()
                .all(|&b| b == 0.0)
        );
    }

    #[test]
    fn draws_depend_on_seed_and_name_and_stay_the_same_for_ever() {
        let name = "loss3/classifier.weight";
        let first = drawn(name, Init::Xavier, 7);
        assert_eq!(first, drawn(name, Init::Xavier, 7));
        assert_ne!(first, drawn(name, Init::Xavier, 8));
        let other = drawn("inception_3a/1x1.weight", Init::Msra, 7);
        assert_ne!(
            other[..64],
            drawn("inception_3b/1x1.weight", Init::Msra, 7)[..64]
        );
        // A changed digest means that runs started before an upgrade no longer repeat.
        let digest = |values: &[f32]| {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            hex::encode(&Sha256::digest(bytes)[..8])
        };
        assert_eq!(digest(&first), "f3bc7c13a165f734");
        assert_eq!(digest(&other), "3ad34cd9458c364a");
    }

    #[test]
    fn logarithm_is_right_to_the_last_bits() {
        for i in 1..100_000 {
            let x = i as f64 / 100_000.0;
            assert!(
                (ln(x) - x.ln()).abs() <= 1e-15 * x.ln().abs().max(1e-3),
                "{x}"
            );
        }
    }
}
