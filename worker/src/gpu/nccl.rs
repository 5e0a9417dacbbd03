//! NCCL's functions, loaded from its library.
//!
//! The types are cudarc's. The functions are looked up here, because NCCL's library is called `libnccl.so.2` where it
//! comes as a wheel, and cudarc does not try that name.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;

use cudarc::nccl::sys::{ncclComm_t, ncclConfig_t, ncclUniqueId};

use super::{GpuError, LibraryError, NcclCall, OpenError, open};

/// `ncclResult_t` as a number. An enum would make a result that only a newer NCCL knows undefined behaviour.
pub(super) type Code = u32;
pub(super) const SUCCESS: Code = 0;
pub(super) const IN_PROGRESS: Code = 7;
/// `ncclFloat32`
pub(super) const FLOAT32: c_int = 7;
/// `ncclSum`
pub(super) const SUM: c_int = 0;
/// `NCCL_CONFIG_UNDEF_INT`
const UNDEFINED: c_int = c_int::MIN;

/// The functions of NCCL that this program calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Functions {
    pub(super) get_unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> Code,
    pub(super) init: unsafe extern "C" fn(
        *mut ncclComm_t,
        c_int,
        ncclUniqueId,
        c_int,
        *mut ncclConfig_t,
    ) -> Code,
    pub(super) abort: unsafe extern "C" fn(ncclComm_t) -> Code,
    pub(super) async_error: unsafe extern "C" fn(ncclComm_t, *mut Code) -> Code,
    pub(super) error_string: unsafe extern "C" fn(Code) -> *const c_char,
    pub(super) group_start: unsafe extern "C" fn() -> Code,
    pub(super) group_end: unsafe extern "C" fn() -> Code,
    pub(super) send:
        unsafe extern "C" fn(*const c_void, usize, c_int, c_int, ncclComm_t, *mut c_void) -> Code,
    pub(super) receive:
        unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, ncclComm_t, *mut c_void) -> Code,
    pub(super) all_reduce: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        ncclComm_t,
        *mut c_void,
    ) -> Code,
    pub(super) broadcast: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        ncclComm_t,
        *mut c_void,
    ) -> Code,
}

/// NCCL's library.
#[derive(Debug, Clone)]
pub struct Api {
    /// Its version, such as 2.28.9.
    pub version: String,
    code: c_int,
    pub(super) functions: Functions,
}

/// Length in bytes of a communicator's unique id, which rank 0 makes and sends to all ranks.
pub const ID_BYTES: usize = size_of::<ncclUniqueId>();

impl Api {
    /// Loads NCCL from the wheel beside libtorch's folder `torch`, or else from the system's library path.
    ///
    /// # Errors
    /// If it cannot be loaded, lacks a function, or does not return its version.
    pub fn load(torch: &Path) -> Result<Api, LibraryError> {
        let wheel = torch.join("../../nvidia/nccl/lib/libnccl.so.2");
        let library = match wheel.exists() {
            true => open(&wheel)?,
            false => open("libnccl.so.2")?,
        };
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: NCCL's function of that name has this type.
                unsafe { *library.get($name).map_err(OpenError)? }
            };
        }
        let functions = Functions {
            get_unique_id: function!(b"ncclGetUniqueId"),
            init: function!(b"ncclCommInitRankConfig"),
            abort: function!(b"ncclCommAbort"),
            async_error: function!(b"ncclCommGetAsyncError"),
            error_string: function!(b"ncclGetErrorString"),
            group_start: function!(b"ncclGroupStart"),
            group_end: function!(b"ncclGroupEnd"),
            send: function!(b"ncclSend"),
            receive: function!(b"ncclRecv"),
            all_reduce: function!(b"ncclAllReduce"),
            broadcast: function!(b"ncclBroadcast"),
        };
        let get_version: unsafe extern "C" fn(*mut c_int) -> Code = function!(b"ncclGetVersion");
        let mut code = 0;
        // SAFETY: it writes one number.
        let status = unsafe { get_version(&mut code) };
        if status != SUCCESS {
            return Err(LibraryError::NcclVersion { code: status });
        }
        Ok(Api {
            version: format!("{}.{}.{}", code / 10_000, code % 10_000 / 100, code % 100),
            code,
            functions,
        })
    }

    /// Makes a unique id for a communicator, of [`ID_BYTES`] bytes.
    ///
    /// # Errors
    /// If NCCL fails.
    pub fn unique_id(&self) -> Result<Vec<u8>, GpuError> {
        let mut id = ncclUniqueId {
            internal: [0; ID_BYTES],
        };
        // SAFETY: it writes one id.
        self.check(NcclCall::UniqueId, unsafe {
            (self.functions.get_unique_id)(&mut id)
        })?;
        Ok(id.internal.iter().map(|&byte| byte as u8).collect())
    }

    /// Turns the result of `call` into an error, unless NCCL has accepted the call or is still working on it.
    pub(super) fn check(&self, call: NcclCall, code: Code) -> Result<(), GpuError> {
        if matches!(code, SUCCESS | IN_PROGRESS) {
            return Ok(());
        }
        // SAFETY: NCCL returns a static text for any number.
        let text = unsafe { CStr::from_ptr((self.functions.error_string)(code)) };
        Err(GpuError::Nccl {
            call,
            reason: text.to_string_lossy().into_owned(),
        })
    }

    /// `NCCL_CONFIG_INITIALIZER`, but for a communicator whose calls do not block.
    pub(super) fn config(&self) -> ncclConfig_t {
        ncclConfig_t {
            size: size_of::<ncclConfig_t>(),
            magic: 0xcafe_beef,
            version: self.code as u32,
            blocking: 0,
            cgaClusterSize: UNDEFINED,
            minCTAs: UNDEFINED,
            maxCTAs: UNDEFINED,
            netName: std::ptr::null(),
            splitShare: UNDEFINED,
            trafficClass: UNDEFINED,
            commName: std::ptr::null(),
            collnetEnable: UNDEFINED,
            CTAPolicy: UNDEFINED,
            shrinkShare: UNDEFINED,
            nvlsCTAs: UNDEFINED,
            nChannelsPerNetPeer: UNDEFINED,
            nvlinkCentricSched: UNDEFINED,
        }
    }
}
