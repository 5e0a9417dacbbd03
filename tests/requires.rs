//! What a test needs from the machine, found out when the test is built. Every crate's `build.rs` that has such tests
//! includes this file (`#[path = "../tests/requires.rs"] mod requires;`).
//!
//! A test that needs something says so, and is reported as ignored with the reason where it is absent:
//!
//! ```text
//! #[cfg_attr(not(has_shared), ignore = "needs ../shared: real photographs and weights")]
//! #[test]
//! fn the_published_weights_are_read() { ... }
//! ```
//!
//! `FOVEA_REQUIRE=shared,netns` (a list of names) says what must be there: such tests are then never ignored, and fail
//! where what they need is absent. A test must therefore not return early: whatever is missing makes it panic.
//!
//! | name     | what it means                                                     |
//! |----------|-------------------------------------------------------------------|
//! | `shared` | the folder ../shared beside the repository                        |
//! | `netns`  | network namespaces and bridges can be made (root, iproute2)       |
//! | `mount`  | a tmpfs can be mounted (root, and not a container without rights) |
//! | `root`   | the tests run as root, with `setpriv` of util-linux               |
//! | `manifests` | .deploy-tools (`make deploy-tools`) and systemd-analyze, for the files of deploy/ |
//! | `s3`     | .s3-server (`make s3-server`): SeaweedFS, for the object store    |
//! | `models` | .model-tools (`make model-tools`): ONNX Runtime and OpenCV, for exported models; TensorBoard, for event files; what python/ needs |
//! | `torch`  | PyTorch in that Python: `.model-tools/bin/pip install torch`, or a folder in PYTHONPATH |
//! | `prometheus` | `prometheus` and `promtool` (Debian: `prometheus`), for metrics, alerts and the dashboard |
//! | `axe`    | .page-tools (`make page-tools`), axe-core, and Chromium, to look for barriers in the dashboard's pages |
//! | `nvrtc`  | .cuda-tools (`make cuda-tools`): NVRTC, which compiles kernels for GPUs |
//! | `gpu`    | an NVIDIA GPU with its driver                                     |
//! | `avx2`   | a processor with AVX2                                             |
//! | `browser` | Chromium (`chromium` of Debian), to look at reports            |
//! | `openssl` | the command `openssl`, another implementation of TLS           |
//! | `noamx`  | a processor without AMX for bf16, which is faster than our kernel |

// Each build script uses its own part of this.
#![allow(dead_code)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Something that tests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Shared,
    Netns,
    Mount,
    Root,
    Manifests,
    S3,
    Models,
    Torch,
    Nvrtc,
    Gpu,
    Avx2,
    NoAmx,
    Openssl,
    Browser,
    Prometheus,
    Axe,
}

