//! The state's digest.

use super::super::state_digest;
use super::*;

fn spec(frozen: &str) -> RunSpec {
    let text = format!("name = 'r'\ndataset = 'd'\n[model]\nfrozen = [{frozen}]");
    toml::from_str(&text).unwrap()
}

unsafe extern "C" {
    // See `context.cpp`.
    fn fovea_gpu_tf32(cudnn: *mut bool, cublas: *mut bool) -> c_int;
}

#[test]
fn gpus_multiply_in_tf32_only_if_that_is_asked_for() {
    for tf32 in [true, false] {
        set_gpu_arithmetic(tf32);
        let (mut cudnn, mut cublas) = (!tf32, !tf32);
        // SAFETY: two places for the results.
        check("fovea_gpu_tf32", unsafe {
            fovea_gpu_tf32(&mut cudnn, &mut cublas)
        })
        .unwrap();
        assert_eq!([cudnn, cublas], [tf32; 2]);
    }
}

#[test]
fn the_digest_is_that_of_the_state_and_sees_every_bit() {
    for frozen in ["", "'conv1/7x7_s2'"] {
        let spec = spec(frozen);
        let layout = FlatLayout::new(5, &spec.model.frozen).unwrap();
        let mut device = TorchDevice::new(&spec, &layout, tch::Device::Cpu);
        let len = layout.state_len();
        let mut state: Vec<f32> = (0..len).map(|i| (i as f32).sin()).collect();
        device.load(&state).unwrap();
        let before = device.digest().unwrap();
        assert_eq!(before, state_digest(&device.read(0..len).unwrap()));
        assert_eq!(before, state_digest(&state));

        let parts = [
            layout.params_range(),
            layout.velocity_range(),
            layout.frozen_range(),
        ];
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            for (at, bit) in [(part.start, 0), (part.end - 1, 31)] {
                let kept = state[at];
                state[at] = f32::from_bits(kept.to_bits() ^ (1 << bit));
                device.load(&state).unwrap();
                let flipped = device.digest().unwrap();
                assert_ne!(flipped, before, "element {at} of {len}");
                assert_eq!(flipped, state_digest(&state));
                state[at] = kept;
            }
        }
        device.load(&state).unwrap();
        assert_eq!(device.digest().unwrap(), before);
    }
}
