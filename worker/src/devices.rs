//! The report of `fovea-worker devices`.

use std::fmt::{Display, Write};

use crate::fingerprint::{LIBTORCH, cpu};
use crate::gpu::{Libraries, LibraryError, nvrtc};

/// The libraries and devices that were found, and what is missing, for people.
pub fn report(found: &Libraries) -> String {
    let mut text = String::new();
    let mut row = |name: &str, what: &dyn Display| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<14} {what}");
    };
    let folder = match &found.folder {
        Ok(folder) => folder.display().to_string(),
        Err(error) => error.to_string(),
    };
    row("libtorch", &format!("{LIBTORCH}, {folder}"));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    row(
        "cpu",
        &format!(
            "{}, {}",
            cpu(),
            fovea_core::count::count(threads, "thread", "threads")
        ),
    );
    row(
        "driver",
        &or_reason(&found.driver, |(version, _)| format!("for CUDA {version}")),
    );
    row(
        "libtorch_cuda",
        &or_reason(&found.torch, |count| format!("loaded, sees {count} GPUs")),
    );
    row("cuDNN", &or_reason(&found.cudnn, String::clone));
    row("cuBLAS", &or_reason(&found.cublas, String::clone));
    row("NCCL", &or_reason(&found.nccl, |nccl| nccl.version.clone()));
    row("NVRTC", &or_reason(nvrtc(), |nvrtc| nvrtc.version.clone()));
    if let Ok((_, gpus)) = &found.driver {
        for (number, gpu) in gpus.iter().enumerate() {
            let gib = gpu.bytes as f64 / (1u64 << 30) as f64;
            row(
                &format!("cuda:{number}"),
                &format!("{}, {gib:.0} GiB", gpu.name),
            );
        }
    }
    text
}

fn or_reason<T>(found: &Result<T, LibraryError>, describe: impl Fn(&T) -> String) -> String {
    match found {
        Ok(there) => describe(there),
        Err(error) => format!("missing: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::libraries;

    #[test]
    fn everything_is_there_or_has_its_reason() {
        let found = libraries();
        let report = report(found);
        for row in [
            "libtorch ",
            "cpu ",
            "driver ",
            "libtorch_cuda ",
            "cuDNN ",
            "NCCL ",
            "NVRTC ",
        ] {
            assert!(
                report.lines().any(|line| line.starts_with(row)),
                "{row}: {report}"
            );
        }
        if let Err(error) = &found.driver {
            assert!(report.contains(&error.to_string()), "{report}");
        }
    }
}
