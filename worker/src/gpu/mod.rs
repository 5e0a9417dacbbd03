//! CUDA on this machine, found and loaded when the worker starts.
//!
//! The program is linked against libtorch's CPU part only, so that one binary runs everywhere. Where there is
//! a driver, `libtorch_cuda.so` is loaded from libtorch's own folder before the first tensor is made, and its
//! GPUs show up; NCCL comes from the wheel beside it, or from the system. What is missing is reported with the
//! reason, and never a crash.

pub mod communicator;
pub mod nccl;
pub mod stream;

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::driver::{result as driver, sys};
use libloading::AsFilename;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tracing::info;

/// Something that was looked for: a description, or why it is not there.
pub type Found<T> = Result<T, String>;

/// A GPU as the driver knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its model, such as "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// Its memory in bytes.
    pub bytes: usize,
}

/// The libraries of this machine.
#[derive(Debug)]
pub struct Libraries {
    /// Folder of libtorch's libraries.
    pub folder: Found<PathBuf>,
    /// CUDA version that the driver supports, such as 13.0, and its GPUs.
    pub driver: Found<(String, Vec<Gpu>)>,
    /// `libtorch_cuda.so` is loaded, and libtorch sees so many GPUs.
    pub torch: Found<usize>,
    /// cuDNN's version.
    pub cudnn: Found<String>,
    /// NCCL.
    pub nccl: Found<nccl::Api>,
}

/// Finds and loads the libraries, once. Call it before the first tensor is made.
pub fn libraries() -> &'static Libraries {
    static LIBRARIES: OnceLock<Libraries> = OnceLock::new();
    LIBRARIES.get_or_init(|| {
        let folder = torch_folder();
        let driver = find_driver();
        // Without a driver it would only cost time and memory.
        let torch = match (&driver, &folder) {
            (Err(_), _) => Err("not loaded, as there is no driver".into()),
            (_, Err(problem)) => Err(problem.clone()),
            (Ok(_), Ok(folder)) => load_torch(folder),
        };
        let cudnn = match &torch {
            Ok(_) => cudnn_version(),
            Err(_) => Err("not loaded, as libtorch has no CUDA here".into()),
        };
        let nccl = match (&torch, &folder) {
            (Ok(_), Ok(folder)) => nccl::Api::load(folder),
            _ => Err("not loaded, as libtorch has no CUDA here".into()),
        };
        Libraries {
            folder,
            driver,
            torch,
            cudnn,
            nccl,
        }
    })
}

/// The device that a setting names: `auto`, `cpu` or `cuda:N`. With `auto` the workers of a machine share out its GPUs
/// by their numbers, `local_rank`.
///
/// # Errors
/// What is wrong with it, or what it would need, in a sentence.
pub fn choose(setting: &str, local_rank: usize) -> Result<tch::Device, String> {
    choose_from(setting, local_rank, &|| &libraries().torch)
}

fn choose_from<'a>(
    setting: &str,
    local_rank: usize,
    torch: &dyn Fn() -> &'a Found<usize>,
) -> Result<tch::Device, String> {
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
    let Some(number) = number else {
        return Err(format!(
            "device: {setting:?} is none; use \"auto\", \"cpu\" or \"cuda:N\""
        ));
    };
    match torch() {
        Ok(count) if number < *count => Ok(tch::Device::Cuda(number)),
        Ok(count) => Err(format!(
            "device: there is no {setting:?}; libtorch sees {count} GPUs (fovea-worker devices lists them)"
        )),
        Err(problem) => Err(format!(
            "device: {setting:?} cannot be used: libtorch's CUDA library: {problem} (fovea-worker devices \
             gives details)"
        )),
    }
}

/// What a device is called: `cpu`, or the GPU's model.
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

