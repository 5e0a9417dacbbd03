//! A trace of some steps by libtorch's profiler: which operations and kernels ran, when, and for how long. `chrome://tracing`,
//! Perfetto and `bench/gpu_trace.py` read it.
//!
//! Recording takes time itself, so it is done once, and only if it is asked for. Training does not depend on it: whatever goes wrong
//! here is logged, and that is all.

use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::null;

use fovea_core::count::count;
use tch::Device;
use tracing::{info, warn};

use crate::shim::{ShimError, check};

/// Records once. It belongs to the device's thread.
#[derive(Debug)]
pub struct Profile {
    file: PathBuf,
    after: u64,
    steps: u64,
    device: Device,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// So many steps of this generation are done.
    Waits(u64),
    /// So many steps are recorded.
    Records(u64),
    /// Written, or given up.
    Done,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
enum ProfileError {
    #[error(transparent)]
    Libtorch(#[from] ShimError),
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl Profile {
    /// Records `steps` steps of the first generation that takes as many after its first `after` ones, into `file`.
    pub fn new(file: PathBuf, after: u64, steps: u64, device: Device) -> Self {
        Self {
            file,
            after,
            steps,
            device,
            stage: Stage::Waits(0),
        }
    }

    /// A step begins.
    pub(crate) fn begin(&mut self) {
        if self.stage == Stage::Waits(self.after) {
            match self.start() {
                Ok(()) => self.stage = Stage::Records(0),
                Err(error) => self.give_up(&error),
            }
        }
    }

    /// A step is committed.
    pub(crate) fn end(&mut self) {
        match &mut self.stage {
            Stage::Waits(done) => *done += 1,
            Stage::Records(recorded) => {
                *recorded += 1;
                if *recorded == self.steps {
                    self.stage = Stage::Done;
                    match self.write() {
                        Ok(()) => info!(
                            steps = self.steps,
                            file = %self.file.display(),
                            "profile.written: a trace of {} is in {}", count(self.steps, "step", "steps"), self.file.display()
                        ),
                        Err(error) => self.give_up(&error),
                    }
                }
            }
            Stage::Done => {}
        }
    }

    /// The generation is over. What was recorded of it is too short.
    pub(crate) fn leave(&mut self) {
        if let Stage::Records(recorded) = self.stage {
            info!(
                "profile.dropped: training ended after {recorded} of {} to record; the next assignment is recorded",
                count(self.steps, "step", "steps")
            );
            if let Err(error) = stop(None) {
                self.give_up(&error.into());
            }
        }
        if self.stage != Stage::Done {
            self.stage = Stage::Waits(0);
        }
    }

    fn give_up(&mut self, error: &ProfileError) {
        self.stage = Stage::Done;
        warn!("profile.failed: no trace of steps: {error}");
    }

    fn start(&self) -> Result<(), ProfileError> {
        self.wait()?;
        // SAFETY: it takes any value.
        let code = unsafe { fovea_profile_start(self.device.is_cuda()) };
        Ok(check("fovea_profile_start", code)?)
    }

    /// Ends the recording. The file appears when it is whole.
    fn write(&self) -> Result<(), ProfileError> {
        let waited = self.wait();
        let mut part = self.file.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| ProfileError::File { path, source }
        };
        // libtorch says nothing where it cannot write.
        let writable = std::fs::File::create(&part).map_err(at(&part));
        stop(writable.is_ok().then_some(part.as_path()))?;
        writable?;
        waited?;
        std::fs::rename(&part, &self.file).map_err(at(&self.file))
    }

    /// Waits for the GPU, so that all of a step is in the steps that it belongs to.
    fn wait(&self) -> Result<(), ShimError> {
        let Device::Cuda(device) = self.device else {
            return Ok(());
        };
        // SAFETY: libtorch checks the device.
        let code = unsafe { fovea_profile_wait(device as c_int) };
        check("fovea_profile_wait", code)
    }
}

/// Ends the recording of this thread, into `file`.
fn stop(file: Option<&Path>) -> Result<(), ShimError> {
    // A path comes from the system, which allows no zero byte in it.
    let file = file.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
    let name = file.as_ref().map_or(null(), |file| file.as_ptr());
    // SAFETY: null, or a text that ends with a zero byte and lives until the call returns.
    check("fovea_profile_stop", unsafe { fovea_profile_stop(name) })
}

// See `profile.cpp`.
unsafe extern "C" {
    fn fovea_profile_start(gpu: bool) -> c_int;
    fn fovea_profile_stop(file: *const c_char) -> c_int;
    fn fovea_profile_wait(device: c_int) -> c_int;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(file: &Path) -> Profile {
        Profile::new(file.to_owned(), 2, 3, Device::Cpu)
    }

    fn step(profile: &mut Profile) {
        profile.begin();
        let a = tch::Tensor::ones([4, 4], (tch::Kind::Float, Device::Cpu));
        let _ = a.matmul(&a);
        profile.end();
    }

    #[test]
    fn the_steps_after_the_first_ones_are_recorded_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("trace.json");
        let mut profile = profile(&file);
        for _ in 0..4 {
            step(&mut profile);
        }
        // Two of three: begun anew.
        profile.leave();
        for _ in 0..4 {
            step(&mut profile);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        step(&mut profile);
        let trace = std::fs::read(&file).unwrap();
        let trace: serde_json::Value = serde_json::from_slice(&trace).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        let products = events
            .iter()
            .filter(|event| event["name"] == "aten::matmul");
        assert_eq!(products.count(), 3);
        std::fs::remove_file(&file).unwrap();
        for _ in 0..9 {
            step(&mut profile);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn training_goes_on_where_nothing_can_be_written() {
        let mut first = profile(Path::new("/nowhere/trace.json"));
        for _ in 0..9 {
            step(&mut first);
        }
        assert_eq!(first.stage, Stage::Done);
        // The recording has ended: another one can begin.
        let dir = tempfile::tempdir().unwrap();
        let mut second = profile(&dir.path().join("trace.json"));
        for _ in 0..5 {
            step(&mut second);
        }
        assert!(dir.path().join("trace.json").exists());
    }
}
