//! Runs this test binary again under ptrace, and kills it at one of its system calls that change files.

use std::fs;
use std::io::{Error, Read};
use std::mem;
use std::path::Path;
use std::process::{Command, Stdio};

use libc::{c_int, c_long, pid_t};

/// Names the folder to the child. Where it is not set, the child's test has nothing to do.
pub(crate) const FOLDER: &str = "FOVEA_CRASH_FOLDER";

/// What a stop at a system call looks like, with `PTRACE_O_TRACESYSGOOD`.
const CALL: c_int = libc::SIGTRAP | 0x80;

/// In the child: lets the parent take hold of this thread.
pub(crate) fn be_traced() {
    // SAFETY: the call touches no memory.
    if unsafe { libc::ptrace(libc::PTRACE_TRACEME) } != 0 {
        let error = Error::last_os_error();
        acknowledge(&format!("refused: {error}"));
        std::process::exit(1);
    }
    // SAFETY: as above. The parent takes hold of this thread here.
    assert_eq!(unsafe { libc::raise(libc::SIGSTOP) }, 0);
}

/// In the child: writes a line into the pipe, which it has as its standard input: the only one of the three streams
/// that the test harness does not use.
pub(crate) fn acknowledge(line: &str) {
    let line = format!("{line}\n");
    // SAFETY: the pointer and the length are those of `line`.
    let written = unsafe { libc::write(0, line.as_ptr().cast(), line.len()) };
    assert_eq!(written, line.len() as isize);
}

/// When the child is to be killed.
#[derive(Debug)]
pub(crate) struct Kill {
    /// Index of the call that changes files.
    pub at: usize,
    /// After it has written half of its bytes, instead of before it.
    pub half: bool,
}

/// A call that changes files.
pub(crate) struct Point {
    /// Name of the system call.
    pub call: &'static str,
    /// The file, when the call names it by its descriptor.
    pub file: String,
    /// Bytes that it writes, when they can be halved.
    pub bytes: u64,
}

/// How a child ended.
pub(crate) struct Outcome {
    /// The lines that it wrote.
    pub lines: Vec<String>,
    /// Its calls that change files.
    pub points: Vec<Point>,
    /// As by `waitpid`.
    pub status: c_int,
}

/// How to tell that a call changes a file.
enum By {
    /// This argument is the file's descriptor.
    File(usize),
    /// This argument holds flags to make or empty the file.
    Flags(usize),
    Nature,
}

macro_rules! calls {
    ($($by:expr => $($name:ident)*;)*) => { &[$($((libc::$name, stringify!($name), $by)),*),*] };
}

const CALLS: &[(c_long, &str, By)] = calls! {
    By::File(0) => SYS_write SYS_pwrite64 SYS_writev SYS_pwritev SYS_pwritev2 SYS_sendfile SYS_fsync
        SYS_fdatasync SYS_ftruncate SYS_fallocate;
    By::File(2) => SYS_copy_file_range;
    By::Flags(1) => SYS_open;
    By::Flags(2) => SYS_openat;
    By::Nature => SYS_creat SYS_truncate SYS_rename SYS_renameat SYS_renameat2 SYS_unlink SYS_unlinkat
        SYS_rmdir SYS_mkdir SYS_mkdirat SYS_link SYS_linkat SYS_symlink SYS_symlinkat;
};

