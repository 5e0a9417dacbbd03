//! The fused kernels on several threads. In a process of its own, because the number of threads is a
//! setting of the whole process, which other tests rely on.

use fovea_worker::model::{channels_last, kernels};
use tch::{Device, Kind, Tensor};

#[test]
fn kernels_give_the_same_bits_on_any_number_of_threads() {
    let count = 5 * 64 * 14 * 15;
    let line = Tensor::arange(count, (Kind::Float, Device::Cpu));
    let x = channels_last(&((line * 0.37).sin() * 500.0).view([5, 64, 14, 15]));
    let all = || {
        [
            kernels::lrn(&x),
            kernels::relu_pool_lrn(&x),
            kernels::relu_lrn_pool(&x),
            kernels::lrn_backward(&x, &(&x * 0.3)),
        ]
    };
    tch::set_num_threads(1);
    let one = all();
    // Fewer threads than images, as many, and more.
    for threads in [2, 3, 5, 8] {
        tch::set_num_threads(threads);
        assert_eq!(tch::get_num_threads(), threads);
        assert_eq!(one, all(), "{threads} threads");
    }
}
