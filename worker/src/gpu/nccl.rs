//! NCCL's functions, loaded from its library, and a communicator that can be aborted from another thread.
//!
//! The types are cudarc's; the functions are looked up here, because NCCL's library is called
//! `libnccl.so.2` where it comes as a wheel, and cudarc does not look for that name.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cudarc::nccl::sys::{ncclComm_t, ncclConfig_t, ncclUniqueId};

use super::stream::{Event, SideStream};
use super::{Found, open, with_cause};
use crate::collective::Waiting;
use crate::device::Ready;

/// `ncclResult_t`, as a number: a library newer than the list of names must not be undefined behaviour.
type Code = u32;
const SUCCESS: Code = 0;
const IN_PROGRESS: Code = 7;
/// `ncclFloat32`
const FLOAT32: c_int = 7;
/// `ncclSum`
const SUM: c_int = 0;
/// `NCCL_CONFIG_UNDEF_INT`
const UNDEFINED: c_int = c_int::MIN;
/// Between looks at a call under way.
const LOOK: Duration = Duration::from_micros(20);

/// The functions that are used.
#[derive(Debug, Clone, Copy)]
struct Functions {
    get_unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> Code,
    init: unsafe extern "C" fn(
        *mut ncclComm_t,
        c_int,
        ncclUniqueId,
        c_int,
        *mut ncclConfig_t,
    ) -> Code,
    abort: unsafe extern "C" fn(ncclComm_t) -> Code,
    async_error: unsafe extern "C" fn(ncclComm_t, *mut Code) -> Code,
    error_string: unsafe extern "C" fn(Code) -> *const c_char,
    group_start: unsafe extern "C" fn() -> Code,
    group_end: unsafe extern "C" fn() -> Code,
    send: unsafe extern "C" fn(*const c_void, usize, c_int, c_int, ncclComm_t, *mut c_void) -> Code,
    receive:
        unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, ncclComm_t, *mut c_void) -> Code,
    all_reduce: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        ncclComm_t,
        *mut c_void,
    ) -> Code,
    broadcast: unsafe extern "C" fn(
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
    functions: Functions,
}

/// What names a communicator: made by one rank, shown to all.
pub const ID_BYTES: usize = size_of::<ncclUniqueId>();

impl Api {
    /// Loads it: from the wheel beside libtorch's folder `torch`, or from where the system has it.
    pub fn load(torch: &Path) -> Found<Api> {
        let wheel = torch.join("../../nvidia/nccl/lib/libnccl.so.2");
        let library = match wheel.exists() {
            true => open(&wheel)?,
            false => open("libnccl.so.2")?,
        };
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: NCCL's function of that name has this type.
                unsafe { *library.get($name).map_err(|e| with_cause(&e))? }
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
        // SAFETY: writes one number.
        let said = unsafe { get_version(&mut code) };
        if said != SUCCESS {
            return Err(format!("it does not say its version (error {said})"));
        }
        Ok(Api {
            version: format!("{}.{}.{}", code / 10_000, code % 10_000 / 100, code % 100),
            code,
            functions,
        })
    }

    /// A new name for a communicator.
    pub fn unique_id(&self) -> Found<Vec<u8>> {
        let mut id = ncclUniqueId {
            internal: [0; ID_BYTES],
        };
        // SAFETY: writes one id.
        self.check("a unique id", unsafe {
            (self.functions.get_unique_id)(&mut id)
        })?;
        Ok(id.internal.iter().map(|&byte| byte as u8).collect())
    }

    fn check(&self, doing: &str, code: Code) -> Found<()> {
        match code {
            SUCCESS | IN_PROGRESS => Ok(()),
            // SAFETY: NCCL gives a static text for any number.
            code => Err(format!("NCCL: {doing}: {}", unsafe {
                CStr::from_ptr((self.functions.error_string)(code)).to_string_lossy()
            })),
        }
    }