impl Need {
    const ALL: [Self; 16] = [
        Self::Shared,
        Self::Netns,
        Self::Mount,
        Self::Root,
        Self::Manifests,
        Self::S3,
        Self::Models,
        Self::Torch,
        Self::Nvrtc,
        Self::Gpu,
        Self::Avx2,
        Self::NoAmx,
        Self::Openssl,
        Self::Browser,
        Self::Prometheus,
        Self::Axe,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Netns => "netns",
            Self::Mount => "mount",
            Self::Root => "root",
            Self::Manifests => "manifests",
            Self::S3 => "s3",
            Self::Models => "models",
            Self::Torch => "torch",
            Self::Nvrtc => "nvrtc",
            Self::Gpu => "gpu",
            Self::Avx2 => "avx2",
            Self::NoAmx => "noamx",
            Self::Openssl => "openssl",
            Self::Browser => "browser",
            Self::Prometheus => "prometheus",
            Self::Axe => "axe",
        }
    }

    fn is_there(self) -> bool {
        match self {
            Self::Shared => shared().is_dir(),
            Self::Netns => {
                let name = format!("fovea-probe-{}", std::process::id());
                // In a mount namespace of its own: the list of namespaces of the machine does not change.
                let script = format!(
                    "ip netns add {name} && ip -n {name} link add probe type bridge; code=$?; \
                     ip netns delete {name}; exit $code"
                );
                succeeds("unshare", &["--mount", "--net", "sh", "-c", &script])
            }
            Self::Mount => {
                let script = "mount -t tmpfs -o size=64k fovea-probe /tmp";
                succeeds("unshare", &["--mount", "sh", "-c", script])
            }
            Self::Root => succeeds("setpriv", &["--reuid", "65534", "--clear-groups", "true"]),
            Self::Manifests => {
                stamp("deploy-tools").is_file() && succeeds("systemd-analyze", &["--version"])
            }
            Self::S3 => stamp("s3-server").is_file(),
            Self::Models => stamp("model-tools").is_file(),
            Self::Torch => {
                let python = stamp("model-tools").with_file_name("bin/python");
                succeeds(&python.to_string_lossy(), &["-c", "import torch"])
            }
            Self::Nvrtc => stamp("cuda-tools").is_file(),
            Self::Gpu => succeeds("nvidia-smi", &["-L"]),
            Self::Openssl => succeeds("openssl", &["version"]),
            Self::Browser => succeeds("chromium", &["--version"]),
            Self::Axe => stamp("page-tools").is_file() && Self::Browser.is_there(),
            Self::Prometheus => {
                succeeds("prometheus", &["--version"]) && succeeds("promtool", &["--version"])
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::arch::is_x86_feature_detected!("avx2"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 => false,
            Self::NoAmx => {
                let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
                !info.contains("amx_bf16")
            }
        }
    }
}

/// Sets `has_NAME` for each of `needs` that is there or is required.
///
/// # Panics
/// If `FOVEA_REQUIRE` holds an unknown name.
pub fn emit(needs: &[Need]) {
    println!("cargo::rerun-if-changed=../tests/requires.rs");
    println!("cargo::rerun-if-env-changed=FOVEA_REQUIRE");
    // Root's build is not taken for a user's.
    println!("cargo::rerun-if-env-changed=USER");
    let required = env::var("FOVEA_REQUIRE").unwrap_or_default();
    let required: Vec<&str> = required
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    for name in &required {
        assert!(
            Need::ALL.iter().any(|need| need.name() == *name),
            "FOVEA_REQUIRE names {name:?}; use {}",
            Need::ALL.map(Need::name).join(", ")
        );
    }
    for need in needs {
        let name = need.name();
        println!("cargo::rustc-check-cfg=cfg(has_{name})");
        let there = need.is_there();
        if there || required.contains(&name) {
            println!("cargo::rustc-cfg=has_{name}");
        }
        // A path that is absent would make cargo build the crate anew each time. So a folder that comes later is not
        // noticed before something else changes; the ignored test says what it looked for.
        if there && *need == Need::Shared {
            println!(
                "cargo::rerun-if-changed={}",
                shared().join("weights").display()
            );
        }
        let stamped = match need {
            Need::Manifests => Some(stamp("deploy-tools")),
            Need::S3 => Some(stamp("s3-server")),
            Need::Models => Some(stamp("model-tools")),
            Need::Nvrtc => Some(stamp("cuda-tools")),
            Need::Axe => Some(stamp("page-tools")),
            _ => None,
        };
        if let Some(stamp) = stamped.filter(|_| there) {
            println!("cargo::rerun-if-changed={}", stamp.display());
        }
    }
}

/// The file that is written when `make NAME` has fetched its tools.
fn stamp(name: &str) -> PathBuf {
    let crate_folder = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    Path::new(&crate_folder).join(format!("../.{name}/stamp"))
}

/// The folder beside the repository; build scripts run in their crate's folder, one below the repository's.
fn shared() -> PathBuf {
    let crate_folder = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    Path::new(&crate_folder).join("../../shared")
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
