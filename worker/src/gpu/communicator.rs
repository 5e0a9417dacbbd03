//! A generation's communicator between GPUs, which can be aborted from another thread.

use std::ffi::{c_char, c_int};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cudarc::nccl::sys::{ncclComm_t, ncclUniqueId};

use super::nccl::{Api, FLOAT32, Functions, ID_BYTES, IN_PROGRESS, SUCCESS, SUM};
use super::stream::{Event, SideStream};
use super::{Context, Found};
use crate::collective::Waiting;
use crate::device::Ready;

/// Between looks at a call under way.
const LOOK: Duration = Duration::from_micros(20);

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
    context: Context,
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
        let context = Context::current()?;
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
            context,
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
        // Another thread than the one that connected may reduce.
        self.context.enter()?;
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
        Ok(self.side.compute(work)?)
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
