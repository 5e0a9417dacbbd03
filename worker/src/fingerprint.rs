//! What the bits of a run depend on, on this machine.

use fovea_core::checkpoint::Fingerprint;
use fovea_core::spec::{Precision, RunSpec};
use fovea_service::VERSION;

/// The fingerprint of this machine computing `spec` on the CPU.
pub fn fingerprint(spec: &RunSpec) -> Fingerprint {
    Fingerprint {
        device: "cpu".into(),
        cpu: cpu(),
        libtorch: LIBTORCH.into(),
        threads: spec.train.threads,
        precision: match spec.train.precision {
            Precision::Float32 => "float32".into(),
            Precision::Bf16 => "bf16".into(),
        },
        fovea: VERSION.into(),
    }
}

/// Version of libtorch that the program was built with; the loader finds no other by its name.
const LIBTORCH: &str = env!("FOVEA_LIBTORCH_VERSION");

/// CPU model and the vector extensions by which libtorch chooses its kernels.
fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        info.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(':'))
            .map_or("", |(_, value)| value.trim())
            .to_owned()
    };
    let flags = field("flags");
    let kept: Vec<&str> = ["avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16"]
        .into_iter()
        .filter(|f| flags.split(' ').any(|g| g == *f))
        .collect();
    format!("{} ({})", field("model name"), kept.join(" "))
}
