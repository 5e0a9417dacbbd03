//! CUDA on this machine, found and loaded when the worker starts.
//!
//! The program is linked against the CPU part of libtorch only, so that one binary runs on every machine. On a machine
//! with a driver the worker loads `libtorch_cuda.so` from libtorch's own folder before it makes the first tensor; only
//! then does libtorch see the GPUs. NCCL comes from the wheel beside libtorch, or from the system. A library that is
//! missing is reported with the reason; it never ends the worker.

pub mod communicator;
mod error;
pub(crate) mod kept;
pub mod kernels;
pub mod nccl;
pub mod nvrtc;
pub mod stream;

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::driver::{result as driver, sys};
use libloading::AsFilename;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tracing::info;

pub use error::{DriverError, GpuError, LibraryError, NcclCall, OpenError, SettingError};

/// A GPU as the driver reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its model, such as "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// Its memory in bytes.
    pub bytes: usize,
}

/// The libraries of this machine, each with its description or the reason why it is missing.
#[derive(Debug)]
pub struct Libraries {
    /// Folder of libtorch's libraries.
    pub folder: Result<PathBuf, LibraryError>,
    /// CUDA version that the driver supports, such as 13.0, and its GPUs.
    pub driver: Result<(String, Vec<Gpu>), LibraryError>,
    /// Number of GPUs that libtorch sees, once `libtorch_cuda.so` is loaded.
    pub torch: Result<usize, LibraryError>,
    /// cuDNN's version.
    pub cudnn: Result<String, LibraryError>,
    /// cuBLAS's version.
    pub cublas: Result<String, LibraryError>,
    /// NCCL.
    pub nccl: Result<nccl::Api, LibraryError>,
}

/// Finds and loads the libraries at the first call; later calls return the same. The first call must come before the
/// first tensor is made.
pub fn libraries() -> &'static Libraries {
    static LIBRARIES: OnceLock<Libraries> = OnceLock::new();
    LIBRARIES.get_or_init(|| {
        let folder = torch_folder();
        let driver = find_driver();
        let torch = match (&driver, &folder) {
            (Err(_), _) => Err(LibraryError::NeedsDriver),
            (Ok(_), Err(_)) => Err(LibraryError::NeedsFolder),
            (Ok(_), Ok(folder)) => load_torch(folder),
        };
        let cudnn = match &torch {
            Ok(_) => cudnn_version(),
            Err(_) => Err(LibraryError::NeedsCuda),
        };
        let cublas = match &torch {
            Ok(_) => cublas_version(),
            Err(_) => Err(LibraryError::NeedsCuda),
        };
        let nccl = match (&torch, &folder) {
            (Ok(_), Ok(folder)) => nccl::Api::load(folder),
            (Err(_), _) | (_, Err(_)) => Err(LibraryError::NeedsCuda),
        };
        Libraries {
            folder,
            driver,
            torch,
            cudnn,
            cublas,
            nccl,
        }
    })
}

/// NVRTC, loaded at the first call. Nothing but our own kernels needs it, and it is large.
pub fn nvrtc() -> &'static Result<nvrtc::Nvrtc, LibraryError> {
    static NVRTC: OnceLock<Result<nvrtc::Nvrtc, LibraryError>> = OnceLock::new();
    NVRTC.get_or_init(|| match (&libraries().torch, &libraries().folder) {
        (Ok(_), Ok(folder)) => nvrtc::Nvrtc::load(folder),
        (Err(_), _) | (_, Err(_)) => Err(LibraryError::NeedsCuda),
    })
}

/// The device that the setting `device` names: `auto`, `cpu` or `cuda:N`. With `auto` worker `local_rank` of the machine
/// gets GPU `local_rank` modulo the number of GPUs, or the CPU where there is no GPU.
///
/// # Errors
/// If the setting names no device, or one that is not there.
pub fn choose(setting: &str, local_rank: usize) -> Result<tch::Device, SettingError> {
    choose_from(setting, local_rank, &|| &libraries().torch)
}