/// Runs a child in the folder, and kills it where that is asked for. `test` is the full name of the child's test.
#[expect(clippy::zombie_processes, reason = "waitpid takes it")]
pub(crate) fn perform(test: &str, root: &Path, kill: Option<&Kill>) -> Outcome {
    let (mut pipe, writer) = std::io::pipe().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(FOLDER, root)
        .stdin(writer)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id() as pid_t;
    let mut points = Vec::new();
    // The thread whose call under way writes only half, and is the last.
    let mut halved = None;
    let status = loop {
        let mut status = 0;
        // Only children and tracees of this thread: other tests have theirs.
        let flags = libc::__WALL | libc::__WNOTHREAD;
        // SAFETY: `status` outlives the call.
        let tid = unsafe { libc::waitpid(-1, &mut status, flags) };
        assert!(tid > 0, "{}", Error::last_os_error());
        if !libc::WIFSTOPPED(status) {
            if tid == pid {
                break status;
            }
            continue;
        }
        let mut signal = 0;
        match libc::WSTOPSIG(status) {
            // The child is ready, or one of its threads begins.
            libc::SIGSTOP => {
                let options = libc::PTRACE_O_TRACESYSGOOD
                    | libc::PTRACE_O_EXITKILL
                    | libc::PTRACE_O_TRACECLONE;
                // SAFETY: the call touches no memory.
                let set = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, tid, 0, options) };
                assert_eq!(set, 0, "{}", Error::last_os_error());
            }
            // It makes a thread.
            libc::SIGTRAP => {}
            CALL => {
                let mut dies = halved == Some(tid);
                if let Some(point) = point(tid) {
                    if let Some(kill) = kill.filter(|kill| kill.at == points.len()) {
                        if kill.half {
                            halve(tid);
                        }
                        (halved, dies) = (kill.half.then_some(tid), !kill.half);
                    }
                    points.push(point);
                }
                if dies {
                    // The kernel skips a call on whose entry its process is killed.
                    // SAFETY: the child was not waited for, so the number is still its own.
                    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
                    continue;
                }
            }
            other => signal = other,
        }
        // SAFETY: the call touches no memory. Where it fails, the next wait says why.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, tid, 0, signal) };
    };
    let mut text = String::new();
    pipe.read_to_string(&mut text).unwrap();
    Outcome {
        lines: text.lines().map(str::to_owned).collect(),
        points,
        status,
    }
}

/// The call that a stopped thread begins, if it changes files.
fn point(tid: pid_t) -> Option<Point> {
    // SAFETY: all its fields are numbers.
    let mut info: libc::ptrace_syscall_info = unsafe { mem::zeroed() };
    let size = mem::size_of_val(&info);
    // SAFETY: the kernel writes no more than `size` bytes into `info`.
    let got = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, tid, size, &mut info) };
    assert!(got > 0, "{}", Error::last_os_error());
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: the union is that of an entry.
    let libc::__c_anonymous_ptrace_syscall_info_entry { nr, args } = unsafe { info.u.entry };
    let (number, call, by) = CALLS.iter().find(|call| call.0 as u64 == nr)?;
    let mut file = String::new();
    match by {
        // The pipe, and what the test harness prints.
        By::File(argument) if args[*argument] <= 2 => return None,
        By::File(argument) => {
            let link = fs::read_link(format!("/proc/{tid}/fd/{}", args[*argument]));
            file = link.unwrap().display().to_string();
        }
        By::Flags(argument) => {
            let flags = args[*argument] as c_int & (libc::O_CREAT | libc::O_TRUNC);
            (flags != 0).then_some(())?;
        }
        By::Nature => {}
    }
    let halvable = [libc::SYS_write, libc::SYS_pwrite64].contains(number);
    let bytes = if halvable { args[2] } else { 0 };
    Some(Point { call, file, bytes })
}

/// Makes the write that a stopped thread begins half as long.
fn halve(tid: pid_t) {
    // SAFETY: all its fields are numbers.
    let mut registers: libc::user_regs_struct = unsafe { mem::zeroed() };
    // The third argument is the length.
    // SAFETY: `registers` is what these calls write and read.
    unsafe {
        assert_eq!(
            libc::ptrace(libc::PTRACE_GETREGS, tid, 0, &mut registers),
            0
        );
        registers.rdx /= 2;
        assert_eq!(libc::ptrace(libc::PTRACE_SETREGS, tid, 0, &registers), 0);
    }
}
