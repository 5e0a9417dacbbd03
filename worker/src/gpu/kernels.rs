//! Our own kernels on a GPU: compiled for it, or taken from what was kept, loaded, and launched.

use std::collections::HashMap;
use std::ffi::{CString, c_int};
use std::path::PathBuf;
use std::time::Instant;

use cudarc::driver::result as driver;
use cudarc::driver::sys;
use fovea_kernels::cuda::{Call, Element, names, source};
use tracing::{info, warn};

use super::kept::{Kept, key};
use super::nvrtc::{CompileError, Nvrtc};
use super::{DriverError, GpuError, LibraryError, stream};

/// Why our kernels cannot be used on a GPU.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// NVRTC cannot be loaded.
    #[error("NVRTC: {0}")]
    Library(&'static LibraryError),
    /// NVRTC cannot compile them.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The driver cannot load them.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// The compiler's options for an architecture such as sm_90. Not `--use_fast_math`: divisions and roots are rounded correctly, and
/// small numbers are not taken for zero.
pub(super) fn options(architecture: &str, element: Element) -> Vec<String> {
    vec![
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".into(),
        format!("--define-macro=ELEMENT={}", element.name()),
    ]
}

/// The kernels for one element, loaded on one GPU.
#[derive(Debug)]
pub struct Kernels {
    device: usize,
    compiler: String,
    functions: HashMap<&'static str, sys::CUfunction>,
}

// SAFETY: any thread may use these handles of the driver; the module is never unloaded.
unsafe impl Send for Kernels {}

impl Kernels {
    /// Those for `element` on the GPU `device`, which must be current in this thread. Compiled kernels are kept in
    /// `folder`, and taken from there if the same source was compiled by the same NVRTC for the same architecture.
    ///
    /// # Errors
    /// If NVRTC is missing or cannot compile them, or the driver fails.
    pub fn load(device: usize, element: Element, folder: PathBuf) -> Result<Self, KernelError> {
        let nvrtc = super::nvrtc().as_ref().map_err(KernelError::Library)?;
        let architecture = architecture(device)?;
        let options = options(&architecture, element);
        let text = source();
        let kept = Kept::new(folder);
        let mut parts = vec![text.as_str(), &nvrtc.version];
        parts.extend(options.iter().map(String::as_str));
        let key = key(&parts);
        if let Some(cubin) = kept.get(&key)
            && let Ok(kernels) = Self::of(device, nvrtc, &cubin)
        {
            return Ok(kernels);
        }
        let cubin = compiled(nvrtc, &text, &options, &architecture)?;
        let kernels = Self::of(device, nvrtc, &cubin)?;
        if let Err(error) = kept.put(&key, &cubin) {
            let path = kept.path(&key);
            warn!(
                "gpu.kernels_not_kept: compiled kernels cannot be kept as {}: {error}; they are compiled again at the next \
                 start",
                path.display()
            );
        }
        Ok(kernels)
    }

    /// Loads a cubin.
    fn of(device: usize, nvrtc: &Nvrtc, cubin: &[u8]) -> Result<Self, DriverError> {
        let failed =
            |what: &str| DriverError::named(format!("{what} cannot be loaded on cuda:{device}"));
        // SAFETY: the cubin is a whole one: NVRTC's, or what was kept of one with its digest. The driver copies it.
        let module = unsafe { driver::module::load_data(cubin.as_ptr().cast()) };
        let module = module.map_err(failed("the kernels"))?;
        let mut functions = HashMap::new();
        for name in names() {
            let text = CString::new(name).expect("names have no zeros");
            // SAFETY: the module has just been loaded, and is never unloaded.
            let function = unsafe { driver::module::get_function(module, text) };
            functions.insert(name, function.map_err(failed(name))?);
        }
        Ok(Self {
            device,
            compiler: nvrtc.version.clone(),
            functions,
        })
    }

    /// Version of NVRTC, which compiled them.
    pub fn compiler(&self) -> &str {
        &self.compiler
    }

    /// Queues a launch on the stream in which this thread computes.
    ///
    /// # Safety
    /// The call's addresses must be those of memory on this GPU, as long as its function says; the memory that it writes is
    /// used by nothing that is not ordered with that stream.
    ///
    /// # Errors
    /// If the driver refuses. What fails on the GPU is found by a later call.
    pub unsafe fn launch(&self, call: &Call) -> Result<(), GpuError> {
        if call.is_empty() {
            return Ok(());
        }
        let function = self.functions[call.kernel];
        let stream = stream::current_handle(self.device)?;
        let [[x, y, z], [bx, by, bz]] = [call.grid, call.block];
        call.with_parameters(|parameters| {
            // SAFETY: the function is one of a module that stays loaded, its parameters have the kernel's types (both are
            // in `fovea_kernels::cuda`, where tests compare them), and the caller answers for the addresses.
            unsafe {
                driver::launch_kernel(
                    function,
                    (x, y, z),
                    (bx, by, bz),
                    0,
                    stream.cast(),
                    parameters,
                )
            }
        })
        .map_err(DriverError::named(format!(
            "the kernel {} cannot be launched",
            call.kernel
        )))?;
        Ok(())
    }
}

fn compiled(
    nvrtc: &Nvrtc,
    text: &str,
    options: &[String],
    architecture: &str,
) -> Result<Vec<u8>, CompileError> {
    let begun = Instant::now();
    let cubin = nvrtc.compile(text, options)?;
    let seconds = begun.elapsed().as_secs_f64();
    info!(
        seconds = format!("{seconds:.1}"),
        "gpu.kernels_compiled: NVRTC {} compiled the kernels for {architecture} in {seconds:.1} s",
        nvrtc.version
    );
    Ok(cubin)
}

/// The GPU's architecture, such as sm_90.
fn architecture(device: usize) -> Result<String, DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let unknown = || DriverError::named(format!("the architecture of cuda:{device} is unknown"));
    let gpu = driver::device::get(device as c_int).map_err(unknown())?;
    // SAFETY: the driver has just returned this device.
    let number = |what| unsafe { driver::device::get_attribute(gpu, what) }.map_err(unknown());
    Ok(format!("sm_{}{}", number(MAJOR)?, number(MINOR)?))
}
