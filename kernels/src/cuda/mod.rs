//! Kernels for NVIDIA GPUs: their source, and the launches of them as plain values.
//!
//! The source (`kernels/cuda`, CUDA C++) is compiled where it runs: by NVRTC for the GPU at hand, once for each [`Element`]. Nothing
//! here touches a GPU. A function such as [`module::split`] checks sizes and returns a [`Call`]: the kernel's name, its
//! grid, its arguments. Whoever has a GPU launches it; tests run the same calls on the CPU, through `emulation.h`.
//!
//! | module | kernels |
//! |---|---|
//! | [`input`] | photographs to the first convolution's input; conv1's filters in that form |
//! | [`module`] | an inception module's forward pass between products and convolutions |
//! | [`pool`] | 3x3 max pooling |
//! | [`gradient`] | gradients gathered, masked, handed to branches, added up for biases |
//! | [`lrn`] | local response normalisation and its fusions |
//! | [`head`] | dropout masks, average, classifier, loss, and their gradients |
//! | [`weights`] | filters of parameters, flat gradients, the optimizer |
//! | [`rows`] | rows of a block of memory by number |
//!
//! Images are channels-last, and channels are a multiple of 8, as all of GoogLeNet's are. Arguments that are addresses point to
//! contiguous arrays in the GPU's memory that begin at a multiple of 16 bytes. Who launches a call is responsible for their
//! lengths, which each function names.
//!
//! # Bits
//!
//! Every number is computed in one order, and no grid depends on the GPU, so the bits are the same in every run on one model
//! of GPU.

pub mod gradient;
pub mod head;
pub mod input;
pub mod lrn;
pub mod module;
pub mod pool;
pub mod rows;
pub mod weights;

use std::ffi::c_void;

use crate::Shape;

/// The files of the source, in the order in which they are compiled.
const FILES: [(&str, &str); 9] = [
    ("common.cuh", include_str!("../../cuda/common.cuh")),
    ("input.cu", include_str!("../../cuda/input.cu")),
    ("module.cu", include_str!("../../cuda/module.cu")),
    ("pool.cu", include_str!("../../cuda/pool.cu")),
    ("gradient.cu", include_str!("../../cuda/gradient.cu")),
    ("lrn.cu", include_str!("../../cuda/lrn.cu")),
    ("head.cu", include_str!("../../cuda/head.cu")),
    ("weights.cu", include_str!("../../cuda/weights.cu")),
    ("rows.cu", include_str!("../../cuda/rows.cu")),
];

/// What makes the source C++ for a CPU, to be included before it.
pub const EMULATION: &str = include_str!("../../cuda/emulation.h");

/// All kernels as one text. A compiler's messages name the files.
pub fn source() -> String {
    let numbered = |(name, text): (&str, &str)| format!("#line 1 \"{name}\"\n{text}");
    FILES.map(numbered).concat()
}

/// The kernels' names.
pub fn names() -> Vec<&'static str> {
    let exports = FILES.iter().flat_map(|(_, text)| text.lines());
    let name = |line: &'static str| {
        let rest = line.strip_prefix("EXPORT")?;
        rest.trim_start_matches("_WITH_BARRIERS")
            .strip_prefix('(')?
            .strip_suffix(')')
    };
    exports.filter_map(name).collect()
}

/// What activations and filters are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit floats.
    Float32,
    /// bfloat16.
    Bf16,
}

impl Element {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Float32, Self::Bf16];

    /// The value of the macro ELEMENT for which the source is compiled.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// An address in the GPU's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64);

impl Address {
    /// No memory.
    pub const NULL: Self = Self(0);
}

/// An argument of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// An address.
    Address(u64),
    /// A 32-bit integer.
    Int(i32),
    /// A float.
    Float(f32),
    /// A structure that is passed by value, in words of 8 bytes.
    Table(Box<[u64]>),
}

/// A launch of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Its name.
    pub kernel: &'static str,
    /// Number of blocks in each direction.
    pub grid: [u32; 3],
    /// Threads of a block in each direction.
    pub block: [u32; 3],
    /// In the kernel's order.
    pub arguments: Vec<Argument>,
}

impl Call {
    fn new<const N: usize>(
        kernel: &'static str,
        grid: [usize; 2],
        block: [usize; 2],
        arguments: [Argument; N],
    ) -> Self {
        let sizes = |[x, y]: [usize; 2]| [size(x) as u32, size(y) as u32, 1];
        Self {
            kernel,
            grid: sizes(grid),
            block: sizes(block),
            arguments: arguments.into(),
        }
    }

