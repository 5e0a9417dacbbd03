//! Compiles the kernels with the machine's C++ compiler and runs their calls on memory of the process.

use std::ffi::{CString, c_void};
use std::marker::PhantomData;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use fovea_kernels::cuda::{Address, Call, EMULATION, Element, source};
use fovea_kernels::{Bf16, Number};
use libloading::Library;

/// The kernels for one element.
pub struct Emulator(Library);

type Host = extern "C" fn(*const c_void) -> *mut c_void;
type Bind = unsafe extern "C" fn(*const *mut c_void, Host) -> *mut c_void;
type Emulate = unsafe extern "C" fn(*mut c_void, *const u32, *const u32);

/// The kernels for `element`, compiled at the first call.
pub fn emulator(element: Element) -> &'static Emulator {
    static FLOAT32: OnceLock<Emulator> = OnceLock::new();
    static BF16: OnceLock<Emulator> = OnceLock::new();
    let place = match element {
        Element::Float32 => &FLOAT32,
        Element::Bf16 => &BF16,
    };
    place.get_or_init(|| Emulator::compile(element))
}

impl Emulator {
    fn compile(element: Element) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.join(format!("cuda-{}-{}", element.name(), std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| folder.join(name);
        std::fs::write(file("emulation.h"), EMULATION).unwrap();
        std::fs::write(file("kernels.cpp"), source()).unwrap();
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        let output = Command::new(compiler)
            .current_dir(&folder)
            .args(["-O1", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off"])
            .args(["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"])
            .arg(format!("-DELEMENT={}", element.name()))
            .args(["-include", "emulation.h", "kernels.cpp", "-o", "kernels.so"])
            .output()
            .expect("a C++ compiler, as building libtorch's binding needs it");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        // SAFETY: the library that was just made has no initialisers that do anything.
        let library = unsafe { Library::new(file("kernels.so")) }.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        Self(library)
    }

    /// Whether there is a kernel of this name.
    pub fn has(&self, name: &str) -> bool {
        let [bind, visit] = ["bind", "visit"].map(|what| format!("{what}_{name}"));
        // SAFETY: nothing is called.
        unsafe {
            self.0.get::<Bind>(bind.as_bytes()).is_ok()
                && self.0.get::<Bind>(visit.as_bytes()).is_ok()
        }
    }

    /// Runs a call to its end.
    pub fn run(&self, call: &Call) {
        extern "C" fn same(pointer: *const c_void) -> *mut c_void {
            pointer.cast_mut()
        }
        let name = CString::new(format!("bind_{}", call.kernel)).unwrap();
        // SAFETY: the functions have these types (emulation.h), the parameters those of the kernel; the test gives addresses
        // of memory that is long enough.
        unsafe {
            let bind = self.0.get::<Bind>(name.as_bytes_with_nul()).unwrap();
            let emulate = self.0.get::<Emulate>(b"fovea_emulate\0").unwrap();
            let bound = call.with_parameters(|parameters| bind(parameters.as_ptr(), same));
            emulate(bound, call.grid.as_ptr(), call.block.as_ptr());
        }
    }
}

/// A number format that the kernels are compiled for.
pub trait TestNumber: Number {
    const ELEMENT: Element;

    /// Relative error of one rounding.
    const ROUNDING: f32;
}

impl TestNumber for f32 {
    const ELEMENT: Element = Element::Float32;
    const ROUNDING: f32 = 1.0 / 16_777_216.0;
}

impl TestNumber for Bf16 {
    const ELEMENT: Element = Element::Bf16;
    const ROUNDING: f32 = 1.0 / 256.0;
}

/// Runs a call in the format `N`.
pub fn run<N: TestNumber>(call: &Call) {
    emulator(N::ELEMENT).run(call);
}

/// Memory as a GPU's: aligned, and set to ones (NaN in every format) before it and behind it.
pub struct Memory<V> {
    words: Vec<u128>,
    len: usize,
    kind: PhantomData<V>,
}

const WORD: usize = size_of::<u128>();
/// Words before and behind.
const GUARD: usize = 8;

impl<V: Copy> Memory<V> {
    /// All ones: what a kernel does not write is found.
    pub fn unset(len: usize) -> Self {
        let words = (len * size_of::<V>()).div_ceil(WORD) + 2 * GUARD;
        Self {
            words: vec![u128::MAX; words],
            len,
            kind: PhantomData,
        }
    }

    pub fn of(values: &[V]) -> Self {
        let mut memory = Self::unset(values.len());
        let place = memory.words[GUARD..].as_mut_ptr().cast();
        // SAFETY: there is room for as many; values without padding.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), place, values.len()) };
        memory
    }

    pub fn at(&self) -> Address {
        Address(self.words[GUARD..].as_ptr() as u64)
    }

    /// The values. Panics if something was written before or behind them.
    #[track_caller]
    pub fn read(&self) -> Vec<V> {
        // SAFETY: the memory is of bytes that are initialised, and of values that any bytes are.
        let (bytes, values) = unsafe {
            let start = self.words.as_ptr().cast::<u8>();
            let bytes = std::slice::from_raw_parts(start, self.words.len() * WORD);
            let first = self.words[GUARD..].as_ptr().cast::<V>();
            (bytes, std::slice::from_raw_parts(first, self.len).to_vec())
        };
        let start = GUARD * WORD;
        let end = start + self.len * size_of::<V>();
        assert!(bytes[..start].iter().all(|b| *b == 255), "written before");
        assert!(bytes[end..].iter().all(|b| *b == 255), "written behind");
        values
    }
}

impl<N: Number> Memory<N> {
    /// As f32.
    #[track_caller]
    pub fn wide(&self) -> Vec<f32> {
        self.read().into_iter().map(N::to_f32).collect()
    }
}

/// Values of the format, and the same as f32.
pub fn rounded<N: Number>(values: Vec<f32>) -> (Memory<N>, Vec<f32>) {
    let narrow: Vec<N> = values.into_iter().map(N::rounded).collect();
    let wide = narrow.iter().map(|v| v.to_f32()).collect();
    (Memory::of(&narrow), wide)
}

/// Numbers from a seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// From -1 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn units(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| self.unit() * scale).collect()
    }

    /// Whole numbers from -`most` to `most`, whose sums are exact.
    pub fn whole(&mut self, len: usize, most: usize) -> Vec<f32> {
        let one = |_| self.below(2 * most + 1) as f32 - most as f32;
        (0..len).map(one).collect()
    }
}

/// Equal bits, but that a NaN equals any other.
#[track_caller]
pub fn assert_same(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            a == b || a.is_nan() && b.is_nan(),
            "{what}: element {i} is {a}, expected {b}"
        );
    }
}

/// Equal but for `relative` of each expected value and `absolute`.
#[track_caller]
pub fn assert_close(what: &str, found: &[f32], expected: &[f32], relative: f32, absolute: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= relative * b.abs() + absolute,
            "{what}: element {i} is {a}, expected {b}"
        );
    }
}
