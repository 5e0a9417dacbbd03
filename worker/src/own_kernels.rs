//! Whether Fovea's own kernels compute on this worker's GPU.
//!
//! By default they do where a comparison with libtorch has passed on this kind of GPU with these libraries. It is done once for a data
//! folder, in a process of its own (`fovea-worker devices --check`): it sets how libtorch computes, takes memory, and a kernel that
//! fails makes its process's GPU unusable. That it passed is kept in the folder, under a name that says what was compared. Workers that
//! share the folder compare one after the other, so that one comparison does for GPUs of a kind.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use fovea_core::machine::Machine;
use fovea_dataset::make_private;
use fovea_kernels::cuda::source;
use fovea_service::VERSION;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tracing::{info, warn};

use crate::fingerprint;
use crate::gpu;
use crate::gpu::kept::key;

/// Longest time of a comparison. Supervisors give a start four minutes.
const PATIENCE: Duration = Duration::from_secs(180);
/// Longest time for the comparing process to end when it was killed: a driver may hold it for a while.
const ENDS: Duration = Duration::from_secs(10);
/// How often a worker looks whether another one has compared.
const LOOKS: Duration = Duration::from_millis(200);
/// Lines of an unexpected end that are shown.
const LINES: usize = 5;

/// The setting `gpu_kernels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuKernels {
    /// Where the comparison has passed.
    #[default]
    Auto,
    /// Without a comparison.
    On,
    /// Never.
    Off,
}

impl<'de> Deserialize<'de> for GpuKernels {
    /// Versions before this one had true and false.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Setting;
        impl Visitor<'_> for Setting {
            type Value = GpuKernels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("auto, on or off")
            }

            fn visit_bool<E: Error>(self, on: bool) -> Result<GpuKernels, E> {
                Ok(if on { GpuKernels::On } else { GpuKernels::Off })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<GpuKernels, E> {
                match text {
                    "auto" => Ok(GpuKernels::Auto),
                    "on" | "true" => Ok(GpuKernels::On),
                    "off" | "false" => Ok(GpuKernels::Off),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }
        from.deserialize_any(Setting)
    }
}

/// Where compiled kernels and the results of comparisons are kept.
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("kernels")
}

/// Whether runs on `place` use our own kernels. If that is not known yet it takes up to three minutes.
pub async fn used(setting: GpuKernels, place: tch::Device, data_dir: &Path) -> bool {
    let tch::Device::Cuda(number) = place else {
        return false;
    };
    match setting {
        GpuKernels::Off => return false,
        GpuKernels::On => return true,
        GpuKernels::Auto => {}
    }
    if let Err(error) = gpu::nvrtc() {
        warn!(
            "gpu.kernels_missing: Fovea's own kernels cannot be used on cuda:{number}, so runs are computed layer by layer: {error}"
        );
        return false;
    }
    let passed = passed_file(&folder(data_dir), &fingerprint::machine(place, true));
    let begun = Instant::now();
    // Without the folder there is nothing to wait for, either.
    let _turn = turn(&passed).await;
    if passed.exists() {
        return true;
    }
    info!(
        "gpu.kernels_checking: Fovea's own kernels are compared with libtorch's operations on cuda:{number}, once for a kind of GPU and a \
         version; it takes up to three minutes"
    );
    let mut compared = compare(number, data_dir).await;
    // What failed without a comparison may have failed by chance: another process had the GPU's memory, say.
    if let Err(Failed::Unknown(reason)) = &compared
        && begun.elapsed() < PATIENCE / 2
    {
        warn!(
            "gpu.kernels_again: Fovea's own kernels could not be compared on cuda:{number}, which is tried again: {reason}"
        );
        compared = compare(number, data_dir).await;
    }
    match compared {
        Ok(report) => {
            info!(
                "gpu.kernels_checked: Fovea's own kernels compute what libtorch does on cuda:{number}, and are used ({:.0} s)",
                begun.elapsed().as_secs_f64()
            );
            if let Err(error) = keep(&passed, &report) {
                warn!(
                    "gpu.kernels_not_kept: {}: {error}; the next start compares the kernels again",
                    passed.display()
                );
            }
            true
        }
        Err(Failed::Differ(reason) | Failed::Unknown(reason)) => {
            warn!(
                "gpu.kernels_differ: Fovea's own kernels have not passed their comparison on cuda:{number}, so runs are computed layer by \
                 layer; `fovea-worker devices --check` shows all of it: {reason}"
            );
            false
        }
    }
}

/// Why a comparison has not passed.
#[derive(Debug)]
enum Failed {
    /// The kernels compute something else, or cannot be used.
    Differ(String),
    /// It did not come to that.
    Unknown(String),
}

