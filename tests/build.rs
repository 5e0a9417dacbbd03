//! Builds the software GPU (`soft_gpu/`): the libraries that the worker loads at run time where there is a GPU.
//! Finds out what the tests' machine lets them do (`requires.rs`).

use std::env;
use std::path::{Path, PathBuf};

mod requires;

use requires::Need;

/// Each library and its sources.
const LIBRARIES: [(&str, &[&str]); 4] = [
    ("libcuda.so.1", &["driver.cpp", "memory.cpp", "launch.cpp"]),
    ("libnvrtc.so.13", &["nvrtc.cpp"]),
    ("libnccl.so.2", &["nccl.cpp"]),
    ("libtorch_cuda.so", &["torch.cpp"]),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=soft_gpu");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-changed=../kernels/cuda/emulation.h");
    requires::emit(&[
        Need::Shared,
        Need::Netns,
        Need::Mount,
        Need::Root,
        Need::Manifests,
        Need::Gpu,
        Need::Models,
        Need::Torch,
        Need::Prometheus,
    ]);
    let variable = |name: &str| env::var_os(name).map(PathBuf::from);
    let root = variable("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let out = variable("OUT_DIR").expect("cargo sets OUT_DIR");
    let libtorch = variable("LIBTORCH").unwrap_or_else(|| root.join("../.libtorch/link"));
    for (library, sources) in LIBRARIES {
        let sources = sources.iter().map(|name| root.join("soft_gpu").join(name));
        link(
            &out.join(library),
            &sources.collect::<Vec<_>>(),
            &libtorch.join("include"),
        );
    }
    println!("cargo::rustc-env=FOVEA_SOFT_GPU={}", out.display());
}

/// Tells the software compiler where the header is that makes kernels C++.
fn emulation() -> String {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    format!("-DSOFT_GPU_EMULATION=\"'{root}/../kernels/cuda/emulation.h'\"")
}

/// Compiles `sources` into the shared library `to`.
fn link(to: &Path, sources: &[PathBuf], libtorch: &Path) {
    let name = to.file_name().expect("a library has a name");
    let mut soname = std::ffi::OsString::from("-Wl,-soname,");
    soname.push(name);
    let mut compiler = cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .opt_level(1)
        .get_compiler()
        .to_command();
    compiler
        .args(["-shared", "-Wall", "-Wextra", "-D_GLIBCXX_USE_CXX11_ABI=1"])
        .arg(emulation())
        .arg(soname)
        .arg("-isystem")
        .arg(libtorch)
        .arg("-isystem")
        .arg(libtorch.join("torch/csrc/api/include"))
        .arg("-o")
        .arg(to)
        .args(sources)
        .args(["-pthread", "-ldl"]);
    let status = compiler.status();
    assert!(
        status.as_ref().is_ok_and(|status| status.success()),
        "{compiler:?}: {status:?}"
    );
}
