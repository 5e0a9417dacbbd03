//! The fingerprint: everything on this machine that the bits of a run depend on.

use fovea_core::checkpoint::Fingerprint;
use fovea_core::machine::Machine;
use fovea_core::spec::{Precision, RunSpec};
use fovea_service::VERSION;

use crate::gpu;

/// The kind of this machine, for work on `device`. On a GPU its libraries stand where otherwise the CPU does, on which the bits then do
/// not depend. `kernels`: whether runs may use Fovea's own GPU kernels.
pub fn machine(device: tch::Device, kernels: bool) -> Machine {
    let libraries = || {
        let found = gpu::libraries();
        let version = |name: &str, version: Option<&String>| {
            format!("{name} {}", version.map_or("unknown", String::as_str))
        };
        let cudnn = version("cuDNN", found.cudnn.as_ref().ok());
        let cublas = version("cuBLAS", found.cublas.as_ref().ok());
        let cuda = version("driver for CUDA", found.driver.as_ref().ok().map(|d| &d.0));
        format!("{cudnn}, {cublas}, {cuda}")
    };
    let compiler = || match gpu::nvrtc() {
        Ok(nvrtc) => format!("NVRTC {}", nvrtc.version),
        Err(_) => String::new(),
    };
    Machine {
        device: gpu::name(device),
        cpu: match device {
            tch::Device::Cpu => cpu(),
            _ => libraries(),
        },
        libtorch: LIBTORCH.into(),
        kernels: match device.is_cuda() && kernels {
            true => compiler(),
            false => String::new(),
        },
    }
}

/// The fingerprint of `machine` computing `spec` on `device`, which computes the layers by `path`.
pub fn fingerprint(
    machine: &Machine,
    spec: &RunSpec,
    device: tch::Device,
    path: &str,
) -> Fingerprint {
    let Machine {
        device: name,
        cpu,
        libtorch,
        kernels,
    } = machine.clone();
    Fingerprint {
        device: name,
        cpu,
        libtorch,
        threads: spec.train.threads,
        precision: precision(spec.train.precision, device).into(),
        fovea: VERSION.into(),
        kernels,
        path: path.into(),
    }
}

/// The number format in which `device` computes. Until TF32 had a name of its own, `float32` was TF32 on a GPU.
fn precision(precision: Precision, device: tch::Device) -> &'static str {
    match (precision, device) {
        (Precision::Float32 | Precision::Tf32, tch::Device::Cpu) => "float32",
        (Precision::Float32, _) => "float32 without TF32",
        (Precision::Tf32, _) => "tf32",
        (Precision::Bf16, _) => "bf16",
    }
}

/// Version of libtorch that the program was built with; the loader finds no other by its name.
pub const LIBTORCH: &str = env!("FOVEA_LIBTORCH_VERSION");

/// CPU model and the vector extensions by which libtorch chooses its kernels.
pub fn cpu() -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tf32_has_its_name_on_a_gpu_only() {
        let on = |device| {
            [Precision::Float32, Precision::Tf32, Precision::Bf16]
                .map(|which| precision(which, device))
        };
        assert_eq!(on(tch::Device::Cpu), ["float32", "float32", "bf16"]);
        let gpu = tch::Device::Cuda(0);
        assert_eq!(on(gpu), ["float32 without TF32", "tf32", "bf16"]);
    }
}