    /// `NCCL_CONFIG_INITIALIZER`, with calls that do not block.
    fn config(&self) -> ncclConfig_t {
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

/// The place of a generation's communicator: empty, open, or aborted for good. Calls are made under its lock,
/// and none of them blocks, so an abort from another thread gets in between and nobody uses what is gone.
#[derive(Debug, Default)]
pub struct Slot(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Empty,
    Open(Comm),
    Aborted,
}

#[derive(Debug)]
struct Comm {
    handle: ncclComm_t,
    functions: Functions,
}

// SAFETY: NCCL's communicators may be used from any thread, one at a time, which the lock sees to.
unsafe impl Send for Comm {}

impl Drop for Comm {
    fn drop(&mut self) {
        // Not destroyed: that would wait for peers which may be gone.
        // SAFETY: an open communicator, aborted once.
        unsafe { (self.functions.abort)(self.handle) };
    }
}

impl Slot {
    /// Ends what is under way, and whatever may still be tried.
    pub fn abort(&self) {
        // What was there is dropped, and so aborted.
        *self.state() = State::Aborted;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of its holder leaves the communicator as good as it was.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// What a call is: numbers in the GPU's memory, from `at` on.
#[derive(Debug, Clone, Copy)]
pub enum Call {
    /// To a rank.
    Send {
        /// First number.
        at: *const f32,
        /// How many.
        len: usize,
        /// The rank.
        to: usize,
    },
    /// From a rank.
    Receive {
        /// First number.
        at: *mut f32,
        /// How many.
        len: usize,
        /// The rank.
        from: usize,
    },
    /// From a rank to all, in place.
    Broadcast {
        /// First number.
        at: *mut f32,
        /// How many.
        len: usize,
        /// The rank.
        root: usize,
    },
    /// The sum of all ranks' numbers to all, in place, in an order of NCCL's own.
    AllReduce {
        /// First number.
        at: *mut f32,
        /// How many.
        len: usize,
    },
}

/// Sends between the GPUs of a generation, in a stream of work beside libtorch's.
pub trait Link: Send {
    /// What is queued from now on waits for `ready`; without it, for all that this thread has told the GPU so far.
    fn begin(&mut self, ready: Ready) -> Found<()>;

    /// Queues calls as one group. All ranks make the calls that fit together.
    ///
    /// # Safety
    /// The numbers must lie in the memory of the GPU that was connected, and stay there until
    /// [`Link::wait`] has returned.
    unsafe fn group(&mut self, calls: &[Call], deadline: Duration) -> Found<()>;

    /// Queues what `work` tells libtorch to compute.
    fn compute(&mut self, work: &mut dyn FnMut()) -> Found<()>;

    /// Waits until the GPU has done all that was queued. A peer that is lost ends the wait, as an abort does.
    fn wait(&mut self, deadline: Duration) -> Found<()>;
}

/// A generation's communicator.
pub struct Communicator {
    api: Api,
    slot: Arc<Slot>,
    waiting: Waiting,
    device: usize,
    side: SideStream,
    /// What the reduction under way waits for here, until the GPU has come to it.
    computing: Option<Event>,
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.slot.abort();
    }
}

impl Communicator {
    /// Connects `rank` of `ranks` under the name `id`, on the GPU `device`, which is current. Gives up after `deadline`.
    /// While it waits for others, then and later, `waiting` is told that it looks up; not while its own GPU is what
    /// keeps it waiting.
    #[allow(clippy::too_many_arguments)] // What a rank is, where, and how long it waits.
    pub fn connect(
        api: &Api,
        device: usize,
        slot: &Arc<Slot>,
        id: &[u8],
        ranks: usize,
        rank: usize,
        waiting: &Waiting,
        deadline: Duration,
    ) -> Found<Self> {
        let mut name = ncclUniqueId {
            internal: [0; ID_BYTES],
        };
        if id.len() != ID_BYTES {
            return Err(format!("an id of {} bytes is none of NCCL's", id.len()));
        }
        for (to, from) in name.internal.iter_mut().zip(id) {
            *to = *from as c_char;
        }
        let side = SideStream::new(device)?;
        let mut config = api.config();
        let mut handle: ncclComm_t = std::ptr::null_mut();
        {
            let mut state = slot.state();
            if matches!(*state, State::Aborted) {
                return Err("aborted".into());
            }
            // SAFETY: a configuration as this version has it, and a place for the handle.
            let code = unsafe {
                (api.functions.init)(
                    &mut handle,
                    ranks as c_int,
                    name,
                    rank as c_int,
                    &mut config,
                )
            };
            api.check("connecting", code)?;
            *state = State::Open(Comm {
                handle,
                functions: api.functions,
            });
        }
        let mut communicator = Self {
            api: api.clone(),
            slot: Arc::clone(slot),
            waiting: waiting.clone(),
            device,
            side,
            computing: None,
        };
        communicator.settle("connecting", deadline)?;
        Ok(communicator)
    }

    /// Waits until NCCL has taken the last call on.
    fn settle(&mut self, doing: &str, deadline: Duration) -> Found<()> {
        let end = Instant::now() + deadline;
        while self.pending(doing)? {
            if Instant::now() > end {
                return Err(format!("NCCL: {doing}: not done within {deadline:?}"));
            }
            self.look()?;
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Looks up, if it is others who are waited for.
    fn look(&mut self) -> Found<()> {
        if let Some(event) = &self.computing {
            if !event.done()? {
                return Ok(());
            }
            self.computing = None;
        }
        self.waiting.look();
        Ok(())
    }

    /// Whether a call is still being taken on; an error of any call, of the network, or an abort is one here.
    fn pending(&self, doing: &str) -> Found<bool> {
        let state = self.slot.state();
        let State::Open(Comm { handle, .. }) = *state else {
            return Err("aborted".into());
        };
        let mut code = SUCCESS;
        // SAFETY: an open communicator, and a place for a number.
        let asked = unsafe { (self.api.functions.async_error)(handle, &mut code) };
        self.api.check(doing, asked)?;
        self.api.check(doing, code)?;
        Ok(code == IN_PROGRESS)
    }
}

impl Link for Communicator {
    fn begin(&mut self, ready: Ready) -> Found<()> {
        let event = match ready {
            Some(event) => event,
            None => Event::now(self.device)?,
        };
        self.side.wait_for(&event)?;
        self.computing = Some(event);
        Ok(())
    }

    unsafe fn group(&mut self, calls: &[Call], deadline: Duration) -> Found<()> {
        let f = &self.api.functions;
        let stream = self.side.handle();
        {
            let state = self.slot.state();
            let State::Open(Comm { handle, .. }) = *state else {
                return Err("aborted".into());
            };
            let check = |code| self.api.check("reducing", code);
            // SAFETY: an open communicator; and the caller vouches for the numbers.
            unsafe {
                check((f.group_start)())?;
                let mut added = Ok(());
                for call in calls {
                    let code = match *call {
                        Call::Send { at, len, to } => {
                            (f.send)(at.cast(), len, FLOAT32, to as c_int, handle, stream)
                        }
                        Call::Receive { at, len, from } => {
                            (f.receive)(at.cast(), len, FLOAT32, from as c_int, handle, stream)
                        }
                        Call::Broadcast { at, len, root } => (f.broadcast)(
                            at.cast_const().cast(),
                            at.cast(),
                            len,
                            FLOAT32,
                            root as c_int,
                            handle,
                            stream,
                        ),
                        Call::AllReduce { at, len } => (f.all_reduce)(
                            at.cast_const().cast(),
                            at.cast(),
                            len,
                            FLOAT32,
                            SUM,
                            handle,
                            stream,
                        ),
                    };
                    added = added.and(check(code));
                }
                // Also after an error, or the next group of this thread would be part of this one.
                let ended = check((f.group_end)());
                added.and(ended)?;
            }
        }
        self.settle("reducing", deadline)
    }

    fn compute(&mut self, work: &mut dyn FnMut()) -> Found<()> {
        self.side.compute(work)
    }

    fn wait(&mut self, deadline: Duration) -> Found<()> {
        let end = Instant::now() + deadline;
        let reduced = self.side.event()?;
        while !reduced.done()? {
            self.pending("reducing")?;
            if Instant::now() > end {
                return Err(format!("nothing came within {deadline:?}"));
            }
            self.look()?;
            std::thread::sleep(LOOK);
        }
        // What was aborted ends, too.
        self.pending("reducing").map(drop)
    }
}