/// Waits until no other worker of this folder compares, for as long as a comparison may take. The file is locked as long as what is
/// returned lives.
async fn turn(passed: &Path) -> io::Result<File> {
    let folder = passed.parent().unwrap_or(Path::new("."));
    make_private(folder)?;
    let file = File::create(passed.with_extension("lock"))?;
    let until = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if !passed.exists() && Instant::now() < until => {
                tokio::time::sleep(LOOKS).await;
            }
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) | Err(TryLockError::WouldBlock) => return Ok(file),
        }
    }
}

/// The file that says that a comparison has passed on `machine`.
fn passed_file(folder: &Path, machine: &Machine) -> PathBuf {
    let Machine {
        device,
        cpu,
        libtorch,
        kernels,
    } = machine;
    let parts = [&device[..], cpu, libtorch, kernels, VERSION, &source()];
    folder.join(format!("{}.passed", key(&parts)))
}

/// The report of a comparison that has passed, or why it has not.
async fn compare(number: usize, data_dir: &Path) -> Result<String, Failed> {
    let unknown = |what: &str, error: io::Error| Failed::Unknown(format!("{what}: {error}"));
    let program = std::env::current_exe().map_err(|e| unknown("the program's path", e))?;
    let mut command = Command::new(program);
    // Of this worker's configuration it needs no more than this: the rest might not even be valid without the worker's flags.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOVEA_") {
            command.env_remove(name);
        }
    }
    command
        .args(["--device", &format!("cuda:{number}"), "--data-dir"])
        .arg(data_dir)
        .args(["--log-level", "warn", "devices", "--check"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|e| unknown("it did not start", e))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let reading = async { tokio::join!(text_of(out), text_of(err), child.wait()) };
    let Ok((report, log, status)) = tokio::time::timeout(PATIENCE, reading).await else {
        // This worker makes its own context on the GPU next: not beside that of a process that is dying.
        let _ = child.start_kill();
        let _ = tokio::time::timeout(ENDS, child.wait()).await;
        let limit = PATIENCE.as_secs();
        return Err(Failed::Unknown(format!("it took longer than {limit} s")));
    };
    let status = status.map_err(|e| unknown("its end", e))?;
    if status.success() {
        return Ok(report);
    }
    let failed: Vec<&str> = report.lines().filter(|l| l.starts_with("FAIL")).collect();
    if !failed.is_empty() {
        return Err(Failed::Differ(failed.join("; ")));
    }
    let lines: Vec<&str> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    Err(Failed::Unknown(format!("{status}: {}", last.join("; "))))
}

/// All that comes through a pipe. What cannot be read is not shown.
async fn text_of(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn keep(file: &Path, report: &str) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    make_private(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(report.as_bytes())?;
    temporary.as_file().sync_all()?;
    temporary.persist(file).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_has_three_values_and_two_old_ones() {
        #[derive(Debug, Deserialize)]
        struct Config {
            gpu_kernels: GpuKernels,
        }
        let read = |text: &str| toml::from_str::<Config>(&format!("gpu_kernels = {text}"));
        for (text, setting) in [
            ("'auto'", GpuKernels::Auto),
            ("'on'", GpuKernels::On),
            ("'off'", GpuKernels::Off),
            ("true", GpuKernels::On),
            ("false", GpuKernels::Off),
        ] {
            assert_eq!(read(text).unwrap().gpu_kernels, setting, "{text}");
        }
        for text in ["'yes'", "1"] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains("expected auto, on or off"), "{error}");
        }
    }

    #[test]
    fn a_comparison_counts_for_the_machine_that_it_was_of() {
        let machine = Machine {
            device: "NVIDIA H100".into(),
            cpu: "cuDNN 9.1".into(),
            libtorch: "2.11.0".into(),
            kernels: "NVRTC 13.0".into(),
        };
        let file = |machine: &Machine| passed_file(Path::new("data/kernels"), machine);
        let of_this = file(&machine);
        assert_eq!(of_this, file(&machine.clone()));
        let changes: [fn(&mut Machine); 4] = [
            |m| m.device.push('!'),
            |m| m.cpu.push('!'),
            |m| m.libtorch.push('!'),
            |m| m.kernels.push('!'),
        ];
        for change in changes {
            let mut other = machine.clone();
            change(&mut other);
            assert_ne!(of_this, file(&other), "{other:?}");
        }
    }

    #[tokio::test]
    async fn nothing_is_compared_without_a_gpu_or_a_wish() {
        let (cpu, gpu) = (tch::Device::Cpu, tch::Device::Cuda(0));
        let nowhere = Path::new("/nonexistent");
        for setting in [GpuKernels::Auto, GpuKernels::On, GpuKernels::Off] {
            assert!(!used(setting, cpu, nowhere).await);
        }
        assert!(!used(GpuKernels::Off, gpu, nowhere).await);
        assert!(used(GpuKernels::On, gpu, nowhere).await);
    }
}
