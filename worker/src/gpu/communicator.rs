//! A generation's NCCL communicator between GPUs, which another thread can abort.

use std::ffi::{c_char, c_int};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cudarc::nccl::sys::{ncclComm_t, ncclUniqueId};

use super::nccl::{Api, FLOAT32, Functions, ID_BYTES, IN_PROGRESS, SUCCESS, SUM};
use super::stream::{Event, SideStream};
use super::{GpuContext, GpuError, NcclCall};
use crate::collective::Waiting;
use crate::device::Ready;

/// Time between two polls of a call that NCCL has not completed.
const POLL_INTERVAL: Duration = Duration::from_micros(20);

/// Holds a generation's communicator, so that another thread can abort it.
///
/// A slot is empty, open, or aborted for good. All calls of NCCL are made under its lock and none of them blocks. So an
/// abort waits only for the current call, and no call uses a communicator that an abort has freed.
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

// SAFETY: any thread may use an NCCL communicator, one thread at a time; the slot's lock guarantees that.
unsafe impl Send for Comm {}

impl Drop for Comm {
    fn drop(&mut self) {
        // Not `ncclCommDestroy`: that waits for peers, which may be gone.
        // SAFETY: the communicator is open, and nothing uses it after the drop.
        unsafe { (self.functions.abort)(self.handle) };
    }
}

impl Slot {
    /// Aborts the communicator. Calls in progress and all later ones fail with [`GpuError::Aborted`].
    pub fn abort(&self) {
        // Dropping an open communicator aborts it.
        *self.state() = State::Aborted;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock does not change the communicator, so a poisoned lock is still usable.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// One call in a group. `at` is the address of `len` 32-bit floats in the GPU's memory.
#[derive(Debug, Clone, Copy)]
pub enum Call {
    /// Sends to rank `to`.
    Send {
        /// Address of the first float.
        at: *const f32,
        /// Number of floats.
        len: usize,
        /// Receiving rank.
        to: usize,
    },
    /// Receives from rank `from`.
    Receive {
        /// Address of the first float.
        at: *mut f32,
        /// Number of floats.
        len: usize,
        /// Sending rank.
        from: usize,
    },
    /// Sends from rank `root` to all ranks, in place.
    Broadcast {
        /// Address of the first float.
        at: *mut f32,
        /// Number of floats.
        len: usize,
        /// Sending rank.
        root: usize,
    },
    /// Sums over all ranks, in place. NCCL chooses the order of the additions.
    AllReduce {
        /// Address of the first float.
        at: *mut f32,
        /// Number of floats.
        len: usize,
    },
}

/// A connection between the GPUs of a generation. It queues its work on a stream of its own, beside libtorch's.
pub trait Link: Send {
    /// Makes all work that is queued later wait for `ready`, or if that is None, for all work that this thread has
    /// queued on the GPU so far.
    ///
    /// # Errors
    /// If the driver or libtorch fails.
    fn begin(&mut self, ready: Ready) -> Result<(), GpuError>;

    /// Queues calls as one group. All ranks must make matching calls.
    ///
    /// # Errors
    /// If NCCL does not accept the group within `deadline`, or the communicator was aborted.
    ///
    /// # Safety
    /// The floats must lie in the memory of the connected GPU, and stay allocated until [`Link::wait`] has returned.
    unsafe fn group(&mut self, calls: &[Call], deadline: Duration) -> Result<(), GpuError>;

    /// Queues the computations that `work` starts.
    ///
    /// # Errors
    /// If libtorch fails.
    fn compute(&mut self, work: &mut dyn FnMut()) -> Result<(), GpuError>;

    /// Waits until the GPU has completed all queued work.
    ///
    /// # Errors
    /// If that takes longer than `deadline`, a peer is lost, or the communicator was aborted.
    fn wait(&mut self, deadline: Duration) -> Result<(), GpuError>;
}

/// The [`Link`] over NCCL.
pub struct Communicator {
    api: Api,
    slot: Arc<Slot>,
    waiting: Waiting,
    device: usize,
    context: GpuContext,
    side: SideStream,
    /// End of this worker's own computation before the current reduction; None once the GPU has reached it.
    computing: Option<Event>,
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.slot.abort();
    }
}

impl Communicator {
    /// Connects `rank` of `ranks` by the unique id `id`, on the GPU `device`, which must be current. While the
    /// communicator waits for its peers, now or later, it counts polls in `waiting`; while it waits for its own GPU, it
    /// counts none, so that a GPU that hangs is not mistaken for a wait.
    ///
    /// # Errors
    /// If not all ranks connect within `deadline`, if the driver, libtorch or NCCL fails, or after an abort.
    #[allow(clippy::too_many_arguments)] // One caller, and each argument has a type or a name of its own.
    pub fn connect(
        api: &Api,
        device: usize,
        slot: &Arc<Slot>,
        id: &[u8],
        ranks: usize,
        rank: usize,
        waiting: &Waiting,
        deadline: Duration,
    ) -> Result<Self, GpuError> {
        let mut name = ncclUniqueId {
            internal: [0; ID_BYTES],
        };
        if id.len() != ID_BYTES {
            return Err(GpuError::BadId { bytes: id.len() });
        }
        for (to, from) in name.internal.iter_mut().zip(id) {
            *to = *from as c_char;
        }
        let context = GpuContext::current()?;
        let side = SideStream::new(device)?;
        let mut config = api.config();
        let mut handle: ncclComm_t = std::ptr::null_mut();
        {
            let mut state = slot.state();
            if matches!(*state, State::Aborted) {
                return Err(GpuError::Aborted);
            }
            // SAFETY: the configuration has this version's layout, and there is a place for the handle.
            let code = unsafe {
                (api.functions.init)(
                    &mut handle,
                    ranks as c_int,
                    name,
                    rank as c_int,
                    &mut config,
                )
            };
            api.check(NcclCall::Connect, code)?;
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
            context,
            side,
            computing: None,
        };
        communicator.settle(NcclCall::Connect, deadline)?;
        Ok(communicator)
    }