fn choose_from<'a>(
    setting: &str,
    local_rank: usize,
    torch: &dyn Fn() -> &'a Result<usize, LibraryError>,
) -> Result<tch::Device, SettingError> {
    let number = match setting {
        "cpu" => return Ok(tch::Device::Cpu),
        "auto" => {
            return Ok(match torch() {
                Ok(count) if *count > 0 => tch::Device::Cuda(local_rank % count),
                Ok(_) | Err(_) => tch::Device::Cpu,
            });
        }
        _ => setting.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
    };
    let setting = setting.to_owned();
    let Some(number) = number else {
        return Err(SettingError::Unknown { setting });
    };
    match torch() {
        Ok(count) if number < *count => Ok(tch::Device::Cuda(number)),
        Ok(count) => Err(SettingError::NoSuchGpu {
            setting,
            count: *count,
        }),
        Err(error) => Err(SettingError::NoCuda {
            setting,
            reason: error.to_string(),
        }),
    }
}

/// Name of a device: `cpu`, or the GPU's model.
pub fn name(device: tch::Device) -> String {
    let tch::Device::Cuda(number) = device else {
        return "cpu".into();
    };
    let gpus = libraries()
        .driver
        .as_ref()
        .map(|(_, gpus)| gpus.get(number));
    match gpus {
        Ok(Some(gpu)) => gpu.name.clone(),
        Ok(None) | Err(_) => format!("cuda:{number}"),
    }
}

/// Makes a GPU current in this thread; does nothing for a CPU. NCCL uses the current GPU; libtorch names the device in
/// every call.
///
/// # Errors
/// If the driver refuses.
pub fn make_current(device: tch::Device) -> Result<(), DriverError> {
    let tch::Device::Cuda(number) = device else {
        return Ok(());
    };
    let made = driver::device::get(number as c_int).and_then(|gpu| {
        // SAFETY: the driver has just returned this device; nobody releases its primary context.
        unsafe { driver::ctx::set_current(driver::primary_ctx::retain(gpu)?) }
    });
    made.map_err(DriverError::named(format!("cuda:{number} cannot be used")))
}

/// The driver's context of a GPU, which other threads can enter.
#[derive(Debug, Clone, Copy)]
pub struct GpuContext(sys::CUcontext);

// SAFETY: any thread may use this handle of the driver; nobody releases the context.
unsafe impl Send for GpuContext {}

impl GpuContext {
    /// The context of the calling thread, see [`make_current`].
    ///
    /// # Errors
    /// If the driver fails, or if no GPU is current in this thread.
    pub fn current() -> Result<Self, GpuError> {
        driver::ctx::get_current()
            .map_err(DriverError::named("the GPU's context cannot be read"))?
            .map(Self)
            .ok_or(GpuError::NoContext)
    }

    /// Makes it the context of the calling thread.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn enter(self) -> Result<(), DriverError> {
        // SAFETY: nobody releases the context.
        unsafe { driver::ctx::set_current(self.0) }
            .map_err(DriverError::named("the GPU's context cannot be set"))
    }
}

/// A GPU's unique name: the machine's name for NCCL (NCCL_HOSTID, or nothing) and the GPU's UUID. NCCL refuses two ranks
/// on one GPU, unless NCCL_HOSTID makes it take them for two machines.
///
/// # Errors
/// If the driver does not return the UUID.
pub fn unique_name(device: usize) -> Result<String, DriverError> {
    let machine = std::env::var("NCCL_HOSTID").unwrap_or_default();
    Ok(format!("{machine}/{}", hex::encode(uuid_bytes(device)?)))
}

/// UUID of a GPU as nvidia-smi writes it: "GPU-", then 32 hexadecimal digits in five groups. None for a CPU.
///
/// # Errors
/// If the driver does not return it.
pub fn uuid(device: tch::Device) -> Result<Option<String>, DriverError> {
    match device {
        tch::Device::Cuda(number) => Ok(Some(uuid_text(uuid_bytes(number)?))),
        _ => Ok(None),
    }
}

fn uuid_bytes(device: usize) -> Result<[u8; 16], DriverError> {
    let uuid = driver::device::get(device as c_int).and_then(driver::device::get_uuid);
    let uuid = uuid.map_err(DriverError::named(format!(
        "the UUID of cuda:{device} cannot be read"
    )))?;
    Ok(uuid.bytes.map(|byte| byte as u8))
}

fn uuid_text(bytes: [u8; 16]) -> String {
    let groups = [0..4, 4..6, 6..8, 8..10, 10..16].map(|range| hex::encode(&bytes[range]));
    format!("GPU-{}", groups.join("-"))
}

