//! Holding one thread of another process, while its other threads run.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io, ptr, thread};

/// A thread that is held, as if it hung in a driver or on a dead file system. It continues when this is dropped.
///
/// Its process may be killed meanwhile. If the test itself ends, the system releases the thread.
#[derive(Debug)]
pub struct Stall {
    /// Dropping the sender makes the tracer release the thread; the join waits until it has.
    tracer: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Stall {
    /// Stops the thread of process `pid` that is called `name` (the first, if there are several), and returns when it has
    /// stopped. The system keeps 15 bytes of a thread's name; only these are compared.
    ///
    /// The main thread is refused: whoever waits for the process would take its stops for the process's end.
    ///
    /// # Errors
    /// If there is no such thread, or it may not be traced.
    pub fn new(pid: u32, name: &str) -> io::Result<Self> {
        let tid = find(pid, name)?;
        let (release, released) = mpsc::channel();
        let (report, reported) = mpsc::channel();
        // Only the thread that has seized a thread may control it, so the tracer does everything.
        let tracer = thread::Builder::new()
            .name("tracer".into())
            .spawn(move || {
                let stopped = seize(tid);
                let holds = stopped.is_ok();
                let _ = report.send(stopped);
                if holds {
                    hold(tid, &released);
                }
                // The system releases whatever is still traced when this thread ends.
            })?;
        let stall = Self {
            tracer: Some((release, tracer)),
        };
        reported.recv().expect("the tracer reports")?;
        Ok(stall)
    }

    /// Lets the thread continue.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        if let Some((release, tracer)) = self.tracer.take() {
            drop(release);
            let _ = tracer.join();
        }
    }
}

/// How long a thread may take to stop: it can be deep in a system call.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// The system reports a traced thread's stop or end by a signal to the whole test or by a blocking wait, and the tracer also
/// has to notice a release. So it polls at this interval.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

fn find(pid: u32, name: &str) -> io::Result<i32> {
    let kept = &name.as_bytes()[..name.len().min(15)];
    let mut others = Vec::new();
    let mut found = None;
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let Some(tid) = entry.file_name().to_str().and_then(|id| id.parse().ok()) else {
            continue;
        };
        // It may have ended since the folder was read.
        let Ok(comm) = fs::read(entry.path().join("comm")) else {
            continue;
        };
        let comm = comm.trim_ascii_end();
        if comm == kept && tid != pid as i32 {
            found = Some(found.map_or(tid, |other: i32| other.min(tid)));
        }
        others.push(String::from_utf8_lossy(comm).into_owned());
    }
    found.ok_or_else(|| {
        let problem = format!("no thread {name:?} beside the main one; there are {others:?}");
        io::Error::new(io::ErrorKind::NotFound, problem)
    })
}

fn seize(tid: i32) -> io::Result<()> {
    ptrace(libc::PTRACE_SEIZE, tid, 0)?;
    ptrace(libc::PTRACE_INTERRUPT, tid, 0)?;
    let end = Instant::now() + STOPS_WITHIN;
    loop {
        match poll(tid) {
            ThreadState::Stopped => return Ok(()),
            // A signal came first; it is passed on, and the requested stop comes next.
            ThreadState::Signal(signal) => ptrace(libc::PTRACE_CONT, tid, signal)?,
            ThreadState::Ended => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
            ThreadState::Unchanged if Instant::now() > end => {
                let problem = format!("thread {tid} did not stop within {STOPS_WITHIN:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
            }
            ThreadState::Unchanged => thread::sleep(POLL_INTERVAL),
        }
    }
}

/// Holds the thread until its release, or until it has ended.
fn hold(tid: i32, released: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = released.recv_timeout(POLL_INTERVAL) {
        // A traced thread's end must be collected: before that, its process does not end for anybody.
        if let ThreadState::Ended = poll(tid) {
            return;
        }
    }
    // This fails if it was killed a moment ago; then the end of the tracer's thread releases it.
    let _ = ptrace(libc::PTRACE_DETACH, tid, 0);
}

enum ThreadState {
    Unchanged,
    Stopped,
    Signal(i32),
    Ended,
}

fn poll(tid: i32) -> ThreadState {
    let mut status = 0;
    // Safety: `status` is a valid place for the result.
    let seen = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::WNOHANG) };
    match seen {
        0 => ThreadState::Unchanged,
        id if id == tid && libc::WIFSTOPPED(status) => {
            if status >> 16 == libc::PTRACE_EVENT_STOP {
                ThreadState::Stopped
            } else {
                ThreadState::Signal(libc::WSTOPSIG(status))
            }
        }
        _ => ThreadState::Ended,
    }
}

fn ptrace(request: libc::c_uint, tid: i32, data: i32) -> io::Result<()> {
    // Safety: the requests used here read and write no memory of this process.
    let result = unsafe {
        libc::ptrace(
            request,
            tid,
            ptr::null_mut::<libc::c_void>(),
            data as libc::c_long,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
