//! NVRTC, NVIDIA's compiler as a library: it comes with PyTorch's wheels for CUDA, and needs no GPU itself.
//!
//! Its functions are looked up here, with cudarc's type of a program, because cudarc tries names of a system's toolkit first and
//! ends the process where a function is missing.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};

use cudarc::nvrtc::sys::nvrtcProgram;
use libloading::os::unix::Library;

use super::{LibraryError, OpenError, open};

/// `nvrtcResult` as a number. An enum would make a result that only a newer NVRTC knows undefined behaviour.
type Code = c_int;
const SUCCESS: Code = 0;

#[derive(Debug, Clone, Copy)]
struct Functions {
    error_string: unsafe extern "C" fn(Code) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut nvrtcProgram,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Code,
    compile: unsafe extern "C" fn(nvrtcProgram, c_int, *const *const c_char) -> Code,
    destroy: unsafe extern "C" fn(*mut nvrtcProgram) -> Code,
    log_size: unsafe extern "C" fn(nvrtcProgram, *mut usize) -> Code,
    log: unsafe extern "C" fn(nvrtcProgram, *mut c_char) -> Code,
    cubin_size: unsafe extern "C" fn(nvrtcProgram, *mut usize) -> Code,
    cubin: unsafe extern "C" fn(nvrtcProgram, *mut c_char) -> Code,
}

/// NVRTC's library.
#[derive(Debug, Clone)]
pub struct Nvrtc {
    /// Its version, such as 13.0.
    pub version: String,
    functions: Functions,
}

/// A program could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A call failed before or after the compilation.
    #[error("NVRTC: {call} failed: {reason}")]
    Call {
        /// Name of the function.
        call: &'static str,
        /// NVRTC's text.
        reason: String,
    },
    /// The program is wrong, or an option is.
    #[error("NVRTC cannot compile the kernels ({reason}): {log}")]
    Program {
        /// NVRTC's text.
        reason: String,
        /// What the compiler says, several lines.
        log: String,
    },
}

impl Nvrtc {
    /// Loads NVRTC from the wheels beside libtorch's folder `torch`, or else from the system's library path.
    ///
    /// # Errors
    /// If it cannot be loaded, lacks a function, or does not return its version.
    pub fn load(torch: &Path) -> Result<Self, LibraryError> {
        let wheels = torch.join("../../nvidia");
        match in_wheels(&wheels) {
            Some(folder) => Self::load_from(&folder),
            None => Self::of(open("libnvrtc.so.13").or_else(|error| {
                // An older PyTorch on an older toolkit; the first error says more otherwise.
                open("libnvrtc.so.12").map_err(|_| error)
            })?),
        }
    }

    /// Loads NVRTC from a folder of its wheel.
    ///
    /// # Errors
    /// As [`Nvrtc::load`].
    pub fn load_from(folder: &Path) -> Result<Self, LibraryError> {
        // NVRTC opens it by its bare name when it compiles, and does not look beside itself.
        if let Some(builtins) = file_like(folder, "libnvrtc-builtins.so.") {
            open(&builtins)?;
        }
        match file_like(folder, "libnvrtc.so.") {
            Some(library) => Self::of(open(&library)?),
            None => Self::of(open(folder.join("libnvrtc.so.13"))?),
        }
    }

