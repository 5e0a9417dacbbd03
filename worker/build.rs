//! Compiles the C++ shims for what tch has no call for, and tells the linker where the worker finds libtorch
//! when it runs.
//!
//! Two places are searched, in this order: `../lib/fovea` beside the program's own folder (a deployment
//! puts the libraries there), and the `.libtorch/site` of the checkout that built it. Both must hold the
//! libraries in the layout of the wheels: they find one another through their own `$ORIGIN`, which a
//! folder of links would break.

use std::env;
use std::path::{Path, PathBuf};

/// The shims, and the header with their error convention.
const CPP: [&str; 6] = [
    "src/shim.cpp",
    "src/profile.cpp",
    "src/model/autograd.cpp",
    "src/model/convolution.cpp",
    "src/device/context.cpp",
    "src/gpu/stream.cpp",
];
const HEADER: &str = "src/shim.h";

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let root = Path::new(&root)
        .parent()
        .expect("the worker's folder lies in the repository");
    let libraries = root.join(".libtorch/site/torch/lib");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    requires::emit(&[Need::Shared, Need::NoAmx, Need::Models, Need::Nvrtc]);

    println!("cargo::rustc-env=FOVEA_LIBTORCH_VERSION={}", version(root));

    compile(&libtorch(root).join("include"));

    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/fovea/torch/lib");
    // LIBTORCH names `.libtorch/link` (.cargo/config.toml), whose real libraries lie in `site`, or a
    // libtorch of the user's own.
    match env::var_os("LIBTORCH") {
        Some(own) if !same(Path::new(&own), &root.join(".libtorch/link")) => {
            println!(
                "cargo::rustc-link-arg=-Wl,-rpath,{}/lib",
                Path::new(&own).display()
            )
        }
        _ => println!("cargo::rustc-link-arg=-Wl,-rpath,{}", libraries.display()),
    }
}

/// Whether two paths name one folder, through links or not.
fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    real(one) == real(other)
}

/// The libtorch to build against.
fn libtorch(root: &Path) -> PathBuf {
    env::var_os("LIBTORCH").map_or_else(|| root.join(".libtorch/link"), Into::into)
}

/// Compiles them as torch-sys compiles its own C++, because the two pass tensors to each other.
fn compile(include: &Path) {
    for file in CPP.into_iter().chain([HEADER]) {
        println!("cargo::rerun-if-changed={file}");
    }
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        .flag("-D_GLIBCXX_USE_CXX11_ABI=1")
        .include(include)
        .include(include.join("torch/csrc/api/include"))
        .files(CPP)
        .compile("fovea_libtorch");
}

/// Version of libtorch by its own header, such as 2.11.0. It is part of a run's numeric fingerprint.
fn version(root: &Path) -> String {
    let header = libtorch(root).join("include/torch/headeronly/version.h");
    let text = std::fs::read_to_string(&header).unwrap_or_default();
    let number = |part: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(&format!("#define TORCH_VERSION_{part} ")))
            .unwrap_or("?")
            .trim()
            .to_owned()
    };
    let parts = ["MAJOR", "MINOR", "PATCH"].map(number);
    parts.join(".")
}

/// What the tests need from the machine.
#[path = "../tests/requires.rs"]
mod requires;

use requires::Need;