/// The memory of `device`, if that is a GPU: all of it, and what is free. It takes a moment, because the process's context
/// on the GPU is made for it.
///
/// # Errors
/// If the driver refuses.
pub fn memory(device: tch::Device) -> Result<Option<crate::memory::Gpu>, DriverError> {
    if !device.is_cuda() {
        return Ok(None);
    }
    make_current(device)?;
    let (free, total) =
        driver::mem_get_info().map_err(DriverError::named("the GPU's memory cannot be read"))?;
    Ok(Some(crate::memory::Gpu {
        total: total as u64,
        free: free as u64,
    }))
}

/// Free bytes of the current GPU's memory, or None if the driver does not return them.
pub fn free_bytes() -> Option<u64> {
    driver::mem_get_info().ok().map(|(free, _)| free as u64)
}

/// Bytes of a GPU's memory for activations and for images, at most those that are wanted. Each gets up to a third of the
/// `free` bytes, because training needs the rest. Logs a limit that takes effect.
pub fn budgets(free: Option<u64>, activations: u64, images: u64) -> (u64, u64) {
    let most = free.unwrap_or(0) / 3;
    let within = |what: &str, wanted: u64| {
        if wanted > most {
            let mib = |bytes: u64| bytes >> 20;
            info!(
                wanted_mib = mib(wanted),
                mib = mib(most),
                "gpu.memory_limited: {what} get {} MiB of the {} MiB wanted; what does not fit is computed or sent again",
                mib(most),
                mib(wanted)
            );
        }
        wanted.min(most)
    };
    (
        within("activations (cache_mib)", activations),
        within("images (images_mib)", images),
    )
}

/// NCCL and the GPU's number, if `device` is a GPU and NCCL is loaded.
pub fn nccl_for(device: tch::Device) -> Option<(&'static nccl::Api, usize)> {
    match device {
        tch::Device::Cuda(number) => libraries().nccl.as_ref().ok().map(|api| (api, number)),
        _ => None,
    }
}

/// Folder of the libtorch that this process has loaded.
fn torch_folder() -> Result<PathBuf, LibraryError> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(LibraryError::Maps)?;
    let path = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| &line[at..]))
        .find(|path| path.ends_with("/libtorch_cpu.so"));
    let folder = path.and_then(|path| Path::new(path).parent());
    folder
        .map(Path::to_owned)
        .ok_or(LibraryError::TorchNotLinked)
}

fn find_driver() -> Result<(String, Vec<Gpu>), LibraryError> {
    // The driver installs this name. The name without a version belongs to the CUDA toolkit, which is not needed.
    open("libcuda.so.1").map_err(LibraryError::NoDriver)?;
    // SAFETY: it loads libcuda by the names that cudarc tries; the library is loaded already.
    if !unsafe { sys::is_culib_present() } {
        return Err(LibraryError::UnusableDriver);
    }
    driver::init().map_err(DriverError::named("the driver does not start"))?;
    let mut version: c_int = 0;
    // SAFETY: it writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(DriverError::named("the driver's version cannot be read"))?;
    let count = driver::device::get_count()
        .map_err(DriverError::named("the number of GPUs cannot be read"))?;
    let gpus: Vec<Gpu> = (0..count).map(describe).collect::<Result<_, _>>()?;
    Ok((format!("{}.{}", version / 1000, version % 1000 / 10), gpus))
}

fn describe(number: c_int) -> Result<Gpu, DriverError> {
    let unknown =
        |what: &str| DriverError::named(format!("the {what} of cuda:{number} is unknown"));
    let device = driver::device::get(number).map_err(unknown("handle"))?;
    Ok(Gpu {
        name: driver::device::get_name(device).map_err(unknown("name"))?,
        // SAFETY: the driver has just returned this device.
        bytes: unsafe { driver::device::total_mem(device) }.map_err(unknown("memory"))?,
    })
}

fn load_torch(folder: &Path) -> Result<usize, LibraryError> {
    let path = folder.join("libtorch_cuda.so");
    if !path.exists() {
        return Err(LibraryError::CpuOnly { path });
    }
    open(&path).map_err(LibraryError::Torch)?;
    match tch::Cuda::device_count() {
        count if count > 0 => Ok(count as usize),
        _ => Err(LibraryError::NoGpu { path }),
    }
}