    fn of(library: &Library) -> Result<Self, LibraryError> {
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: NVRTC's function of that name has this type.
                unsafe { *library.get($name).map_err(OpenError)? }
            };
        }
        let functions = Functions {
            error_string: function!(b"nvrtcGetErrorString"),
            create: function!(b"nvrtcCreateProgram"),
            compile: function!(b"nvrtcCompileProgram"),
            destroy: function!(b"nvrtcDestroyProgram"),
            log_size: function!(b"nvrtcGetProgramLogSize"),
            log: function!(b"nvrtcGetProgramLog"),
            cubin_size: function!(b"nvrtcGetCUBINSize"),
            cubin: function!(b"nvrtcGetCUBIN"),
        };
        let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Code =
            function!(b"nvrtcVersion");
        let (mut major, mut minor) = (0, 0);
        // SAFETY: it writes two numbers.
        let code = unsafe { version(&mut major, &mut minor) };
        if code != SUCCESS {
            return Err(LibraryError::NvrtcVersion { code });
        }
        Ok(Self {
            version: format!("{major}.{minor}"),
            functions,
        })
    }

    /// Compiles `source` for a real architecture: the cubin, which the driver loads.
    ///
    /// # Errors
    /// If NVRTC refuses; [`CompileError::Program`] has the compiler's messages.
    pub fn compile(&self, source: &str, options: &[String]) -> Result<Vec<u8>, CompileError> {
        let program = Program::new(self, source)?;
        let texts: Vec<CString> = options.iter().map(|option| text(option)).collect();
        let pointers: Vec<*const c_char> = texts.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: a live program, and as many texts as are named, which end with a zero.
        let code = unsafe {
            (self.functions.compile)(program.handle, pointers.len() as c_int, pointers.as_ptr())
        };
        if code != SUCCESS {
            return Err(CompileError::Program {
                reason: self.reason(code),
                log: program.log(),
            });
        }
        program.cubin()
    }

    fn reason(&self, code: Code) -> String {
        // SAFETY: NVRTC returns a static text for any number.
        let text = unsafe { CStr::from_ptr((self.functions.error_string)(code)) };
        text.to_string_lossy().into_owned()
    }

    fn check(&self, call: &'static str, code: Code) -> Result<(), CompileError> {
        if code == SUCCESS {
            return Ok(());
        }
        let reason = self.reason(code);
        Err(CompileError::Call { call, reason })
    }
}

struct Program<'a> {
    nvrtc: &'a Nvrtc,
    handle: nvrtcProgram,
}

impl<'a> Program<'a> {
    fn new(nvrtc: &'a Nvrtc, source: &str) -> Result<Self, CompileError> {
        let mut handle = std::ptr::null_mut();
        let (source, none) = (text(source), std::ptr::null());
        // SAFETY: two texts that end with a zero, no headers, and a place for the result. NVRTC copies the texts.
        let code = unsafe {
            (nvrtc.functions.create)(
                &mut handle,
                source.as_ptr(),
                c"fovea.cu".as_ptr(),
                0,
                none,
                none,
            )
        };
        nvrtc.check("nvrtcCreateProgram", code)?;
        Ok(Self { nvrtc, handle })
    }

    /// The compiler's messages, or nothing if NVRTC does not give them.
    fn log(&self) -> String {
        let functions = &self.nvrtc.functions;
        let mut size = 0;
        // SAFETY: a live program; a number is written, then as many bytes.
        let bytes = unsafe {
            if (functions.log_size)(self.handle, &mut size) != SUCCESS {
                return String::new();
            }
            let mut bytes = vec![0u8; size];
            if (functions.log)(self.handle, bytes.as_mut_ptr().cast()) != SUCCESS {
                return String::new();
            }
            bytes
        };
        let text = String::from_utf8_lossy(&bytes);
        text.trim_end_matches('\0').trim().to_owned()
    }

    fn cubin(&self) -> Result<Vec<u8>, CompileError> {
        let functions = &self.nvrtc.functions;
        let mut size = 0;
        // SAFETY: a live program, and a number is written.
        let code = unsafe { (functions.cubin_size)(self.handle, &mut size) };
        self.nvrtc.check("nvrtcGetCUBINSize", code)?;
        let mut bytes = vec![0u8; size];
        // SAFETY: a live program, and room for as many bytes as it said.
        let code = unsafe { (functions.cubin)(self.handle, bytes.as_mut_ptr().cast()) };
        self.nvrtc.check("nvrtcGetCUBIN", code)?;
        Ok(bytes)
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        // SAFETY: a live program, which nothing uses after the drop.
        unsafe { (self.nvrtc.functions.destroy)(&mut self.handle) };
    }
}

/// A text with a zero behind it. Neither the kernels nor options have one within.
fn text(of: &str) -> CString {
    CString::new(of.replace('\0', " ")).expect("there is no zero left")
}

/// The folder of the wheels in which NVRTC is.
fn in_wheels(wheels: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(wheels).ok()?;
    let mut folders: Vec<PathBuf> = folders
        .filter_map(|entry| Some(entry.ok()?.path().join("lib")))
        .filter(|folder| file_like(folder, "libnvrtc.so.").is_some())
        .collect();
    folders.sort();
    folders.into_iter().next()
}

