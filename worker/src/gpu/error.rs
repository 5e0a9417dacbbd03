//! Why a GPU, or a library that it needs, cannot be used.
//!
//! [`LibraryError`] belongs to the search at the start of the worker, [`SettingError`] to the setting `device`, and
//! [`GpuError`] to calls of the driver, of libtorch and of NCCL while the worker trains.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cudarc::driver::result as driver;

use super::nccl::ID_BYTES;
use crate::shim::ShimError;

/// Why one of the libraries of a machine is not loaded. `fovea-worker devices` prints its text behind "missing: ".
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The list of this process's libraries cannot be read.
    #[error("the loaded libraries are not known: cannot read /proc/self/maps: {0}")]
    Maps(io::Error),
    /// libtorch's CPU library is linked under another name.
    #[error("libtorch_cpu.so is not among the loaded libraries")]
    TorchNotLinked,
    /// The driver's library cannot be loaded.
    #[error("no NVIDIA driver on this machine ({0})")]
    NoDriver(OpenError),
    /// The driver's library can be loaded, but cudarc does not find it by the names that it tries.
    #[error("libcuda.so.1 is there, but cannot be used")]
    UnusableDriver,
    /// A call of the driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// Without a driver libtorch's CUDA library would only cost time and memory.
    #[error("not loaded, as there is no driver")]
    NeedsDriver,
    /// libtorch's CUDA library is searched for in libtorch's folder.
    #[error("not loaded, as the folder of libtorch is not known")]
    NeedsFolder,
    /// cuDNN, NCCL and NVRTC are used only beside libtorch's CUDA part.
    #[error("not loaded, as libtorch has no CUDA here")]
    NeedsCuda,
    /// libtorch is here without its CUDA library.
    #[error("{} is not there: this libtorch is for CPUs only", path.display())]
    CpuOnly {
        /// Where the CUDA library would be.
        path: PathBuf,
    },
    /// libtorch's CUDA library cannot be loaded.
    #[error("{0} (a PyTorch installed with its CUDA libraries has all that is needed)")]
    Torch(OpenError),
    /// libtorch's CUDA library finds no GPU.
    #[error("{} is loaded, but sees no GPU: is the driver too old for it?", path.display())]
    NoGpu {
        /// The CUDA library.
        path: PathBuf,
    },
    /// Another library cannot be loaded, or lacks a function.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// NCCL's library does not report its version.
    #[error("ncclGetVersion failed with error {code}")]
    NcclVersion {
        /// NCCL's number for the error.
        code: u32,
    },
    /// NVRTC's library does not report its version.
    #[error("nvrtcVersion failed with error {code}")]
    NvrtcVersion {
        /// NVRTC's number for the error.
        code: i32,
    },
}

/// A library cannot be loaded, or lacks a function. The text is that of the dynamic loader, which names the library.
#[derive(Debug, thiserror::Error)]
#[error("{}", loader_text(.0))]
pub struct OpenError(pub libloading::Error);

/// The loader's text is in the source of libloading's error, whose own text names only the call that failed.
fn loader_text(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

/// Why the device that the setting `device` names cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// The setting names no device.
    #[error("device: {setting:?} is not a device; use \"auto\", \"cpu\" or \"cuda:N\"")]
    Unknown {
        /// The setting.
        setting: String,
    },
    /// There are fewer GPUs.
    #[error(
        "device: there is no {setting:?}; libtorch sees {count} GPUs (fovea-worker devices lists them)"
    )]
    NoSuchGpu {
        /// The setting.
        setting: String,
        /// How many GPUs libtorch sees.
        count: usize,
    },
    /// libtorch's CUDA library is not loaded.
    #[error(
        "device: {setting:?} cannot be used: libtorch's CUDA library: {reason} (fovea-worker devices gives details)"
    )]
    NoCuda {
        /// The setting.
        setting: String,
        /// Text of the [`LibraryError`] of libtorch's CUDA library.
        reason: String,
    },
}

/// A call of CUDA's driver failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{failure}: {error}")]
pub struct DriverError {
    /// What failed, such as "cuda:1 cannot be used".
    pub failure: String,
    /// The driver's error.
    pub error: driver::DriverError,
}

impl DriverError {
    /// Turns the driver's error into one that says what failed.
    pub(super) fn named<F: Into<String>>(failure: F) -> impl FnOnce(driver::DriverError) -> Self {
        move |error| Self {
            failure: failure.into(),
            error,
        }
    }
}

/// A call on a GPU, or between GPUs, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// A call of CUDA's driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// A call of libtorch failed.
    #[error(transparent)]
    Torch(#[from] ShimError),
    /// The calling thread has no current GPU, see [`super::make_current`].
    #[error("no GPU is current in this thread")]
    NoContext,
    /// A call of NCCL failed, or one that NCCL executes in the background.
    #[error("NCCL: {call}: {reason}")]
    Nccl {
        /// What NCCL was asked for.
        call: NcclCall,
        /// NCCL's text.
        reason: String,
    },
    /// NCCL did not complete a call in time.
    #[error("NCCL: {call}: not done within {deadline:?}")]
    NcclTimeout {
        /// What NCCL was asked for.
        call: NcclCall,
        /// How long this worker waited.
        deadline: Duration,
    },
    /// The GPU did not complete a reduction in time, as a peer sent nothing or the GPU hangs.
    #[error("the reduction did not end within {deadline:?}")]
    ReductionTimeout {
        /// How long this worker waited.
        deadline: Duration,
    },
    /// An id of a communicator has another length than NCCL's ids.
    #[error("the communicator's id has {bytes} bytes; NCCL's ids have {ID_BYTES}")]
    BadId {
        /// Its length.
        bytes: usize,
    },
    /// The communicator was aborted.
    #[error("the communicator was aborted")]
    Aborted,
}

/// What NCCL is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NcclCall {
    /// A new id for a communicator.
    UniqueId,
    /// Connecting a communicator.
    Connect,
    /// A group of sends, receives, broadcasts or sums.
    Reduce,
}

impl std::fmt::Display for NcclCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UniqueId => "making a unique id",
            Self::Connect => "connecting",
            Self::Reduce => "reducing",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::open;
    use super::*;

    #[test]
    fn texts_say_what_failed_and_why() {
        let open = || open("libfovea-none.so.9").unwrap_err();
        let loader = open().to_string();
        assert_eq!(
            LibraryError::NoDriver(open()).to_string(),
            format!("no NVIDIA driver on this machine ({loader})")
        );
        assert_eq!(LibraryError::from(open()).to_string(), loader);
        let path = PathBuf::from("/torch/libtorch_cuda.so");
        assert_eq!(
            LibraryError::CpuOnly { path }.to_string(),
            "/torch/libtorch_cuda.so is not there: this libtorch is for CPUs only"
        );
        let (call, deadline) = (NcclCall::Connect, Duration::from_secs(2));
        assert_eq!(
            GpuError::NcclTimeout { call, deadline }.to_string(),
            "NCCL: connecting: not done within 2s"
        );
        let shim = ShimError {
            call: "fovea_event_done",
            reason: "CUDA error".into(),
        };
        assert_eq!(
            GpuError::from(shim).to_string(),
            "fovea_event_done failed: CUDA error"
        );
    }
}