    /// Waits until NCCL has completed `call`; a group is complete when it is queued on the GPU.
    fn settle(&mut self, call: NcclCall, deadline: Duration) -> Result<(), GpuError> {
        let end = Instant::now() + deadline;
        while self.pending(call)? {
            if Instant::now() > end {
                return Err(GpuError::NcclTimeout { call, deadline });
            }
            self.poll()?;
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Counts a poll, unless this worker's own GPU has not finished its computation yet.
    fn poll(&mut self) -> Result<(), GpuError> {
        if let Some(event) = &self.computing {
            if !event.done()? {
                return Ok(());
            }
            self.computing = None;
        }
        self.waiting.poll();
        Ok(())
    }

    /// Whether NCCL is still working on `call`. Returns the error of any earlier call, of the network, or of an abort.
    fn pending(&self, call: NcclCall) -> Result<bool, GpuError> {
        let state = self.slot.state();
        let State::Open(Comm { handle, .. }) = *state else {
            return Err(GpuError::Aborted);
        };
        let mut code = SUCCESS;
        // SAFETY: the communicator is open, and there is a place for a number.
        let asked = unsafe { (self.api.functions.async_error)(handle, &mut code) };
        self.api.check(call, asked)?;
        self.api.check(call, code)?;
        Ok(code == IN_PROGRESS)
    }
}

impl Link for Communicator {
    fn begin(&mut self, ready: Ready) -> Result<(), GpuError> {
        // The thread that reduces may not be the one that connected.
        self.context.enter()?;
        let event = match ready {
            Some(event) => event,
            None => Event::now(self.device)?,
        };
        self.side.wait_for(&event)?;
        self.computing = Some(event);
        Ok(())
    }

    unsafe fn group(&mut self, calls: &[Call], deadline: Duration) -> Result<(), GpuError> {
        let f = &self.api.functions;
        let stream = self.side.handle();
        {
            let state = self.slot.state();
            let State::Open(Comm { handle, .. }) = *state else {
                return Err(GpuError::Aborted);
            };
            let check = |code| self.api.check(NcclCall::Reduce, code);
            // SAFETY: the communicator is open, and the caller guarantees the addresses.
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
                // The group must end after an error, too. Otherwise the next group of this thread would join it.
                let ended = check((f.group_end)());
                added.and(ended)?;
            }
        }
        self.settle(NcclCall::Reduce, deadline)
    }

    fn compute(&mut self, work: &mut dyn FnMut()) -> Result<(), GpuError> {
        Ok(self.side.compute(work)?)
    }

    fn wait(&mut self, deadline: Duration) -> Result<(), GpuError> {
        let end = Instant::now() + deadline;
        let reduced = self.side.event()?;
        while !reduced.done()? {
            self.pending(NcclCall::Reduce)?;
            if Instant::now() > end {
                return Err(GpuError::ReductionTimeout { deadline });
            }
            self.poll()?;
            std::thread::sleep(POLL_INTERVAL);
        }
        // An abort ends the GPU's work, too, so its end alone does not mean success.
        self.pending(NcclCall::Reduce).map(drop)
    }
}