/// Makes a GPU the current one of this thread. NCCL needs that; libtorch names the device in every call.
///
/// # Errors
/// The driver's error.
pub fn make_current(device: tch::Device) -> Result<(), String> {
    let tch::Device::Cuda(number) = device else {
        return Ok(());
    };
    let made = driver::device::get(number as c_int).and_then(|gpu| {
        // SAFETY: a device that the driver has just named; its context is kept to the end of the process.
        unsafe { driver::ctx::set_current(driver::primary_ctx::retain(gpu)?) }
    });
    made.map_err(|e| format!("cuda:{number} cannot be used: {e}"))
}

/// The driver's context of a GPU, for other threads to work in.
#[derive(Debug, Clone, Copy)]
pub struct Context(sys::CUcontext);

// SAFETY: a handle of the driver's, which any thread may use; it is kept to the end of the process.
unsafe impl Send for Context {}

impl Context {
    /// That of the calling thread, see [`make_current`].
    ///
    /// # Errors
    /// The driver's error, or that there is none.
    pub fn current() -> Found<Self> {
        let current = driver::ctx::get_current().map_err(|e| format!("the GPU's context: {e}"))?;
        current
            .map(Self)
            .ok_or_else(|| "this thread works with no GPU".into())
    }

    /// Makes it that of the calling thread.
    ///
    /// # Errors
    /// The driver's error.
    pub fn enter(self) -> Found<()> {
        // SAFETY: a context that stays.
        unsafe { driver::ctx::set_current(self.0) }.map_err(|e| format!("the GPU's context: {e}"))
    }
}

/// A GPU's unique name, for NCCL: two ranks may not share a GPU, unless NCCL_HOSTID puts them on two machines.
///
/// # Errors
/// The driver's error.
pub fn card(device: usize) -> Found<String> {
    let uuid = driver::device::get(device as c_int).and_then(driver::device::get_uuid);
    let uuid = uuid.map_err(|e| format!("cuda:{device} does not give its UUID: {e}"))?;
    let machine = std::env::var("NCCL_HOSTID").unwrap_or_default();
    let bytes = uuid.bytes.map(|byte| byte as u8);
    Ok(format!("{machine}/{}", hex::encode(bytes)))
}

/// Bytes that are free on the GPU that is current, or None if it is not known.
pub fn free_bytes() -> Option<u64> {
    driver::mem_get_info().ok().map(|(free, _)| free as u64)
}

/// How many bytes of a GPU's memory activations and photographs may take, of those that are wanted: a third of what is
/// free each, as training itself needs its part. Says so where it is less.
pub fn budgets(free: Option<u64>, activations: u64, photographs: u64) -> (u64, u64) {
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
        within("photographs (images_mib)", photographs),
    )
}

/// NCCL and the GPU's number, if `device` is a GPU and the library is there.
pub fn nccl_for(device: tch::Device) -> Option<(&'static nccl::Api, usize)> {
    match device {
        tch::Device::Cuda(number) => libraries().nccl.as_ref().ok().map(|api| (api, number)),
        _ => None,
    }
}

/// The folder of the libtorch that this program runs with.
fn torch_folder() -> Found<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| e.to_string())?;
    let path = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| &line[at..]))
        .find(|path| path.ends_with("/libtorch_cpu.so"));
    let folder = path.and_then(|path| Path::new(path).parent());
    folder
        .map(Path::to_owned)
        .ok_or_else(|| "libtorch_cpu.so is not among the loaded libraries".into())
}

