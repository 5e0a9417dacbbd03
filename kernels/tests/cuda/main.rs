//! The GPU's kernels on the CPU: their source compiled as C++, each launch compared with a plain computation.
//!
//! It shows that the numbers are right, for any size, and that no kernel writes beside its results. It shows nothing of a GPU's
//! speed, nor of races between blocks.

mod backward;
mod emulator;
mod head;
mod images;
mod lrn;
mod parameters;

use emulator::emulator;
use fovea_kernels::cuda::{Element, names};

#[test]
fn every_kernel_can_be_emulated() {
    for element in Element::ALL {
        for name in names() {
            assert!(emulator(element).has(name), "{name}");
        }
    }
}