    /// Calls `launch` with the arguments as CUDA's driver takes them: an address of each, valid during the call. The
    /// kernel's parameters have these types and this order.
    pub fn with_parameters<R>(&self, launch: impl FnOnce(&mut [*mut c_void]) -> R) -> R {
        let place = |argument: &Argument| -> *mut c_void {
            match argument {
                Argument::Address(address) => std::ptr::from_ref(address).cast_mut().cast(),
                Argument::Int(number) => std::ptr::from_ref(number).cast_mut().cast(),
                Argument::Float(number) => std::ptr::from_ref(number).cast_mut().cast(),
                Argument::Table(words) => words.as_ptr().cast_mut().cast(),
            }
        };
        let mut places: Vec<*mut c_void> = self.arguments.iter().map(place).collect();
        launch(&mut places)
    }

    /// Whether there is nothing to do. A grid without blocks cannot be launched.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }
}

impl From<Address> for Argument {
    fn from(address: Address) -> Self {
        Self::Address(address.0)
    }
}

impl From<Option<Address>> for Argument {
    fn from(address: Option<Address>) -> Self {
        address.unwrap_or(Address::NULL).into()
    }
}

impl From<usize> for Argument {
    #[track_caller]
    fn from(number: usize) -> Self {
        Self::Int(size(number))
    }
}

impl From<f32> for Argument {
    fn from(number: f32) -> Self {
        Self::Float(number)
    }
}

/// A number that kernels count with.
///
/// # Panics
/// If it is 2^31 or more.
#[track_caller]
fn size(number: usize) -> i32 {
    i32::try_from(number).unwrap_or_else(|_| panic!("{number} is too many for a kernel"))
}

/// Arguments of kinds that are converted.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { [$(crate::cuda::Argument::from($argument)),*] };
}
use arguments;

/// Some images of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Their number.
    pub count: usize,
    /// Height, width and channels of each.
    pub shape: Shape,
}

impl Batch {
    /// Number of pixels.
    pub fn rows(self) -> usize {
        self.count * self.shape.pixels()
    }

    /// Number of values.
    pub fn len(self) -> usize {
        self.rows() * self.shape.channels
    }

    /// Whether there are no images.
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// Number of the 2x2 pixels that cover the images.
    fn quads(self) -> usize {
        self.count * self.shape.height.div_ceil(2) * self.shape.width.div_ceil(2)
    }
}

/// Channels of one thread.
const GROUP: usize = 8;
/// Threads of a block.
const THREADS: usize = 256;
/// Most channels of a tensor.
const MOST_CHANNELS: usize = GROUP * THREADS;

/// Whether the kernels take tensors of so many channels.
pub fn fits(channels: usize) -> bool {
    channels > 0 && channels.is_multiple_of(GROUP) && channels <= MOST_CHANNELS
}

/// The block for tensors of so many channels: groups of channels, then as many pixels as there is room for.
///
/// # Panics
/// If the channels do not [fit](fits).
#[track_caller]
fn block_for(channels: usize) -> [usize; 2] {
    assert!(
        fits(channels),
        "{channels} channels: a multiple of {GROUP} up to {MOST_CHANNELS} is needed"
    );
    let groups = channels / GROUP;
    [groups, THREADS / groups]
}

/// A grid of one thread for each of `count` things, and its block.
fn one_each(count: usize) -> ([usize; 2], [usize; 2]) {
    ([count.div_ceil(THREADS), 1], [THREADS, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_part_of_the_source_and_exports_its_kernels() {
        let text = source();
        let defined = text.matches("\nKERNEL(").count();
        assert_eq!(names().len(), defined, "{:?}", names());
        for name in names() {
            assert!(text.contains(&format!(") {name}(")), "{name}");
        }
        assert!(text.starts_with("#line 1 \"common.cuh\"\n"));
    }

    #[test]
    fn blocks_have_no_more_threads_than_the_kernels_are_compiled_for() {
        for channels in (8..=2048).step_by(8) {
            let [groups, pixels] = block_for(channels);
            assert_eq!(groups * GROUP, channels);
            assert!(pixels >= 1 && groups * pixels <= THREADS, "{channels}");
        }
        assert!(!fits(0) && !fits(12) && !fits(2056) && fits(1024));
    }

    #[test]
    #[should_panic(expected = "too many for a kernel")]
    fn a_number_that_an_int_does_not_hold_is_refused() {
        let _ = Argument::from(1usize << 31);
    }
}