fn find_driver() -> Found<(String, Vec<Gpu>)> {
    // By its versioned name: the other one belongs to the toolkit, which need not be here.
    open("libcuda.so.1")
        .map_err(|_| "no NVIDIA driver (libcuda.so.1) on this machine".to_owned())?;
    // SAFETY: looks for the library under other names, too; it is there.
    if !unsafe { sys::is_culib_present() } {
        return Err("libcuda.so.1 is there, but cannot be used".into());
    }
    let failed = |doing: &'static str| move |e: driver::DriverError| format!("{doing}: {e}");
    driver::init().map_err(failed("the driver does not start"))?;
    let mut version: c_int = 0;
    // SAFETY: writes one number.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(failed("the driver's version"))?;
    let count = driver::device::get_count().map_err(failed("the number of GPUs"))?;
    let gpus = (0..count).map(|number| {
        let device = driver::device::get(number).map_err(failed("a GPU"))?;
        Ok(Gpu {
            name: driver::device::get_name(device).map_err(failed("a GPU's name"))?,
            // SAFETY: a device that the driver has just named.
            bytes: unsafe { driver::device::total_mem(device) }
                .map_err(failed("a GPU's memory"))?,
        })
    });
    let gpus: Vec<Gpu> = gpus.collect::<Result<_, String>>()?;
    Ok((format!("{}.{}", version / 1000, version % 1000 / 10), gpus))
}

fn load_torch(folder: &Path) -> Found<usize> {
    let path = folder.join("libtorch_cuda.so");
    if !path.exists() {
        return Err(format!(
            "{} is not there: this libtorch is for CPUs only",
            path.display()
        ));
    }
    open(&path).map_err(|problem| {
        format!("{problem} (a PyTorch installed with its CUDA libraries has all that is needed)")
    })?;
    match tch::Cuda::device_count() {
        count if count > 0 => Ok(count as usize),
        _ => Err(format!(
            "{} is loaded, but sees no GPU: is the driver too old for it?",
            path.display()
        )),
    }
}

fn cudnn_version() -> Found<String> {
    let library = open("libcudnn.so.9")?;
    // SAFETY: cuDNN's function of that name takes nothing and returns a size_t.
    let version: usize = unsafe {
        let function = library.get::<unsafe extern "C" fn() -> usize>(b"cudnnGetVersion");
        function.map_err(|e| with_cause(&e))?()
    };
    let (major, rest) = (version / 10_000, version % 10_000);
    Ok(format!("{major}.{}.{}", rest / 100, rest % 100))
}

/// Loads a library for the whole process and for good. With a bare name, one that is loaded already is found.
fn open(name: impl AsFilename) -> Found<&'static Library> {
    // SAFETY: the libraries of CUDA and libtorch may be loaded at any time before they are used.
    let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) };
    library
        .map(|library| &*Box::leak(Box::new(library)))
        .map_err(|e| with_cause(&e))
}

/// The reason is in the error's cause; the error itself only says that loading failed.
fn with_cause(error: &libloading::Error) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_devices_and_what_is_missing() {
        let two = Ok(2);
        let none: Found<usize> = Err("not loaded, as there is no driver".into());
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
            let problem = choose_from(setting, 0, &|| torch).unwrap_err();
            assert!(problem.contains(said), "{setting}: {problem}");
        }
    }

    #[test]
    fn training_has_its_part_of_a_small_gpus_memory() {
        assert_eq!(budgets(Some(300), 20, 80), (20, 80));
        assert_eq!(budgets(Some(90), 20, 80), (20, 30));
        assert_eq!(budgets(Some(30), 20, 80), (10, 10));
        assert_eq!(budgets(None, 20, 80), (0, 0));
    }

    #[test]
    fn a_library_that_cannot_be_loaded_is_named_with_the_reason() {
        let problem = open("libfovea-none.so.9").unwrap_err();
        assert!(problem.contains("libfovea-none.so.9"), "{problem}");
        assert!(problem.contains("No such file"), "{problem}");
    }

    /// On a machine without a GPU every absence has its reason; on one with a GPU everything is there.
    #[test]
    fn all_or_a_reason() {
        let found = libraries();
        assert!(
            found
                .folder
                .as_ref()
                .unwrap()
                .join("libtorch_cpu.so")
                .exists()
        );
        if let Err(problem) = &found.driver {
            assert!(problem.contains("driver"), "{problem}");
            assert!(found.torch.is_err() && found.nccl.is_err());
            assert_eq!(choose("auto", 0), Ok(tch::Device::Cpu));
        }
    }
}