fn cudnn_version() -> Result<String, LibraryError> {
    let library = open("libcudnn.so.9")?;
    // SAFETY: cuDNN's function of that name takes nothing and returns a size_t.
    let version: usize = unsafe {
        let function = library.get::<unsafe extern "C" fn() -> usize>(b"cudnnGetVersion");
        function.map_err(OpenError)?()
    };
    let (major, rest) = (version / 10_000, version % 10_000);
    Ok(format!("{major}.{}.{}", rest / 100, rest % 100))
}

/// The version of the cuBLAS that libtorch has loaded.
fn cublas_version() -> Result<String, LibraryError> {
    let library = open("libcublas.so.13").or_else(|_| open("libcublas.so.12"))?;
    let part = |which: c_int| {
        let mut value: c_int = 0;
        // SAFETY: cuBLAS's function of that name takes the number of a property and writes one number.
        let status = unsafe {
            let function = library
                .get::<unsafe extern "C" fn(c_int, *mut c_int) -> c_int>(b"cublasGetProperty");
            function.map_err(OpenError)?(which, &mut value)
        };
        Ok::<_, LibraryError>(match status {
            0 => value.to_string(),
            _ => "?".to_owned(),
        })
    };
    Ok(format!("{}.{}.{}", part(0)?, part(1)?, part(2)?))
}

/// Loads a library for the whole process; it is never unloaded. A bare name also finds a library that is loaded already.
fn open(name: impl AsFilename) -> Result<&'static Library, OpenError> {
    // SAFETY: the initialisers of the libraries of CUDA and libtorch may run at any time before the libraries are used.
    let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) };
    library
        .map(|library| &*Box::leak(Box::new(library)))
        .map_err(OpenError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_devices_and_what_is_missing() {
        let two = Ok(2);
        let none = Err(LibraryError::NeedsDriver);
        for (setting, local_rank, torch, device) in [
            ("cpu", 0, &two, tch::Device::Cpu),
            ("auto", 0, &two, tch::Device::Cuda(0)),
            ("auto", 1, &two, tch::Device::Cuda(1)),
            ("auto", 2, &two, tch::Device::Cuda(0)),
            ("auto", 1, &none, tch::Device::Cpu),
            ("cuda:1", 0, &two, tch::Device::Cuda(1)),
        ] {
            let chosen = choose_from(setting, local_rank, &|| torch);
            assert_eq!(chosen, Ok(device), "{setting}, {local_rank}");
        }
        for (setting, torch, said) in [
            ("cuda:2", &two, "sees 2 GPUs"),
            ("cuda:0", &none, "no driver"),
            ("cuda", &two, "cuda:N"),
            ("cuda:-1", &two, "cuda:N"),
            ("gpu", &two, "cuda:N"),
        ] {
            let error = choose_from(setting, 0, &|| torch).unwrap_err();
            assert!(error.to_string().contains(said), "{setting}: {error}");
        }
    }

    #[test]
    fn a_uuid_is_written_as_by_nvidia_smi() {
        let bytes = std::array::from_fn(|i| 0x10 + i as u8);
        let text = "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f";
        assert_eq!(uuid_text(bytes), text);
        assert_eq!(uuid(tch::Device::Cpu).unwrap(), None);
    }

    #[test]
    fn activations_and_images_leave_memory_for_training() {
        assert_eq!(budgets(Some(300), 20, 80), (20, 80));
        assert_eq!(budgets(Some(90), 20, 80), (20, 30));
        assert_eq!(budgets(Some(30), 20, 80), (10, 10));
        assert_eq!(budgets(None, 20, 80), (0, 0));
    }

    #[test]
    fn a_library_that_cannot_be_loaded_is_named_with_the_reason() {
        let problem = open("libfovea-none.so.9").unwrap_err().to_string();
        assert!(problem.contains("libfovea-none.so.9"), "{problem}");
        assert!(problem.contains("No such file"), "{problem}");
    }

    /// On a machine with a GPU everything is there; on any other each missing library has its reason.
    #[test]
    fn every_library_is_there_or_has_a_reason() {
        let found = libraries();
        assert!(
            found
                .folder
                .as_ref()
                .unwrap()
                .join("libtorch_cpu.so")
                .exists()
        );
        if let Err(error) = &found.driver {
            assert!(error.to_string().contains("driver"), "{error}");
            assert!(found.torch.is_err() && found.nccl.is_err());
            assert_eq!(choose("auto", 0), Ok(tch::Device::Cpu));
        }
    }
}