/// A file in `folder` whose name is `start` and a version.
fn file_like(folder: &Path, start: &str) -> Option<PathBuf> {
    let version = |name: &str| {
        let rest = name.strip_prefix(start)?;
        let is_version = |c: char| c.is_ascii_digit() || c == '.';
        (!rest.is_empty() && rest.chars().all(is_version)).then_some(())
    };
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(version).is_some()
        })
        .collect();
    found.sort();
    found.into_iter().next()
}

#[cfg(test)]
mod tests {
    use fovea_kernels::cuda::{Element, names, source};

    use super::super::kernels::options;
    use super::*;

    /// The wheel of `make cuda-tools`.
    fn wheel() -> Nvrtc {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cuda-tools/lib");
        let python = std::fs::read_dir(&tools).expect("make cuda-tools makes it");
        let python = python.filter_map(|entry| Some(entry.ok()?.path()));
        let site = python
            .map(|folder| folder.join("site-packages"))
            .find(|site| site.is_dir())
            .expect("the tools are a Python environment");
        let folder = in_wheels(&site.join("nvidia")).expect("NVRTC is in it");
        Nvrtc::load_from(&folder).unwrap()
    }

    #[cfg_attr(not(has_nvrtc), ignore = "needs make cuda-tools: NVRTC")]
    #[test]
    fn every_kernel_compiles_for_ampere_hopper_and_blackwell() {
        let nvrtc = wheel();
        assert!(nvrtc.version.starts_with("13."), "{}", nvrtc.version);
        let text = source();
        // The two elements at once: a program takes seconds.
        std::thread::scope(|threads| {
            for element in Element::ALL {
                let (nvrtc, text) = (&nvrtc, &text);
                threads.spawn(move || {
                    for architecture in ["sm_80", "sm_90", "sm_100"] {
                        let options = options(architecture, element);
                        let cubin = nvrtc.compile(text, &options).unwrap_or_else(|error| {
                            panic!("{element:?} for {architecture}: {error}")
                        });
                        assert!(cubin.starts_with(b"\x7fELF"), "{architecture}");
                        for name in names() {
                            let symbol = [b"\0", name.as_bytes(), b"\0"].concat();
                            let found = cubin.windows(symbol.len()).any(|part| part == symbol);
                            assert!(found, "{name} for {architecture}");
                        }
                    }
                });
            }
        });
    }

    #[cfg_attr(not(has_nvrtc), ignore = "needs make cuda-tools: NVRTC")]
    #[test]
    fn what_cannot_be_compiled_is_said_with_the_place() {
        let nvrtc = wheel();
        let options = options("sm_90", Element::Bf16);
        let broken = "#line 7 \"pool.cu\"\nextern \"C\" __global__ void pool(int x) { x = y; }";
        let error = nvrtc.compile(broken, &options).unwrap_err().to_string();
        assert!(error.contains("pool.cu(7)"), "{error}");
        assert!(error.contains("\"y\" is undefined"), "{error}");
        let unknown = vec!["--gpu-architecture=sm_1".to_owned()];
        let error = nvrtc.compile("", &unknown).unwrap_err().to_string();
        assert!(error.contains("NVRTC cannot compile"), "{error}");
    }

    #[test]
    fn libraries_are_found_by_their_version_alone() {
        let folder = tempfile::tempdir().unwrap();
        let lib = folder.path().join("cu13/lib");
        std::fs::create_dir_all(&lib).unwrap();
        assert_eq!(in_wheels(folder.path()), None);
        for name in [
            "libnvrtc.alt.so.13",
            "libnvrtc.so.13.txt",
            "libnvrtc.so.",
            "libnvrtc-builtins.so.13.0",
        ] {
            std::fs::write(lib.join(name), "").unwrap();
        }
        assert_eq!(in_wheels(folder.path()), None);
        std::fs::write(lib.join("libnvrtc.so.13"), "").unwrap();
        assert_eq!(in_wheels(folder.path()), Some(lib.clone()));
        let builtins = file_like(&lib, "libnvrtc-builtins.so.");
        assert_eq!(builtins, Some(lib.join("libnvrtc-builtins.so.13.0")));
        // What is no library is refused with the loader's reason.
        let error = Nvrtc::load_from(&lib).unwrap_err().to_string();
        assert!(error.contains("libnvrtc-builtins.so.13.0"), "{error}");
    }
}
