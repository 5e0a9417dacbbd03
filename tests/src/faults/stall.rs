//! One thread of another process that does not get on, while the others do.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io, ptr, thread};

/// A thread held still, as if it hung in a driver or on a dead file system; goes on when this is dropped.
///
/// It may be killed while it is held, with its process. If the test itself ends, the system lets it go.
#[derive(Debug)]
pub struct Stall {
    /// Dropping the sender tells the tracer to let go; the join waits until it has.
    tracer: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Stall {
    /// Stops the thread of process `pid` that is called `name` (the first, if there are several), and returns
    /// once it stands. The system keeps 15 bytes of a thread's name; so much of `name` is compared.
    ///
    /// The main thread is refused: its stops would be taken for the process's end by whoever waits for it.
    ///
    /// # Errors
    /// If there is no such thread, or it may not be traced.
    pub fn new(pid: u32, name: &str) -> io::Result<Self> {
        let tid = find(pid, name)?;
        let (let_go, told) = mpsc::channel();
        let (report, reported) = mpsc::channel();
        // A traced thread listens to the one thread that has seized it, so that thread does everything.
        let tracer = thread::Builder::new()
            .name("tracer".into())
            .spawn(move || {
                let stopped = seize(tid);
                let holds = stopped.is_ok();
                let _ = report.send(stopped);
                if holds {
                    hold(tid, &told);
                }
                // Whatever is still traced is let go by the system when this thread ends.
            })?;
        let stall = Self {
            tracer: Some((let_go, tracer)),
        };
        reported.recv().expect("the tracer reports")?;
        Ok(stall)
    }

    /// Lets the thread go on.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        if let Some((let_go, tracer)) = self.tracer.take() {
            drop(let_go);
            let _ = tracer.join();
        }
    }
}

/// How long a thread may take to stop: it can be deep in a system call.
const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// The system tells of a traced thread's stop or end by a signal to the whole test or by a blocking wait,
/// and the tracer has to listen to its own side as well. So it looks this often.
const LOOK: Duration = Duration::from_millis(5);

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
        match look(tid) {
            Seen::Stopped => return Ok(()),
            // A signal was on its way; it is passed on, and the stop asked for comes next.
            Seen::Signal(signal) => ptrace(libc::PTRACE_CONT, tid, signal)?,
            Seen::Ended => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
            Seen::Nothing if Instant::now() > end => {
                let problem = format!("thread {tid} did not stop within {STOPS_WITHIN:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
            }
            Seen::Nothing => thread::sleep(LOOK),
        }
    }
}

/// Holds the thread until told to let go, or until it has ended.
fn hold(tid: i32, told: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = told.recv_timeout(LOOK) {
        // Its end must be taken note of: before that, the process would not end for anyone.
        if let Seen::Ended = look(tid) {
            return;
        }
    }
    // This fails if it was killed a moment ago; then the end of the tracer does what is left to do.
    let _ = ptrace(libc::PTRACE_DETACH, tid, 0);
}

enum Seen {
    Nothing,
    Stopped,
    Signal(i32),
    Ended,
}

fn look(tid: i32) -> Seen {
    let mut status = 0;
    // Safety: `status` is a valid place for the result.
    let seen = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::WNOHANG) };
    match seen {
        0 => Seen::Nothing,
        id if id == tid && libc::WIFSTOPPED(status) => {
            if status >> 16 == libc::PTRACE_EVENT_STOP {
                Seen::Stopped
            } else {
                Seen::Signal(libc::WSTOPSIG(status))
            }
        }
        _ => Seen::Ended,
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
